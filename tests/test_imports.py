"""No module imports, directly or through others, a module that imports it: read off the import graph.

The contract in ``pyproject.toml`` says the same of rooms and shelves; it cannot see a package that imports a file of its own
which imports the package.
"""

from __future__ import annotations

import grimp
import networkx


def test_no_circle_of_files():
    graph = grimp.build_graph("msdsim", exclude_type_checking_imports=True)
    imports = networkx.DiGraph((module, other) for module in graph.modules
                               for other in graph.find_modules_directly_imported_by(module))
    circles = [sorted(found) for found in networkx.strongly_connected_components(imports) if len(found) > 1]
    assert circles == []
    assert imports.number_of_edges() > 500
