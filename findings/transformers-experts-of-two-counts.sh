#!/usr/bin/env bash
# Of the two stacks of one mixture of experts, one has half again as many experts as the other.
#
# Behaviour: LongCat-Flash routes some tokens to experts that do nothing. The class gives those idle experts gate and up
# matrices that no token uses, and no down matrices: of 512 real and 256 idle experts, the first stack has 768 and the second 512.
# A count of the model's parameters has a third of a layer's gate and up matrices too many.
#
# A good guess: an expert that does nothing has no weights; or every expert has all three.
#
# Seen: gate_up_proj [768, 4096, 6144], down_proj [512, 6144, 2048].
#
# Versions: transformers 5.24.0, torch 2.13.0. Exits with 1 when it is otherwise. It installs torch, which takes a while.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('transformers', version('transformers'), 'torch', version('torch'))

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

config = CONFIG_MAPPING["longcat_flash"](num_layers=1)
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
shapes = {name.rpartition(".")[2]: tuple(p.shape) for name, p in model.named_parameters() if ".experts." in name}
print(shapes)
assert shapes["gate_up_proj"][0] == 768
assert shapes["down_proj"][0] == 512
EOF
"$folder/venv/bin/python" try.py
