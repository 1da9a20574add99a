#!/usr/bin/env bash
# Compiled by numba, the same line on INT8 numbers wraps or not, by whether they are single or in arrays.
#
# Behaviour: numba computes with single integers in at least 64 bits, whatever their type: an accumulator of int8 never
# wraps, and a sum of two int8 is no int8 any more. The same expression on whole arrays, in the same compiled function,
# keeps int8 and wraps, as numpy does in both cases. A reference for an INT8 accumulator written as a loop and compiled
# therefore shows no overflow, and the plain Python function beside it does.
#
# A good guess: a compiler of numpy code keeps numpy's types, or at least treats a number and an array of one alike.
#
# Seen: 100 + 100 is -56 in numpy and 200 compiled; arrays give -56 in both; four products of 100 add up to 64 in numpy
# and to 40000 compiled.
#
# Versions: numba 0.68.1, numpy 2.4.6. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6
cd "$folder"
cat > try.py <<'PY'
from importlib.metadata import version

import numba
import numpy as np

print("numba", version("numba"), "numpy", version("numpy"))


def add(a, b):
    return a + b


def dot(a, b):
    total = np.int8(0)
    for i in range(len(a)):
        total = total + a[i] * b[i]
    return total


one, many = np.int8(100), np.full(4, 100, np.int8)
with np.errstate(over="ignore"):
    plain = int(add(one, one)), int(add(many, many)[0]), int(dot(many, many))
compiled = int(numba.njit(add)(one, one)), int(numba.njit(add)(many, many)[0]), int(numba.njit(dot)(many, many))
print("number, array, dot product: numpy", plain, "compiled", compiled)
assert plain == (-56, -56, 64)
assert compiled == (200, -56, 40000)
PY
"$folder/venv/bin/python" try.py
