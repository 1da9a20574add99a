#!/usr/bin/env bash
# Of the small formats, FP8 E5M2 alone makes an npz file that cannot be read again.
#
# Behaviour: numpy saves arrays of ml_dtypes types without a word. Those of FP8 E4M3 come back as one-byte void; those of E5M2
# are written as a floating-point type of one byte, which numpy has not, so that loading raises "not a valid dtype descriptor".
# The bytes are in the file, behind the header.
#
# A good guess: formats of one byte behave alike, whatever they split their bits into.
#
# Seen: E4M3 loads as |V1; E5M2 raises ValueError.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('numpy', version('numpy'), 'ml_dtypes', version('ml_dtypes'))

import io
import numpy as np, ml_dtypes


def load(kind):
    file = io.BytesIO()
    np.savez(file, x=np.arange(4).astype(kind))
    file.seek(0)
    return np.load(file)["x"].dtype.str


print("E4M3:", load(ml_dtypes.float8_e4m3fn))
assert load(ml_dtypes.float8_e4m3fn) == "|V1"
try:
    print("E5M2:", load(ml_dtypes.float8_e5m2))
except ValueError as error:
    print("E5M2:", error)
else:
    raise SystemExit(1)
EOF
"$folder/venv/bin/python" try.py
