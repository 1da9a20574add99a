"""Energy of a run by unit of the chip, from what its instructions did and what the memories moved.

Energy = sum over units of (how often) x (the chip file's figure), plus static power x time:

- ``Cube``: multiplications and additions, of whole fractals as the Cube works on them, with its operand reads;
- ``Vector``: results of its instructions, ``UB``: bytes that Vector and the data movers read and write there;
- ``L1`` and ``L0``: bytes that the data movers read and write (what the Cube reads is in its own figure);
- ``L2`` and ``HBM``: the bytes of the run's traffic, so what is dirty in L2 at the end has cost no HBM byte yet;
- ``issue``: instructions, ``static``: what the chip and its memory draw while the kernel runs.

All figures are ranges.  Low, middle and high of a result take every figure at the same end, so they are bounds; two results are
to be compared at the same end, since the same figures are behind both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from msdsim.analysis.counting import Amounts, Rows, sums
from msdsim.hardware.chip import Chip
from msdsim.hardware.energy import CORNERS, Estimate
from msdsim.ir.expr import Expr, evaluate_all, free_vars
from msdsim.ir.kernel import Op
from msdsim.ir.program import Instr, Program
from msdsim.ir.timing import Local
from msdsim.timeline.record import RunRecord
from msdsim.units import ticks_to_us

#: Units of an energy, in the order in which reports name them.
UNITS = ("Cube", "L0", "L1", "Vector", "UB", "L2", "HBM", "issue", "static")

_UNIT_OF_SPACE = {"L1": "L1", "UB": "UB"}
_PJ_PER_UJ = 1e6


class Range(NamedTuple):
    """Low, middle and high of a quantity."""

    low: float
    middle: float
    high: float

    def over(self, other: Range) -> Range:
        """The quotient of the middles, between the smallest and the largest quotient at one end of both ranges."""
        found = [a / b for a, b in zip(self, other, strict=True)]
        return Range(min(found), found[1], max(found))


@dataclass(frozen=True)
class Energy:
    """Microjoules by unit (:data:`UNITS`) over ``time_us``; ``limit_w`` is what the chip may draw, where that is known."""

    by_unit: Mapping[str, Range]
    time_us: float
    limit_w: float | None = None

    @property
    def total(self) -> Range:
        """Microjoules in all."""
        return _sum(self.by_unit.values())

    @property
    def dynamic(self) -> Range:
        """Microjoules without the static power."""
        return _sum(value for unit, value in self.by_unit.items() if unit != "static")

    @property
    def power_w(self) -> Range:
        """Mean power, watts."""
        return Range(*(value / max(self.time_us, 1e-12) for value in self.total))

    @property
    def above_limit(self) -> tuple[str, ...]:
        """Corners of the range at which the mean power is above what the chip may draw."""
        if self.limit_w is None:
            return ()
        return tuple(corner for corner, watts in zip(CORNERS, self.power_w, strict=True) if watts > self.limit_w)

    def to_json(self) -> dict[str, Any]:
        """Totals and units as ranges: ``{"total_uj": {"low": ..., "middle": ..., "high": ...}, ...}``."""
        found: dict[str, Any] = {"total_uj": self.total._asdict(), "dynamic_uj": self.dynamic._asdict(),
                                 "power_w": self.power_w._asdict(),
                                 "by_unit_uj": {unit: value._asdict() for unit, value in self.by_unit.items()}}
        if self.limit_w is not None:
            found |= {"limit_w": self.limit_w, "above_limit": list(self.above_limit)}
        return found


def total_energy(parts: Iterable[tuple[int, Energy | None]]) -> Energy | None:
    """Energy of several runs, each so many times; None where one of them has none."""
    units: dict[str, Range] = {}
    time_us, limit = 0.0, None
    for count, energy in parts:
        if energy is None:
            return None
        for unit, value in energy.by_unit.items():
            before = units.get(unit, Range(0, 0, 0))
            units[unit] = Range(*(b + count * v for b, v in zip(before, value, strict=True)))
        time_us, limit = time_us + count * energy.time_us, energy.limit_w
    return Energy(units, time_us, limit)


@dataclass(frozen=True)
class CoreWork:
    """What a kernel's instructions did inside the cores: products by rate of the Cube, results of Vector by operation and bits,
    bytes read from and written to each on-chip space."""

    macs: Mapping[str, int]
    results: Mapping[tuple[str, int], float]
    bytes: Mapping[str, int]


def run_energy(record: RunRecord) -> Energy | None:
    """Energy of a run; None where the chip's file has no section ``energy``, or no figure for a rate that the Cube uses."""
    chip = record.program.chip
    if chip.energy is None:
        return None
    figures, work = chip.energy, kernel_work(record.program)
    if not work.macs.keys() <= figures.mac_pj.keys():
        return None
    units: dict[str, list[tuple[float, Estimate]]] = {unit: [] for unit in UNITS}
    units["Cube"] += [(count, figures.mac_pj[rate]) for rate, count in work.macs.items()]
    units["Vector"] += [(count, figures.vector_pj(op, bits)) for (op, bits), count in work.results.items()]
    for space, count in work.bytes.items():
        units[_UNIT_OF_SPACE.get(space, "L0")].append((count, figures.byte_pj.of(space)))
    moved = record.traffic
    units["L2"].append((moved["l2_read_bytes"] + moved["l2_write_bytes"], figures.byte_pj.l2))
    units["HBM"].append((moved["hbm_read_bytes"] + moved["hbm_write_bytes"], figures.byte_pj.hbm))
    units["issue"].append((record.instructions, figures.instruction_pj))
    time_us = ticks_to_us(record.cycles, chip.clock_mhz)
    found = {unit: Range(*(sum(count * figure.at(corner) for count, figure in terms) / _PJ_PER_UJ for corner in CORNERS))
             for unit, terms in units.items()}
    found["static"] = Range(*(figures.static_w.at(corner) * time_us for corner in CORNERS))
    return Energy(found, time_us, figures.limit_w)


