"""The decomposition's sample kernel: one row times INT4 weights with scales for each K group, all cores in step.

Split on one AIV, products on every AIC by a call of the vendor's Matmul object, merge on every AIV.  All cores meet after
every step; a group takes three, or, with ``preload``, three groups are under way at a time::

    step           0         1         2         3         4
    one by one     split 0   product 0 merge 0   split 1   product 1 ...
    preload        split 0   split 1   split 2   split 3
                             product 0 product 1 product 2
                                       merge 0   merge 1   ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msdsim.hardware.chip import Chip
from msdsim.ir import At, Expr, Handle, Kernel, KernelBuilder, Slice, at
from msdsim.problems.model import Micro
from msdsim.units import ceil_div

#: Lanes of a repeat of fp32.
_LANES = 64
#: The sample's factors before the first rounding and before each later one.
_FIRST, _NEXT = 7.49, 14.98
_SPLIT, _PRODUCT, _MERGE = _STAGES = range(3)


class MsdGroups:
    """The kernel under construction: rings of three groups of components and of two of their sums."""

    def __init__(self, problem: Micro, chip: Chip) -> None:
        p = self.problem = problem
        cores, self.aivs = chip.cores.aic, chip.cores.aiv_per_aic
        self.setup_cycles = chip.dispatch.matmul_setup_cycles
        self.groups, self.cols, self.share = p.k // p.group, ceil_div(p.n, cores), ceil_div(p.n, cores * self.aivs)
        self.kb = kb = KernelBuilder("micro_msd_groups", cores, self.aivs)
        self.x, self.w = kb.tensor("x", "bf16", (1, p.k), "in"), kb.tensor("w", "int4", (p.k, p.n), "in")
        self.scale = kb.tensor("scale", "fp32", (self.groups, p.n), "in")
        self.components = kb.tensor("parts", "int4", (3, p.passes, p.group), "workspace")
        self.sums = kb.tensor("sums", "int32", (2, p.passes, p.n), "workspace")
        self.y = kb.tensor("y", "bf16", (1, p.n), "out")
        kb.signal("step", "barrier")

    def kernel(self) -> Kernel:
        kb = self.kb
        mine = at(kb.aiv * self.share, self.share)
        with kb.part("aic"), self._steps("FIX") as i, self._group(_PRODUCT, i) as g:
            self._product(g)
        with kb.part("aiv"):
            total, out = self._row("total", "fp32", self.share), self._row("out", "bf16", self.share)
            kb.op("dup", total, scalar=0.0)
            with self._steps("MTE3") as i:
                with self._group(_SPLIT, i) as g, kb.when((kb.core + kb.sub).equals(0)):
                    self._split(g)
                with self._group(_MERGE, i) as g:
                    self._merge(g, total, mine)
            kb.op("cast", out, total)
            kb.copy(self.y[0, mine], out)
        return kb.build()

    @contextmanager
    def _steps(self, last_pipe: str) -> Iterator[Expr]:
        """Steps, after each of which every core waits for all others."""
        kb, stages = self.kb, len(_STAGES)
        with kb.loop("i", 0, self.groups + stages - 1 if self.problem.preload else stages * self.groups) as i:
            yield i
            kb.meet("step", last_pipe)

    @contextmanager
    def _group(self, stage: int, i: Expr) -> Iterator[Expr]:
        """The group that a stage works on in step ``i``, if there is one."""
        if self.problem.preload:
            with self.kb.when((i >= stage) * (i < self.groups + stage)):
                yield i - stage
        else:
            with self.kb.when((i % len(_STAGES)).equals(stage)):
                yield i // len(_STAGES)

    def _row(self, name: str, fmt: str, cols: int) -> Slice:
        return self.kb.buffer(name, "UB", fmt, (1, cols))[0, :]

    def _split(self, g: Expr) -> None:
        kb, p = self.kb, self.problem
        raw, t, u = (self._row(name, fmt, p.group) for name, fmt in (("raw", "bf16"), ("t", "fp32"), ("u", "fp32")))
        lanes, top = self._row("lanes", "fp32", _LANES), self._row("top", "fp32", 1)
        half, digit = self._row("half", "fp16", p.group), self._row("digit", "int4", p.group)
        kb.copy(raw, self.x[:, at(g * p.group, p.group)])
        kb.op("cast", t, raw)
        kb.op("abs", u, t)
        kb.op("fold_max", lanes, u)
        kb.op("reduce_max", top, lanes)
        kb.op("div", t, t, top)
        for number in range(p.passes):
            kb.op("muls", t, t, scalar=_NEXT if number else _FIRST)
            kb.op("cast", u, t, round="round")
            kb.op("cast", half, u)
            kb.op("cast", digit, half)
            kb.copy(self.components[g % 3, number, :], digit)
            kb.op("sub", t, t, u)

    def _product(self, g: Expr) -> None:
        kb, p, rows = self.kb, self.problem, at(0, self.problem.passes)
        columns = at(kb.core * self.cols, self.cols)
        a1, b1 = self._tile("a1", "L1", 16, p.group), self._tile("b1", "L1", p.group, self.cols)
        a0, b0 = self._tile("a0", "L0A", 16, p.group), self._tile("b0", "L0B", p.group, self.cols)
        acc = kb.buffer("acc", "L0C", "int32", (16, self.cols), 2)
        kb.copy(b1[:, :], self.w[at(g * p.group, p.group), columns])
        kb.copy(a1[rows, :], self.components[g % 3, :, :])
        kb.copy(a0[rows, :], a1[rows, :])
        # The sample's own copies bring the tiles into L1; then it calls the vendor's Matmul object.
        kb.op("hold", cycles=self.setup_cycles, pipe="MTE1")
        kb.copy(b0[:, :], b1[:, :])
        kb.op("mmad", acc[rows, :], a0[rows, :], b0[:, :])
        kb.op("fixpipe", self.sums[g % 2, :, columns], acc[rows, :])

    def _tile(self, name: str, space: str, rows: int, cols: int) -> Handle:
        return self.kb.buffer(name, space, "int4", (rows, cols), 2)

    def _merge(self, g: Expr, total: Slice, mine: At) -> None:
        kb, passes = self.kb, self.problem.passes
        c = kb.buffer("c", "UB", "int32", (passes, self.share))
        f = kb.buffer("f", "UB", "fp32", (passes, self.share))
        s = self._row("s", "fp32", self.share)
        kb.copy(c[:, :], self.sums[g % 2, :, mine])
        kb.copy(s, self.scale[g, mine])
        kb.op("cast", f[:, :], c[:, :])
        for number in range(passes):
            kb.op("muls", f[number, :], f[number, :], scalar=1.0 / _FIRST / _NEXT**number)
        for number in range(1, passes):
            kb.op("add", f[0, :], f[0, :], f[number, :])
        kb.op("mul", f[0, :], f[0, :], s)
        kb.op("add", total, total, f[0, :])
