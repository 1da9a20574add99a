#!/usr/bin/env bash
# The scale of a GGUF Q4_0 block is negative when its largest weight is positive, and codes pair across half a block.
#
# Behaviour: Q4_0 maps the weight of largest magnitude to the code 0, which stands for -8, so the FP16 scale carries its
# opposite sign: for a largest weight of +1 it is -0.125, and weights of zero dequantize to -0. A byte holds weights j
# (low half) and j + 16 (high half), not two neighbours.
#
# A good guess: scales are above zero, zeros are +0, and the two nibbles of a byte are neighbours, as in the packed INT4
# of most other layouts.
#
# Seen: scale -0.125; code of the +1 is 0; byte 3 of the codes holds weights 3 and 19.
#
# Versions: numpy 2.4.6, gguf 0.19.0. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 gguf==0.19.0
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('numpy', version('numpy'), 'gguf', version('gguf'))

import numpy as np
from gguf import GGMLQuantizationType as T, quants

x = np.zeros((1, 32), np.float32)
x[0, 3], x[0, 19] = 1.0, -0.5
block = quants.quantize(x, T.Q4_0)[0]
scale = block[:2].view(np.float16)[0]
y = quants.dequantize(block[None], T.Q4_0)[0]
print("scale", scale, "bytes", [hex(v) for v in block[2:]], "zero", y[0])
assert scale == -0.125
assert block[2 + 3] & 15 == 0 and block[2 + 3] >> 4 == 12
assert y[3] == 1 and y[19] == -0.5 and np.signbit(y[0]) and y[0] == 0
EOF
"$folder/venv/bin/python" try.py
