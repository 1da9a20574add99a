"""From the JSON of a config to a decoder: its language part, its family, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from msdsim.errors import InputError
from msdsim.models.config import Config, short
from msdsim.models.families import FAMILIES
from msdsim.models.family import defaults
from msdsim.models.mlp import check_experts
from msdsim.models.parts import Decoder, linear
from msdsim.models.unread import check_unread
from msdsim.problems.model import closest

#: Tables that hold a language model inside a config of several models.
_NESTS = ("text_config", "thinker_config", "llm_config", "language_config", "language_model_config", "llm")
#: The language model that a config of several takes where its table does not name one.
_INNER = {
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "vipllava": "llama",
    "video_llava": "llama",
    "idefics2": "mistral",
    "idefics3": "llama",
    "smolvlm": "llama",
    "mistral3": "mistral",
    "pixtral": "mistral",
    "internvl": "qwen2",
    "paligemma": "gemma",
    "gemma3": "gemma3_text",
    "shieldgemma2": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "mllama": "mllama_text_model",
    "llama4": "llama4_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen2_5_omni": "qwen2_5_omni_text",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe": "qwen3_omni_moe_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
    "qwen2_audio": "qwen2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_asr": "qwen3",
    "voxtral": "llama",
    "voxtral_realtime": "voxtral_realtime_text",
    "aya_vision": "cohere2",
    "cohere2_vision": "cohere2",
    "aria": "aria_text",
    "glm4v": "glm4v_text",
    "glm46v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "glm_ocr": "glm_ocr_text",
    "glmga": "glm4v_text",
    "kimi_k25": "deepseek_v3",
    "kimi_vl": "deepseek_v3",
    "deepseek_vl": "llama",
    "deepseek_vl_hybrid": "llama",
    "deepseek_vl_v2": "deepseek_v2",
    "janus": "llama",
    "got_ocr2": "qwen2",
    "ovis2": "qwen2",
    "perception_lm": "llama",
    "granite_speech": "granite",
    "granite4_vision": "granite4_vision_text",
    "granite_docling": "granite_docling_text",
    "ernie4_5_vl_moe": "ernie4_5_vl_moe_text",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "lfm2_vl": "lfm2",
    "lfm3_vl": "lfm3",
    "fuyu": "persimmon",
    "step3p7": "step3p5",
    "nemotron_h_omni": "nemotron_h",
    "hyperclovax_vision_v2": "hyperclovax",
    "apertus1p5": "apertus1p5_text",
    "exaone4_5": "exaone4",
    "lighton_ocr": "qwen3",
    "fast_vlm": "qwen2",
    "blip-2": "opt",
    "instructblip": "opt",
    "instructblipvideo": "opt",
    "audioflamingo3": "qwen2",
    "paddleocr_vl": "paddleocr_vl_text",
    "hunyuan_vl": "hunyuan_vl_text",
    "kimi_k3": "kimi_linear",
    "moss_transcribe_diarize": "qwen3",
    "vibevoice_asr": "qwen2",
    "minicpmv4_6": "qwen3_5_text",
    "minicpmv4_7": "qwen3_5_text",
    "minicpm_ocr": "qwen3_5_text",
    "qianfan_ocr": "qwen3",
    "video_llama_3": "qwen2",
    "fun_asr_nano": "qwen3",
    "omniasr": "llama",
    "glmasr": "llama",
    "musicflamingo": "qwen2",
    "pp_chart2table": "qwen2",
    "granite_speech_plus": "granite",
    "nemo_speechlm": "nemotron_h",
}
_ENCODERS = frozenset(
    (
        "bert",
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "electra",
        "deberta",
        "deberta-v2",
        "distilbert",
        "albert",
        "mpnet",
        "modernbert",
        "eurobert",
        "nomic_bert",
        "ernie",
        "megatron-bert",
        "roformer",
        "rembert",
        "big_bird",
        "longformer",
        "funnel",
        "convbert",
        "squeezebert",
        "mobilebert",
        "luke",
        "xlm",
        "flaubert",
        "ibert",
        "nezha",
        "xmod",
        "esm",
        "data2vec-text",
        "vit",
        "clip",
        "siglip",
        "siglip2",
        "dinov2",
        "dinov3_vit",
        "swin",
        "beit",
        "deit",
        "wav2vec2",
        "hubert",
        "wavlm",
        "layoutlm",
        "layoutlmv2",
        "layoutlmv3",
        "roberta-prelayernorm",
        "new",
        "jina_bert",
        "neobert",
        "clip_text_model",
        "xlnet",
    )
)
_ENCODER_DECODERS = frozenset(
    (
        "t5",
        "mt5",
        "umt5",
        "bart",
        "mbart",
        "pegasus",
        "pegasus_x",
        "marian",
        "m2m_100",
        "whisper",
        "led",
        "longt5",
        "blenderbot",
        "blenderbot-small",
        "prophetnet",
        "switch_transformers",
        "nllb-moe",
        "fsmt",
        "bigbird_pegasus",
        "mvp",
        "plbart",
        "t5gemma",
        "t5gemma2",
        "seamless_m4t",
        "seamless_m4t_v2",
        "speech_to_text",
        "encoder-decoder",
        "florence2",
        "udop",
        "trocr",
        "vision-encoder-decoder",
    )
)


#: Classes of models that propose tokens for another one: their layers also take that one's states, or lack projections.
_DRAFTS = re.compile(r"Eagle|Medusa|Hydra|NextN|Specul|Draft|DFlash|Assistant|MTP|Talker", re.IGNORECASE)
#: Classes of reward models whose head is two matrices, the first as large as the hidden size squared.
_TWO_MATRIX_HEADS = ("Qwen2ForRewardModel", "Qwen2ForProcessRewardModel")
#: Keys beside the table of a language model that may give its layers more than the table says.
_OF_LAYERS = re.compile(r"layer|attn|attention|hidden|head|expert|rank|adapter|lora|hyper")
#: What they are called for the encoders that feed it.
_OF_ENCODERS = re.compile(r"vision|image|visual|video|audio|sound|speech|tower|mm_|project|connector|patch|feature|select|"
                          r"output_hidden_states|output_attentions|chunk_size|drop|norm|token|return_dict|_impl|act$|"
                          r"prun")


@dataclass(frozen=True)
class Found:
    """A decoder and what its config said beside the matrices."""

    decoder: Decoder
    model_type: str
    quantization: Mapping[str, Any] | None
    #: Where routed experts have a format of their own, beside that of ``quantization``.
    expert_dtype: str | None = None


def read_decoder(config: Mapping[str, Any], source: str) -> Found:
    """The decoder of a parsed config; InputError for everything that is not understood."""
    inner, model_type, inside = _language_part(config, source)
    notes: list[str] = []
    if inside:
        notes.append(f"only the language part is imported ({inside.rstrip('.')}); encoders of images and sound are not counted")
    own = defaults(outer) if inside and isinstance(outer := config.get("model_type"), str) and outer in _INNER else {}
    c = Config(inner, source, model_type, {**defaults(model_type), **own}, inside)
    _refuse_others(c, model_type)
    notes += _refuse_wrapper(config, c)
    _sanity(c)
    decoder = _with_head_of(config, c, FAMILIES[model_type](c))
    quantization = c.get("quantization_config") or c.get("compression_config") or c.get("quantization")
    for table in (config, config.get("text_config"), config.get("thinker_config")):
        if quantization is None and isinstance(table, Mapping):
            quantization = table.get("quantization_config") or table.get("compression_config")
    if quantization is not None and not isinstance(quantization, Mapping):
        raise c.refuse(f"quantization_config = {short(quantization)} is not a table")
    experts = c.get("expert_dtype")
    if experts is None and quantization is not None:
        experts = quantization.get("expert_dtype")
    left = check_unread(c)
    if left:
        notes.append(
            f"keys that were not read: {', '.join(left[:12])}{f' and {len(left) - 12} more' if len(left) > 12 else ''}"
        )
    return Found(
        replace(decoder, notes=(*decoder.notes, *notes)),
        model_type,
        quantization,
        experts if isinstance(experts, str) else None,
    )


def _with_head_of(config: Mapping[str, Any], c: Config, decoder: Decoder) -> Decoder:
    """The decoder with what its class ends in: an output head, scores of a few labels, or hidden states."""
    notes: list[str] = []
    if c.values.get("use_bidirectional_attention") is True or c.values.get("is_causal") is False:
        notes.append("tokens see those after them as well; a prefill is simulated with a causal mask, which is half the work")
    head = decoder.head
    name = _architecture(config)
    if re.search(r"For(Sequence|Token)Classification$|RewardModel$", name):
        labels = config.get("id2label")
        count = c.count("num_labels", len(labels) if isinstance(labels, Mapping) and labels else 2)
        head = linear("score", decoder.hidden, count)
        notes.append(f"{name} has scores of {count} labels in place of an output head")
    elif re.fullmatch(r"(?!.*(LMHead|DoubleHeads|Chat|ForCausal))\w*Model", name):
        head = None
        notes.append(f"{name} has no output head: it gives hidden states")
    return replace(decoder, head=head, notes=(*decoder.notes, *notes))


def _language_part(config: Mapping[str, Any], source: str) -> tuple[Mapping[str, Any], str, str]:
    """The table of the language model, its type, and the path to it."""
    outer = config.get("model_type")
    here, model_type, inside = config, outer, ""
    while True:
        nest = next((key for key in _NESTS if key in here), None)
        if nest is None:
            break
        table = here[nest]
        if table is None:
            raise InputError(
                f"model config '{source}': {inside}{nest} is null; give the table of the language model, or take "
                f"the key out, so that the outer keys are read"
            )
        if not isinstance(table, Mapping):
            raise InputError(f"model config '{source}': {inside}{nest} = {short(table)} is not a table")
        if not table and isinstance(outer, str) and outer in FAMILIES:
            break
        inside += f"{nest}."
        own = table.get("model_type")
        default = _INNER.get(model_type) if isinstance(model_type, str) else None
        here, model_type = table, own if own is not None else default
    if model_type is not None and not isinstance(model_type, str):
        raise InputError(f"model config '{source}': {inside}model_type = {short(model_type)} is not text")
    if not inside and isinstance(model_type, str) and model_type not in FAMILIES:
        if model_type in _INNER and not Config(config, source).given("hidden_size"):
            raise InputError(
                f"model config '{source}': model_type '{model_type}' holds several models, and there is no "
                f"text_config, the table of the language model"
            )
        # Older files have the keys of the language model beside those of the encoder.
        model_type = _INNER.get(model_type, model_type)
    if model_type is None:
        raise InputError(f"model config '{source}' has no '{inside}model_type', which tells the family (known: {_known()})")
    return here, model_type, inside


def _refuse_others(c: Config, model_type: str) -> None:
    if model_type in _ENCODERS:
        raise c.refuse(f"model_type '{model_type}' is an encoder, not a decoder; a decode or prefill step is that of a decoder")
    if model_type in _ENCODER_DECODERS or c.values.get("is_encoder_decoder") is True:
        raise c.refuse(
            f"model_type '{model_type}' has an encoder and a decoder with cross-attention; only decoders are imported"
        )
    if c.values.get("add_cross_attention") is True:
        raise c.refuse("add_cross_attention = true: layers attend to another model as well; only plain decoders are imported")
    if model_type not in FAMILIES:
        raise c.refuse(
            f"model_type '{short(model_type)[1:-1]}' is no family that is known{closest(model_type, sorted(FAMILIES))}; "
            f"give a folder with the model's safetensors files, whose shapes decide (known: {_known()})"
        )


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def _refuse_wrapper(config: Mapping[str, Any], c: Config) -> list[str]:
    """Refuse models that are no plain decoder whatever their tables say; a note where the model around one is not known."""
    outer = config.get("model_type")
    for name in (_architecture(config), outer if isinstance(outer, str) and outer not in FAMILIES else ""):
        if _DRAFTS.search(name):
            raise c.refuse(f"'{short(name)[1:-1]}' proposes tokens for another model, and its layers take that one's states; "
                           f"give a folder with its safetensors files, whose shapes decide")
    if _architecture(config) in _TWO_MATRIX_HEADS:
        raise c.refuse(f"the head of {_architecture(config)} is two matrices, which is not understood here")
    if not c.inside or not isinstance(outer, str) or outer in _INNER or outer in FAMILIES:
        return []
    for key, value in config.items():
        plain = isinstance(value, (int, float, str, list)) and value is not False
        if plain and _OF_LAYERS.search(key) and not _OF_ENCODERS.search(key) and c.values.get(key) != value:
            raise c.refuse(f"{key} = {short(value)} stands beside {c.inside.rstrip('.')} of a model that is not known "
                           f"('{outer}') and may change its layers")
    return [f"model_type '{short(outer)[1:-1]}' is not known: its {c.inside.rstrip('.')} is taken as a plain {c.family}"]


def _known() -> str:
    """Families, as many as a line bears."""
    names = sorted(FAMILIES, key=str.lower)
    shown = [name for name in names if not name.endswith("_text")][:60]
    return f"{', '.join(shown)} and {len(names) - len(shown)} more, see msdsim list families"


def _sanity(c: Config) -> None:
    """What is wrong whatever the family: experts that no token reaches, more dense layers than layers, a latent of rank 0."""
    plain = Config(c.values, c.source, c.family, inside=c.inside)
    experts, chosen = plain.get("num_experts"), plain.get("num_experts_per_tok")
    if _whole(experts) and _whole(chosen) and experts > 0:
        check_experts(plain, experts, chosen)
    first, layers = plain.get("first_k_dense_replace"), plain.get("num_hidden_layers")
    if _whole(first) and _whole(layers) and first > layers:
        raise c.refuse(f"{plain.key('first_k_dense_replace')} = {first} dense layers are more than the {layers} layers")
    if plain.given("kv_lora_rank"):
        plain.size("kv_lora_rank")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
