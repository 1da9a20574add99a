#!/usr/bin/env bash
# Three libraries round the same numbers to three different E8M0 shared scales.
#
# Behaviour: 1.4, 1.5, 3 and 0 become 1, 2, 4, NaN in ml_dtypes (nearest, ties up in value); 2, 2, 4, 2^-127 in ONNX
# Runtime (Cast rounds up unless told otherwise); 1, 2, 2, 0 in gfloat (nearest, ties to the even code).
#
# A good guess: a format with nothing but an exponent has one sensible rounding, and none of them is the floor that the
# OCP MX rule for shared scales asks for; a scale must come from exponent arithmetic, not from a cast.
#
# Seen: ml_dtypes [1, 2, 4, nan]; onnxruntime [2, 2, 4, 5.877e-39]; gfloat [1, 2, 2, 0].
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0, gfloat 0.5.2, onnx 1.23.2, onnxruntime 1.32.0. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0 gfloat==0.5.2 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('numpy', version('numpy'), 'ml_dtypes', version('ml_dtypes'), 'gfloat', version('gfloat'), 'onnx', version('onnx'), 'onnxruntime', version('onnxruntime'))

import numpy as np, ml_dtypes, onnxruntime
from gfloat import round_float
from gfloat.formats import format_info_ocp_e8m0
from onnx import TensorProto as T, helper as h

x = np.array([1.4, 1.5, 3.0, 0.0], np.float32)
cast = x.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)
nodes = [h.make_node("Cast", ["x"], ["s"], to=T.FLOAT8E8M0), h.make_node("Cast", ["s"], ["y"], to=T.FLOAT)]
graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [4])], [h.make_tensor_value_info("y", T.FLOAT, [4])])
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 24)], ir_version=11)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
runtime = session.run(None, {"x": x})[0]
peer = np.array([round_float(format_info_ocp_e8m0, float(v)) for v in x], np.float32)
print("ml_dtypes", cast, "onnxruntime", runtime, "gfloat", peer)
assert np.array_equal(cast, [1, 2, 4, np.nan], equal_nan=True)
assert runtime[:3].tolist() == [2, 2, 4] and runtime[3] == np.float32(2.0**-127)
assert peer.tolist() == [1, 2, 2, 0]
EOF
"$folder/venv/bin/python" try.py
