"""A decoder from the shapes of its tensors: what a checkpoint holds decides, whatever a config says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msdsim.errors import InputError
from msdsim.models.config import Config
from msdsim.models.mlp import check_experts
from msdsim.models.operator_names import FUSED, FUSED_NAMES, clean
from msdsim.models.parts import Attention, Decoder, Latent, Layer, Linear, Mixer, Mlp, ModuleColumns, RoutedExperts, linear
from msdsim.models.quantization import Quantization, WeightFormat
from msdsim.models.stored import Matrix, Tensors, matrices
from msdsim.models.stored_layers import LAYER, LayerParts, of_layers, untold_layers

_AFTER = re.compile(r"(o_proj|out_proj|wo|dense|c_proj|o_b_proj|wo_b)$")


@dataclass(frozen=True)
class Shapes:
    """What a checkpoint holds: a decoder without attention geometry, formats by module (None: the tensors do not tell), and
    what was left aside."""

    decoder: Decoder
    quantization: Quantization | None
    layers: tuple[Mapping[str, Matrix], ...]


def decoder_from_shapes(tensors: Tensors, source: str, config: Mapping[str, Any] | None, known: Decoder | None) -> Shapes:
    """The decoder of a checkpoint's tensors.

    ``config`` gives what shapes cannot: heads, how many experts a token passes, how many layers are no prediction module.
    ``known`` is what the table of families makes of it (None: nothing); where its matrices are those of the tensors, it is the
    decoder, and else the tensors decide.
    """
    c = Config(_with_defaults(_language_table(config), known), source, "tensors")
    found, unknown = matrices(tensors, _bits(config))
    untold = untold_layers(unknown)
    if untold and known is not None:
        note = f"{len(untold)} tensors of its layers cannot be told, such as {untold[0][:120]}: the config decides"
        return Shapes(replace(known, notes=(*known.notes, note)), None, ())
    if untold:
        raise InputError(f"'{source}' has {len(untold)} tensors of its layers that cannot be told, such as "
                         f"'{untold[0][:200]}', and no config beside them is understood; put the model's config.json there")
    by_layer, head, embedding, aside = of_layers(found, c, source)
    hidden = _hidden(embedding, head, source)
    _orient(by_layer, hidden)
    layers = [_layer(parts, hidden, c) for parts in by_layer]
    vocab = head.shape[0] if head is not None else embedding.shape[0] if embedding is not None else c.size("vocab_size")
    formats = {m.module: m.fmt for m in found}
    without = head is None and known is not None and known.head is None
    notes = _notes(unknown, aside, head is None and not without)
    plain = Decoder(
        known.family if known else "by shapes",
        hidden,
        tuple(layers),
        None if without else linear("lm_head", hidden, vocab),
        prefix="{}.",
        notes=notes,
    )
    quantization = _formats(formats, by_layer)
    if known is not None and _same(known, plain):
        own = replace(known, notes=(*known.notes, *notes, f"the shapes of {len(found)} tensors agree with the config"))
        return Shapes(own, quantization, tuple(parts.plain for parts in by_layer))
    if known is not None:
        plain = replace(
            plain,
            notes=(
                *plain.notes,
                f"the config comes to {known.total / 1e9:.3f} x 10^9 weights, the tensors to "
                f"{plain.total / 1e9:.3f}: the tensors decide",
            ),
        )
    return Shapes(plain, quantization, tuple(parts.plain for parts in by_layer))


def _language_table(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    table: Any = config or {}
    for key in ("thinker_config", "text_config", "llm_config", "language_config"):
        if isinstance(table.get(key), Mapping):
            table = table[key]
    return table if isinstance(table, Mapping) else {}


def _with_defaults(table: Mapping[str, Any], known: Decoder | None) -> Mapping[str, Any]:
    """The config with what its family's defaults add: how many layers, and how many experts a token passes."""
    if known is None:
        return table
    c = Config(table, "", "")
    chosen = next((mlp.experts.chosen for layer in known.layers for mlp in layer.mlps if mlp.experts), None)
    added = {"num_hidden_layers": len(known.layers), "num_experts_per_tok": chosen}
    return {**table, **{key: value for key, value in added.items() if value is not None and not c.given(key)}}


