"""Whether the tests notice single changes of the source: ``python -m tests.mutation [--only WORD] [--seconds 40]``.

The sites are those of ``sites.toml``: a file, a line, and what stands there instead.  Each is tried in a process of its own, in which
the changed module is loaded from memory, on the test files of its room, until the first fails.  No file is touched.  A change that
survives is a place that nothing guards: it wants a value or a hand-worked case, or a ``reason`` here why it changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import re
import resource
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Test files of the modules that start so, the first that fits; the quickest stand in front.
ROOMS = (
    ("msdsim/analysis", "tests/analysis tests/report"),
    ("msdsim/checkpoints/gguf", "tests/checkpoints/test_libraries.py"),
    ("msdsim/checkpoints/onnx", "tests/checkpoints/test_libraries.py"),
    ("msdsim/checkpoints", "tests/checkpoints tests/cli/test_weights_option.py"),
    ("msdsim/models", "tests/models tests/explore/test_import_model.py"),
    ("msdsim/explore/sweep", "tests/explore/test_sweep.py tests/explore/test_sweep_reports.py tests/faults/test_sweeps.py"),
    ("msdsim/explore/accuracy", "tests/explore/accuracy"),
    ("msdsim/explore/import_model", "tests/explore/test_import_model.py tests/api/test_anything_goes.py"),
    ("msdsim/explore/tune", "tests/explore/test_tune.py"),
    ("msdsim/explore/claims", "tests/explore/test_claims.py"),
    ("msdsim/explore", "tests/validation tests/explore/test_by_hand.py tests/explore/test_claims.py tests/explore/test_tune.py tests/cli/test_fidelity_commands.py "
                       "tests/cli/test_commands.py"),
    ("msdsim/formats", "tests/formats tests/numerics/test_overflow.py tests/numerics/test_gemm_contracts.py"),
    ("msdsim/hardware", "tests/hardware tests/cli/test_errors.py"),
    ("msdsim/ir", "tests/ir tests/numerics/test_shared.py tests/dataflows/test_kernel_texts.py tests/schedules"),
    ("msdsim/numerics/references/attention", "tests/numerics/test_attention_contracts.py tests/numerics/test_small_cases.py"),
    ("msdsim/numerics/weights", "tests/numerics/test_weights.py tests/numerics/test_raw_arrays.py tests/checkpoints/test_layouts.py"),
    ("msdsim/numerics", "tests/numerics"),
    ("msdsim/dataflows/attention", "tests/dataflows/test_kernel_texts.py tests/schedules tests/dataflows/test_attention.py "
                                   "tests/dataflows/test_attention_traffic.py tests/dataflows/test_kv_layout.py"),
    ("msdsim/dataflows", "tests/dataflows/test_kernel_texts.py tests/schedules tests/dataflows"),
    ("msdsim/tilings", "tests/tilings tests/dataflows/test_split_k.py tests/schedules"),
    ("msdsim/report", "tests/report tests/cli/test_commands.py"),
    ("msdsim/schedules", "tests/schedules"),
    ("msdsim/problems", "tests/problems tests/cli/test_errors.py tests/test_mixes.py"),
    ("msdsim/cli", "tests/cli/test_errors.py tests/cli/test_failed_checks.py tests/cli/test_program.py tests/cli/test_bound_by.py "
                   "tests/cli/test_weights_option.py tests/cli/test_commands.py tests/cli/test_fidelity_commands.py"),
    ("msdsim/engine", "tests/engine/test_hand_timelines.py tests/engine/test_l2.py tests/engine/test_banked.py "
                      "tests/engine/test_bank_conflicts.py tests/engine/test_small_cases.py tests/engine/test_equality.py"),
    ("msdsim", "tests/test_api.py tests/test_passes.py tests/cli/test_commands.py"),
)
NOTICED, SURVIVED, NOT_FINISHED, MOVED = "noticed", "survived", "not finished", "moved"


class Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Loads one module from a text in memory."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        places = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self, submodule_search_locations=places)

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        return self.text.encode()


def files_for(file: str, near: Sequence[str] = ()) -> list[str]:
    """Test files of a module's room; in front those that speak of the module, or of names ``near`` the change."""
    names = next(tests for start, tests in ROOMS if file.startswith(start)).split()
    of_room = [path for name in names for path in (sorted((ROOT / name).rglob("test_*.py")) if (ROOT / name).is_dir() else [ROOT / name]) if path.exists()]
    module, stem = file.removesuffix(".py").removesuffix("/__init__").replace("/", "."), Path(file).stem.strip("_")

    def speaks(path: Path) -> int:
        text = _text(path)
        named = sum(re.search(rf"\b{name}\b", text) is not None for name in near)
        return 2 * named + 2 * (stem in path.stem) + (f"{module} import" in text or f"import {module}" in text)

    others = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path not in of_room and speaks(path) >= 2 and "slow" not in path.stem]
    return [str(path) for path in sorted([*of_room, *others], key=speaks, reverse=True)]


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def names_around(text: str, row: int) -> list[str]:
    """Functions, classes and constants whose text holds a line (counted from 1); names that say little are left out."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= row <= (node.end_lineno or row):
            found.append(node.name)
        elif isinstance(node, ast.Assign) and node.lineno <= row <= (node.end_lineno or row) and isinstance(node.targets[0], ast.Name):
            found.append(node.targets[0].id)
    return [name for name in found if len(name.strip("_")) > 5]


def tried(site: dict[str, Any], given: argparse.Namespace) -> str:
    """What the tests of its room say of one change."""
    path = ROOT / site["file"]
    lines, near = path.read_text(encoding="utf-8").split("\n"), []
    if "old" in site:
        places = [number for number, line in enumerate(lines) if line.strip() == site["old"]]
        if len(places) != 1:
            return MOVED
        line = lines[places[0]]
        near = names_around("\n".join(lines), places[0] + 1)
        lines[places[0]] = line[: len(line) - len(line.lstrip())] + site["new"]
    tests = [str(ROOT / name) for name in site["tests"].split()] if "tests" in site else files_for(site["file"], near)[: given.most]
    child = os.fork()
    if child == 0:
        code = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (given.seconds, given.seconds + 5))
            if not given.verbose:
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), 1)
                    os.dup2(nowhere.fileno(), 2)
            sys.meta_path.insert(0, Changed(path, "\n".join(lines)))
            import pytest

            # pytest rewrites the assertions of a package with a plugin, and would load the modules as they are.
            code = int(pytest.main(["-x", "--assert=plain", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]))
        except BaseException:
            code = 1
        finally:
            os._exit(min(code, 3))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return NOT_FINISHED
    return SURVIVED if os.WEXITSTATUS(status) == 0 else NOTICED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="sites whose file or line holds this word")
    parser.add_argument("--sites", type=Path, default=HERE / "sites.toml", help="another file of sites")
    parser.add_argument("--part", default="0/1", help="every N-th site from the I-th on: I/N")
    parser.add_argument("--seconds", type=int, default=60, help="CPU seconds of one site")
    parser.add_argument("--most", type=int, help="test files of one site, those nearest to it first")
    parser.add_argument("--baseline", action="store_true", help="the tests of every room with nothing changed: all must survive")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    sites = [site for site in tomllib.loads(given.sites.read_text(encoding="utf-8"))["site"]
             if given.only in site["file"] or given.only in site["old"]]
    if given.baseline:
        sites = list({tuple(files_for(site["file"])): {"file": site["file"]} for site in sites}.values())
    # The children find modules compiled, but for the one that is changed: it comes from its text.
    with tempfile.TemporaryDirectory() as compiled:
        sys.dont_write_bytecode, sys.pycache_prefix = False, compiled
        os.environ["PYTHONPYCACHEPREFIX"] = compiled
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        _run(sites, given)


def _run(sites: list[dict[str, Any]], given: argparse.Namespace) -> None:
    # Any part of the run is a sample of all rooms.
    random.Random(1).shuffle(sites)
    first, step = map(int, given.part.split("/"))
    # What every child needs is loaded once; msdsim is not, since one of its modules is another in each.
    with contextlib.suppress(ImportError):
        import hypothesis
        import ml_dtypes
        import networkx
        import numba
        import pydantic
        import pytest
        import rich.console
        import simpy

        del hypothesis, ml_dtypes, networkx, numba, pydantic, pytest, rich, simpy
    found: Counter[str] = Counter()
    for site in sites[first::step]:
        begun = time.monotonic()
        result = tried(site, given)
        if result in (SURVIVED, NOT_FINISHED) and "reason" in site:
            result = "survived, with a reason"
        found[result] += 1
        print(f"{result:13} {time.monotonic() - begun:5.1f} s  {site['file']}: {site.get('old', '')}  ->  {site.get('new', '')}", flush=True)
    print(dict(found), f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s of CPU")


if __name__ == "__main__":
    main()
