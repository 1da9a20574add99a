"""Keys of a config that its family did not look up: refused where they may decide a matrix, noted or passed over elsewhere."""

from __future__ import annotations

import re

from msdsim.models.config import Config, short
from msdsim.problems.model import closest

#: A key with one of these words may decide a shape.
_SHAPE_WORDS = re.compile(
    r"size|dim|head|layer|expert|moe|rank|lora|proj|gate|mlp|ffn|ff_|dff|attn|attention|kv|block|width|vocab|conv|ssm|mamba|"
    r"state|window|group|channel|inner|depth|ratio|mult|latent|index|share|top_?k|embd|embed|pattern|freq|interval|hidden|"
    r"linear|sparse|dense|stack|cycle|loop|repeat|heads|adapter|memory|ngram|ple_|hc_|altup|laurel"
)

#: Keys that decide no matrix of a step in any family: rotary angles, norms, dropout, losses, sampling, tokens, how something
#: is computed; and multi-token prediction, which is no part of a step here.
_HARMLESS = re.compile(
    "|".join(
        (
            r"_.*",
            r"(.*_)?rope_(theta|scaling|parameters|type|interleave|interleaved|local_base_freq|base|ratio|factor|pct|percent|pairing)",
            r"rope|rope_theta_.*|.*rotary.*(?<!dim)|rotary_dim|rotary_ndims|use_mrope|.*mrope.*|no_rope_layers?|no_rope_layer_interval|"
            r"nope_layer_interval|.*_theta|use_rope|rope_dim",
            r".*position_embedding(s|_type)?|original_max_position_embeddings|max_position_embeddings|learned_pos_emb|alibi|alibi_.*|"
            r"use_alibi|interpolation_factor|.*max_positions?|max_sequence_length|max_seq_len|context_length|.*_ctx|seq_length|"
            r"model_max_length|original_rope|max_seqlen.*|use_position_embeddings?|use_absolute_position_embeddings|"
            r"use_dynamic_ntk|use_logn_attn|seq_len",
            r".*(dropout|pdrop|drop_path|_drop|layerdrop)(_.*)?|.*_(prob|probability)",
            r".*(_eps|epsilon)(_.*)?|.*(layernorm|layer_norm|rms_?norm|qk_norm|_norm)|norm_.*|layernorm_.*|layer_norm_.*|rms_norm_.*|"
            r"use_(qk_)?norm.*|qk_norm.*|qk_layernorm.*|mamba_rms_norm|mamba_norm_before_gate|.*norm_topk_prob|do_layer_norm_before|"
            r"use_gemma_norm|use_post_norm|use_sandwich_norm|normalization_type|layer_norm_elementwise_affine",
            r".*initializer.*|.*init_std|.*_init|init_.*|zero_init.*|rescale_prenorm_residual|initializer",
            r".*(loss|_coef|_coeff|jitter|z_loss).*",
            r".*(softcap|soft_cap|softcapping|capping)(_.*)?|.*logits?_scal(e|ing).*|logit_.*|.*_multipliers?|mup_.*|.*scaling_factor|"
            r".*_alpha_factor|.*_beta_factor|scale_.*|attention_multiplier|query_pre_attn_scalar|attn_temperature_tuning|floor_scale|"
            r"attn_scale|clip_qkv|qkv_clip|swiglu_.*|.*attention_value_scale|scale_depth|scale_emb|dim_model_base|.*_scale|"
            r"residual_scale.*|softmax_.*|attention_softmax_in_fp32|activation_situ_.*|use_attn_logit.*|key_multiplier|.*_gain|"
            r"embedding_scale|emb_scale|attention_scaling",
            r".*_bias|.*bias|bias_.*|.*_bias_.*|add_bias_linear|attention_out_bias|qkv_has_bias|enable_bias|no_bias|use_bias.*",
            r".*(token|tokens)(_.*)?(_id|_ids|_index|_idx|_number)|(image|video|audio|pad|bos|eos|sep|mask|media|vision)_token|image_placeholder|ignore_index|.*_placeholder|pad_to.*",
            r"(sliding_window|window).*(pattern_note)|use_cache|cache_.*|use_flash.*|flash_.*|.*flash_attn.*|.*kernels?|_attn_.*|"
            r"attn_implementation|use_mambapy|use_associative_scan|use_mem_eff_path|mamba_chunk_size|chunk_size|chunk_size_feed_forward|"
            r".*kernel_mode|sequence_kernel|step_kernel|chunkwise_kernel|weight_mode|inference_.*|max_inference_chunksize|"
            r"return_last_states|autocast_.*|eps|gradient.*|residual_in_fp32|.*fp32.*|.*_dtype|dtype|fused_.*|use_fused.*|moe_impl.*|"
            r"gemm_.*|use_mamba_kernels|emb_precision|softmax_in_fp32|reorder_and_upcast_attn|use_cuda_.*|use_cache_.*|onnx_safe|"
            r"use_bfloat16|bf16|fp16|fp8.*|deterministic|.*_parallel_size|tensor_parallel.*|pretraining_tp|ep_size|.*recompute.*",
            r"time_step_(min|max|floor|limit|init_scheme|scale)|dt_(min|max|init_floor)|linear_(a_log|dt)_(min|max|init_floor)|linear_lower_bound|"
            r"gate_lower_bound|kda_(safe_gate|lower_bound)|linear_allow_neg_eigval|use_conv_bias|mamba_dt_.*",
            r"n_group|topk_group|num_expert_group|topk_method|scoring_func|score_func|score_function|expert_selection_fn|"
            r"(moe_)?router_(?!.*(hidden|dim|size|rank|lora|layer|mlp|proj|width|inter|shared_expert|expert_num|num_expert)).*|route_.*|moe_renormalize|routed_scal.*|"
            r"seq_aux|aux_.*|moe_layer_recompute|use_routing_bias|use_expert_bias|use_moe_router_bias|expert_(selection|bias|dtype).*|"
            r"enable_expert.*|moe_apply_router_weight_on_input|first_expert_.*|moe_use_aux.*|moe_dropped.*|moe_aux.*|moe_z.*|"
            r"use_grouped_topk|output_gate_type|moe_(capacity|norm_min|gate_act|multimodal)(_.*)?|expert_capacity.*|drop_tokens|moe_shared_expert_overlap|group_experts|"
            r"shared_expert_combination_strategy|shared_expert_sink|moe_router_enable_expert_bias|latent_moe_use_norm",
            r"num_nextn_predict_layers|num_mtp_.*|mtp_.*|nextn_.*|index_share_for_mtp_iteration|n_predict|.*speculat.*|mtp",
            r"architectures|auto_map|transformers_version|model_type|torch_dtype|is_decoder|is_encoder_decoder|id2label|label2id|"
            r"output_(attentions|hidden_states|router_logits|past|scores|logits)|return_dict.*|use_return_dict|problem_type|name_or_path|finetuning_task|pruned_heads|tie_.*|"
            r"cross_attention_hidden_size|add_cross_attention|task_specific_params|tokenizer_class|tokenizer_.*|num_labels|"
            r"summary_.*|custom_.*|base_model.*|_name.*|hub_.*|revision|license|classifier_.*|model_name|architecture|"
            r"keys_to_ignore.*|quantization_config|compression_config|quantization|text_config|torchscript|tf_legacy_loss",
            r"max_length|min_length|do_sample|num_beams|num_beam_groups|num_return_sequences|(encoder_)?no_repeat_ngram_size|"
            r"early_stopping|(diversity|length|repetition)_penalty|temperature|top_k|top_p|typical_p|bad_words_ids|prefix|"
            r"(begin_)?suppress_tokens|exponential_decay_length_penalty|remove_invalid_values|forced_.*|num_logits_to_keep",
            r"hidden_act|activation|hidden_activation|activation_function|mlp_hidden_act|mamba_hidden_act|shared_expert_act.*|act_fn|"
            r"gelu.*|activation_(type|fn)|hidden_act_.*|use_parallel_residual|parallel_attn|"
            r"apply_residual_connection_post_layernorm|slow_but_exact|use_parallel_residual|block_use_.*|attn_mode|"
            r"kv_cache_dtype|apply_query_key_layer_scaling|attention_dropout_prob|pre_seq_len|prefix_projection|fp32_residual_connection|"
            r"interleaved_qkv|original_.*|post_layer_norm|is_causal|use_bidirectional_attention|prefix_lm|num_ln_in_parallel_attn",
            r"vision_.*|visual.*|.*image_size|image_.*|video_.*|audio_.*|mm_.*|projector_.*|multimodal_.*|img_.*|vit_.*|use_vision.*|max_pixels|"
            r"min_pixels|spatial_merge_size|media_.*|language_model_only|select_layer|downsample_ratio|dynamic_image_size|ps_version|"
            r"deepstack.*|vocab_size_per_layer_input_note|boi_.*|eoi_.*|bos_.*|eos_.*|seed|im_.*|accept_.*|force_image_size",
        )
    )
)


