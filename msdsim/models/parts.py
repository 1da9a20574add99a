"""What a decoder is made of: layers of mixers and MLPs, each a list of matrices, and the work beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from msdsim.errors import InputError
from msdsim.units import ceil_div

#: How a layer mixes tokens.  ``windowed`` attention sees a window or chunk of them, ``linear`` and ``mamba`` keep a state of
#: fixed size, a ``convolution`` sees a few tokens, ``cross`` attends to what another model has encoded.
MixerKind = Literal["full", "windowed", "linear", "mamba", "convolution", "cross"]
MIXER_KINDS: tuple[MixerKind, ...] = ("full", "windowed", "linear", "mamba", "convolution", "cross")


@dataclass(frozen=True)
class ModuleColumns:
    """Columns of a matrix that belong to one module of the model.

    ``units`` equal shares of them (heads, columns) can be spread over devices; without units every device has all of them.
    """

    module: str
    n: int
    units: int | None = None

    def shard(self, devices: int) -> ModuleColumns:
        """The columns of one of ``devices``; heads that are too few are copied."""
        if devices == 1 or self.units is None:
            return self
        if self.units % devices and devices % self.units:
            raise InputError(
                f"--tensor-parallel {devices} does not divide the {self.units} shares of {self.module}, nor they it"
            )
        return replace(self, n=self.n // self.units * max(1, self.units // devices), units=max(1, self.units // devices))


@dataclass(frozen=True)
class Linear:
    """y [tokens, n] = x [tokens, k] @ w [k, n]; its parts read the same x and are one matmul.

    ``k_units`` is the number of equal shares of k that tensor parallelism may spread (None: none).  ``repeats`` matrices of
    this shape stand side by side, each with its own input.
    """

    name: str
    k: int
    parts: tuple[ModuleColumns, ...]
    k_units: int | None = None
    repeats: int = 1

    @property
    def n(self) -> int:
        return sum(part.n for part in self.parts)

    @property
    def weights(self) -> int:
        return self.k * self.n * self.repeats

    def shard(self, devices: int) -> Linear:
        """The share of one of ``devices``."""
        if devices == 1:
            return self
        k = self.k
        if self.k_units is not None:
            if self.k_units % devices and devices % self.k_units:
                raise InputError(
                    f"--tensor-parallel {devices} does not divide the {self.k_units} shares of "
                    f"{self.parts[0].module}, nor they it"
                )
            k = self.k // self.k_units * max(1, self.k_units // devices)
        return replace(self, k=k, parts=tuple(part.shard(devices) for part in self.parts))


def linear(
    name: str,
    k: int,
    n: int,
    module: str | None = None,
    *,
    units: int | None = None,
    k_units: int | None = None,
    repeats: int = 1,
) -> Linear:
    """A matrix of one module."""
    return Linear(name, k, (ModuleColumns(module or name, n, units),), k_units, repeats)


@dataclass(frozen=True)
class Latent:
    """Heads that share one latent vector a token (multi-head latent attention), as they were trained."""

    nope: int
    rope: int
    value: int
    rank: int


@dataclass(frozen=True)
class Attention:
    """Softmax attention of one layer.

    ``window``: the newest tokens that a query sees, ``chunked`` those of its own chunk.  ``reads``: at most so many tokens are
    read, chosen by an index.  ``shared_kv``: V is the first ``v_dim`` channels of K.  ``latent``: the
    decode step runs in the absorbed form, over latents of ``rank + rope`` numbers.
    """

    heads: int
    kv_heads: int
    head_dim: int
    v_dim: int | None = None
    shared_kv: bool = False
    window: int | None = None
    chunked: bool = False
    reads: int | None = None
    latent: Latent | None = None

    @property
    def value_dim(self) -> int:
        return self.head_dim if self.v_dim is None else self.v_dim

    @property
    def cached_values(self) -> int:
        """Numbers in the KV cache for each token of one sequence."""
        if self.latent is not None:
            return self.latent.rank + self.latent.rope
        return self.kv_heads * (self.head_dim + (0 if self.shared_kv else self.value_dim))

    def shard(self, devices: int) -> Attention:
        """The heads of one of ``devices``."""
        if self.heads % devices:
            raise InputError(f"--tensor-parallel {devices} does not divide the {self.heads} heads")
        if self.kv_heads % devices and devices % self.kv_heads:
            raise InputError(f"--tensor-parallel {devices} does not divide the {self.kv_heads} KV heads, nor they it")
        return replace(self, heads=self.heads // devices, kv_heads=max(1, self.kv_heads // devices))


@dataclass(frozen=True)
class Mixer:
    """One token mixer: matrices before it, the attention (None where the mixing is no softmax attention), matrices after it.

    ``state_values``: numbers of a state that each sequence keeps and every step reads and writes.  ``extra_cache_values``:
    cached numbers for every token beside those of the attention.  ``owns_cache`` is False where it reads another's.
    """

    kind: MixerKind
    before: tuple[Linear, ...]
    after: tuple[Linear, ...] = ()
    attention: Attention | None = None
    state_values: int = 0
    extra_cache_values: int = 0
    owns_cache: bool = True
    not_simulated: tuple[str, ...] = ()

    @property
    def linears(self) -> tuple[Linear, ...]:
        return (*self.before, *self.after)

    @property
    def cached_values(self) -> int:
        """Numbers in the cache for each token of a sequence, or of its window."""
        return self.attention.cached_values if self.attention is not None and self.owns_cache else 0


@dataclass(frozen=True)
class RoutedExperts:
    """Routed experts: each token passes ``chosen`` of ``count`` equal ones."""

    count: int
    chosen: int
    linears: tuple[Linear, ...]

    @property
    def weights(self) -> int:
        """Weights of one expert."""
        return sum(item.weights for item in self.linears)


@dataclass(frozen=True)
class Mlp:
    """What follows the mixer: matrices that every token passes, and routed experts."""

    linears: tuple[Linear, ...]
    experts: RoutedExperts | None = None
    #: Matrices that run after the routed experts.
    after: tuple[Linear, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One decoder layer; ``beside`` are matrices of neither."""

    mixers: tuple[Mixer, ...]
    mlps: tuple[Mlp, ...]
    beside: tuple[Linear, ...] = ()

    @property
    def total(self) -> int:
        """Weights of the layer, all experts counted."""
        return self.active + sum(m.experts.weights * (m.experts.count - m.experts.chosen) for m in self.mlps if m.experts)

    @property
    def active(self) -> int:
        """Weights that one token passes."""
        plain = [
            *self.beside,
            *(x for mixer in self.mixers for x in mixer.linears),
            *(x for mlp in self.mlps for x in (*mlp.linears, *mlp.after)),
        ]
        return sum(x.weights for x in plain) + sum(m.experts.weights * m.experts.chosen for m in self.mlps if m.experts)


