#!/usr/bin/env bash
# One format of one quantizer packs four-bit weights along their inputs or along their outputs, by whether they are symmetric.
#
# Behaviour: AutoRound's export "auto_round" writes tensors called qweight, qzeros and scales either way. Symmetric weights lie as
# GPTQ packs them, eight inputs a word; asymmetric ones as AWQ packs them, eight outputs a word in the order 0 2 4 6 1 3 5 7. Only
# packing_format in the config says so. About half of the symmetric scales are negative.
#
# A good guess: a format's name says how its tensors lie, and a scale is a size, so that it is positive.
#
# Seen: weights [512, 256]: qweight [32, 512] for symmetric, [256, 64] for asymmetric ones; scales from -0.02 to 0.02.
#
# Versions: auto-round 0.16.1, transformers 5.24.0, torch 2.13.0. Exits with 1 when it is otherwise. It installs torch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 auto-round==0.16.1
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print("auto-round", version("auto-round"), "transformers", version("transformers"), "torch", version("torch"))

import glob
import json

import torch
from auto_round import AutoRound
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = {"[UNK]": 0, **{f"w{number}": number for number in range(1, 320)}}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")))
config = LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, vocab_size=320)
found = {}
for symmetric in (True, False):
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).half().eval()
    quantizer = AutoRound(model, tokenizer, scheme="W4A16", sym=symmetric, iters=0, disable_opt_rtn=True, device_map="cpu")
    quantizer.quantize_and_save(f"out-{symmetric}", format="auto_round")
    file = glob.glob(f"out-{symmetric}/**/model.safetensors", recursive=True)[0]
    tensors = load_file(file)
    name = "model.layers.0.mlp.gate_proj"
    says = json.load(open(file.replace("model.safetensors", "config.json")))["quantization_config"]
    scales = tensors[f"{name}.scales"].float()
    found[symmetric] = tuple(tensors[f"{name}.qweight"].shape), (scales < 0).float().mean().item()
    print("symmetric" if symmetric else "asymmetric", says["quant_method"], says["packing_format"], "qweight", found[symmetric][0],
          "negative scales", round(found[symmetric][1], 2))
assert found[True][0] == (32, 512)
assert found[False][0] == (256, 64)
assert 0.3 < found[True][1] < 0.7
assert found[False][1] == 0
EOF
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" try.py
