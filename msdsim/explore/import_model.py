"""From a published model to a workload: the matmuls of one decode step or one prefill, and its attention.

The sizes come from a ``config.json`` by the table of families (:mod:`msdsim.models`), or from the shapes of a model's tensors.
Projections of one input are one matmul, as inference engines run them.  Latent attention is absorbed in a decode step, where
all heads share one latent a token that is key and value at once, and not in a prefill.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msdsim.errors import InputError
from msdsim.models.parts import Decoder
from msdsim.models.quantization import NOTHING, Quantization, read_quantization, with_experts
from msdsim.models.reading import read_decoder
from msdsim.models.step import ModelStep, Operator, operators
from msdsim.problems import Workload, parse_inline
from msdsim.problems.workload import workload_of

#: Bytes of a number in a 16-bit cache, and of one in the state of a recurrent layer, which is kept in float32.
_CACHE_BYTES, _STATE_BYTES = 2, 4


@dataclass(frozen=True)
class Model:
    """A model as it was understood."""

    decoder: Decoder
    quantization: Quantization
    source: str


def read_config(path: str | Path) -> dict[str, Any]:
    """The parsed file; InputError when it is none or no JSON object."""
    file = Path(path)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"model config '{path}' cannot be read ({err.strerror or err}); give a model's config.json") from None
    except (ValueError, RecursionError) as err:
        raise InputError(f"model config '{path}' is not JSON: {str(err)[:200]}") from None
    if not isinstance(config, dict):
        raise InputError(f"model config '{path}' is not a JSON object; give a model's config.json")
    return config


def read_model(path: str | Path) -> Model:
    """The model of a config file, a folder, a safetensors file or an index; where tensors are at hand, their shapes decide."""
    place = Path(path)
    if place.is_dir():
        config, tensors = place / "config.json", place if any(place.glob("*.safetensors*")) else None
        if tensors is None and not config.is_file():
            raise InputError(f"folder '{path}' has neither a config.json nor safetensors files; give a model's folder or files")
    elif place.suffix == ".safetensors":
        part = re.search(r"-(\d+)-of-(\d+)\.safetensors$", place.name)
        if part and int(part.group(2)) > 1:
            raise InputError(f"'{place.name}' is one of {int(part.group(2))} files of a model; give their folder or index")
        config, tensors = place.with_name("config.json"), place
    else:
        values = read_config(place)
        if "weight_map" not in values:
            return model_of(values, place.name, _quantization_beside(place))
        config, tensors = place.with_name("config.json"), place
    values = read_config(config) if config.is_file() else {}
    if tensors is None:
        return model_of(values, config.name, _quantization_beside(config))
    return _model_of_tensors(tensors, values, config)


def import_model(model: str | Path, *, batch: int = 1, tokens: int = 1, kv: int | None = None, devices: int = 1,
                 expert_devices: int = 1, name: str | None = None) -> Workload:
    """The workload of one step of a published model: its config.json, folder, safetensors file or index.

    ``batch`` sequences with ``tokens`` new ones each (1: a decode step, more: a prefill); ``kv`` tokens that attention reads,
    the new ones among them (None: no attention); ``devices`` that share the model, and ``expert_devices`` that share its routed
    experts, every ``devices`` of them with a batch of their own.  InputError for a model that is not understood.
    """
    for key, value in (("batch", batch), ("tokens", tokens), ("kv", kv), ("devices", devices),
                       ("expert_devices", expert_devices)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{key} = {value!r} of a step is no whole number of at least 1")
    name = name or default_name(Path(model))
    text = step_text(read_model(model), name, ModelStep(batch, tokens, kv, devices, expert_devices))
    return workload_of(tomllib.loads(text), f"{name}-{'decode' if tokens == 1 else 'prefill'}", f"workload of '{model}'",
                       parse_inline)


def _model_of_tensors(place: Path, config: dict[str, Any], config_file: Path) -> Model:
    """The model of a checkpoint; a config beside it says what shapes cannot."""
    from msdsim.checkpoints.headers import read_tensors
    from msdsim.models.shapes import decoder_from_shapes

    tensors = {name: (tensor.dtype, tensor.shape) for name, tensor in read_tensors(place, need_data=False).items()}
    known, why = None, ""
    quantization = config.get("quantization_config") or _quantization_beside(config_file)
    if config:
        try:
            known = model_of(config, config_file.name, _quantization_beside(config_file))
        except InputError as err:
            why = str(err)
    found = decoder_from_shapes(tensors, place.name, {**config, "quantization_config": quantization},
                                known.decoder if known is not None else None)
    decoder = found.decoder
    if why:
        note = f"the tensors decide, since the config is not understood: {why[:300]}"
        decoder = replace(decoder, notes=(*decoder.notes, note))
    stated = known.quantization if known is not None else NOTHING
    # A method that is not understood has a note, and the tensors say more.
    own = stated if found.quantization is None or (stated.method and not stated.note) else found.quantization
    return Model(decoder, own, place.name)


def _quantization_beside(config: Path) -> Mapping[str, Any] | None:
    """What quantizers write beside a config: modelopt, msmodelslim, and the first exporters of GPTQ and AWQ."""
    for name, method in (("hf_quant_config.json", "modelopt"), ("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
        file = config.with_name(name)
        if file.is_file():
            return {"quant_method": method, **read_config(file)}
    described = sorted(config.parent.glob("quant_model_description*.json"))
    return {"quant_method": "msmodelslim", "description": read_config(described[0])} if described else None


def model_of(config: Mapping[str, Any], source: str, quantization: Mapping[str, Any] | None = None) -> Model:
    """The model of a parsed config; ``quantization`` stands in a file of its own where the config has none."""
    found = read_decoder(config, source)
    return Model(found.decoder, with_experts(read_quantization(found.quantization or quantization), found.expert_dtype), source)


def workload_text(config: Mapping[str, Any], source: str, name: str, batch: int, tokens: int, kv: int | None = None,
                  devices: int = 1) -> str:
    """The workload file, TOML, of one step; ``tokens`` is 1 for decode and the prompt's length for prefill, ``kv`` the tokens
    that attention reads, the new ones among them (None: attention is left out), ``devices`` those that share the model."""
    return step_text(model_of(config, source), name, ModelStep(batch, tokens, kv, devices))


def step_text(model: Model, name: str, step: ModelStep) -> str:
    """The workload file, TOML, of one step of a model."""
    kind = "decode step" if step.tokens == 1 else f"prefill of {step.tokens} tokens"
    what = "linear layers" if step.kv is None else f"linear layers and attention over {step.kv} tokens"
    share = f", one of {step.devices} tensor-parallel devices" if step.devices > 1 else ""
    if step.expert_devices > 1:
        share += f", one of {step.expert_devices} devices with experts of their own"
    lines = [
        f"# {what.capitalize()} of one {kind}, batch {step.batch}{share}, worked out from a published model.",
        *(f"# {line}" for line in understood(model, step)),
        f"description = {json.dumps(f'{what} of one {kind} of {name} ({model.decoder.family}), batch {step.batch}{share}')}",
        f"source = {json.dumps(f'model config {model.source}')}",
        f"batch = {step.batch}",
    ]
    for operator in operators(model.decoder, step, model.quantization):
        lines += ["", "[[op]]", f'name = "{operator.name}"', f"count = {operator.count}", f'problem = "{operator.problem}"',
                  *_more(operator, model)]
    return "\n".join(lines) + "\n"


def _more(operator: Operator, model: Model) -> list[str]:
    """The keys of an entry that not every entry has."""
    lines = []
    if operator.weights is not None and model.quantization.method:
        lines.append(f'weights = "{operator.weights.name}"')
    if operator.experts is not None:
        lines.append(f"experts = {operator.experts}")
    return lines


def understood(model: Model, step: ModelStep) -> list[str]:
    """What was understood, in lines: family, layers by kind, weights, cache, formats, and what is not simulated."""
    decoder = model.decoder
    counts = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in decoder.mixer_counts().items() if count)
    mixtures = sum(any(mlp.experts for mlp in layer.mlps) for layer in decoder.layers)
    mixed = f"; {mixtures} mixtures of experts" if mixtures else ""
    lines = [f"family: {decoder.family}",
             f"layers: {len(decoder.layers)} ({counts}{_windows(decoder)}{mixed})",
             f"weights: {decoder.total / 1e9:.3f} x 10^9 in all, {decoder.active / 1e9:.3f} x 10^9 for one token (embeddings "
             f"and multi-token prediction not counted)",
             *_cache_lines(decoder)]
    lines += _format_lines(model, step)
    lines += [f"not simulated: {item}" for item in _not_simulated(decoder, step)]
    notes = [*_notes(decoder, step)]
    if mixtures:
        notes.append("routing is taken as balanced; every token's experts are as evenly spread as whole rows allow")
    return [*lines, *(f"note: {note}" for note in (*notes, *decoder.notes))]


def _not_simulated(decoder: Decoder, step: ModelStep) -> Iterator[str]:
    yield from dict.fromkeys(text for layer in decoder.layers for mixer in layer.mixers for text in mixer.not_simulated)
    if step.kv is None:
        yield "attention; give --kv TOKENS"
    together = max(step.devices, step.expert_devices)
    if together > 1:
        yield f"what {together} devices send to one another"


def _notes(decoder: Decoder, step: ModelStep) -> Iterator[str]:
    """What a step is taken as."""
    if step.expert_devices > 1:
        batches = step.expert_devices // step.devices
        yield (f"{batches} batches of {step.batch} are under way at once, {batches * step.rows} tokens in all; this is the "
               f"device whose experts get most of them")
    if step.tokens > 1 and any(a.window and step.tokens > a.window for a in _attentions(decoder)):
        yield "windowed attention of the prefill is simulated in blocks as long as the window"
    if step.tokens > 1 and any(a.reads for a in _attentions(decoder)):
        yield "in a prefill the sparse index is left out, and attention reads all tokens"


_KINDS = {"full": "full attention", "windowed": "windowed attention", "linear": "linear attention", "mamba": "Mamba",
          "convolution": "short convolution", "cross": "cross-attention"}


def _attentions(decoder: Decoder) -> list[Any]:
    return [mixer.attention for layer in decoder.layers for mixer in layer.mixers if mixer.attention is not None]


def _windows(decoder: Decoder) -> str:
    found = sorted({a.window for a in _attentions(decoder) if a.window})
    kept = sorted({a.reads for a in _attentions(decoder) if a.reads})
    text = f"; window {', '.join(map(str, found))} tokens" if found else ""
    return text + (f"; at most {', '.join(map(str, kept))} tokens read, by a sparse index" if kept else "")


def _cache_lines(decoder: Decoder) -> list[str]:
    lines = [f"KV cache: {decoder.cached_values * _CACHE_BYTES:,} bytes a token of each sequence in 16 bits "
             f"({decoder.cached_values:,} values in all layers that keep every token)"]
    if decoder.window_values:
        lines.append(f"KV cache of windows: up to {decoder.window_values * _CACHE_BYTES:,} bytes a sequence in 16 bits")
    if decoder.state_values:
        lines.append(f"states: {decoder.state_values * _STATE_BYTES:,} bytes a sequence in float32, read and written every "
                     f"step, not simulated")
    return lines


def _format_lines(model: Model, step: ModelStep) -> list[str]:
    """How the weights are stored, by the operators of this step, and what a workload cannot say of it."""
    if model.quantization.note:
        return [f"note: {model.quantization.note}"]
    if not model.quantization.method:
        return ["weights as published: 16 bits"]
    by_format: dict[str, list[str]] = {}
    for operator in operators(model.decoder, step, model.quantization):
        if operator.weights is not None:
            by_format.setdefault(str(operator.weights), []).append(operator.name)
    lines = [f"weights as published ({model.quantization.method}): {text} for {', '.join(dict.fromkeys(names))}"
             for text, names in by_format.items()]
    strange = sorted({text.split(",")[0] for text in by_format} - {"bf16", "int8", "int4", "mxfp4", "mxfp8_e4m3"})
    if strange:
        lines.append(f"note: no dataflow takes {' or '.join(strange)} as stored; such entries run in the format of the "
                     f"dataflow, as weights converted to it would")
    return lines


def default_name(path: Path) -> str:
    """A name for the workload: the model's folder where the file has the usual name, else the file's own."""
    resolved = path.resolve()
    if path.is_dir():
        return resolved.name or "model"
    usual = ("config.json", "model.safetensors.index.json", "model.safetensors", "params.json")
    return resolved.parent.name if path.name in usual and resolved.parent.name else path.name.split(".")[0]
