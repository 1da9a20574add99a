"""A part of a lowered program in compact form: its loops, its instructions and the operations on its registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.expressions import Register, Registers, Scope, Segment
from msdsim.errors import KernelError
from msdsim.ir.expr import Interval
from msdsim.ir.program import Instr, Loop, Node, Part, Program, UnitFlag
from msdsim.ir.timing import Local, Transfer
from msdsim.timeline.record import TRAFFIC
from msdsim.units import ceil_div


@dataclass
class LoopTable:
    """A loop: its registers, its instructions (``first`` up to ``last``), and the numbers of the loops right inside."""

    var: Register
    low: Register
    high: Register
    step: int
    first: int
    last: int = 0
    inner: list[int] = field(default_factory=list)

    @property
    def most_trips(self) -> int:
        """A bound on the number of iterations."""
        return max(0, ceil_div(self.high.range.high - self.low.range.low, self.step))


@dataclass
class PartTable:
    """A part in compact form; registers, segments and instructions go by number until the builder gives them a place."""

    part: Part
    registers: Registers
    core: Register
    sub: Register
    prologue: Segment = field(default_factory=Segment)
    code: list[int] = field(default_factory=list)
    #: The loops and the segments of each, which the code names by number.
    loops: list[LoopTable] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    instrs: list[list[int]] = field(default_factory=list)
    #: A bound on the instructions that each pipe is ever given.
    executions: dict[int, int] = field(default_factory=dict)
    #: The transfers, with the ranges of their rows and of the bytes of a row.
    transfers: list[tuple[Transfer, Interval, Interval]] = field(default_factory=list)

    @cached_property
    def instructions(self) -> list[Instr]:
        """The static instructions, as ``instrs`` has them."""
        return self.part.instructions()

    @cached_property
    def is_op(self) -> np.ndarray:
        """By instruction: is it an operation, or flags only."""
        return np.array([instr.op is not None for instr in self.instructions], bool)

    @cached_property
    def pipes(self) -> np.ndarray:
        """Pipe of each instruction."""
        return self.column(at.I_PIPE)

    def column(self, column: int) -> np.ndarray:
        """A column of the instructions' words."""
        return np.array([words[column] for words in self.instrs], np.int64)


def part_table(program: Program, part: Part) -> PartTable:
    """Compile the loops and expressions of a part."""
    kernel = program.kernel
    registers = Registers(f"kernel '{kernel.name}', part '{part.name}',")
    core = registers.variable(0, Interval(0, kernel.cores - 1))
    sub = registers.variable(0, Interval(0, max(0, kernel.aiv_per_core - 1)))
    table = PartTable(part, registers, core, sub)
    _Compiler(program, table).body(part.body, {"core": core, "sub": sub}, [table.prologue])
    table.code += [at.CODE_END]
    return table


