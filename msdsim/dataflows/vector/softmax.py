"""The online softmax of a tile of rows, and the merge of row states that saw different columns.

The state of a row is the maximum ``m`` of its logits so far, the sum ``l`` of their exponentials, and the weighted sum ``acc``
of the rows of V, both relative to ``m``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from msdsim.ir import KernelBuilder, Slice

#: Where the running row maximum starts: below every logit, and finite, so that a difference is never NaN.
LOWEST = float(np.finfo(np.float32).min)


class RowState(NamedTuple):
    """``m`` and ``l`` of some rows, FP32 [rows, 1]."""

    top: Slice
    sum: Slice


def online_softmax(kb: KernelBuilder, s: Slice, state: RowState, alpha: Slice, lanes: Slice, row: Slice) -> None:
    """One step, in place: logits ``s`` [rows, cols] become weights, and the state takes them in::

        m' = max(m, rowmax s) ; alpha = exp(m - m') ; p = exp(s - m') ; l = l * alpha + rowsum p

    ``lanes`` [rows, FOLD_LANES] and ``row`` [rows, 1] are scratch.
    """
    kb.op("fold_max", lanes, s)
    kb.op("reduce_max", row, lanes)
    kb.op("max", row, row, state.top)
    kb.op("sub", alpha, state.top, row)
    kb.op("exp", alpha, alpha)
    kb.op("max", state.top, row, state.top)
    kb.op("sub", s, s, state.top)
    kb.op("exp", s, s)
    kb.op("fold_add", lanes, s)
    kb.op("reduce_add", row, lanes)
    kb.op("mul", state.sum, state.sum, alpha)
    kb.op("add", state.sum, state.sum, row)


def move(kb: KernelBuilder, out: Slice, source: Slice) -> None:
    """FP32 numbers from one place in UB to another: a maximum with the lowest of them."""
    kb.op("maxs", out, source, scalar=LOWEST)


class MergeScratch(NamedTuple):
    """FP32 [rows, 1]: maximum, weight, sum, and what one state adds to it; [rows, cols]: the merged ``acc``, and what one state
    adds."""

    top: Slice
    weight: Slice
    sum: Slice
    one: Slice
    acc: Slice
    part: Slice


def merge_states(kb: KernelBuilder, states: list[RowState], accs: list[Slice], to: MergeScratch) -> None:
    """``m = max m_i ; w_i = exp(m_i - m) ; l = sum l_i w_i ; acc = (sum acc_i w_i) / l``, states in ascending order."""
    kb.op("max", to.top, states[0].top, states[1].top)
    for other in states[2:]:
        kb.op("max", to.top, to.top, other.top)
    for number, (state, acc) in enumerate(zip(states, accs, strict=True)):
        kb.op("sub", to.weight, state.top, to.top)
        kb.op("exp", to.weight, to.weight)
        kb.op("mul", to.one if number else to.sum, state.sum, to.weight)
        kb.op("mul", to.part if number else to.acc, acc, to.weight)
        if number:
            kb.op("add", to.sum, to.sum, to.one)
            kb.op("add", to.acc, to.acc, to.part)
    kb.op("div", to.acc, to.acc, to.sum)
