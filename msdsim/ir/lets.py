"""Names for index expressions, put in where a kernel is worked on (:mod:`msdsim.ir.tidy` finds good ones where it is written).

``plain`` is what every later step works on: no names, every expression in its simplest form, so that two spellings of one size
are one size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from msdsim.errors import KernelError
from msdsim.ir.expr import Binary, Const, Expr, Interval, free_vars, substitute
from msdsim.ir.kernel import Alloc, Block, Extent, For, Kernel, Let, Op, Slice, Statement, When, copied
from msdsim.ir.printer import statement_text
from msdsim.ir.ranges import Ranges, simplify
from msdsim.moved import old_names

#: Operators and operands that an expression may have once its names are put in.
MOST_TERMS = 2000

Change = Callable[[Expr], Expr]


def plain(kernel: Kernel) -> Kernel:
    """The kernel without names and with simple expressions; the same object for the same kernel.  KernelError where a name is
    given twice or where an expression grows too large."""
    known: Kernel | None = kernel.__dict__.get("_plain")
    if known is None:
        source = kernel.__dict__.get("_source")  # of a kernel that was built, not read
        known = simplified(inlined(kernel)) if source is None else source.plain()
        known.__dict__["_plain"] = kernel.__dict__["_plain"] = known
    return known


def unnamed(kernel: Kernel) -> Kernel:
    """The kernel without names but with its expressions as they were written, for who needs :func:`plain` only to run it."""
    source = kernel.__dict__.get("_source")
    found = inlined(kernel if source is None else source.written)
    found.__dict__["_plain"] = found
    return found


def changed(statement: Statement, change: Change) -> Statement:
    """A statement with its own expressions changed (those of its body stay); the same object where nothing changes."""
    if isinstance(statement, Op):
        return _changed_op(statement, change)
    if isinstance(statement, Let):
        value = change(statement.value)
        return statement if value is statement.value else copied(statement, value=value)
    if isinstance(statement, For):
        low, high = change(statement.low), change(statement.high)
        same = low is statement.low and high is statement.high
        return statement if same else copied(statement, low=low, high=high)
    if isinstance(statement, When):
        condition = change(statement.condition)
        return statement if condition is statement.condition else copied(statement, condition=condition)
    return statement


def _changed_op(op: Op, change: Change) -> Op:
    out = None if op.out is None else _changed_slice(op.out, change)
    ins = tuple(_changed_slice(item, change) for item in op.ins)
    attrs = tuple((key, change(value) if isinstance(value, Expr) else value) for key, value in op.attrs)
    if out is op.out and all(a is b for a, b in zip(ins, op.ins, strict=True)) and attrs == op.attrs:
        return op
    if "_shown" in op.__dict__:
        return copied(op, out=out, ins=ins, attrs=attrs)
    return copied(op, out=out, ins=ins, attrs=attrs, written=op.written or op)


def _changed_slice(item: Slice, change: Change) -> Slice:
    starts, sizes = tuple(map(change, item.starts)), tuple(map(change, item.sizes))
    same = all(a is b for a, b in zip((*starts, *sizes), (*item.starts, *item.sizes), strict=True))
    return item if same else Slice(item.of, starts, sizes)


# Putting names in


def inlined(kernel: Kernel) -> Kernel:
    """The kernel with every name replaced by what it stands for, and without comments."""
    inliner = _Inliner()
    known: dict[str, Expr] = {}
    for let in kernel.lets:
        known[let.name] = substitute(let.value, known)
    taken = {"core", "sub", *known}
    tensors = kernel.tensors
    if known:
        tensors = tuple(replace(tensor, shape=tuple(map(int, tensor.shape))) for tensor in tensors)
    return Kernel(kernel.name, int(kernel.cores), int(kernel.aiv_per_core), tensors, kernel.signals,
                  inliner.block(kernel.aic, known, taken), inliner.block(kernel.aiv, known, taken), line=kernel.line)


class _Inliner:
    """Puts names in; expressions that occur again are worked out once."""

    def block(self, block: Block, known: dict[str, Expr], taken: set[str]) -> Block:
        known, taken = dict(known), set(taken)
        found: list[Statement] = []
        done: dict[Expr, Expr] = {}
        line = 0

        def change(expr: Expr) -> Expr:
            if free_vars(expr).isdisjoint(known):
                return expr
            if expr not in done:
                done[expr] = substitute(expr, known)
                self._limit(expr, done[expr], line)
            return done[expr]

        for statement in block:
            line = statement.line
            if isinstance(statement, Alloc):
                found.append(_numeric(statement))
                continue
            if isinstance(statement, Let):
                self._new(statement.name, taken, statement)
                known[statement.name] = change(statement.value)
                done = {}
                continue
            changed_one = changed(statement, change)
            if isinstance(statement, For):
                self._new(statement.var, set(taken), statement)
            if isinstance(changed_one, For):
                changed_one = copied(changed_one, step=int(changed_one.step))
            if isinstance(changed_one, For | When):
                inner = taken | {changed_one.var} if isinstance(changed_one, For) else taken
                changed_one = copied(changed_one, body=self.block(changed_one.body, known, inner))
            found.append(changed_one)
        return tuple(found)

    def _new(self, name: str, taken: set[str], statement: Statement) -> None:
        if name in taken:
            where = f"line {statement.line}: " if statement.line else ""
            raise KernelError(f"{where}'{statement_text(statement)}': '{name}' is already in use here; rename it")
        taken.add(name)

    def _limit(self, written: Expr, full: Expr, line: int) -> None:
        if _terms(full, {}) > MOST_TERMS:
            raise KernelError(f"line {line}: '{written}' has more than {MOST_TERMS} terms once its names are put in; make it "
                              f"simpler")


def _numeric(alloc: Alloc) -> Alloc:
    """A declaration with plain numbers for its named ones."""
    b = alloc.buffer
    if not any(isinstance(value, Extent) for value in (*b.shape, b.ring, b.address)):
        return alloc
    address = None if b.address is None else int(b.address)
    return replace(alloc, buffer=replace(b, shape=(int(b.shape[0]), int(b.shape[1])), ring=int(b.ring), address=address))


def _terms(expr: Expr, known: dict[int, int]) -> int:
    """Operators and operands of an expression whose parts may be shared; each part is counted once and used often."""
    if not isinstance(expr, Binary):
        return 1
    if id(expr) not in known:
        known[id(expr)] = min(MOST_TERMS + 1, 1 + _terms(expr.left, known) + _terms(expr.right, known))
    return known[id(expr)]


# Simple expressions


def simplified(kernel: Kernel) -> Kernel:
    """The kernel with every expression in its simplest form."""
    if kernel.__dict__.get("_plain") is kernel:
        return kernel
    return replace(kernel, aic=_simple_block(kernel.aic, part_ranges(kernel, "aic")),
                   aiv=_simple_block(kernel.aiv, part_ranges(kernel, "aiv")))


def part_ranges(kernel: Kernel, part: str) -> Ranges:
    """What a part's index expressions may read outside of all loops."""
    ranges = {"core": Interval(0, max(0, kernel.cores - 1))}
    if part == "aiv":
        ranges["sub"] = Interval(0, max(0, kernel.aiv_per_core - 1))
    return Ranges(ranges)