@dataclass(frozen=True)
class Decoder:
    """A model's language part.

    ``total_shared``: weights of ``layers`` that are there once and run in several layers, counted as often as they run less
    once.  ``head`` is None where the model gives hidden states (an embedding model).  ``prefix`` is the name of layer i's
    modules in the checkpoint.
    """

    family: str
    hidden: int
    layers: tuple[Layer, ...]
    head: Linear | None
    once: tuple[Linear, ...] = ()
    total_shared: int = 0
    prefix: str = "model.layers.{}."
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Weights of all matrices: the head counts, embeddings and multi-token prediction do not."""
        return sum(layer.total for layer in self.layers) + self._rest - self.total_shared

    @property
    def active(self) -> int:
        """Weights that one token passes."""
        return sum(layer.active for layer in self.layers) + self._rest

    @property
    def _rest(self) -> int:
        return sum(item.weights for item in self.once) + (self.head.weights if self.head else 0)

    def mixer_counts(self) -> dict[MixerKind, int]:
        """How many mixers of each kind."""
        kinds = [mixer.kind for layer in self.layers for mixer in layer.mixers]
        return {kind: kinds.count(kind) for kind in MIXER_KINDS}

    @property
    def cached_values(self) -> int:
        """Numbers that one more token adds to the caches of all layers that keep every token."""
        return sum(
            (mixer.cached_values if mixer.kind == "full" else 0) + mixer.extra_cache_values
            for layer in self.layers
            for mixer in layer.mixers
        )

    @property
    def window_values(self) -> int:
        """Numbers in the caches of windowed layers once their windows are full, for each sequence."""
        return sum(
            mixer.cached_values * (mixer.attention.window or 0)
            for layer in self.layers
            for mixer in layer.mixers
            if mixer.kind == "windowed" and mixer.attention is not None
        )

    @property
    def state_values(self) -> int:
        """Numbers in the states of linear, Mamba and convolution layers, for each sequence."""
        return sum(mixer.state_values for layer in self.layers for mixer in layer.mixers)


def experts_rows(rows: int, groups: int) -> tuple[int, ...]:
    """Rows of each of ``groups`` experts under balanced routing: as even as whole rows allow, only those that get any."""
    active = min(groups, rows)
    whole, more = divmod(rows, active)
    return (whole + 1,) * more + (whole,) * (active - more)


def padded(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple."""
    return ceil_div(value, multiple) * multiple
