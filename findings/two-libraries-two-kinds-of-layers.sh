#!/usr/bin/env bash
# Two libraries make another model of the same config: which layers have attention is not the same.
#
# Behaviour: in the family bailing_hybrid every last layer of a group of layer_group_size has attention over all tokens, the
# others a linear one. Where the layers are no whole number of groups, mlx-lm gives those of the last, cut group attention
# over all tokens, and transformers gives them the linear one. Both build the model without a word, with other matrices
# and another cache.
#
# A good guess: libraries that load one checkpoint by its config agree on what each layer is, or one of them refuses.
#
# Seen, for 10 layers in groups of 4: layers 8 and 9 (from 0) are linear in transformers and full in mlx-lm.
#
# Versions: transformers 5.24.0, mlx-lm 0.32.2, mlx 0.32.4. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
cd "$folder"
cat > try.py <<'PY'
from importlib.metadata import version

import mlx.core as mx
from mlx_lm.models import bailing_hybrid
from transformers import AutoConfig

print("transformers", version("transformers"), "mlx-lm", version("mlx-lm"), "mlx", version("mlx"))
mx.set_default_device(mx.cpu)
config = {
    "hidden_size": 256, "num_hidden_layers": 10, "layer_group_size": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 256, "moe_intermediate_size": 64, "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 128,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "num_shared_experts": 1, "group_norm_size": 1,
    "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 1024, "routed_scaling_factor": 1.0, "head_dim": 64,
    "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32,
}
one = AutoConfig.for_model("bailing_hybrid", pad_token_id=0, eos_token_id=1, **config).layer_types
model = bailing_hybrid.Model(bailing_hybrid.ModelArgs.from_dict({"model_type": "bailing_hybrid", "norm_topk_prob": True, **config}))
first = [kind == "full_attention" for kind in one]
second = [layer.is_global for layer in model.model.layers]
print("full attention in layers", [i for i, full in enumerate(first) if full], "(transformers) and",
      [i for i, full in enumerate(second) if full], "(mlx-lm)")
assert [i for i, full in enumerate(first) if full] == [3, 7]
assert [i for i, full in enumerate(second) if full] == [3, 7, 8, 9]
PY
"$folder/venv/bin/python" try.py 2>&1 | grep -v "PyTorch was not found"
