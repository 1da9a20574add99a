"""The verifier: what must hold before a kernel runs.  Every error names the statement, its line and what would fix it.

Checked: names, operand types and legal paths, buffer capacity with all ring slots, alignment of 4-bit data, accumulator
range, slices inside their tensors and buffers, reads of buffers that nothing has written, signals and their directions.
Races between pipes cannot be written: the lowering derives every flag from buffer use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from msdsim.errors import KernelError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import SPACES, Chip
from msdsim.ir.expr import Binary, Const, Expr, Interval, Var, evaluate, free_vars
from msdsim.ir.kernel import SHARED_SPACES, Alloc, Block, Buffer, For, Kernel, Op, Slice, Statement, Tensor, When, operations
from msdsim.ir.lets import plain
from msdsim.ir.ops import OPS
from msdsim.ir.ops.base import EQUAL
from msdsim.ir.placement import phases, place
from msdsim.ir.printer import statement_text
from msdsim.ir.ranges import bounds, simplify, upper_bound
from msdsim.naming import PIPES
from msdsim.units import round_up

_INT32_MAX = 2**31 - 1


def verify(kernel: Kernel, chip: Chip) -> None:
    """Raise KernelError for the first rule that ``kernel`` breaks on ``chip``, the places of pinned buffers among them."""
    check_kernel(kernel, chip)
    if any(alloc.buffer.address is not None for alloc in _allocs(plain(kernel).aiv)):
        place(kernel, chip)


def check_kernel(kernel: Kernel, chip: Chip) -> None:
    """:func:`verify` but for pinned buffers, which the placement checks."""
    kernel = plain(kernel)
    _check_tensors(kernel, chip)
    for name in ("aic", "aiv"):
        _Part(kernel, chip, name).check()
    _check_signals(kernel)


def _fail(statement: Statement, problem: str, remedy: str) -> KernelError:
    where = f"line {statement.line}: " if statement.line else ""
    return KernelError(f"{where}'{statement_text(statement)}': {problem}; {remedy}")


def _check_tensors(kernel: Kernel, chip: Chip) -> None:
    seen: set[str] = set()
    for tensor in kernel.tensors:
        if tensor.name in seen:
            raise KernelError(f"tensor '{tensor.name}' is declared twice; rename one")
        seen.add(tensor.name)
        if tensor.fmt not in FORMATS:
            raise KernelError(f"tensor '{tensor.name}' has unknown format '{tensor.fmt}'; formats: {', '.join(FORMATS)}")
        if len(tensor.shape) < 2 or min(tensor.shape) < 1:
            raise KernelError(f"tensor '{tensor.name}' has shape {list(tensor.shape)}; give at least two sizes of at least 1")
        if FORMATS[tensor.fmt].bits < 8 and tensor.shape[-1] % 2:
            raise KernelError(f"tensor '{tensor.name}' has rows of {tensor.shape[-1]} {tensor.fmt} elements, which do not end "
                              f"on a byte; make the last size even")
        if tensor.space != "GM":
            _check_shared(kernel, tensor)
    total = sum(round_up(tensor.size_bytes, 512) for tensor in kernel.tensors if tensor.space == "GM")
    if total > chip.hbm.capacity_bytes:
        raise KernelError(f"kernel '{kernel.name}' needs {total} bytes of GM, '{chip.name}' has {chip.hbm.capacity_bytes}; "
                          f"use smaller tensors")
    if kernel.cores > chip.cores.aic or kernel.aiv_per_core > chip.cores.aiv_per_aic:
        raise KernelError(f"kernel '{kernel.name}' runs on {kernel.cores} x {kernel.aiv_per_core} cores, '{chip.name}' has "
                          f"{chip.cores.aic} x {chip.cores.aiv_per_aic}; lower 'cores'")


def _check_shared(kernel: Kernel, tensor: Tensor) -> None:
    """A workspace on chip has a part of its own in the memory of every core."""
    if tensor.space not in SHARED_SPACES or tensor.role != "workspace":
        raise KernelError(f"tensor '{tensor.name}' is '{tensor.role}' in {tensor.space}; only a workspace can lie on chip, in "
                          f"{' or '.join(SHARED_SPACES)}")
    units = (kernel.cores, kernel.aiv_per_core) if tensor.space == "UB" else (kernel.cores,)
    if tensor.shape[: len(units)] != units or len(tensor.shape) < len(units) + 2:
        raise KernelError(f"tensor '{tensor.name}' has shape {list(tensor.shape)} in {tensor.space}; its first sizes must be "
                          f"{' x '.join(str(unit) for unit in units)}, one part for each core, followed by two or more")


class _Part:
    """Walks one part with the ranges of its loop variables."""

    def __init__(self, kernel: Kernel, chip: Chip, name: str) -> None:
        self.kernel, self.chip, self.name = kernel, chip, name
        self.block = kernel.part(name)
        self.signals = {signal.name: signal for signal in kernel.signals}
        self.ranges: dict[str, Interval] = {"core": Interval(0, kernel.cores - 1)}
        if name == "aiv":
            self.ranges["sub"] = Interval(0, max(0, kernel.aiv_per_core - 1))
        self.buffers: dict[str, Buffer] = {}
        self.path: list[For | When] = []

    def check(self) -> None:
        self._capacity()
        self._walk(self.block, frozenset())

    # Structure

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
                if isinstance(statement, When):
                    self._known(statement, [statement.condition])
                else:
                    self._loop(statement)
                self.path.append(statement)
                written |= self._walk(statement.body, written)
                self.path.pop()
                if isinstance(statement, For):
                    del self.ranges[statement.var]
        return written

    def _loop(self, loop: For) -> None:
        self._known(loop, [loop.low, loop.high])
        if loop.step < 1:
            raise _fail(loop, f"step {loop.step} is below 1", "count upwards")
        if loop.var in self.ranges:
            raise _fail(loop, f"variable '{loop.var}' is already in use", "rename it")
        low, high = bounds(loop.low, self.ranges), bounds(loop.high, self.ranges)
        self.ranges[loop.var] = Interval(low.low, max(low.low, high.high - 1))

    def _declare(self, statement: Alloc) -> None:
        buffer = statement.buffer
        tensors = {tensor.name for tensor in self.kernel.tensors}
        if buffer.name in self.buffers or buffer.name in tensors:
            raise _fail(statement, f"'{buffer.name}' is declared twice", "rename one")
        if buffer.space not in SPACES or buffer.space == "GM":
            raise _fail(statement, f"unknown space '{buffer.space}'", f"on-chip spaces: {', '.join(SPACES[1:])}")
        if (buffer.space == "UB") != (self.name == "aiv"):
            raise _fail(statement, f"an {self.name.upper()} has no {buffer.space}", "declare it in the other part")
        if buffer.fmt not in FORMATS:
            raise _fail(statement, f"unknown format '{buffer.fmt}'", f"formats: {', '.join(FORMATS)}")
        if min(buffer.shape) < 1 or buffer.ring < 1:
            raise _fail(statement, "sizes and ring depth must be at least 1", "enlarge them")
        if buffer.address is not None and buffer.space != "UB":
            raise _fail(statement, f"'at' pins a buffer in UB, this one is in {buffer.space}", "leave out 'at'")
        self.buffers[buffer.name] = buffer

    def _known(self, statement: Statement, exprs: Iterable[Expr]) -> None:
        for expr in exprs:
            unknown = sorted(free_vars(expr) - set(self.ranges))
            if unknown:
                raise _fail(statement, f"'{expr}' reads '{unknown[0]}', which is no loop variable here",
                            f"variables here: {', '.join(self.ranges)}")

    # Operations

    def _operation(self, op: Op, written: frozenset[str]) -> frozenset[str]:
        if op.kind not in OPS:
            raise _fail(op, f"unknown operation '{op.kind}'", f"operations: {', '.join(OPS)}")
        definition = OPS[op.kind]
        if len(op.ins) != definition.inputs or (op.out is not None) != definition.has_output:
            raise _fail(op, f"'{op.kind}' takes {definition.inputs} inputs and "
                        f"{'an' if definition.has_output else 'no'} output", "change the operands")
        for key, value in op.attrs:
            if key not in definition.attrs:
                known = ", ".join(definition.attrs) or "none"
                raise _fail(op, f"'{op.kind}' has no attribute '{key}'", f"its attributes: {known}")
            if isinstance(value, Expr):
                self._known(op, [value])
        slices = [item for item in (op.out, *op.ins) if item is not None]
        for item in slices:
            self._slice(op, item)
        if op.kind in ("signal", "wait"):
            self._signal(op)
        token = EQUAL.set(lambda a, b: simplify(a - b, self.ranges) == Const(0))
        try:
            definition.check(op, self.chip)
        finally:
            EQUAL.reset(token)
        pipe = definition.pipe(op, self.chip)
        if pipe not in PIPES[self.name.upper()]:
            raise _fail(op, f"pipe {pipe} is not on the {self.name.upper()} (it has {', '.join(PIPES[self.name.upper()])})",
                        "move it to the other part")
        if op.kind == "mmad":
            self._count_k(op)
        for item in op.ins:
            self._initialised(op, item, written)
        if op.out is None:
            return written
        if definition.accumulates and bounds(op.attr_expr("accumulate", 0), self.ranges).low > 0:
            self._initialised(op, op.out, written)
        return written | {op.out.of.name}

    def _slice(self, op: Op, item: Slice) -> None:
        of = item.of
        if isinstance(of, Buffer) and self.buffers.get(of.name) != of:
            raise _fail(op, f"buffer '{of.name}' is not declared in a block around this statement", "declare it first")
        if isinstance(of, Tensor) and of not in self.kernel.tensors:
            raise _fail(op, f"tensor '{of.name}' is not declared", "declare it in the kernel")
        if len(item.starts) != len(of.shape):
            raise _fail(op, f"'{item}' has {len(item.starts)} ranges, '{of.name}' {len(of.shape)} dimensions", "give one each")
        self._known(op, (*item.starts, *item.sizes))
        for axis, (start, size, extent) in enumerate(zip(item.starts, item.sizes, of.shape, strict=True)):
            low, end = -upper_bound(0 - start, self.ranges), upper_bound(start + size, self.ranges)
            if low < 0 or end > extent:
                low, end = self._exact_reach(op, start, size)
            if low < 0 or end > extent:
                raise _fail(op, f"'{item}' reaches {low} .. {end} along dimension {axis} of size {extent}",
                            "shrink the range, or cut the ragged end with min()")
        if isinstance(of, Tensor) and of.space != "GM":
            self._own_part(op, item)
        if item.bits < 8 and any(bounds(expr, self.ranges).low % 2 for expr in (item.starts[-1],)):
            raise _fail(op, f"'{item}' starts in the middle of a byte", f"start at an even {of.fmt} element")

    def _own_part(self, op: Op, item: Slice) -> None:
        """What lies in a core's memory is reached from its own group only, and from an AIV only its own UB."""
        own = [Var("core")] + ([Var("sub")] if item.space == "UB" and self.name == "aiv" else [])
        if [simplify(start, self.ranges) for start in item.starts[: len(own)]] != [simplify(var, self.ranges) for var in own]:
            raise _fail(op, f"'{item}' lies in {item.space} of other cores", f"start it at {', '.join(map(str, own))}")

    def _exact_reach(self, op: Op, start: Expr, size: Expr) -> tuple[int, int]:
        """Lowest start and highest end over the iterations that run, where the bounds alone cannot tell."""
        low, end = 0, 0
        for count, env in enumerate(_iterations(self.kernel, self.name, self.path, free_vars(start) | free_vars(size))):
            if count == _MOST_POINTS:
                raise _fail(op, "its ranges depend on too many variables to be checked", "simplify the index expressions")
            at, extent = evaluate(start, env), evaluate(size, env)
            if extent > 0:
                low, end = min(low, at), max(end, at + extent)
        return low, end

    def _signal(self, op: Op) -> None:
        name, pipe = str(op.attr("name", "?")), str(op.attr("pipe", "?"))
        if name not in self.signals:
            raise _fail(op, f"unknown signal '{name}'", f"signals: {', '.join(self.signals) or 'none'}")
        kind = self.signals[name].kind
        sender, receiver = DIRECTIONS.get(kind, (self.name, self.name))
        if self.name != (sender if op.kind == "signal" else receiver):
            raise _fail(op, f"signal '{name}' goes from {sender} to {receiver}", "turn it round or move the statement")
        if pipe not in PIPES[self.name.upper()] or pipe == "S":
            raise _fail(op, f"no pipe '{pipe}' on the {self.name.upper()}",
                        f"pipes: {', '.join(PIPES[self.name.upper()][1:])}")

    def _initialised(self, op: Op, item: Slice, written: frozenset[str]) -> None:
        if isinstance(item.of, Buffer) and item.of.name not in written:
            raise _fail(op, f"reads buffer '{item.of.name}' before anything has written it", "fill it first")

    # Capacity and range

    def _capacity(self) -> None:
        """Buffers of a phase lie side by side with all their slots; phases follow each other in the same memory."""
        shared = [t for t in self.kernel.tensors if t.space != "GM" and (t.space == "UB") == (self.name == "aiv")]
        for allocs in phases(self.kernel, self.block):
            phase: dict[str, list[Buffer]] = defaultdict(list)
            for alloc in allocs:
                phase[alloc.buffer.space].append(alloc.buffer)
            for tensor in shared:
                phase[tensor.space] += []
            for space, buffers in phase.items():
                if space not in SPACES or space == "GM":
                    continue
                unit, capacity = self.chip.alignment.of(space), self.chip.buffers.capacity(space)
                sizes = {b.name: b.ring * round_up(b.slot_bytes, unit) for b in buffers if b.fmt in FORMATS}
                sizes |= {t.name: round_up(t.bytes_per_core, unit) for t in shared if t.space == space}
                total = sum(sizes.values())
                if total > capacity:
                    parts = " + ".join(f"{name} {size}" for name, size in sizes.items())
                    raise KernelError(
                        f"kernel '{self.kernel.name}' needs {total} bytes of {space} on each {self.name.upper()} ({parts}), "
                        f"{total - capacity} more than the {capacity} bytes of '{self.chip.name}'; lower tile sizes or ring "
                        f"depths"
                    )

    def _count_k(self, op: Op) -> None:
        """An int32 accumulator must hold the longest sum that can run into one ring slot, at the formats' extremes."""
        assert op.out is not None
        limit = _INT32_MAX // 2 ** (op.ins[0].bits + op.ins[1].bits - 2)
        if op.out.fmt != "int32":
            return
        total = _summed_k(_owner(self.block, op.out.of.name), op, self.ranges)
        if total > limit:
            raise _fail(op, f"a sum over K={total} can leave int32 (safe up to {limit})", "split K")


