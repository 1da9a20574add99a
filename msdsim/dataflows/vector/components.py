"""FP32 numbers in UB to the components that the Cube multiplies, and the Cube's sums of them back to FP32.

Integer components have one row scale, MX components a scale for each block of 32 along the row.  What is stored where, and
when, is the caller's: an AIV that stores component after component reuses its tiles sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msdsim.formats.msd import MsdSpec
from msdsim.formats.mx import MIN_SCALE_EXPONENT
from msdsim.formats.number import E8M0
from msdsim.ir import KernelBuilder, Slice

#: Smallest positive FP32 number: rows of zeros are divided by it instead of by zero.
SMALLEST = 2.0**-149
#: From one MX component's scale to the next: three exponents, a factor of 8.
MX_STEP = 3


def decompose(kb: KernelBuilder, spec: MsdSpec, passes: int, r: Slice, q: Slice, top: Slice | None,
              store: Callable[[int, Slice], None], left: Slice | None = None) -> None:
    """Numbers ``r`` to integer components: ``store(i, a_i)`` is called with each as FP32, in ``q``::

        r *= f ; a_1 = round(r / top) ; r -= a_1 top ; r *= g ; a_2 = round(r / top) ...

    ``top`` are the row maxima, None where they are 1.  Where ``store`` still reads ``q`` when the next component begins,
    ``left`` is another scratch tile for what a component takes from ``r``.
    """
    taken = q if left is None else left
    kb.op("muls", r, r, scalar=spec.first_factor)
    for number in range(passes):
        if top is not None:
            kb.op("div", q, r, top)
        kb.op("cast", q, r if top is None else q, round=spec.rounding)
        store(number, q)
        if number + 1 < passes:
            if top is not None:
                kb.op("mul", taken, q, top)
            kb.op("sub", r, r, taken)
            kb.op("muls", r, r, scalar=spec.next_factor)


def narrow(kb: KernelBuilder, component: Slice, half: Slice, value: Slice) -> None:
    """FP32 integers to the format of a component, by way of FP16."""
    kb.op("cast", half, value, round="rint")
    kb.op("cast", component, half, round="rint")


def combine(kb: KernelBuilder, weights: Sequence[float], sums: Sequence[Slice], total: Slice, scratch: Slice) -> None:
    """``total = C_1 w_1 + C_2 w_2 ...`` in FP32, of the INT32 ``sums`` of the passes."""
    for number, (piece, weight) in enumerate(zip(sums, weights, strict=True)):
        into = scratch if number else total
        kb.op("cast", into, piece)
        if weight != 1.0:
            kb.op("muls", into, into, scalar=weight)
        if number:
            kb.op("add", total, total, scratch)


def decompose_mx(kb: KernelBuilder, element: str, rule: str, passes: int, x: Slice, q: Slice, half: Slice, top: Slice,
                 component: Callable[[int], Slice], scale: Callable[[int], Slice],
                 store: Callable[[int, Slice, Slice], None] | None = None) -> None:
    """Numbers ``x`` to MX components::

        s_1 = scale(max of each block) ; a_1 = x / s_1 ; x -= a_1 s_1 ; s_2 = s_1 / 8 ; a_2 = x / s_2 ...

    ``component(i)`` and ``scale(i)`` give the places of ``a_i`` and ``s_i``; ``store(i, a_i, s_i)`` is called when both are
    there.  ``q`` (FP32) and ``half`` (BF16) have the shape of ``x``, ``top`` that of its blocks.
    """
    kb.op("block_max", top, x)
    # The first scale leaves room below it for the scales of the later passes.
    lowest = MIN_SCALE_EXPONENT + MX_STEP * (passes - 1) + E8M0.bias
    s = scale(0)
    kb.op("mx_scale", s, top, rule=rule, element=element, lowest=lowest)
    for number in range(passes):
        a = component(number)
        kb.op("mx_div", q, x, s)
        if element == "fp4_e2m1":
            # What is left of a BF16 number fits BF16, so that only the second conversion rounds.
            kb.op("cast", half, q, round="rint")
            kb.op("cast", a, half, round="rint")
        else:
            kb.op("cast", a, q, round="rint")
        if store is not None:
            store(number, a, s)
        if number + 1 < passes:
            kb.op("cast", half, a)
            kb.op("cast", q, half)
            kb.op("mx_mul", q, q, s)
            kb.op("sub", x, x, q)
            following = scale(number + 1)
            kb.op("mx_step", following, s, down=MX_STEP)
            s = following
