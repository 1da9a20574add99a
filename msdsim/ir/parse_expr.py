"""Words and index expressions of a kernel's text: the lower half of :mod:`msdsim.ir.parser`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from msdsim.errors import KernelError
from msdsim.ir.expr import FUNCTIONS, PRECEDENCE, Binary, Const, Expr, Var, binary
from msdsim.ir.tokens import Token, nearest

#: Parentheses inside parentheses, or terms of one sum, at most.
MOST_DEEP = 100
_TOO_DEEP = f"the expression is nested too deeply, more than {MOST_DEEP} terms inside each other; name parts of it with 'let'"


@dataclass
class OpenBlock:
    """A block that is being read: what it is, where it began, how far it is indented."""

    what: str
    line: int
    indent: int


class ExpressionParser:
    """Takes words one by one; ``at`` is the next."""

    def __init__(self, words: list[Token]) -> None:
        self.tokens, self.at = words, 0
        self.open: list[OpenBlock] = []
        #: The first bracket whose indentation is not that of what it closes.
        self.odd = ""
        #: How deep expressions are, by ``id``; ``kept`` holds them so that an id stays that of one expression.
        self.depths: dict[int, int] = {}
        self.kept: list[Expr] = []
        self.nested = 0

    # Tokens

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def error(self, problem: str, line: int | None = None) -> NoReturn:
        raise KernelError(f"line {self.next.line if line is None else line}: {problem}")

    def fail(self, expected: str, hint: str = "") -> NoReturn:
        if self.next.kind == "end" and self.open:
            inner = self.open[-1]
            self.error(f"the text ends inside {inner.what} of line {inner.line}, which is still open; close it with "
                       f"'}}'{self.odd}")
        self.error(f"expected {expected}, found '{self.next.text[:40]}'{hint}")

    def accept(self, text: str) -> bool:
        if self.next.text == text and self.next.kind in ("symbol", "name"):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"'{text}'")

    def take(self, kind: str, expected: str) -> str:
        if self.next.kind != kind:
            self.fail(expected)
        self.at += 1
        return self.tokens[self.at - 1].text

    def number(self, expected: str = "a whole number") -> int:
        text = self.take("int", expected)
        return int(text, 16) if text[:2] in ("0x", "0X") else int(text)

    def one_of(self, options: tuple[str, ...]) -> str:
        if self.next.text not in options:
            self.fail(f"one of {', '.join(options)}", nearest(self.next.text, options))
        self.at += 1
        return self.tokens[self.at - 1].text

    # Expressions, loosest operators first

    def expr(self, level: int = 1) -> Expr:
        if level > max(PRECEDENCE.values()):
            return self.atom()
        left = self.expr(level + 1)
        while self.next.kind == "symbol" and PRECEDENCE.get(self.next.text) == level:
            self.at += 1
            op, line = self.tokens[self.at - 1].text, self.tokens[self.at - 1].line
            left = self.joined(op, left, self.expr(level + 1), line)
        return left

    def joined(self, op: str, left: Expr, right: Expr, line: int) -> Expr:
        if op in ("//", "%") and right == Const(0):
            self.error(f"'{left} {op} 0' divides by zero; a divisor must be above 0", line)
        found = binary(op, left, right)
        if isinstance(found, Const) and abs(found.value) >= 10**MOST_DEEP:
            self.error("this constant is too large", line)
        if isinstance(found, Binary):
            depth = 1 + max(self.depths.get(id(left), 0), self.depths.get(id(right), 0))
            if depth > MOST_DEEP:
                self.error(_TOO_DEEP, line)
            self.depths[id(found)] = depth
            self.kept.append(found)
        return found

    def atom(self) -> Expr:
        self.nested += 1
        if self.nested > MOST_DEEP:
            self.error(_TOO_DEEP)
        found = self.inner_atom()
        self.nested -= 1
        return found

    def inner_atom(self) -> Expr:
        line = self.next.line
        if self.accept("("):
            inner = self.expr()
            self.expect(")")
            return inner
        if self.accept("-"):
            return Const(-self.number())
        if self.next.kind == "int":
            return Const(self.number())
        name = self.take("name", "an index expression")
        if name in FUNCTIONS and self.accept("("):
            left = self.expr()
            self.expect(",")
            right = self.expr()
            self.expect(")")
            return self.joined(name, left, right, line)
        return Var(name)
