#!/usr/bin/env bash
# The mean of a thousand BF16 ones is a quarter.
#
# Behaviour: numpy's sum and mean of an ml_dtypes bfloat16 array keep their running sum in bfloat16, which stays at 256
# once adding 1 is below half a spacing; the mean of 1000 ones is 0.2559. A matmul of the same array gives 1000, in
# float32; numpy's own float16 has a mean of 1.
#
# A good guess: a reduction of a 16-bit float accumulates in float32, as numpy does for the float16 mean and as this
# very library does in a matmul.
#
# Seen: sum 256, mean 0.255859, matmul 1000 (float32), float16 mean 1.
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

import numpy as np, ml_dtypes

ones = np.ones(1000, ml_dtypes.bfloat16)
found = float(ones.sum()), float(ones.mean()), (ones @ ones), float(np.ones(1000, np.float16).mean())
print("sum", found[0], "mean", found[1], "matmul", found[2], found[2].dtype, "float16 mean", found[3])
assert found[0] == 256 and abs(found[1] - 0.255859) < 1e-6
assert found[2] == 1000 and found[2].dtype == np.float32 and found[3] == 1
EOF
"$folder/venv/bin/python" try.py
