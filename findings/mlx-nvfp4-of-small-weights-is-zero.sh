#!/usr/bin/env bash
# MLX's NVFP4 is worse than its MXFP4 for weights of an ordinary size, and zero for small ones.
#
# Behaviour: quantize(mode="nvfp4") writes E4M3 scales for blocks of 16 and no scale for the whole tensor. E4M3 ends at
# 2^-9, so that a block whose largest weight is below about 0.1 gets one of E4M3's subnormal scales, with fewer bits the
# smaller it is, and one below about 0.006 gets a scale of zero, and with it sixteen zeros. Other writers of NVFP4
# multiply by a factor of the tensor first, which keeps the scales in range.
#
# A good guess: with blocks half as long and scales of three more bits NVFP4 is the more accurate of the two, whatever the
# size of the weights; a format with block scales does not depend on their size.
#
# Seen (relative error of normally distributed weights, MXFP4 and NVFP4): 0.12 and 0.09 for a deviation of 1, 0.12 and 0.57
# for 0.003, 0.12 and 1.00 for 0.001, where all values come back as zero.
#
# Versions: mlx 0.32.4, numpy 2.4.6. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"
cat > try.py <<'PY'
from importlib.metadata import version

import mlx.core as mx
import numpy as np

print("mlx", version("mlx"), "numpy", version("numpy"))
mx.set_default_device(mx.cpu)


def error(weights, mode, group):
    codes, *scales = mx.quantize(mx.array(weights), group_size=group, bits=4, mode=mode)
    back = np.array(mx.dequantize(codes, *scales, group_size=group, bits=4, mode=mode, dtype=mx.float32))
    return float(np.linalg.norm(back - weights) / np.linalg.norm(weights)), bool((back == 0).all())


normal = np.random.default_rng(0).standard_normal((64, 512))
found = {}
for deviation in (1.0, 0.02, 0.003, 0.001):
    weights = (deviation * normal).astype(np.float32)
    found[deviation] = error(weights, "mxfp4", 32), error(weights, "nvfp4", 16)
    print(f"deviation {deviation}: MXFP4 {found[deviation][0][0]:.3f}, NVFP4 {found[deviation][1][0]:.3f}")
assert found[1.0][1][0] < found[1.0][0][0]
assert found[0.003][1][0] > 4 * found[0.003][0][0]
assert found[0.001][1] == (1.0, True) and found[0.001][0][0] < 0.13
PY
"$folder/venv/bin/python" try.py
