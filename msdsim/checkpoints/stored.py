"""A weight as a checkpoint stores it, in the convention of the dataflows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from msdsim.checkpoints.values import ScaledCodes, integer_values, mx_values
from msdsim.errors import ArrayError
from msdsim.formats.number import FORMATS

_MX_DTYPE = "fp4_e2m1"


@dataclass(frozen=True)
class StoredWeight:
    """One weight [k, n], or one for each expert [experts, k, n].

    Either ``values`` (float32), or FP8 codes with their scales (``fp8``), or ``q`` with ``scale``: int8 integers with float32
    ``scale`` and ``offset`` [n] or [ceil(k/group), n], w = (q + offset) * scale, or E2M1 elements with E8M0 scales
    [ceil(k/32), n].  ``bits`` is the width of the integers.  Rows of ``q`` are in the order ``order`` of the checkpoint's,
    where groups are not contiguous there (act-order).  ``input_factor`` [k] multiplies the activations before the product.
    Where ``oriented`` is False, only the problem tells which of the last two axes of ``values`` is k.
    """

    layout: str
    values: np.ndarray | None = None
    fp8: ScaledCodes | None = None
    q: np.ndarray | None = None
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None
    group: int | None = None
    bits: int = 0
    order: np.ndarray | None = None
    input_factor: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    oriented: bool = True
    name: str = ""
    #: Of ``fp8``, whose codes have an axis of experts even where there are none.
    has_experts: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """[k, n] or [experts, k, n]."""
        if self.fp8 is not None:
            experts, n, k = self.fp8.codes.shape
            return (experts, k, n) if self.has_experts else (k, n)
        array = self.values if self.values is not None else self.q
        assert array is not None
        return array.shape

    @property
    def kind(self) -> str:
        """``float``, ``integer`` or ``mxfp4``."""
        if self.q is None:
            return "float"
        return "mxfp4" if self.q.dtype == FORMATS[_MX_DTYPE].dtype else "integer"

    def decoded(self) -> np.ndarray:
        """Its values in float32, one rounding each, rows as the checkpoint has them and without ``input_factor``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._decoded()

    def _decoded(self) -> np.ndarray:
        if self.fp8 is not None:
            turned = np.swapaxes(self.fp8.values, -1, -2)
            return turned if self.has_experts else turned[0]
        if self.q is None:
            assert self.values is not None
            return self.values
        if self.q.ndim == 3:
            return np.stack([self._expert(e).decoded() for e in range(len(self.q))])
        assert self.scale is not None
        if self.kind == "mxfp4":
            found = mx_values(self.q, self.scale)
        else:
            found = integer_values(self.q, self.scale, self.offset, self.group)
        if self.order is None:
            return found
        placed = np.empty_like(found)
        placed[self.order] = found
        return placed

    def swapped(self, keep: bool = False) -> StoredWeight:
        """Plain values with their last two axes exchanged, or as they are, and from now on [k, n]."""
        assert self.values is not None
        return replace(self, values=self.values if keep else np.swapaxes(self.values, -1, -2), oriented=True)

    def columns(self, chosen: np.ndarray) -> StoredWeight:
        """Some of its outputs, by their indices; scales of blocks over several are put into values."""
        def of(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else np.ascontiguousarray(array[..., chosen])

        if self.fp8 is not None:
            return replace(self, fp8=None, values=of(self.decoded()))
        return replace(self, values=of(self.values), q=of(self.q), scale=of(self.scale), offset=of(self.offset))

    def expert(self, number: int) -> StoredWeight:
        """The weight of one expert, [k, n]."""
        if self.fp8 is None:
            return self._expert(number)
        own, scale = slice(number, number + 1), self.fp8.scale
        one = replace(self.fp8, codes=self.fp8.codes[own], scale=scale[own] if len(scale) > 1 else scale)
        return replace(self, fp8=one, has_experts=False)

    def _expert(self, number: int) -> StoredWeight:
        def of(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[number]

        return replace(self, values=of(self.values), q=of(self.q), scale=of(self.scale), offset=of(self.offset))

    def __str__(self) -> str:
        return "; ".join((self.layout, *self.notes))


def stack(parts: Sequence[StoredWeight]) -> StoredWeight:
    """One weight for each expert, from weights of one form.  ArrayError where forms differ."""
    first = parts[0]
    for number, part in enumerate(parts):
        if (part.layout, part.shape, part.group, part.kind) != (first.layout, first.shape, first.group, first.kind):
            raise ArrayError(f"experts differ: expert 0 is {first.layout} {list(first.shape)}, expert {number} is "
                             f"{part.layout} {list(part.shape)}")
        if part.order is not None or part.input_factor is not None:
            raise ArrayError(f"expert {number} has an order or factors of its own for the activations ({part.layout}), and "
                             "the experts of a grouped_gemm share a rule for theirs; give the experts one by one to a gemm")

    def together(name: str) -> np.ndarray | None:
        arrays = [getattr(part, name) for part in parts]
        if all(array is None for array in arrays):
            return None
        like = next(array for array in arrays if array is not None)
        return np.stack([np.zeros_like(like) if array is None else array for array in arrays])

    if first.fp8 is not None:
        one = [part.fp8 for part in parts if part.fp8 is not None and not part.has_experts]
        if len({(own.scale.shape, own.block, own.codes.dtype) for own in one}) != 1 or len(one) != len(parts):
            raise ArrayError("experts differ: their FP8 codes or scales are of several forms")
        codes, scale = np.concatenate([own.codes for own in one]), np.concatenate([own.scale for own in one])
        return replace(first, fp8=ScaledCodes(codes, scale, one[0].block), has_experts=True)
    return replace(first, values=together("values"), q=together("q"), scale=together("scale"), offset=together("offset"))
