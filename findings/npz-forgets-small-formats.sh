#!/usr/bin/env bash
# BF16, FP8 and INT4 arrays come back from an npz file as raw bytes.
#
# Behaviour: numpy saves arrays of ml_dtypes types without a word and loads them as void: |V2 for bfloat16, |V1 for
# float8_e4m3fn and for int4 alike, so that the file does not say which of the one-byte formats it holds. A view brings
# the numbers back to whoever knows the type.
#
# A good guess: what savez accepts, load returns; or savez refuses a type that the format cannot name.
#
# Seen: |V2, |V1, |V1; equal after a view.
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

kinds = {"x": ml_dtypes.bfloat16, "y": ml_dtypes.float8_e4m3fn, "z": ml_dtypes.int4}
file = io.BytesIO()
np.savez(file, **{name: np.arange(4).astype(kind) for name, kind in kinds.items()})
file.seek(0)
loaded = np.load(file)
print({name: loaded[name].dtype.str for name in kinds})
assert [loaded[name].dtype.str for name in kinds] == ["|V2", "|V1", "|V1"]
for name, kind in kinds.items():
    assert (loaded[name].view(kind) == np.arange(4).astype(kind)).all()
EOF
"$folder/venv/bin/python" try.py