def _owner(block: Block, buffer: str) -> Block:
    """The block that declares ``buffer``."""
    for statement in block:
        if isinstance(statement, Alloc) and statement.buffer.name == buffer:
            return block
        if isinstance(statement, For | When) and any(a.buffer.name == buffer for a in _allocs(statement.body)):
            return _owner(statement.body, buffer)
    return ()


def _summed_k(block: Block, op: Op, ranges: Mapping[str, Interval]) -> int:
    """K that ``op`` runs over in one execution of ``block``: exact for loops over constants, else an upper bound."""
    for statement in block:
        if statement is op:
            return max(0, upper_bound(op.ins[0].cols, ranges))
        if isinstance(statement, When) and any(item is op for item in operations(statement.body)):
            return _summed_k(statement.body, op, ranges)
        if isinstance(statement, For) and any(item is op for item in operations(statement.body)):
            low, high = bounds(statement.low, ranges).low, upper_bound(statement.high, ranges)
            values = range(low, high, statement.step)
            if len(values) > _EXACT_TRIPS:
                inside = {**ranges, statement.var: Interval(low, high)}
                return len(values) * _summed_k(statement.body, op, inside)
            return sum(_summed_k(statement.body, op, {**ranges, statement.var: Interval(v, v)}) for v in values)
    return 0