def _bits(config: Mapping[str, Any] | None) -> int | None:
    """Bits of packed integers, by the places that configs have for it."""
    for table in (config or {}, _language_table(config)):
        for key in ("quantization_config", "quantization"):
            own = table.get(key)
            if not isinstance(own, Mapping):
                continue
            groups = own.get("config_groups")
            weights = (
                next((g.get("weights") for g in groups.values() if isinstance(g, Mapping)), None)
                if isinstance(groups, Mapping)
                else None
            )
            bits = own.get("bits") or (weights.get("num_bits") if isinstance(weights, Mapping) else None)
            if isinstance(bits, int) and 1 <= bits <= 8:
                return bits
    return None


def _hidden(embedding: Matrix | None, head: Matrix | None, source: str) -> int:
    one = embedding or head
    if one is None:
        raise InputError(f"'{source}' has neither an embedding nor an output head, which would give the hidden size")
    return one.shape[1]


def _orient(layers: list[LayerParts], hidden: int) -> None:
    """Turn what is stored [in, out] to [out, in]: GPT-2's matrices, and experts whose inputs come first."""
    for parts in layers:
        for module, matrix in parts.plain.items():
            first, second = matrix.shape
            last = module.rpartition(".")[2]
            turned = last in ("c_attn", "c_fc") and first == hidden and second != hidden
            turned = turned or (last == "c_proj" and "mlp" in module and second == hidden and first != hidden)
            if turned:
                parts.plain[module] = replace(matrix, shape=(second, first))
        for module, (matrix, count) in parts.experts.items():
            first, second = matrix.shape
            makes_hidden = module.rpartition(".")[2].startswith(("down", "w2", "output"))
            wrong = (first != hidden and second == hidden) if makes_hidden else (second != hidden and first == hidden)
            if wrong:
                parts.experts[module] = (replace(matrix, shape=(second, first)), count)


def _layer(parts: LayerParts, hidden: int, c: Config) -> Layer:
    groups: dict[tuple[str, int], list[tuple[str, Matrix]]] = {}
    for module, matrix in parts.plain.items():
        parent, _, last = module.rpartition(".")
        fused = next((index for index, names in enumerate(FUSED) if last in names), None)
        key = (module, -1) if fused is None else (parent, fused)
        groups.setdefault(key, []).append((module, matrix))
    before, after, mlp = [], [], []
    for (module, fused), members in groups.items():
        by_inputs: dict[int, list[tuple[str, Matrix]]] = {}
        for name, matrix in members:
            by_inputs.setdefault(matrix.shape[1], []).append((name, matrix))
        for inputs, same in by_inputs.items():
            name = FUSED_NAMES[fused] if fused >= 0 and len(same) > 1 else same[0][0].rpartition(".")[2]
            shared = "shared_" if "shared" in module else ""
            columns = tuple(ModuleColumns(matrix.module, matrix.shape[0]) for _, matrix in same)
            item = Linear(f"{shared}{clean(name)}", inputs, columns)
            if re.search(r"mlp|ffn|feed_forward|moe|shared|fc1|fc2|dense_h|dense_4h", module):
                mlp.append(item)
            elif _AFTER.search(module):
                after.append(item)
            else:
                before.append(item)
    attention = _attention(parts.plain, c)
    mixer = Mixer("full", tuple(before), tuple(after), attention)
    return Layer((mixer,), (Mlp(tuple(mlp), _experts(parts.experts, c)),))


def _experts(experts: Mapping[str, tuple[Matrix, int]], c: Config) -> RoutedExperts | None:
    if not experts:
        return None
    counts = {count for _, count in experts.values()}
    if len(counts) != 1:
        raise InputError(
            f"the experts of a layer have {' and '.join(map(str, sorted(counts)))} matrices of a kind; a shard may be missing"
        )
    count = counts.pop()
    if not c.given("num_experts_per_tok"):
        raise InputError(
            f"the tensors have {count} experts a layer, and nothing says how many a token passes; put the model's "
            f"config.json beside them"
        )
    chosen = c.count("num_experts_per_tok")
    check_experts(c, count, chosen)
    by_inputs: dict[tuple[str, int], list[tuple[str, Matrix]]] = {}
    for module, (matrix, _) in experts.items():
        last = module.rpartition(".")[2]
        kind = "gate_up" if last in ("gate_proj", "up_proj", "w1", "w3") else last
        by_inputs.setdefault((kind, matrix.shape[1]), []).append((last, matrix))
    found = []
    for (kind, inputs), same in by_inputs.items():
        name = (
            "expert_gate_up_proj"
            if kind.startswith("gate_up")
            else "expert_down_proj"
            if kind in ("down_proj", "w2")
            else f"expert_{clean(kind)}"
        )
        found.append(Linear(name, inputs, tuple(ModuleColumns(matrix.module, matrix.shape[0]) for _, matrix in same)))
    return RoutedExperts(count, chosen, tuple(found))


