#!/usr/bin/env bash
# A matmul of INT4 arrays has INT8 accumulators and wraps.
#
# Behaviour: numpy's matmul of two ml_dtypes int4 arrays gives int8: 64 products of 7 by 7, 3136, come out as 64. A sum
# of int4 stays int4: 7 + 1 is -8. Nothing is said in either case.
#
# A good guess: the result is int32, as on every matrix unit, or there is no such operation; the float types of the same
# library do widen, bfloat16 to float32.
#
# Seen: matmul 64 (int8), sum -8 (int4).
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

sevens = np.full((1, 64), 7).astype(ml_dtypes.int4)
product = sevens @ sevens.T
total = np.array([7, 1]).astype(ml_dtypes.int4).sum()
print("matmul", product, product.dtype, "exact", 64 * 49, "sum", total, total.dtype)
assert product.dtype == np.int8 and int(product[0, 0]) == 64
assert total.dtype == ml_dtypes.int4 and int(total) == -8
EOF
"$folder/venv/bin/python" try.py
