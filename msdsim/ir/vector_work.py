"""What Vector does for a method, instruction by instruction: the one statement from which closed forms and estimates count.

An instruction is the name of its cost class and the bits of its widest operand; a list of them is what each element meets.
Nothing is left out but what a schedule may add (a second sweep over rows that do not fit, copies); of MX operations, which are
chains of instructions, only the conversions and one product for each scale are listed, so that for these methods a list is a
lower bound.  ``tests/dataflows/test_vector_work.py`` holds the lists against the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msdsim.formats.msd import MsdSpec
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.vector import lanes
from msdsim.ir.ops.mx import DECODE_FP4
from msdsim.ir.ops.vector import vector_casts

Work = tuple[tuple[str, int], ...]


def of_weights(scheme: Scheme, chip: Chip, offset: bool = False) -> Work:
    """For each weight: to 16 bits and to FP32, offset and scale unless they are applied elsewhere, to what the Cube takes."""
    converted = conversions(scheme, chip)
    return *converted[:-1], *scaling(scheme, offset), *converted[-1:]


def conversions(scheme: Scheme, chip: Chip) -> Work:
    """For each weight, from the stored format to that of the Cube."""
    if scheme.widened is None:
        return ()
    if scheme.scales_sums and (scheme.weights, scheme.widened) in vector_casts(chip):
        return (("cast", 16),)
    first: Work = (("cast", 16),)
    if scheme.mx_weights and (scheme.weights, "bf16") not in vector_casts(chip):
        first = tuple((op, bits) for op, bits, _ in DECODE_FP4)
    return *first, ("cast", 32), ("cast", 32)


def scaling(scheme: Scheme, offset: bool = False) -> Work:
    """For each weight that Vector scales."""
    return (*int(offset) * (("add", 32),), ("mul", 32)) if scheme.scales_weights else ()


def of_activations(scheme: Scheme, passes: int, offset: bool = False) -> Work:
    """For each activation: row statistics, then ``passes`` components with what each leaves to the next; where weights are
    only converted, rows as FP16, and sums of rows where sums of the Cube need them."""
    if scheme.scales_sums:
        halves: Work = (("cast", 32), ("abs", 32), ("fold_max", 32), ("cast", 32), ("mul", 32), ("cast", 32))
        return *int(scheme.half) * halves, *int(offset) * (("cast", 32), ("fold_add", 32))
    if scheme.decomposition is None:
        return ()
    if scheme.mx:
        narrow: Work = (("cast", 32), ("cast", 16)) if scheme.component == "fp4_e2m1" else (("cast", 32),)
        return ("cast", 32), *passes * (("mul", 32), *narrow), *(passes - 1) * (("sub", 32),)
    statistics: Work = (("cast", 32), ("abs", 32), ("fold_max", 32), *int(offset) * (("fold_add", 32),))
    return *statistics, *decomposing(scheme, passes)


def decomposing(scheme: Scheme, passes: int) -> Work:
    """For each activation whose row maximum is known: integer components, with what each leaves to the next."""
    first: Work = (("muls", 32),)
    quotient: Work = (("div", 32), ("cast", 32))
    narrow: Work = (("cast", 32), ("cast", 16))
    if scheme.nibbles:
        # hi = floor(q / 16); lo = q - 16 hi - 8
        exact: Work = (("muls", 32), ("cast", 32), ("muls", 32), ("sub", 32), ("adds", 32))
        return *first, *quotient, *exact, *2 * narrow
    residual: Work = (("mul", 32), ("sub", 32), ("muls", 32))
    return *first, *passes * (*quotient, *narrow), *(passes - 1) * residual


def of_products(scheme: Scheme, passes: int, groups: int, offset: bool = False) -> Work:
    """For each output element: the passes of every group of K put together, scaled and added up, then rounded."""
    if scheme.scales_sums:
        return *int(scheme.half) * (("mul", 32),), *_of_sums(groups, offset)
    if scheme.decomposition is None or (scheme.mx and passes == 1):
        return ()
    combined = combining(scheme, passes)
    if scheme.mx:
        return *combined, ("cast", 32)
    scale: Work = (("mul", 32),)
    shift: Work = int(offset) * (("mul", 32), ("mul", 32), ("add", 32))
    if groups == 1:
        return *combined, *scale, *shift[1:], *scale, ("cast", 32)
    sums = (1 + int(offset)) * (groups - 1) * (("add", 32),)
    return *groups * (*combined, *scale, *shift[:2]), *sums, *scale, *shift[2:], ("cast", 32)


def combining(scheme: Scheme, passes: int) -> Work:
    """For each output element and group of K: the passes put together."""
    if scheme.mx:
        return (passes - 1) * (("add", 32),)
    factors = sum(weight != 1.0 for weight in scheme.pass_weights(passes))
    return *passes * (("cast", 32),), *factors * (("muls", 32),), *(passes - 1 + int(scheme.nibbles)) * (("add", 32),)


def _of_sums(groups: int, offset: bool) -> Work:
    """FP32 sums: ``(C + row sum * offset) * scale``, or ``sum of C_g scale_g [+ sum of (group sum_g offset_g) scale_g]``."""
    scale: Work = (("mul", 32),)
    if groups == 1:
        return *int(offset) * (("mul", 32), ("add", 32)), *scale, ("cast", 32)
    shift: Work = int(offset) * (("mul", 32), ("mul", 32))
    sums = (1 + int(offset)) * (groups - 1) * (("add", 32),)
    return *groups * (*scale, *shift), *sums, *int(offset) * (("add", 32),), ("cast", 32)


def cycles_per_element(chip: Chip, work: Sequence[tuple[str, int]]) -> float:
    """Vector cycles for each element in full repeats, without heads and latencies."""
    return sum(chip.vector.ops[op].slope_cycles_per_repeat / lanes(chip, bits) for op, bits in work)


@dataclass(frozen=True)
class AttentionMethod:
    """A method of attention: format of the ``cache``, decomposition of Q and P (``spec``, None: BF16 products), its passes, and
    whether the cache is only ``converted`` while its scales go elsewhere."""

    cache: str
    spec: MsdSpec | None
    passes: int
    converted: bool = False

    @property
    def mx(self) -> bool:
        """Whether the Cube multiplies MX blocks."""
        return self.spec is not None and self.spec.scheme == "mx"

    def of_cache(self) -> Work:
        """For each element of K and V that is made BF16."""
        scaled: Work = () if self.converted else (("mul", 32),)
        return ("cast", 16), ("cast", 32), *scaled, ("cast", 32)

    def of_queries(self, token: bool) -> Work:
        """For each element of Q that is split, or scaled."""
        if self.spec is None:
            return (("cast", 32), ("mul", 32), ("cast", 32)) if self.converted and not token else ()
        if self.mx:
            return ("cast", 32), *self._mx_split()
        scaled: Work = () if token else (("mul", 32),)
        return ("cast", 32), *scaled, ("abs", 32), ("fold_max", 32), *self._split(quotient=True)

    def of_logits(self, token: bool) -> tuple[Work, Work]:
        """For each logit: scaling, softmax and rounding of P; and what a decomposition adds, merging S and splitting P."""
        softmax: Work = (("fold_max", 32), ("sub", 32), ("exp", 32), ("fold_add", 32))
        if self.spec is None:
            scales: Work = (("mul", 32), ("mul", 32)) if self.converted and token else ()
            return (("muls", 32), *softmax, ("cast", 32), *scales), ()
        if self.mx:
            return (("muls", 32), *softmax), (*self._sums(), ("cast", 32), ("cast", 32), *self._mx_split())
        scales = (("mul", 32), ("mul", 32), ("fold_max", 32)) if token else ()
        return (("mul", 32), *softmax), (*self._sums(), *scales, *self._split(quotient=token))

    def of_outputs(self, token: bool) -> tuple[Work, Work]:
        """For each element of O and KV tile: its accumulation; and what a decomposition adds."""
        accumulate: Work = (("mul", 32), ("add", 32))
        if self.spec is None:
            return accumulate, ()
        return accumulate, (*self._sums(), *(() if self.mx else ((("mul" if token else "muls"), 32),)))

    def _sums(self) -> Work:
        """The passes put together."""
        assert self.spec is not None
        if self.mx:
            return (self.passes - 1) * (("add", 32),)
        factors = sum(weight != 1.0 for weight in self.spec.with_passes(self.passes).pass_weights)
        return *self.passes * (("cast", 32),), *factors * (("muls", 32),), *(self.passes - 1) * (("add", 32),)

    def _split(self, quotient: bool) -> Work:
        """A number into integer components; ``quotient``: by the maximum of its row, which is otherwise 1."""
        by_top: Work = (("div", 32),) if quotient else ()
        taken: Work = (("mul", 32),) if quotient else ()
        one: Work = (*by_top, ("cast", 32), ("cast", 32), ("cast", 16))
        return ("muls", 32), *self.passes * one, *(self.passes - 1) * (*taken, ("sub", 32), ("muls", 32))

    def _mx_split(self) -> Work:
        """As for activations of a GEMM: the conversions and one product for each scale, a lower bound."""
        return *self.passes * (("mul", 32), ("cast", 32), ("cast", 16)), *(self.passes - 1) * (("sub", 32),)
