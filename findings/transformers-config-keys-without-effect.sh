#!/usr/bin/env bash
# A model class keeps a size of its config that changes nothing in the model.
#
# Behaviour: the config of MPT has a ratio between the width of the MLP and that of the model. The class makes the same model for
# every ratio: its MLP is always four times as wide. The config keeps the ratio that was given, so that whoever counts weights
# from the config counts another model than the one that runs. DeepSeek-V4's count of shared experts is kept in the same way:
# the class has one, whatever the count says.
#
# A good guess: a size in the config decides a shape, or is refused.
#
# Seen: 203,827,200 weights with two layers for ratios 2, 4 and 8; 27,396,720,221 weights in four layers with 1 and 2 shared experts.
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


def weights(model_type, **sizes):
    config = CONFIG_MAPPING[model_type](**sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(p.numel() for p in model.parameters()), config


found = {ratio: weights("mpt", n_layers=2, expansion_ratio=ratio) for ratio in (2, 4, 8)}
print("MPT, two layers:", {ratio: count for ratio, (count, _) in found.items()})
assert len({count for count, _ in found.values()}) == 1
assert [config.expansion_ratio for _, config in found.values()] == [2, 4, 8]
shared = {count: weights("deepseek_v4", num_hidden_layers=4, n_shared_experts=count)[0] for count in (1, 2)}
print("DeepSeek-V4, four layers, by shared experts:", shared)
assert len(set(shared.values())) == 1
EOF
"$folder/venv/bin/python" try.py
