#!/usr/bin/env bash
# Two runtimes of one standard cast the same floats to different INT4 numbers.
#
# Behaviour: Cast from FLOAT to INT4: the reference evaluator of onnx truncates (2.5 becomes 2, 3.5 becomes 3), ONNX
# Runtime rounds away from zero (3 and 4). Beyond the range both wrap, to different numbers: -9.6 becomes 7 and 6.
# Neither saturates.
#
# A good guess: a cast to a quantized type rounds half to even and saturates, as QuantizeLinear does, or at least both
# runtimes of the standard agree.
#
# Seen: onnx [2, 3, -2, 7, 7]; onnxruntime [3, 4, -3, -8, 6] for 2.5, 3.5, -2.5, 7.5, -9.6.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0, onnx 1.23.2, onnxruntime 1.32.0. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('numpy', version('numpy'), 'ml_dtypes', version('ml_dtypes'), 'onnx', version('onnx'), 'onnxruntime', version('onnxruntime'))

import numpy as np, onnxruntime
from onnx import TensorProto as T, helper as h
from onnx.reference import ReferenceEvaluator

x = np.array([2.5, 3.5, -2.5, 7.5, -9.6], np.float32)
nodes = [h.make_node("Cast", ["x"], ["q"], to=T.INT4), h.make_node("Cast", ["q"], ["y"], to=T.FLOAT)]
graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [5])], [h.make_tensor_value_info("y", T.FLOAT, [5])])
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 24)], ir_version=11)
reference = ReferenceEvaluator(model).run(None, {"x": x})[0].tolist()
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
runtime = session.run(None, {"x": x})[0].tolist()
print("onnx", reference, "onnxruntime", runtime)
assert reference == [2, 3, -2, 7, 7]
assert runtime == [3, 4, -3, -8, 6]
EOF
"$folder/venv/bin/python" try.py