#: Ranges that bounds cannot settle are checked iteration by iteration, up to this many.
_MOST_POINTS = 500_000


def _iterations(kernel: Kernel, part: str, path: list[For | When], wanted: frozenset[str]) -> Iterator[dict[str, int]]:
    """Values of the wanted variables, and of those that decide whether an iteration runs, over the loops of ``path``."""
    for item in reversed(path):
        if isinstance(item, When):
            wanted |= free_vars(item.condition)
        elif item.var in wanted:
            wanted |= free_vars(item.low) | free_vars(item.high)
    cores = range(kernel.cores) if "core" in wanted else range(1)
    subs = range(kernel.aiv_per_core) if part == "aiv" and "sub" in wanted else range(1)
    for core in cores:
        for sub in subs:
            yield from _inner(path, wanted, {"core": core, "sub": sub})


def _inner(path: list[For | When], wanted: frozenset[str], env: dict[str, int]) -> Iterator[dict[str, int]]:
    if not path:
        yield env
        return
    item, rest = path[0], path[1:]
    if isinstance(item, When):
        if evaluate(item.condition, env):
            yield from _inner(rest, wanted, env)
    elif item.var in wanted:
        for value in range(evaluate(item.low, env), evaluate(item.high, env), item.step):
            yield from _inner(rest, wanted, {**env, item.var: value})
    else:
        yield from _inner(rest, wanted, env)


