#!/usr/bin/env bash
# A block of small weights is lost in GGUF's Q8_0 and kept in its Q4_0.
#
# Behaviour: both types have one FP16 scale for 32 weights. That of Q8_0 is the largest weight over 127, that of Q4_0 over 8,
# so that Q8_0's scale falls below FP16's smallest number sixteen times earlier: a block whose weights are below 3.8e-6 is
# all zeros in eight bits, and still there in four.
#
# A good guess: of two types with the same kind of scale, the one with twice the bits is never the worse.
#
# Seen, of 32 weights of 1e-6: 0 from Q8_0, 9.5e-7 from Q4_0, Q5_0 too.
#
# Versions: gguf 0.19.0, numpy 2.4.6. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
cd "$folder"
cat > try.py <<'PY'
from importlib.metadata import version

import numpy as np
from gguf import GGMLQuantizationType, quants

print("gguf", version("gguf"), "numpy", version("numpy"))
weights = np.full((1, 32), 1e-6, np.float32)
found = {}
for name in ("Q8_0", "Q5_0", "Q4_0"):
    kind = GGMLQuantizationType[name]
    found[name] = quants.dequantize(quants.quantize(weights, kind), kind)
    print(name, found[name][0, :3])
assert (found["Q8_0"] == 0).all()
assert (abs(found["Q4_0"] - 1e-6) < 1e-7).all()
assert (found["Q5_0"] != 0).all()
PY
"$folder/venv/bin/python" try.py