def _simple_block(block: Block, ranges: Ranges) -> Block:
    return tuple(_simple_statement(statement, ranges) for statement in block)


def _simple_statement(statement: Statement, ranges: Ranges) -> Statement:
    if isinstance(statement, When):
        condition = simplify(statement.condition, ranges)
        # A decided condition stays as it is written: what it depends on is what the reader wants to know.
        shown = statement.condition if isinstance(condition, Const) else condition
        return copied(statement, condition=shown, body=_simple_block(statement.body, _where(ranges, shown)))
    found = changed(statement, lambda expr: simplify(expr, ranges))
    if isinstance(found, For):
        return copied(found, body=_simple_block(found.body, _inside(ranges, found)))
    return found


def _where(ranges: Ranges, condition: Expr) -> Ranges:
    try:
        return ranges.where(condition) if free_vars(condition) <= ranges.intervals.keys() else ranges
    except ZeroDivisionError:
        return ranges


def _inside(ranges: Ranges, loop: For) -> Ranges:
    """The scope of a loop's body; a loop that reads unknown names, which the verifier refuses, leaves its variable unknown."""
    try:
        if free_vars(loop.low) | free_vars(loop.high) <= ranges.intervals.keys():
            return ranges.inside(loop.var, loop.low, loop.high, loop.step)
    except ZeroDivisionError:
        pass
    return Ranges({name: interval for name, interval in ranges.intervals.items() if name != loop.var}, ranges.limits)


__getattr__ = old_names(__name__)
