"""Checks of what a kernel declares: cores, tensors, signals, room for its buffers, outputs that somebody writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from msdsim.errors import KernelError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import SPACES, Chip
from msdsim.ir.expr import Const, free_vars
from msdsim.ir.kernel import SHARED_SPACES, Alloc, Block, Buffer, For, Kernel, Op, Tensor, When, operations
from msdsim.ir.placement import buffer_phases
from msdsim.units import round_up

#: Elements along a dimension, bytes of a tensor, and addresses stay below this; the engines count in 64 bits.
MOST = 2**60


def refused(line: int, problem: str) -> KernelError:
    """The error of a line; of none where the kernel was not read from a text."""
    return KernelError(f"line {line}: {problem}" if line else problem)


def check_declarations(kernel: Kernel, chip: Chip) -> None:
    """Raise KernelError for the first declaration that ``chip`` or the language does not allow."""
    _check_cores(kernel, chip)
    _check_tensors(kernel, chip)
    names = [signal.name for signal in kernel.signals]
    for signal in kernel.signals:
        if names.count(signal.name) > 1:
            raise refused(signal.line, f"signal '{signal.name}' is declared twice; rename one")
    for part in ("aic", "aiv"):
        _check_capacity(kernel, chip, part)


def _check_cores(kernel: Kernel, chip: Chip) -> None:
    given, most = f"{kernel.cores} x {kernel.aiv_per_core}", f"{chip.cores.aic} x {chip.cores.aiv_per_aic}"
    if kernel.cores < 1 or kernel.aiv_per_core < (1 if kernel.aiv else 0):
        raise refused(kernel.line, f"kernel '{kernel.name}' runs on {given} cores; give at least 1 x 1")
    if kernel.cores > chip.cores.aic or kernel.aiv_per_core > chip.cores.aiv_per_aic:
        raise refused(kernel.line, f"kernel '{kernel.name}' runs on {given} cores, '{chip.name}' has {most}; lower 'cores'")


def _check_tensors(kernel: Kernel, chip: Chip) -> None:
    seen: set[str] = set()
    for tensor in kernel.tensors:
        name, line = tensor.name, tensor.line
        if name in seen:
            raise refused(line, f"tensor '{name}' is declared twice; rename one")
        seen.add(name)
        if tensor.fmt not in FORMATS:
            raise refused(line, f"tensor '{name}' has unknown format '{tensor.fmt}'; formats: {', '.join(FORMATS)}")
        if len(tensor.shape) < 2 or min(tensor.shape) < 1:
            raise refused(line, f"tensor '{name}' has shape {list(tensor.shape)}; give at least two sizes of at least 1")
        if tensor.size_bytes >= MOST:
            raise refused(line, f"tensor '{name}' has {tensor.size_bytes} bytes; sizes stay below 2**60")
        if FORMATS[tensor.fmt].bits < 8 and tensor.shape[-1] % 2:
            raise refused(line, f"tensor '{name}' has rows of {tensor.shape[-1]} {tensor.fmt} elements, which do not end "
                          f"on a byte; make the last size even")
        if tensor.space != "GM":
            _check_shared(kernel, tensor)
    total = sum(round_up(tensor.size_bytes, 512) for tensor in kernel.tensors if tensor.space == "GM")
    if total > chip.hbm.capacity_bytes:
        largest = max(kernel.tensors, key=lambda tensor: tensor.size_bytes)
        raise refused(largest.line, f"kernel '{kernel.name}' needs {total} bytes of GM, '{chip.name}' has "
                      f"{chip.hbm.capacity_bytes}; use smaller tensors")


def _check_shared(kernel: Kernel, tensor: Tensor) -> None:
    """A workspace on chip has a part of its own in the memory of every core."""
    if tensor.space not in SHARED_SPACES or tensor.role != "workspace":
        raise refused(tensor.line, f"tensor '{tensor.name}' is '{tensor.role}' in {tensor.space}; only a workspace can lie on "
                      f"chip, in {' or '.join(SHARED_SPACES)}")
    units = (kernel.cores, kernel.aiv_per_core) if tensor.space == "UB" else (kernel.cores,)
    if tensor.shape[: len(units)] != units or len(tensor.shape) < len(units) + 2:
        raise refused(tensor.line, f"tensor '{tensor.name}' has shape {list(tensor.shape)} in {tensor.space}; its first sizes "
                      f"must be {' x '.join(str(unit) for unit in units)}, one part for each core, followed by two or more")


def _check_capacity(kernel: Kernel, chip: Chip, part: str) -> None:
    """Buffers of a phase lie side by side with all their slots; phases follow each other in the same memory."""
    shared = [t for t in kernel.tensors if t.space != "GM" and (t.space == "UB") == (part == "aiv")]
    for allocs in buffer_phases(kernel, kernel.part(part)):
        phase: dict[str, list[Buffer]] = defaultdict(list)
        for alloc in allocs:
            phase[alloc.buffer.space].append(alloc.buffer)
        for tensor in shared:
            phase[tensor.space] += []
        for space, buffers in phase.items():
            if space not in SPACES or space == "GM":
                continue
            unit, capacity = chip.alignment.of(space), chip.buffers.capacity(space)
            sizes = {b.name: b.ring * round_up(b.slot_bytes, unit) for b in buffers if b.fmt in FORMATS}
            sizes |= {t.name: round_up(t.bytes_per_core, unit) for t in shared if t.space == space}
            total = sum(sizes.values())
            if total > capacity:
                raise _too_large(kernel, chip, part, space, sizes, allocs, total - capacity)


def _too_large(kernel: Kernel, chip: Chip, part: str, space: str, sizes: dict[str, int], allocs: list[Alloc],
               excess: int) -> KernelError:
    largest = sorted(sizes, key=lambda name: -sizes[name])
    shown = " + ".join(f"{name} {sizes[name]}" for name in sizes if name in largest[:12]) + (", ..." if len(sizes) > 12 else "")
    line = next((alloc.line for alloc in allocs if alloc.buffer.name == largest[0]), 0)
    total = sum(sizes.values())
    return refused(line, f"kernel '{kernel.name}' needs {total} bytes of {space} on each {part.upper()} ({shown}), {excess} "
                   f"more than the {total - excess} bytes of '{chip.name}'; lower tile sizes or ring depths")


def check_flow(kernel: Kernel, can_write: set[str]) -> None:
    """Outputs are written, inputs are not, and nothing reads a workspace that nobody writes; ``can_write`` are the tensors of
    writes that some condition lets run."""
    ops = [op for part in (kernel.aic, kernel.aiv) for op in operations(part)]
    written = {op.out.of.name: op for op in ops if op.out is not None and isinstance(op.out.of, Tensor)}
    for tensor in kernel.tensors:
        writer = written.get(tensor.name)
        if tensor.role == "in" and writer is not None:
            raise refused(writer.line, f"'{writer}' writes '{tensor.name}', an input; write a workspace or an output")
        if tensor.role == "out" and writer is None:
            raise refused(tensor.line, f"output '{tensor.name}' is never written; write it, or take it out")
        if tensor.role == "out" and writer is not None and tensor.name not in can_write:
            raise refused(writer.line, f"'{writer}' can never run, and nothing else writes the output '{tensor.name}'; mend "
                          f"the condition or loop around it")
        if tensor.role == "workspace" and writer is None:
            reader = next((op for op in ops if any(item.of == tensor for item in op.ins)), None)
            if reader is not None:
                raise refused(reader.line, f"'{reader}' reads '{tensor.name}', which nothing writes; write it first")


def notes(kernel: Kernel) -> list[str]:
    """What is allowed and looks like a mistake: a product that overwrites the sum it should add to."""
    return [f"line {op.line}: '{op}' starts a new sum in every iteration of the loop in line {loop.line}, and nothing reads "
            f"'{op.out.of.name if op.out else ''}' in between; to add them up give accumulate={loop.var}"
            for op, loop in _overwriting(kernel.aic)]


@dataclass(frozen=True)
class _Around:
    """What is around a statement: its loops, the number of them around each buffer, names that decide whether it runs."""

    loops: tuple[For, ...] = ()
    owners: Mapping[str, int] = field(default_factory=dict)
    decides: frozenset[str] = frozenset()


def _overwriting(block: Block, around: _Around = _Around()) -> Iterator[tuple[Op, For]]:
    for statement in block:
        if isinstance(statement, Alloc):
            around = replace(around, owners={**around.owners, statement.buffer.name: len(around.loops)})
        elif isinstance(statement, For):
            yield from _overwriting(statement.body, replace(around, loops=(*around.loops, statement)))
        elif isinstance(statement, When):
            decides = around.decides | free_vars(statement.condition)
            yield from _overwriting(statement.body, replace(around, decides=decides))
        elif isinstance(statement, Op) and statement.kind in ("mmad", "mmad_mx"):
            loop = _overwriting_loop(statement, around)
            if loop is not None:
                yield statement, loop


def _overwriting_loop(op: Op, around: _Around) -> For | None:
    """The innermost loop whose iterations all write one place with a new sum, and in which nothing reads it."""
    assert op.out is not None
    if op.attr_expr("accumulate", 0) != Const(0):
        return None
    name = op.out.of.name
    moves = around.decides.union(*map(free_vars, op.out.starts))
    for loop in reversed(around.loops[around.owners.get(name, len(around.loops)) :]):
        once = isinstance(loop.low, Const) and isinstance(loop.high, Const) and loop.high.value - loop.low.value <= loop.step
        if any(item.of.name == name for inner in operations(loop.body) for item in inner.ins):
            return None
        if loop.var not in moves and not once:
            return loop
    return None
