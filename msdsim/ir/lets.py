"""Names for index expressions: putting them in where a kernel is worked on, and finding good ones where it is written.

``plain`` is what every later step works on: no names, every expression in its simplest form, so that two spellings of one size
are one size.  ``tidy`` is what people read: each block begins with ``let`` for the expressions that it uses more than once.
A built kernel has its readable text only once somebody asks for it (:class:`Source`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from threading import Lock
from typing import cast

from msdsim.errors import KernelError
from msdsim.ir.expr import FUNCTIONS, Binary, Const, Expr, Interval, Var, free_vars, substitute
from msdsim.ir.kernel import Alloc, Block, Extent, For, Kernel, Let, Op, Slice, Statement, When, copied, walk
from msdsim.ir.printer import number_lines, statement_text
from msdsim.ir.ranges import Ranges, simplify

#: Operators and operands that an expression may have once its names are put in.
MOST_TERMS = 2000
#: Lines longer than this have their expressions named even where that saves nothing.
_LONG_LINE = 108
_KEYWORDS = ("core", "sub", "let", "for", "in", "when", "buffer", "ring", "at", "step", "on", *FUNCTIONS)

Change = Callable[[Expr], Expr]


def plain(kernel: Kernel) -> Kernel:
    """The kernel without names and with simple expressions; the same object for the same kernel.  KernelError where a name is
    given twice or where an expression grows too large."""
    known: Kernel | None = kernel.__dict__.get("_plain")
    if known is None:
        source: Source | None = kernel.__dict__.get("_source")
        known = _simplified(inlined(kernel)) if source is None else source.plain()
        known.__dict__["_plain"] = kernel.__dict__["_plain"] = known
    return known


def built(written: Kernel) -> Kernel:
    """A kernel as its builder leaves it, which people will see as :func:`tidy` has it.

    What is written as one of the last kernels was is that kernel, with all that has been worked out about it.
    """
    names = tuple(tensor.name for tensor in written.tensors)
    key = written.name, len(written.aic), len(written.aiv), names, tuple(tensor.shape for tensor in written.tensors)
    alike = _RECENT.get(key, ())
    known = next((kernel for kernel in alike if kernel.__dict__["_source"].written == written), None)
    if known is not None:
        return known
    found = cast(Kernel, copied(written, _source=Source(written)))
    del found.__dict__["aic"], found.__dict__["aiv"]
    with _LOCK:
        _RECENT.pop(key, None)
        _RECENT[key] = (found, *alike)[:_MOST_ALIKE]
        if len(_RECENT) > _MOST_RECENT:
            del _RECENT[next(iter(_RECENT))]
    return found


#: The kernels built last, by what is quickly compared; the oldest go first.
_RECENT: dict[tuple[object, ...], tuple[Kernel, ...]] = {}
_MOST_RECENT, _MOST_ALIKE = 32, 8
#: Kernels may be built in several threads.
_LOCK = Lock()


class Source:
    """What a built kernel is made from, and its readable text when somebody wants to see it."""

    def __init__(self, written: Kernel) -> None:
        self.written = written

    @cached_property
    def readable(self) -> Kernel:
        """The tidy kernel with the lines of its text."""
        if any(isinstance(item, Let) for part in ("aic", "aiv") for item in walk(self.written.part(part))):
            return number_lines(tidy(self.written))
        return number_lines(_Namer(self.simple).run())

    @cached_property
    def simple(self) -> Kernel:
        """The kernel without names and with simple expressions."""
        return _simplified(inlined(self.written))

    @cached_property
    def statements(self) -> dict[str, list[Statement]]:
        """The readable statements of each part in their order, without names."""
        return {part: [item for item in walk(self.readable.part(part)) if not isinstance(item, Let)] for part in ("aic", "aiv")}

    def plain(self) -> Kernel:
        """:func:`plain`, its statements being those of the readable text when they are shown."""
        try:
            found = self.simple
        except KernelError:
            # Said with the lines of the text.
            return _simplified(inlined(self.readable))
        aic, aiv = (self._block(found.part(part), part, count()) for part in ("aic", "aiv"))
        return replace(found, aic=aic, aiv=aiv)

    def _block(self, block: Block, part: str, numbers: Iterator[int]) -> Block:
        found = []
        for statement in block:
            item = copied(statement, _shown=_Shows(self, part, next(numbers)))
            for later in ("line", "written"):
                item.__dict__.pop(later, None)
            if isinstance(item, For | When):
                item.__dict__["body"] = self._block(item.body, part, numbers)
            found.append(item)
        return tuple(found)


@dataclass(frozen=True)
class _Shows:
    """Finds a statement in the readable text."""

    source: Source
    part: str
    number: int

    def __call__(self) -> Statement:
        return self.source.statements[self.part][self.number]


def tidy(kernel: Kernel) -> Kernel:
    """The kernel with simple expressions, and with names for those that blocks use more than once."""
    return _Namer(_simplified(kernel)).run()


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


def _simplified(kernel: Kernel) -> Kernel:
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


# Finding names


@dataclass(eq=False)
class _Scope:
    """A block that binds a variable (or a part's own block), with the names it will get."""

    var: str
    depth: int
    outer: _Scope | None = None
    names: dict[Expr, str] = field(default_factory=dict)
    uses: Counter[Expr] = field(default_factory=Counter)
    role: dict[Expr, str] = field(default_factory=dict)

    def home(self, expr: Expr) -> _Scope:
        """The innermost scope that binds a variable of the expression, where its name belongs."""
        read, scope = free_vars(expr), self
        while scope.outer is not None and scope.var not in read:
            scope = scope.outer
        return scope


class _Namer:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.scopes: dict[int, _Scope] = {}
        self.order: list[_Scope] = []
        #: Length of the text of an expression.
        self.texts: dict[Expr, int] = {}
        self.taken = {*_KEYWORDS, *(tensor.name for tensor in kernel.tensors), *(signal.name for signal in kernel.signals)}
        for part in (kernel.aic, kernel.aiv):
            self.taken |= _names(part)

    def run(self) -> Kernel:
        return replace(self.kernel, aic=self._part(self.kernel.aic), aiv=self._part(self.kernel.aiv))

    def _part(self, block: Block) -> Block:
        self.order = []
        scope = self._scope("", 2, None)
        self._count(block, scope, 2)
        self._choose()
        return self._written(block, scope)

    def _scope(self, var: str, depth: int, outer: _Scope | None) -> _Scope:
        scope = _Scope(var, depth, outer)
        self.order.append(scope)
        return scope

    # Counting

    def _count(self, block: Block, scope: _Scope, depth: int) -> None:
        for statement in block:
            long = 2 * depth + len(statement_text(statement)) > _LONG_LINE
            for expr, role in _expressions(statement):
                self._use(expr, role, scope, long)
            if isinstance(statement, For):
                inner = self.scopes[id(statement)] = self._scope(statement.var, depth + 1, scope)
                self._count(statement.body, inner, depth + 1)
            elif isinstance(statement, When):
                self._count(statement.body, scope, depth + 1)

    def _use(self, expr: Expr, role: str, scope: _Scope, long: bool) -> None:
        if not isinstance(expr, Binary):
            return
        home = scope.home(expr)
        home.uses[expr] += 1
        home.role.setdefault(expr, role)
        if long and self._length(expr) > 12:
            home.role[expr] = f"long {role}"
        self._use(expr.left, "v", home, False)
        self._use(expr.right, "v", home, False)

    def _length(self, expr: Expr) -> int:
        if expr not in self.texts:
            self.texts[expr] = len(str(expr))
        return self.texts[expr]

    # Choosing

    def _choose(self) -> None:
        """The longest first: what a name stands for is then written once, and its parts occur that much less often."""
        found = [(scope, expr) for scope in self.order for expr in scope.uses]
        for scope, expr in sorted(found, key=lambda item: -self._length(item[1])):
            count, length = scope.uses[expr], self._length(expr)
            role = scope.role[expr]
            name = self._name(role.removeprefix("long "), scope, expr)
            saved = count * (length - len(name)) - (2 * scope.depth + len(f"let {name} = ") + length + 1)
            if count and (saved > 0 or role.startswith("long ")):
                scope.names[expr] = name
                self.taken.add(name)
                if count > 1:
                    assert isinstance(expr, Binary)
                    for part in (expr.left, expr.right):
                        self._less(part, count - 1, scope)

    def _less(self, expr: Expr, count: int, scope: _Scope) -> None:
        if isinstance(expr, Binary):
            home = scope.home(expr)
            home.uses[expr] -= count
            self._less(expr.left, count, home)
            self._less(expr.right, count, home)

    def _name(self, role: str, scope: _Scope, expr: Expr) -> str:
        read = free_vars(expr)
        what = scope.var or next((name for name in ("sub", "core") if name in read), "all")
        name = f"{role}_{what.replace('$', '_')}"
        number = 2
        while name in self.taken:
            name, number = f"{role}_{what}_{number}", number + 1
        return name

    # Writing

    def _written(self, block: Block, scope: _Scope, begins: bool = True) -> Block:
        found: list[Statement] = []
        if begins:
            # Small expressions first: what a larger one names is then known.
            for expr, name in sorted(scope.names.items(), key=lambda item: self._length(item[0])):
                found += self._lets(Let(name, self._named(expr, scope, True)), scope)
        for original in block:
            statement = changed(original, lambda expr: self._named(expr, scope))
            if isinstance(statement, Op) and statement.written is not None:
                statement = copied(statement, written=None)
            if isinstance(statement, For | When):
                inner = self.scopes.get(id(original), scope)
                statement = copied(statement, body=self._written(statement.body, inner, isinstance(statement, For)))
            found.append(statement)
        return tuple(found)

    def _lets(self, let: Let, scope: _Scope) -> list[Statement]:
        """A name in one line, or in several where what it stands for is long."""
        room = _LONG_LINE - 2 * scope.depth - len(f"let {let.name} = ")
        length = len(str(let.value))
        if length <= room:
            return [let]
        parts = [part for part in _parts(let.value) if len(str(part)) <= max(room, length // 2)]
        longest = max(parts, key=lambda part: len(str(part)))
        first = Let(self._name("v", scope, longest), longest)
        self.taken.add(first.name)
        return [*self._lets(first, scope), *self._lets(Let(let.name, _replaced(let.value, longest, Var(first.name))), scope)]

    def _named(self, expr: Expr, scope: _Scope, itself: bool = False) -> Expr:
        if not isinstance(expr, Binary):
            return expr
        home = scope.home(expr)
        if not itself and expr in home.names:
            return Var(home.names[expr])
        left, right = self._named(expr.left, home), self._named(expr.right, home)
        return expr if left is expr.left and right is expr.right else Binary(expr.op, left, right)


def _parts(expr: Expr) -> Iterator[Binary]:
    """What an expression is made of, without itself, as far as it has parts of its own."""
    for side in (expr.left, expr.right) if isinstance(expr, Binary) else ():
        if isinstance(side, Binary):
            yield side
            yield from _parts(side)


def _replaced(expr: Expr, part: Expr, by: Expr) -> Expr:
    if expr == part:
        return by
    if not isinstance(expr, Binary):
        return expr
    return Binary(expr.op, _replaced(expr.left, part, by), _replaced(expr.right, part, by))


def _names(block: Block) -> set[str]:
    found: set[str] = set()
    for statement in block:
        if isinstance(statement, Alloc):
            found.add(statement.buffer.name)
        elif isinstance(statement, Let):
            found.add(statement.name)
        elif isinstance(statement, For | When):
            found |= _names(statement.body) | ({statement.var} if isinstance(statement, For) else set())
    return found


def _expressions(statement: Statement) -> Iterator[tuple[Expr, str]]:
    """The expressions of a statement with what they say: where something starts, how much of it there is, or another value."""
    if isinstance(statement, Op):
        for item in (statement.out, *statement.ins):
            if item is not None:
                yield from ((start, "at") for start in item.starts)
                yield from ((size, "n") for size in item.sizes)
        yield from ((value, "v") for _, value in statement.attrs if isinstance(value, Expr))
    elif isinstance(statement, For):
        yield statement.low, "at"
        yield statement.high, "n"
    elif isinstance(statement, When):
        yield statement.condition, "v"
    elif isinstance(statement, Let):
        yield statement.value, "v"
