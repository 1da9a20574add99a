#!/usr/bin/env bash
# The numpy side of safetensors writes BF16 and FP8 tensors that it cannot load again.
#
# Behaviour: safetensors.numpy.save takes ml_dtypes arrays and writes proper BF16, F8_E4M3 and F8_E8M0 tensors; load of
# the same bytes ends in a KeyError of the format's name. A checkpoint in BF16, which is most of them, needs its header
# read and the bytes viewed by hand.
#
# A good guess: what one half of a module writes, the other half reads.
#
# Seen: KeyError 'BF16', 'F8_E4M3', 'F8_E8M0'; the bytes are right.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0, safetensors 0.8.0. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0 safetensors==0.8.0
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('numpy', version('numpy'), 'ml_dtypes', version('ml_dtypes'), 'safetensors', version('safetensors'))

import json
import numpy as np, ml_dtypes
from safetensors.numpy import load, save

for name, kind in (("BF16", "bfloat16"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E8M0", "float8_e8m0fnu")):
    x = np.array([1, 2, 4]).astype(getattr(ml_dtypes, kind))
    data = save({"x": x})
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])["x"]
    assert header["dtype"] == name
    assert (np.frombuffer(data[8 + size :], x.dtype) == x).all()
    try:
        load(data)
        raise SystemExit(f"{name} loads now")
    except KeyError as err:
        print(kind, "written as", header["dtype"], "; load:", repr(err))
EOF
"$folder/venv/bin/python" try.py
