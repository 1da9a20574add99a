#!/usr/bin/env bash
# A NaN becomes minus zero in FP4 and FP6, and whether infinity is kept, cut off or a NaN depends on the format.
#
# Behaviour: ml_dtypes' E2M1, E2M3 and E3M2 have no code for NaN, and a NaN that is converted to one of them becomes -0
# without a warning: a broken activation disappears. They cut off what is too large. E4M3 "fn" has a NaN and no infinity,
# and does the opposite: everything above its largest number, infinity too, becomes NaN. E5M2 has infinities.
#
# A good guess: NaN becomes the largest number or is refused; formats of one family treat what is too large alike.
#
# Seen, of [NaN, infinity, 1e9]: -0, 6, 6 in E2M1; -0, 7.5, 7.5 in E2M3; -0, 28, 28 in E3M2; NaN, NaN, NaN in E4M3 fn;
# NaN, infinity, infinity in E5M2.
#
# Versions: ml_dtypes 0.6.0, numpy 2.4.6. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ml_dtypes==0.6.0 numpy==2.4.6
cd "$folder"
cat > try.py <<'PY'
from importlib.metadata import version

import ml_dtypes
import numpy as np

print("ml_dtypes", version("ml_dtypes"), "numpy", version("numpy"))
given = np.array([np.nan, np.inf, 1e9], np.float32)
with np.errstate(all="ignore"):
    found = {name: given.astype(getattr(ml_dtypes, name)).astype(np.float32) for name in (
        "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e4m3fn", "float8_e5m2")}
for name, values in found.items():
    print(name, values)
for name, most in (("float4_e2m1fn", 6), ("float6_e2m3fn", 7.5), ("float6_e3m2fn", 28)):
    assert found[name][0] == 0 and np.signbit(found[name][0])
    assert (found[name][1:] == most).all()
assert np.isnan(found["float8_e4m3fn"]).all()
assert np.isnan(found["float8_e5m2"][0]) and np.isinf(found["float8_e5m2"][1:]).all()
PY
"$folder/venv/bin/python" try.py