class _Compiler:
    """Writes the code of one part."""

    def __init__(self, program: Program, table: PartTable) -> None:
        self.program, self.table, self.registers = program, table, table.registers
        self.addresses = program.addresses
        self.tensors = [tensor.name for tensor in program.kernel.tensors]
        #: Numbers of the loops around what is being compiled.
        self.nest: list[int] = []

    def body(self, nodes: Sequence[Node], scope: Scope, segments: list[Segment]) -> None:
        for node in nodes:
            if isinstance(node, Loop):
                self._loop(node, scope, segments)
            else:
                self.table.code += [at.CODE_INSTR, len(self.table.instrs)]
                self._instr(node, scope, segments)

    def _loop(self, loop: Loop, scope: Scope, segments: list[Segment]) -> None:
        if loop.step <= 0:
            raise KernelError(f"loop over '{loop.var}' has step {loop.step}; give a positive step")
        table, registers = self.table, self.registers
        low = registers.compile(loop.low, scope, segments)
        high = registers.compile(loop.high, scope, segments)
        values = Interval(low.range.low, max(low.range.low, high.range.high - 1))
        var = registers.variable(len(segments), values)
        segment = Segment()
        number = len(table.segments)
        table.segments.append(segment)
        table.loops.append(LoopTable(var, low, high, loop.step, len(table.instrs)))
        if self.nest:
            table.loops[self.nest[-1]].inner.append(number)
        enter = len(table.code)
        table.code += [at.CODE_ENTER, var.number, low.number, high.number, number, number, -1, number]
        body = len(table.code)
        self.nest.append(number)
        self.body(loop.body, {**scope, loop.var: var}, [*segments, segment])
        self.nest.pop()
        table.loops[number].last = len(table.instrs)
        table.code += [at.CODE_NEXT, var.number, high.number, loop.step, number, number, body, number]
        table.code[enter + 6] = len(table.code)

    def _instr(self, instr: Instr, scope: Scope, segments: list[Segment]) -> None:
        dispatch = self.program.chip.dispatch
        flags = len(instr.waits) + len(instr.posts)
        words = [0] * at.I_SIZE
        words[at.I_KIND] = at.LOCAL
        words[at.I_PIPE] = self._pipe(instr.pipe)
        words[at.I_COST] = dispatch.issue_cycles * (1 + flags)
        words[at.I_FLAGS] = dispatch.flag_cycles * flags
        words[at.I_BARRIER] = self.registers.compile(instr.barrier, scope, segments).number
        for column in (at.I_V0, at.I_V1, at.I_V2):
            words[column] = self.registers.constant(0).number
        words[at.I_INDEX], words[at.I_BOOKS] = instr.index, instr.index * at.CATEGORY_COUNT
        if instr.signal is not None:
            words[at.I_SIGNAL_KIND] = at.RAISE if instr.signal[0] == "signal" else at.WAIT
            words[at.I_SIGNAL] = instr.signal[1]
        elif instr.unit is not None:
            words[at.I_SIGNAL_KIND] = at.UNIT
            words[at.I_STRIP] = self.program.chip.cube.fractal_m
            words[at.I_COMPLETES], words[at.I_MARKS] = int(instr.unit.completes), int(instr.op is None)
        if isinstance(instr.timing, Local):
            self._local(words, instr.timing, scope, segments)
            if instr.unit is not None:
                self._unit_flags(words, instr.timing, instr.unit, scope, segments)
        elif isinstance(instr.timing, Transfer):
            self._transfer(words, instr.timing, scope, segments)
        self.table.instrs.append(words)
        executed = prod(self.table.loops[number].most_trips for number in self.nest)
        pipe = words[at.I_PIPE]
        self.table.executions[pipe] = self.table.executions.get(pipe, 0) + executed

    def _local(self, words: list[int], timing: Local, scope: Scope, segments: list[Segment]) -> None:
        sizes = [self.registers.compile(size, scope, segments) for size in timing.dims]
        words[at.I_KIND] = at.LOCAL
        words[at.I_LATENCY], words[at.I_INTERVAL] = timing.cost.latency, timing.cost.interval
        words[at.I_V0] = self.registers.work(timing.cost, sizes, segments).number

    def _unit_flags(self, words: list[int], timing: Local, unit: UnitFlag, scope: Scope, segments: list[Segment]) -> None:
        strip = [self.registers.compile(size, scope, segments) for size in unit.strip]
        words[at.I_V1] = self.registers.work(timing.cost, strip, segments).number
        words[at.I_LATER] = timing.cost.latency - timing.cost.interval if words[at.I_PIPE] == self._pipe("M") else 0

    def _pipe(self, name: str) -> int:
        return self.table.part.pipes.index(name)

    def _transfer(self, words: list[int], timing: Transfer, scope: Scope, segments: list[Segment]) -> None:
        cost = timing.cost
        words[at.I_KIND] = at.TRANSFER
        words[at.I_LATENCY], words[at.I_INTERVAL] = cost.latency, cost.interval
        address = self.addresses[timing.tensor] + timing.offset
        words[at.I_V0] = self.registers.compile(address, scope, segments).number
        rows = self.registers.compile(timing.rows, scope, segments)
        row_bytes = self.registers.compile(timing.row_bytes, scope, segments)
        words[at.I_V1], words[at.I_V2] = rows.number, row_bytes.number
        self.table.transfers.append((timing, rows.range, row_bytes.range))
        words[at.I_SCALE], words[at.I_PER_BYTE] = cost.bytes_per_cycle.numerator, cost.bytes_per_cycle.denominator
        words[at.I_GRANULE], words[at.I_OUTSTANDING] = cost.granule_bytes, cost.outstanding_bytes
        words[at.I_MINIMUM], words[at.I_REQUEST] = cost.minimum, cost.request_bytes
        words[at.I_SMALLEST], words[at.I_LARGEST] = cost.smallest_request, cost.largest_request
        words[at.I_L2_NUMERATOR], words[at.I_L2_DENOMINATOR] = cost.l2_share.numerator, cost.l2_share.denominator
        words[at.I_STRIDE], words[at.I_WRITE] = timing.stride_bytes, int(timing.write)
        words[at.I_SPLIT] = at.UNSPLIT if cost.split_bytes is None else cost.split_bytes
        words[at.I_BYPASS], words[at.I_SLOT] = int(timing.bypass), cost.slot_bytes
        words[at.I_BLOCK], words[at.I_BLOCK_PORT] = cost.block_bytes, cost.block_port_bytes
        words[at.I_TRAFFIC] = self.tensors.index(timing.tensor) * len(TRAFFIC)