#: Keys of published configs that no published code of the family reads, or that say what all of its models have.
_OF_FAMILY = {
    "falcon_h1": ("mlp_expansion_factor", "attn_layer_indices", "time_step_rank"),
    "PanguProMoE": ("num_experts_per_group", "num_groups"),
}


def _without_windows(config: Config) -> bool:
    values = config.values
    return not values.get("sliding_window") or values.get("use_sliding_window") is False


def check_unread(config: Config) -> list[str]:
    """Refuse keys that may change shapes and that the family does not know; returns the others, for a note."""
    noted = []
    for key, value in config.unread().items():
        name = key.rpartition(".")[2]
        off = value in (None, False, "", 0) or (isinstance(value, list | dict) and not value)
        if off or _HARMLESS.fullmatch(name) or key in _OF_FAMILY.get(config.family, ()):
            continue
        if name == "max_window_layers" and _without_windows(config):
            continue
        if _SHAPE_WORDS.search(name) or isinstance(value, dict):
            raise config.refuse(
                f"{key} = {short(value)} is not understood for family '{config.family}' and may change its matrices"
                f"{closest(name, sorted(config.used))}; give a folder with the model's safetensors files, whose shapes decide, "
                f"or take the key out if it changes none"
            )
        noted.append(key)
    return noted
