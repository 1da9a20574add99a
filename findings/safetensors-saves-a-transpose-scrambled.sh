#!/usr/bin/env bash
# Saving a transposed array with safetensors stores other numbers, without a word.
#
# Behaviour: safetensors.numpy.save writes the memory of an array as it lies, with the shape of the view: a transposed
# [2, 3] array comes back with shape [3, 2] and its elements in the order of the original. The weights of a linear
# layer, stored [out, in] and handed over as x.T, are wrong in every place but the corners.
#
# A good guess: a view is copied into order first, as numpy.save does, or refused, as the same library refuses it for
# PyTorch tensors.
#
# Seen: saved [[0, 3], [1, 4], [2, 5]], loaded [[0, 1], [2, 3], [4, 5]].
#
# Versions: numpy 2.4.6, safetensors 0.8.0. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('numpy', version('numpy'), 'safetensors', version('safetensors'))

import numpy as np
from safetensors.numpy import load, save

x = np.arange(6, dtype=np.float32).reshape(2, 3).T
y = load(save({"x": x}))["x"]
print("saved", x.tolist(), "loaded", y.tolist())
assert y.shape == x.shape and not np.array_equal(x, y)
assert y.ravel().tolist() == [0, 1, 2, 3, 4, 5]
assert np.array_equal(load(save({"x": np.ascontiguousarray(x)}))["x"], x)
EOF
"$folder/venv/bin/python" try.py