#: Loops up to this long are summed iteration by iteration.
_EXACT_TRIPS = 4096


def _allocs(block: Block) -> Iterable[Alloc]:
    for statement in block:
        if isinstance(statement, Alloc):
            yield statement
        elif isinstance(statement, For | When):
            yield from _allocs(statement.body)


#: Part that raises and part that awaits each kind of directed signal.
DIRECTIONS = {"aic_to_aiv": ("aic", "aiv"), "aiv_to_aic": ("aiv", "aic")}


def _check_signals(kernel: Kernel) -> None:
    """Every signal is waited for as often as it is raised, on every core: a surplus would outlive the kernel."""
    flow = _Flow()
    for signal in kernel.signals:
        for core in range(kernel.cores):
            if signal.kind in DIRECTIONS:
                sender, receiver = DIRECTIONS[signal.kind]
                raised = flow.per_unit(kernel, sender, "signal", signal.name, core) or {0}
                awaited = flow.per_unit(kernel, receiver, "wait", signal.name, core) or {0}
            else:
                # A part may stay away from a barrier, or only wait for it.
                raised = flow.both_parts(kernel, "signal", signal.name, core) or {0}
                awaited = flow.both_parts(kernel, "wait", signal.name, core) or {0}
            if len(raised | awaited) > 1:
                raise KernelError(
                    f"signal '{signal.name}' is raised {_times(raised)} and waited for {_times(awaited)} on core {core}; "
                    f"make both equal (a ring hands back its last slots after the loop)"
                )


