"""Vector functions: operations of Vector that keep in registers what passes between them.

A vector function is a few loops over registers: operations over the same sizes share one, each in the first loop behind all
that it reads.  A loop takes, for every register, the most of what its operations ask of three things: loads (of operands that
are not in a register yet; one row or one column of the sizes is loaded once and kept), stores (of results that are read
elsewhere, once) and the ports for arithmetic, which start two operations in a cycle.  Loops are pipelined: the latency of a
load, of all operations (each hands on its result when it has it) and of a store comes once, before the next loop that reads
what this one wrote.  The function starts and drains once.  Other pipes wait for all of it, and it waits for all that it needs.

Registers are taken to suffice (there are 32), addresses and loop control to cost nothing, and banks of UB to be free: loads and
stores wait in queues of their own.  Figures: the chip file's ``[vector.vf]``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from msdsim.errors import KernelError
from msdsim.hardware.chip import Chip, VectorFunction
from msdsim.hardware.units import vector
from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Block, Kernel, Op, Slice, Statement, Vf, operations, walk
from msdsim.ir.ops import OPS
from msdsim.ir.printer import statement_text
from msdsim.ir.timing import Local
from msdsim.units import exact


def check_vector_functions(kernel: Kernel, chip: Chip) -> None:
    """KernelError where a vector function holds anything but operations of Vector, or the chip has none."""
    for part in (kernel.aic, kernel.aiv):
        for statement in walk(part):
            if not isinstance(statement, Vf):
                continue
            if chip.vector.vf is None:
                raise _refused(statement, f"chip '{chip.name}' has no vector functions", "leave out 'vf' and its braces")
            for item in statement.body:
                if not isinstance(item, Op) or OPS[item.kind].pipe(item, chip) != vector.PIPE or not _is_work(item, chip):
                    raise _refused(item, "is no operation of Vector, and stands in a vector function",
                                   "write it before or behind 'vf { }'")


def _refused(statement: Statement, problem: str, remedy: str) -> KernelError:
    where = f"line {statement.line}: " if statement.line else ""
    return KernelError(f"{where}'{statement_text(statement)}': {problem}; {remedy}")


def _is_work(op: Op, chip: Chip) -> bool:
    timing = OPS[op.kind].timing(op, chip, {})
    return isinstance(timing, Local) and bool(timing.micro_ops)


@dataclass
class _Loop:
    """A loop over registers: its operations by number, what it holds in registers, and what each operation asks of each
    resource."""

    sizes: tuple[Expr, ...]
    members: list[int] = field(default_factory=list)
    held: set[Slice] = field(default_factory=set)
    uses: dict[int, tuple[Fraction, Fraction, Fraction]] = field(default_factory=dict)

    def cycles(self, timings: Sequence[Local]) -> dict[int, Fraction]:
        """Cycles of each operation for each of its registers, of the resource that the whole loop asks most of."""
        # Registers hold as many elements as the widest operand of an operation leaves room for.
        totals = [sum(use[resource] / max(timings[at].cost.grains) for at, use in self.uses.items()) for resource in range(3)]
        binding = totals.index(max(totals))
        return {at: use[binding] for at, use in self.uses.items()}


@dataclass(frozen=True)
class Fused:
    """An operation of a vector function: its cost, and whether it waits for what the pipe has been given so far."""

    timing: Local
    waits: bool


def reads_in(block: Block) -> Counter[str]:
    """How many operations of a part read each buffer or tensor."""
    return Counter(name for op in operations(block) for name in {item.of.name for item in op.ins})


def fused(body: Sequence[Op], chip: Chip, reads: Mapping[str, int]) -> list[Fused]:
    """The operations of a vector function; ``reads`` are those of the whole part (:func:`reads_in`)."""
    vf = chip.vector.vf
    assert vf is not None
    timings = []
    for op in body:
        timing = OPS[op.kind].timing(op, chip, {})
        assert isinstance(timing, Local)
        timings.append(timing)
    loops, where = _loops(body, timings)
    for loop in loops:
        for number in loop.members:
            loop.uses[number] = _uses(body, number, loop, timings[number], chip, vf, reads)
    cycles = {number: each for loop in loops for number, each in loop.cycles(timings).items()}
    found: list[Fused] = []
    written: dict[str, int] = {}
    so_far = [0] * len(loops)
    for number, (op, timing) in enumerate(zip(body, timings, strict=True)):
        mine = where[number]
        so_far[mine] += max(0, timing.cost.latency - chip.vector.ops["copy"].latency_cycles)
        first, last = number == 0, number == len(body) - 1
        start = vf.start_cycles if first else 0
        cost = replace(
            timing.cost, interval=start, minimum=0, cycles_per_unit=cycles[number],
            latency=start + vf.load_cycles + so_far[mine] + vf.store_cycles + (vf.drain_cycles if last else 0),
        )
        # Loops that read what another one wrote come behind its stores.
        earlier = any(written.get(item.of.name, mine) != mine for item in op.ins)
        found.append(Fused(replace(timing, cost=cost, repeats=None), earlier and loops[mine].members[0] == number))
        if op.out is not None:
            written[op.out.of.name] = mine
    return found


def _loops(body: Sequence[Op], timings: Sequence[Local]) -> tuple[list[_Loop], list[int]]:
    """The loops, and the number of each operation's."""
    loops: list[_Loop] = []
    where: list[int] = []
    touched: dict[str, int] = {}
    for number, (op, timing) in enumerate(zip(body, timings, strict=True)):
        names = {item.of.name for item in (*op.ins, op.out) if item is not None}
        behind = max((touched[name] for name in names if name in touched), default=0)
        mine = next((at for at in range(behind, len(loops)) if loops[at].sizes == timing.dims), len(loops))
        if mine == len(loops):
            loops.append(_Loop(timing.dims))
        loops[mine].members.append(number)
        where.append(mine)
        touched |= dict.fromkeys(names, mine)
    return loops, where


def _uses(body: Sequence[Op], number: int, loop: _Loop, timing: Local, chip: Chip, vf: VectorFunction,
          reads: Mapping[str, int]) -> tuple[Fraction, Fraction, Fraction]:
    """Cycles of loads, stores and ports that an operation takes for each of its registers."""
    op = body[number]
    loads = 0
    for item in op.ins:
        if (item.rows, item.cols) == timing.dims and item not in loop.held:
            loop.held.add(item)
            loads += 1
    stores = 0
    if op.out is not None:
        loop.held.add(op.out)
        inside = [at for at in loop.members if at > number]
        again = any(body[at].out == op.out for at in inside)
        inner_reads = sum(any(item.of == op.out.of for item in body[at].ins) for at in loop.members)
        outer = reads.get(op.out.of.name, 0) > inner_reads or not hasattr(op.out.of, "ring")
        stores = int((op.out.rows, op.out.cols) == timing.dims and not again and outer)
    ports = sum((Fraction(step.share) * exact(chip.vector.ops[step.name].port_cycles or 1) for step in timing.micro_ops),
                Fraction(0))
    return Fraction(loads) / exact(vf.loads_per_cycle), Fraction(stores) / exact(vf.stores_per_cycle), ports / vf.ports
