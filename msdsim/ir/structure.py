"""Checks of a part's statements in their order: names and their blocks, operands, attributes, slices, reads and sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msdsim.errors import KernelError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import SPACES, Chip
from msdsim.ir.declarations import MOST
from msdsim.ir.expr import Binary, Const, Expr, Var, free_vars
from msdsim.ir.kernel import SIGNALLING, Alloc, Block, Buffer, For, Kernel, Op, Signal, Slice, Statement, Tensor, When
from msdsim.ir.lets import part_ranges
from msdsim.ir.ops import OPS
from msdsim.ir.ops.base import EQUAL, OPTIONAL
from msdsim.ir.printer import statement_text
from msdsim.ir.ranges import Ranges, bounds, lower_bound, simplify, upper_bound
from msdsim.ir.reach import MOST_POINTS, Points, TooMany, even
from msdsim.ir.signals import DIRECTIONS
from msdsim.naming import PIPES
from msdsim.registry import unknown_name

_INT32_MAX = 2**31 - 1
#: Iterations that may pass without an operation; engines go through them one by one.
_MOST_IDLE = 10_000_000
#: Refused statements whose lines an error lists.
_MOST_LISTED = 8


def fail(statement: Statement, problem: str, remedy: str) -> KernelError:
    """The error of a statement."""
    where = f"line {statement.line}: " if statement.line else ""
    return KernelError(f"{where}'{statement_text(statement)}': {problem}; {remedy}")


def _check_buffer(statement: Alloc, part: str) -> None:
    """A buffer that a part can have."""
    buffer = statement.buffer
    if buffer.space not in SPACES or buffer.space == "GM":
        raise fail(statement, f"unknown space '{buffer.space}'", f"on-chip spaces: {', '.join(SPACES[1:])}")
    if (buffer.space == "UB") != (part == "aiv"):
        raise fail(statement, f"an {part.upper()} has no {buffer.space}", "declare it in the other part")
    if buffer.fmt not in FORMATS:
        raise fail(statement, f"unknown format '{buffer.fmt}'", f"formats: {', '.join(FORMATS)}")
    if min(buffer.shape) < 1 or buffer.ring < 1:
        raise fail(statement, "sizes and ring depth must be at least 1", "enlarge them")
    if buffer.address is not None and buffer.space != "UB":
        raise fail(statement, f"'at' pins a buffer in UB, this one is in {buffer.space}", "leave out 'at'")


def _check_signal(op: Op, part: str, signals: Mapping[str, Signal]) -> None:
    """A signal that goes the way that a part uses it, from or to one of its pipes."""
    name, pipe = str(op.attr("name")), str(op.attr("pipe"))
    if name not in signals:
        raise fail(op, f"unknown signal '{name}'", f"signals: {', '.join(signals) or 'none'}")
    sender, receiver = DIRECTIONS.get(signals[name].kind, (part, part))
    if part != (sender if op.kind == "signal" else receiver):
        raise fail(op, f"signal '{name}' goes from {sender} to {receiver}", "turn it round or move the statement")
    if pipe not in PIPES[part.upper()] or pipe == "S":
        raise fail(op, f"no pipe '{pipe}' on the {part.upper()}", f"pipes: {', '.join(PIPES[part.upper()][1:])}")


class PartCheck:
    """Walks one part with the ranges of its loop variables."""

    def __init__(self, kernel: Kernel, chip: Chip, name: str) -> None:
        self.kernel, self.chip, self.name = kernel, chip, name
        self.signals = {signal.name: signal for signal in kernel.signals}
        self.ranges = part_ranges(kernel, name)
        self.tensors = {tensor.name: tensor for tensor in kernel.tensors}
        self.points = Points(kernel, name)
        #: By buffer: its declaration and how many blocks were open there; and the blocks that have ended with their buffers.
        self.buffers: dict[str, tuple[Alloc, int]] = {}
        self.ended: dict[str, tuple[Alloc, For | When]] = {}
        self.path: list[For | When] = []
        self.evens: dict[str, bool] = {}
        self.found: list[tuple[int, KernelError]] = []
        #: Iterations of the loops around; operations so far that can run, and the tensors that they write.
        self.trips, self.live = 1, 0
        self.writes: set[str] = set()

    def check(self) -> set[str]:
        """The tensors that the part may write.  KernelError for the first statement that is refused, naming the lines of
        further operations that are."""
        self._walk(self.kernel.part(self.name), frozenset())
        if not self.found:
            return self.writes
        first, error = self.found[0]
        lines = list(dict.fromkeys(line for line, _ in self.found[1:] if line not in (0, first)))
        more = f", ... ({len(lines)} lines)" if len(lines) > _MOST_LISTED else ""
        also = f" (refused too: line {', '.join(map(str, lines[:_MOST_LISTED]))}{more})" if lines else ""
        raise KernelError(f"{error}{also}")

    def _walk(self, block: Block, written: frozenset[str]) -> frozenset[str]:
        """Check statements in order; returns the buffers certainly written afterwards."""
        for statement in block:
            if isinstance(statement, Alloc):
                self._declare(statement)
                written -= {statement.buffer.name}
            elif isinstance(statement, Op):
                written = self._operation(statement, written)
            else:
                assert isinstance(statement, For | When), "names are put in before"
                written |= self._nested(statement, written)
        return written

    def _nested(self, statement: For | When, written: frozenset[str]) -> frozenset[str]:
        outer, outer_evens, outer_trips, live = self.ranges, self.evens, self.trips, self.live
        if isinstance(statement, When):
            self._sound(statement, [statement.condition])
            self.ranges = outer.where(statement.condition)
        else:
            self._sound(statement, [statement.low, statement.high])
            if not 1 <= statement.step < MOST:
                raise fail(statement, f"step {statement.step} is below 1" if statement.step < 1 else "its step is too large",
                           "count upwards, in steps below 2**60")
            if statement.var in outer.intervals:
                raise fail(statement, f"variable '{statement.var}' is already in use", "rename it")
            self.ranges = outer.inside(statement.var, statement.low, statement.high, statement.step)
            values = self.ranges.intervals[statement.var]
            self.trips *= (values.high - values.low) // statement.step + 1
            self.evens = outer_evens | {statement.var: statement.step % 2 == 0 and even(statement.low, outer_evens)}
        self.path.append(statement)
        found = self._walk(statement.body, written)
        self.path.pop()
        if self.live == live and self.trips > _MOST_IDLE and not self.ranges.dead and isinstance(statement, For):
            raise fail(statement, f"is entered up to {self.trips:,} times and nothing in it can ever run", "leave it out")
        self.ranges, self.evens, self.trips = outer, outer_evens, outer_trips
        for alloc in statement.body:
            if isinstance(alloc, Alloc):
                self.ended[alloc.buffer.name] = alloc, statement
        return found

    def _declare(self, statement: Alloc) -> None:
        buffer = statement.buffer
        if buffer.name in self.buffers or buffer.name in self.tensors:
            raise fail(statement, f"'{buffer.name}' is declared twice", "rename one")
        _check_buffer(statement, self.name)
        self.buffers[buffer.name] = statement, len(self.path)

    def _sound(self, statement: Statement, exprs: Iterable[Expr]) -> None:
        """Expressions read what there is, divide by what is above 0, and stay far below 64 bits."""
        for expr in exprs:
            unknown = sorted(free_vars(expr) - self.ranges.intervals.keys())
            if unknown:
                raise fail(statement, f"'{expr}' reads '{unknown[0]}', which is no loop variable here",
                           f"variables here: {', '.join(self.ranges.intervals)}")
            if not isinstance(expr, Const) and expr not in self.ranges.sound:
                self._bounded(statement, expr)
                self.ranges.sound.add(expr)
            elif isinstance(expr, Const) and abs(expr.value) >= MOST:
                raise fail(statement, f"'{expr}' is too large", "stay below 2**60")

    def _bounded(self, statement: Statement, expr: Expr) -> None:
        if isinstance(expr, Binary):
            self._bounded(statement, expr.left)
            self._bounded(statement, expr.right)
            if expr.op in ("//", "%") and not self.ranges.dead and lower_bound(expr.right, self.ranges) < 1:
                raise fail(statement, f"the divisor '{expr.right}' of '{expr}' is not certain to be above 0",
                           "divide by what is at least 1")
        found = bounds(expr, self.ranges) if not self.ranges.dead else None
        if found is not None and max(abs(found.low), abs(found.high)) >= MOST:
            raise fail(statement, f"'{expr}' may come to {max(found.low, found.high, key=abs):.3g}", "stay below 2**60")

    # Operations

    def _operation(self, op: Op, written: frozenset[str]) -> frozenset[str]:
        try:
            self._operands(op, written)
        except KernelError as err:
            self.found.append((op.line, err))
        if not self.ranges.dead:
            self.live += 1
            if op.out is not None and isinstance(op.out.of, Tensor):
                self.writes.add(op.out.of.name)
        return written if op.out is None else written | {op.out.of.name}

    def _operands(self, op: Op, written: frozenset[str]) -> None:
        if op.kind not in OPS:
            raise fail(op, str(unknown_name("operation", op.kind, list(OPS))), "'msdsim ir --ops' lists them")
        definition = OPS[op.kind]
        if len(op.ins) != definition.inputs or (op.out is not None) != definition.has_output:
            raise fail(op, f"'{op.kind}' takes {definition.inputs} inputs and "
                       f"{'an' if definition.has_output else 'no'} output", "change the operands")
        self._attributes(op)
        for item in (op.out, *op.ins):
            if item is not None:
                self._slice(op, item)
        if op.kind in SIGNALLING:
            _check_signal(op, self.name, self.signals)
        ranges = self.ranges
        token = EQUAL.set(lambda a, b: simplify(a - b, ranges) == Const(0))
        try:
            definition.check(op, self.chip)
        finally:
            EQUAL.reset(token)
        pipe = definition.pipe(op, self.chip)
        if pipe not in PIPES[self.name.upper()]:
            raise fail(op, f"pipe {pipe} is not on the {self.name.upper()} (it has {', '.join(PIPES[self.name.upper()])})",
                       "move it to the other part")
        if self.ranges.dead:
            return
        if op.kind == "mmad":
            self._count_k(op)
        for item in op.ins:
            self._initialised(op, item, written)
        if op.out is not None and definition.accumulates and bounds(op.attr_expr("accumulate", 0), self.ranges).low > 0:
            self._initialised(op, op.out, written)

    def _attributes(self, op: Op) -> None:
        definition = OPS[op.kind]
        for key, value in op.attrs:
            form = definition.attrs.get(key)
            if form is None:
                known = ", ".join(definition.attrs) or "none"
                raise fail(op, f"'{op.kind}' has no attribute '{key}'", f"its attributes: {known}")
            wanted = {"expr": (int, Expr), "int": (int,), "float": (int, float), "name": (str,)}[form]
            if not isinstance(value, wanted):
                raise fail(op, f"{key}={value} is no {_FORMS[form]}", f"give {_FORMS[form]}")
            if isinstance(value, Expr):
                self._sound(op, [value])
            elif isinstance(value, int) and abs(value) >= MOST:
                raise fail(op, f"{key}={value} is too large", "stay below 2**60")
        given = {key for key, _ in op.attrs}
        missing = [key for key in definition.attrs if key not in given and key not in OPTIONAL]
        if missing:
            raise fail(op, f"'{op.kind}' needs {missing[0]}=", f"its attributes: {', '.join(definition.attrs)}")

    def _slice(self, op: Op, item: Slice) -> None:
        of = item.of
        if isinstance(of, Buffer):
            self._declared(op, of)
        elif self.tensors.get(of.name) != of:
            raise fail(op, f"tensor '{of.name}' is not declared", "declare it in the kernel")
        if len(item.starts) != len(of.shape):
            raise fail(op, f"'{item}' has {len(item.starts)} ranges, '{of.name}' {len(of.shape)} dimensions", "give one each")
        self._sound(op, (*item.starts, *item.sizes))
        for axis, (start, size, extent) in enumerate(zip(item.starts, item.sizes, of.shape, strict=True)):
            self._inside(op, item, start, size, (axis, extent))
        if isinstance(of, Tensor) and of.space != "GM":
            self._own_part(op, item)
        if item.bits < 8 and not self._even(op, item.starts[-1]):
            raise fail(op, f"'{item}' starts in the middle of a byte", f"start at an even {of.fmt} element")

    def _declared(self, op: Op, of: Buffer) -> None:
        if of.name in self.ended:
            alloc, block = self.ended[of.name]
            raise fail(op, f"'{of.name}' belongs to the block of line {block.line}, '{statement_text(block)}', which declares "
                       f"it in line {alloc.line} and has ended: its slot is free for the next user",
                       "declare it in a block around both")
        if of.name not in self.buffers or self.buffers[of.name][0].buffer != of:
            raise fail(op, f"buffer '{of.name}' is not declared in a block around this statement", "declare it first")

    def _inside(self, op: Op, item: Slice, start: Expr, size: Expr, dim: tuple[int, int]) -> None:
        axis, extent = dim
        if self.ranges.dead:
            return
        low, end = lower_bound(start, self.ranges), upper_bound(start + size, self.ranges)
        if low >= 0 and end <= extent:
            return
        try:
            low, end = self.points.reach(self.path, start, size)
        except TooMany:
            raise fail(op, f"'{item}' may reach {low} .. {end} along dimension {axis} of size {extent}, and more than "
                       f"{MOST_POINTS} iterations would tell", "cut it with min(), or make loop bounds constant") from None
        if low < 0 or end > extent:
            raise fail(op, f"'{item}' reaches {low} .. {end} along dimension {axis} of size {extent}",
                       "shrink the range, or cut the ragged end with min()")

    def _even(self, op: Op, start: Expr) -> bool:
        if self.ranges.dead or even(start, self.evens):
            return True
        try:
            return self.points.always_even(self.path, start)
        except TooMany:
            raise fail(op, f"'{start}' would have to be even, and more than {MOST_POINTS} iterations would tell",
                       "write it as an even number times an index") from None

    def _own_part(self, op: Op, item: Slice) -> None:
        """What lies in a core's memory is reached from its own group only, and from an AIV only its own UB."""
        own = [Var("core")] + ([Var("sub")] if item.space == "UB" and self.name == "aiv" else [])
        if [simplify(start, self.ranges) for start in item.starts[: len(own)]] != [simplify(var, self.ranges) for var in own]:
            raise fail(op, f"'{item}' lies in {item.space} of other cores", f"start it at {', '.join(map(str, own))}")

    def _initialised(self, op: Op, item: Slice, written: frozenset[str]) -> None:
        if isinstance(item.of, Buffer) and item.of.name not in written:
            raise fail(op, f"reads buffer '{item.of.name}' before anything has written it", "fill it first")

    def _count_k(self, op: Op) -> None:
        """An int32 accumulator must hold the longest sum that can run into one ring slot, at the formats' extremes."""
        assert op.out is not None
        if op.out.fmt != "int32":
            return
        limit = _INT32_MAX // 2 ** (op.ins[0].bits + op.ins[1].bits - 2)
        depth = self.buffers[op.out.of.name][1]
        if op.attr_expr("accumulate", 0) == Const(0):
            # Every product is a sum of its own.
            total = self.points.summed_k((), op, self.ranges)
        else:
            total = self.points.summed_k(self.path[depth:], op, self._outside(depth))
        if total > limit:
            raise fail(op, f"a sum over K={total} can leave int32 (safe up to {limit})", "split K")

    def _outside(self, depth: int) -> Ranges:
        """The ranges outside of all blocks but the first ``depth``."""
        ranges = part_ranges(self.kernel, self.name)
        for item in self.path[:depth]:
            ranges = (ranges.where(item.condition) if isinstance(item, When)
                      else ranges.inside(item.var, item.low, item.high, item.step))
        return ranges


_FORMS = {"expr": "index expression", "int": "whole number", "float": "number", "name": "name"}