def _times(counts: set[int]) -> str:
    return " or ".join("never" if not count else f"{count} times" for count in sorted(counts))


class _Flow:
    """How often statements are executed; what control flow reads is worked out once for each block."""

    def __init__(self) -> None:
        self._reads: dict[tuple[int, str], bool] = {}
        self._holds: dict[tuple[int, str, str], bool] = {}

    def both_parts(self, kernel: Kernel, kind: str, name: str, core: int) -> set[int]:
        return self.per_unit(kernel, "aic", kind, name, core) | self.per_unit(kernel, "aiv", kind, name, core)

    def per_unit(self, kernel: Kernel, part: str, kind: str, name: str, core: int) -> set[int]:
        """How often each unit of a core's part executes that statement; empty where the part has no such statement."""
        block = kernel.part(part)
        if not self._has(block, kind, name):
            return set()
        subs = range(kernel.aiv_per_core if part == "aiv" else 1)
        return {self._count(block, kind, name, {"core": core, "sub": sub}) for sub in subs}

    def _has(self, block: Block, kind: str, name: str) -> bool:
        key = (id(block), kind, name)
        if key not in self._holds:
            self._holds[key] = any(op.kind == kind and op.attr("name", "") == name for op in operations(block))
        return self._holds[key]

    def _count(self, block: Block, kind: str, name: str, env: dict[str, int]) -> int:
        total = 0
        for statement in block:
            if isinstance(statement, Op):
                total += statement.kind == kind and statement.attr("name") == name
            elif isinstance(statement, For | When):
                if not self._has(statement.body, kind, name):
                    continue
                if isinstance(statement, When):
                    total += self._count(statement.body, kind, name, env) if evaluate(statement.condition, env) else 0
                    continue
                depends = self._depends(statement.body, statement.var)
                if _is_value(statement) and not depends:
                    total += self._count(statement.body, kind, name, env)
                    continue
                values = range(evaluate(statement.low, env), evaluate(statement.high, env), statement.step)
                if depends:
                    total += sum(self._count(statement.body, kind, name, {**env, statement.var: v}) for v in values)
                elif values:
                    total += len(values) * self._count(statement.body, kind, name, {**env, statement.var: values[0]})
        return total

    def _depends(self, block: Block, var: str) -> bool:
        """Whether the control flow of a block reads ``var``."""
        key = (id(block), var)
        if key not in self._reads:
            self._reads[key] = any(self._reads_in(item, var) for item in block if isinstance(item, For | When))
        return self._reads[key]

    def _reads_in(self, statement: For | When, var: str) -> bool:
        if self._depends(statement.body, var):
            return True
        if isinstance(statement, When):
            return var in free_vars(statement.condition)
        if var not in free_vars(statement.low) | free_vars(statement.high):
            return False
        # A loop that only gives a value a name runs once, whatever the value is.
        return not _is_value(statement) or self._depends(statement.body, statement.var)


def _is_value(loop: For) -> bool:
    """Whether a loop runs exactly once, for one value: ``for v in value .. value + 1``."""
    high = loop.high
    return loop.step == 1 and isinstance(high, Binary) and high.op == "+" and high.right == Const(1) and (
        high.left is loop.low or high.left == loop.low)