_EXECUTED, _ELEMENTS, _READ, _WRITTEN = range(4)


def kernel_work(program: Program) -> CoreWork:
    """Count what a kernel's instructions do inside the cores."""
    macs: dict[str, int] = defaultdict(int)
    results: dict[tuple[str, int], float] = defaultdict(float)
    moved: dict[str, int] = defaultdict(int)
    for part in program.parts:
        counts = sums(program, part, partial(_amounts, chip=program.chip), 4).tolist()
        for instr, row in zip(part.instructions(), counts, strict=True):
            if instr.op is None or instr.op.out is None:
                continue
            micro_ops = instr.timing.micro_ops if isinstance(instr.timing, Local) else ()
            if instr.pipe == "M":
                macs[micro_ops[0].name] += row[_ELEMENTS]
                continue
            for step in micro_ops:
                results[step.name, step.bits] += step.share * row[_ELEMENTS]
            for item in instr.op.ins[:1]:
                moved[item.space] += row[_READ]
            moved[instr.op.out.space] += row[_WRITTEN]
    moved.pop("GM", None)  # counted where it is served: at L2 and HBM
    return CoreWork(macs, results, moved)


def _amounts(instr: Instr, chip: Chip) -> Amounts | None:
    """Executions, elements of the instruction's work, bytes it reads and bytes it writes."""
    op, timing = instr.op, instr.timing
    if op is None or op.out is None:
        return None
    dims = timing.dims if isinstance(timing, Local) else ()
    # A copy has one source; all sources of a Vector instruction lie in UB.  A fold also takes up its accumulator each time.
    sizes = [(item.sizes, item.bits) for item in op.ins]
    again = 2 * op.ins[0].bits // 8 if op.kind.startswith("fold_") else 0
    out = (op.out.sizes, op.out.bits)
    grains = timing.cost.grains if isinstance(timing, Local) and instr.pipe == "M" else (1,) * len(dims)

    def values(env: Rows) -> tuple[np.ndarray | int, ...]:
        elements = prod(-(-_atleast_0(dim, env) // grain) * grain for dim, grain in zip(dims, grains, strict=True))
        return 1, elements, sum(_bytes(item, env) for item in sizes) + again * elements, _bytes(out, env)

    return Amounts(values, _reads(op, dims))


def _reads(op: Op, dims: tuple[Expr, ...]) -> frozenset[str]:
    assert op.out is not None
    sizes = [*dims, *op.out.sizes, *(size for item in op.ins for size in item.sizes)]
    return frozenset[str]().union(*map(free_vars, sizes))


def _bytes(item: tuple[tuple[Expr, ...], int], env: Rows) -> np.ndarray | int:
    """Bytes of a slice of these sizes and bits an element."""
    sizes, bits = item
    return -(-prod(_atleast_0(size, env) for size in sizes) * bits // 8)


def _atleast_0(size: Expr, env: Rows) -> Any:
    return np.maximum(0, evaluate_all(size, env))


def _sum(values: Iterable[Range]) -> Range:
    rows = list(values)
    return Range(*(sum(row[corner] for row in rows) for corner in range(len(CORNERS))))
