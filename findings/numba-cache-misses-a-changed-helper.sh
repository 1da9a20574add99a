#!/usr/bin/env bash
# Numba's cache on disk keeps running the old code of a helper in another file.
#
# Behaviour: a function compiled with cache=True is stored under the source file of that function alone. When a helper
# that it calls changes in another file, the next process still loads the machine code with the old helper and gives the
# old result.
#
# A good guess: the cache notices a change in anything that was compiled in, as a build tool would.
#
# Seen: 2 before the change, 2 after it (101 with the cache removed).
#
# Versions: numba 0.68.1, numpy 2.4.6. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('numba', version('numba'), 'numpy', version('numpy'))

import pathlib, shutil, subprocess, sys

pathlib.Path("helper.py").write_text("import numba\n@numba.njit\ndef f(x):\n    return x + 1\n")
pathlib.Path("entry.py").write_text("import numba, helper\n@numba.njit(cache=True)\ndef g(x):\n    return helper.f(x)\nprint(g(1))\n")

def run():
    return int(subprocess.run([sys.executable, "entry.py"], capture_output=True, text=True, check=True).stdout)

before = run()
pathlib.Path("helper.py").write_text("import numba\n@numba.njit\ndef f(x):\n    return x + 100\n")
after = run()
shutil.rmtree("__pycache__")
clean = run()
print("before", before, "after", after, "without the cache", clean)
assert (before, after, clean) == (2, 2, 101)
EOF
"$folder/venv/bin/python" try.py
