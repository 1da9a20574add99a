"""Good names for index expressions: what people read of a kernel that a program has written.

Each block begins with ``let`` for the expressions that it uses more than once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from msdsim.ir.expr import FUNCTIONS, Binary, Expr, Var, free_vars
from msdsim.ir.kernel import Alloc, Block, For, Kernel, Let, Op, Statement, When, copied
from msdsim.ir.lets import changed, simplified
from msdsim.ir.printer import statement_text

#: Lines longer than this have their expressions named even where that saves nothing.
_LONG_LINE = 108
_KEYWORDS = ("core", "sub", "let", "for", "in", "when", "vf", "buffer", "ring", "at", "step", "on", *FUNCTIONS)


def tidy(kernel: Kernel) -> Kernel:
    """The kernel with simple expressions, and with names for those that blocks use more than once."""
    return named(simplified(kernel))


def named(simple: Kernel) -> Kernel:
    """:func:`tidy` of a kernel whose expressions are simple already."""
    return _Namer(simple).run()


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
