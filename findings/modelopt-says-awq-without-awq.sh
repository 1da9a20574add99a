#!/usr/bin/env bash
# A checkpoint says that it was made by AWQ and has factors for the activations; it was rounded to nearest and has none.
#
# Behaviour: NVIDIA's Model Optimizer exports weights of four bits in blocks, quantized without any search, under the name
# W4A16_AWQ and with pre_quant_scale: true. No tensor of that name is in the file.
#
# A good guess: a config's pre_quant_scale says that the factors are there, and a reader that lacks them must stop; or that
# they were folded into the layer norms, which here were not touched.
#
# Seen: quant_algo W4A16_AWQ, pre_quant_scale true, 0 tensors called pre_quant_scale, layer norms all ones.
#
# Versions: nvidia-modelopt 0.47.0, transformers 5.24.0, torch 2.13.0. Exits with 1 when it is otherwise. It installs torch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 nvidia-modelopt==0.47.0 accelerate requests datasets
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print("nvidia-modelopt", version("nvidia-modelopt"), "transformers", version("transformers"), "torch", version("torch"))

import json

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, vocab_size=320)
model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
model.config.architectures = ["LlamaForCausalLM"]
ids = torch.randint(0, 320, (4, 32))
mtq.quantize(model, mtq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, lambda quantized: quantized(ids))
export_hf_checkpoint(model, dtype=torch.bfloat16, export_dir="out")
says = json.load(open("out/hf_quant_config.json"))["quantization"]
tensors = load_file("out/model.safetensors")
factors = [name for name in tensors if "pre_quant_scale" in name]
norms = [tensor for name, tensor in tensors.items() if "layernorm" in name]
print(says["quant_algo"], "pre_quant_scale", says["pre_quant_scale"], "tensors", len(factors),
      "norms all ones", all(bool((norm == 1).all()) for norm in norms))
assert says["quant_algo"] == "W4A16_AWQ"
assert says["pre_quant_scale"] is True
assert not factors
assert all(bool((norm == 1).all()) for norm in norms)
EOF
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" try.py
