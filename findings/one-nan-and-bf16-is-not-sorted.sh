#!/usr/bin/env bash
# One NaN, and numpy's sort of BF16 or FP8 numbers leaves the others unsorted.
#
# Behaviour: numpy puts the NaNs of its own types last. For those of ml_dtypes it compares with <, which is false for NaN on
# either side, and the numbers around it stay where they are. What sorts inside is wrong with it: the medians and
# percentiles that calibrate a scale, unique values, partitions. Nothing is raised.
#
# A good guess: NaN last, as with float16, float32 and float64.
#
# Seen: sort of [3, NaN, 1, -2, 0.5, 6, -6] is [3, NaN, -6, -2, 0.5, 1, 6] in BF16 and both FP8, and [-6, -2, 0.5, 1, 3, 6,
# NaN] in float16.
#
# Versions: ml_dtypes 0.6.0, numpy 2.4.6. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ml_dtypes==0.6.0 numpy==2.4.6
cd "$folder"
cat > try.py <<'PY'
from importlib.metadata import version

import ml_dtypes
import numpy as np

print("ml_dtypes", version("ml_dtypes"), "numpy", version("numpy"))
given = np.array([3, np.nan, 1, -2, 0.5, 6, -6], np.float32)
right = [-6, -2, 0.5, 1, 3, 6]
half = np.sort(given.astype(np.float16)).astype(np.float32)
print("float16", half)
assert half[:6].tolist() == right and np.isnan(half[6])
for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
    found = np.sort(given.astype(getattr(ml_dtypes, name))).astype(np.float32)
    print(name, found)
    assert found[0] == 3 and np.isnan(found[1]) and found[2:].tolist() == [-6, -2, 0.5, 1, 6]
PY
"$folder/venv/bin/python" try.py
