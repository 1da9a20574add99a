"""One step of a decoder as a list of operators: decode or prefill, on one device or one of several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from msdsim.errors import InputError
from msdsim.models.parts import Attention, Decoder, Layer, Linear, Mixer, Mlp, RoutedExperts, experts_rows
from msdsim.models.quantization import BF16, NOTHING, Quantization, WeightFormat
from msdsim.moved import renamed
from msdsim.units import ceil_div

__getattr__ = renamed(__name__)

#: Where an operator stands within a layer.
_BEFORE, _ATTENTION, _AFTER, _MLP = range(4)


@dataclass(frozen=True)
class ModelStep:
    """``batch`` sequences of ``tokens`` new tokens each (1: decode); attention reads ``kv`` tokens, the new ones among
    them (None: no attention), on one of ``devices``.

    ``expert_devices`` share the routed experts, whole ones (1: the experts' columns are shared by ``devices`` instead).  Every
    ``devices`` of them work on a batch of their own, whose tokens pass the experts of all.
    """

    batch: int
    tokens: int = 1
    kv: int | None = None
    devices: int = 1
    expert_devices: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.tokens < 1 or self.devices < 1 or self.expert_devices < 1:
            raise InputError(
                f"batch {self.batch}, {self.tokens} tokens, {self.devices} and {self.expert_devices} devices must be at least 1"
            )
        if self.expert_devices > 1 and self.expert_devices % self.devices:
            raise InputError(
                f"--expert-parallel {self.expert_devices} is no multiple of --tensor-parallel {self.devices}: the devices that "
                f"share the experts are groups of those that share the rest"
            )
        if self.kv is not None and self.kv < self.tokens:
            raise InputError(
                f"{self.kv} tokens in the cache are fewer than the {self.tokens} new ones, which are among them; give "
                f"at least {self.tokens}"
            )

    @property
    def rows(self) -> int:
        """Rows of the matmuls that every token passes."""
        return self.batch * self.tokens


@dataclass(frozen=True)
class Operator:
    """One operator of a step in its inline form, how often it runs, and the format of its weights (None: it has none).

    ``experts``: how many experts a layer holds, where fewer get rows.
    """

    name: str
    count: int
    problem: str
    weights: WeightFormat | None = None
    experts: int | None = None
    #: Where it stands: what mixes tokens first, by kind, then the MLPs.
    place: tuple[int, int] = (0, 0)


def operators(decoder: Decoder, step: ModelStep, quantization: Quantization = NOTHING) -> list[Operator]:
    """The operators of a step; equal ones of all layers are one entry."""
    if step.expert_devices > 1 and not any(mlp.experts for layer in decoder.layers for mlp in layer.mlps):
        raise InputError(f"--expert-parallel {step.expert_devices}: the model has no routed experts")
    found: dict[tuple[str, str, WeightFormat | None, str], Operator] = {}
    kinds: list[str] = []
    for number, layer in enumerate(decoder.layers):
        for label, operator in _layer(layer, decoder.prefix.format(number), step, quantization, kinds):
            key = (operator.name, operator.problem, operator.weights, "")
            if key in found:
                found[key] = replace(found[key], count=found[key].count + operator.count)
            else:
                found[key] = replace(operator, name=f"{operator.name}\0{label}")
    items = sorted(found.values(), key=lambda item: item.place)
    once = [op for item in decoder.once for op in _matmuls(item, item.parts[0].module, step.rows, step, quantization, ())]
    if decoder.head is None:
        return [*_named(items), *once]
    # Only the last token of a sequence needs logits.
    head = replace(decoder.head, parts=tuple(replace(part, n=ceil_div(part.n, step.devices)) for part in decoder.head.parts))
    return [*_named(items), *once, *_matmuls(head, "", step.batch, replace(step, devices=1), quantization, ())]


def _named(items: list[Operator]) -> list[Operator]:
    """Names that say the kind of layer only where two operators would have the same."""
    plain = [item.name.split("\0")[0] for item in items]
    found: list[Operator] = []
    taken: set[str] = set()
    for item, name in zip(items, plain, strict=True):
        label = item.name.split("\0")[1]
        own = name if plain.count(name) == 1 else f"{label}_{name}" if label and not name.startswith(label) else name
        number, full = 2, own
        while full in taken:
            full, number = f"{own}_{number}", number + 1
        taken.add(full)
        found.append(replace(item, name=full))
    return found


def _layer(
    layer: Layer, prefix: str, step: ModelStep, quantization: Quantization, kinds: list[str]
) -> Iterator[tuple[str, Operator]]:
    for mixer in layer.mixers:
        family = "attention" if mixer.kind in ("full", "windowed") else mixer.kind
        if family not in kinds:
            kinds.append(family)
        section = kinds.index(family)
        for found in _mixer(mixer, prefix, step, quantization, section):
            yield mixer.kind, found
    for index, mlp in enumerate(layer.mlps):
        for found in _mlp(mlp, prefix, step, quantization):
            yield f"mlp{index + 1}" if index else "", found
    for item in layer.beside:
        for op in _matmuls(item, prefix, step.rows, step, quantization, (_MLP + 98, 0)):
            yield "", op


def _mixer(mixer: Mixer, prefix: str, step: ModelStep, quantization: Quantization, section: int) -> Iterator[Operator]:
    for item in mixer.before:
        if item.name == "cross_kv_proj":
            continue
        yield from _matmuls(item, prefix, step.rows, step, quantization, (section, _BEFORE))
    if mixer.attention is not None and step.kv is not None:
        name = "attention" if mixer.kind == "full" else f"{mixer.kind}_attention"
        for times, problem in attention_problems(mixer.attention, step):
            yield Operator(name, times, problem, place=(section, _ATTENTION))
    for item in mixer.after:
        yield from _matmuls(item, prefix, step.rows, step, quantization, (section, _AFTER))


def _mlp(mlp: Mlp, prefix: str, step: ModelStep, quantization: Quantization) -> Iterator[Operator]:
    section = _MLP + 90 + (1 if mlp.experts else 0)
    for item in mlp.linears:
        yield from _matmuls(item, prefix, step.rows, step, quantization, (section, 0))
    if mlp.experts is not None:
        yield from _experts(mlp.experts, prefix, step, quantization, section)
    for item in mlp.after:
        yield from _matmuls(item, prefix, step.rows, step, quantization, (section, 2))


def _experts(experts: RoutedExperts, prefix: str, step: ModelStep, quantization: Quantization,
             section: int) -> Iterator[Operator]:
    """The routed experts of one layer in one kernel, with balanced routing; of several devices, the one with most rows."""
    share, batches = step.expert_devices, max(1, step.expert_devices // step.devices)
    if experts.count % share:
        raise InputError(
            f"--expert-parallel {share} does not divide the {experts.count} routed experts of a layer; give a number of "
            f"devices that does (copies of experts are not modelled)"
        )
    # Dealt in turn, so that no device has more than one row above another.
    rows = experts_rows(step.rows * batches * experts.chosen, experts.count)[::share]
    count = experts.count // share
    for item in experts.linears:
        own = item.shard(step.devices) if share == 1 else item
        for name, n, fmt in _by_format(own, prefix, quantization):
            problem = _problem(rows, own.k, n, fmt)
            held = count if len(rows) < count else None
            yield Operator(name, 1, problem, fmt, held, (section, 1))


def _matmuls(
    item: Linear, prefix: str, rows: int, step: ModelStep, quantization: Quantization, place: tuple[int, ...]
) -> Iterator[Operator]:
    own = item.shard(step.devices)
    spot = (place[0], place[1]) if place else (0, 0)
    for name, n, fmt in _by_format(own, prefix, quantization):
        problem = (
            f"grouped_gemm:groups={own.repeats},m={rows},k={own.k},n={n}"
            if own.repeats > 1
            else f"gemm:m={rows},k={own.k},n={n}"
        )
        yield Operator(name, 1, problem + _suffix(fmt), fmt, place=spot)


def _by_format(item: Linear, prefix: str, quantization: Quantization) -> list[tuple[str, int, WeightFormat]]:
    """The columns of each weight format: modules that a checkpoint leaves in 16 bits cannot be one matmul with others."""
    columns: dict[WeightFormat, int] = {}
    for part in item.parts:
        fmt = BF16 if item.name == "moe_router" else quantization.of(f"{prefix}{part.module}")
        columns[fmt] = columns.get(fmt, 0) + part.n
    if len(columns) == 1:
        return [(item.name, item.n, next(iter(columns)))]
    return [(f"{item.name}_{fmt.name}", n, fmt) for fmt, n in columns.items()]


def _suffix(fmt: WeightFormat) -> str:
    group = f",group={fmt.group}" if fmt.group and fmt.name.startswith("int") else ""
    return group + (",offset=1" if fmt.offset and fmt.name.startswith("int") else "")


def _problem(rows: tuple[int, ...], k: int, n: int, fmt: WeightFormat) -> str:
    if len(set(rows)) > 1:
        body = f"rows={'+'.join(map(str, rows))}"
    elif len(rows) == 1:
        return f"gemm:m={rows[0]},k={k},n={n}{_suffix(fmt)}"
    else:
        body = f"groups={len(rows)},m={rows[0]}"
    return f"grouped_gemm:{body},k={k},n={n}{_suffix(fmt)}"


def attention_problems(attention: Attention, step: ModelStep) -> list[tuple[int, str]]:
    """The attention of one layer: how often, and the problem.

    A decode step reads ``min(kv, window)`` tokens.  A prefill longer than its window runs in blocks as long as the window,
    each over its own tokens and, but with chunks, those of the window before.
    """
    assert step.kv is not None
    limit = attention.window if attention.window is not None else attention.reads if step.tokens == 1 else None
    if limit is None or step.tokens <= limit:
        seen = step.kv if limit is None else limit if attention.chunked else limit + step.tokens - 1
        kv = min(step.kv, seen)
        return [(1, _attention(attention, step, step.tokens, kv))]
    reach = limit if attention.chunked else min(step.kv, 2 * limit - 1)
    blocks, rest = divmod(step.tokens, limit)
    found = [(blocks, _attention(attention, step, limit, reach))]
    if rest:
        found.append((1, _attention(attention, step, rest, rest if attention.chunked else min(step.kv, limit + rest - 1))))
    return found


def _attention(attention: Attention, step: ModelStep, q: int, kv: int) -> str:
    own = attention.shard(step.devices)
    causal = ",causal=1" if q > 1 else ""
    sizes = attention.latent
    if sizes is not None and step.tokens == 1:
        # Absorbed: all heads share one latent a token, which every device has.
        shape = f"heads={own.heads},kv_heads=1,head_dim={sizes.rank + sizes.rope},v_dim={sizes.rank}"
        return f"attention:batch={step.batch},{shape},q={q},kv={kv},shared_kv=1,scale_dim={sizes.nope + sizes.rope}"
    value = f",v_dim={own.value_dim}" if own.value_dim != own.head_dim else ""
    shared = ",shared_kv=1" if own.shared_kv else ""
    return (
        f"attention:batch={step.batch},heads={own.heads},kv_heads={own.kv_heads},head_dim={own.head_dim}{value},q={q},kv={kv}"
        f"{shared}{causal}"
    )