def _attention(plain: Mapping[str, Matrix], c: Config) -> Attention | None:
    """The heads that a config gives, where the widths of the projections agree with them; None elsewhere."""
    try:
        return _heads(plain, c)
    except InputError:
        return None


def _heads(plain: Mapping[str, Matrix], c: Config) -> Attention | None:

    def width(*names: str) -> int | None:
        return next((matrix.shape[0] for module, matrix in plain.items() if module.rpartition(".")[2] in names), None)

    if not c.given("num_attention_heads"):
        return None
    heads = c.size("num_attention_heads")
    latent = width("kv_b_proj")
    if latent is not None and all(
        c.given(key) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
    ):
        sizes = Latent(c.size("qk_nope_head_dim"), c.size("qk_rope_head_dim"), c.size("v_head_dim"), c.size("kv_lora_rank"))
        fits = latent == heads * (sizes.nope + sizes.value)
        return Attention(heads, heads, sizes.nope + sizes.rope, sizes.value, latent=sizes) if fits else None
    query, key = width("q_proj", "query", "wq"), width("k_proj", "key", "wk")
    if query is None or key is None:
        return None
    kv_heads = c.size("num_key_value_heads", heads)
    head_dim = c.optional_size("head_dim") or (key // kv_heads if key % kv_heads == 0 else None)
    if (
        head_dim is None
        or key != kv_heads * head_dim
        or query not in (heads * head_dim, 2 * heads * head_dim)
        or heads % kv_heads
    ):
        return None
    return Attention(heads, kv_heads, head_dim)


def _same(known: Decoder, plain: Decoder) -> bool:
    """Whether every layer has the weights that the config says, and the head as well."""
    return (
        len(known.layers) == len(plain.layers)
        and (known.head and known.head.weights) == (plain.head and plain.head.weights)
        and all(
            ours.total == theirs.total and ours.active == theirs.active
            for ours, theirs in zip(known.layers, plain.layers, strict=True)
        )
    )


def _formats(formats: Mapping[str, WeightFormat], layers: Sequence[LayerParts]) -> Quantization:
    """Formats by what is stored; names of a family's modules are found by their ends."""
    if all(fmt.name == "bf16" for fmt in formats.values()):
        return Quantization("", lambda module: None)
    by_end: dict[str, WeightFormat] = {}
    for number, parts in enumerate(layers):
        for rest, matrix in parts.plain.items():
            by_end[f"{number}.{rest}"] = matrix.fmt
        for rest, (matrix, _) in parts.experts.items():
            by_end[f"{number}.{rest.replace('experts.', 'experts.0.')}"] = matrix.fmt

    def rule(module: str) -> WeightFormat | None:
        # A decoder by shapes puts the layer's number before the whole name.
        whole = formats.get(module) or formats.get(module.partition(".")[2])
        match = LAYER.fullmatch(module)
        if whole is not None or match is None:
            return whole
        number, rest = match.group(2), match.group(3)
        own = by_end.get(f"{number}.{rest}")
        if own is None and ".experts." in rest:
            own = next((fmt for end, fmt in by_end.items() if end.startswith(f"{number}.") and ".experts.0." in end), None)
        return own

    return Quantization("by the tensors", rule)


def _notes(unknown: Sequence[str], aside: Sequence[str], tied: bool) -> tuple[str, ...]:
    found = []
    if unknown:
        found.append(f"{len(unknown)} tensors cannot be told and are not simulated, such as {unknown[0][:120]}")
    kinds = Counter(re.sub(r"\d+", "N", name) for name in aside)
    if kinds:
        shown = ", ".join(f"{name[:60]} ({count})" for name, count in kinds.most_common(6))
        found.append(
            f"{len(aside)} tensors are no matmul of a decoder's step and not simulated: {shown}"
            f"{' and others' if len(kinds) > 6 else ''}"
        )
    if tied:
        found.append("no output head is stored: it is taken to be the embedding")
    return tuple(found)
