"""The parser: text to kernel, the exact inverse of :mod:`msdsim.ir.printer`.

A small recursive-descent parser over one list of tokens; the grammar is in :mod:`msdsim.ir.kernel`.  Every error gives the
line, what stands there and what was expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast, get_args

from msdsim.errors import KernelError
from msdsim.ir.expr import FUNCTIONS, PRECEDENCE, Const, Expr, Var, binary
from msdsim.ir.kernel import (
    SHARED_SPACES,
    Alloc,
    AttrValue,
    Block,
    Buffer,
    For,
    Kernel,
    Op,
    Role,
    Signal,
    SignalKind,
    Slice,
    Statement,
    Tensor,
    When,
)
from msdsim.ir.ops import OPS

_TOKEN = re.compile(r"""
    (?P<space>[ \t\r]+|\#[^\n]*)
  | (?P<newline>\n)
  | (?P<float>[+-]?(?:\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|inf\b|nan\b))
  | (?P<int>0[xX][0-9a-fA-F]+|\d+)
  | (?P<name>[A-Za-z_$][\w$]*)
  | (?P<symbol><-|\+:|\.\.|==|!=|<=|>=|//|[-+*%<>(){}\[\],:=])
""", re.VERBOSE)
_COMPARISONS = tuple(op for op, level in PRECEDENCE.items() if level == 1)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def parse_kernel(text: str) -> Kernel:
    """The kernel that ``text`` describes; KernelError names the line and what was expected there."""
    return _Parser(_tokens(text)).kernel()


def read_kernel(path: str | Path) -> Kernel:
    """The kernel in a ``.kir`` file."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise KernelError(f"kernel file '{path}' cannot be read: {err.__class__.__name__}; give a text file") from None
    try:
        return parse_kernel(text)
    except KernelError as err:
        raise KernelError(f"kernel file '{file.name}', {err}") from None


def _tokens(text: str) -> list[_Token]:
    found, at, line = [], 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise KernelError(f"line {line}: unexpected character '{text[at]}'; see the grammar of the text form")
        kind = str(match.lastgroup)
        # A range such as 0..8 is not the float 0. followed by .8
        if kind == "float" and text.startswith("..", at + len(match[0]) - 1):
            kind, piece = "int", match[0][:-1]
        else:
            piece = match[0]
        if kind == "newline":
            line += 1
        elif kind != "space":
            found.append(_Token(kind, piece, line))
        at += len(piece)
    return [*found, _Token("end", "end of file", line)]


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens, self.at = tokens, 0
        self.names: dict[str, Tensor | Buffer] = {}

    # Tokens

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def fail(self, expected: str) -> NoReturn:
        raise KernelError(f"line {self.next.line}: expected {expected}, found '{self.next.text}'")

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
            self.fail(f"one of {', '.join(options)}")
        self.at += 1
        return self.tokens[self.at - 1].text

    # Kernel

    def kernel(self) -> Kernel:
        self.expect("kernel")
        name = self.take("name", "the kernel's name")
        self.expect("{")
        self.expect("cores")
        cores = self.number()
        self.expect("x")
        aiv_per_core = self.number()
        tensors, signals = [], []
        while self.next.text in ("tensor", "signal"):
            if self.accept("tensor"):
                tensors.append(self.tensor())
            else:
                self.expect("signal")
                signal = self.take("name", "the signal's name")
                self.expect(":")
                signals.append(Signal(signal, cast(SignalKind, self.one_of(get_args(SignalKind)))))
        parts: dict[str, Block] = {"aic": (), "aiv": ()}
        while not self.accept("}"):
            part = self.one_of(("aic", "aiv"))
            if parts[part]:
                self.fail(f"only one '{part}' part")
            parts[part] = self.block()
        if self.next.kind != "end":
            self.fail("nothing after the kernel")
        return Kernel(name, cores, aiv_per_core, tuple(tensors), tuple(signals), parts["aic"], parts["aiv"])

    def tensor(self) -> Tensor:
        name = self.take("name", "the tensor's name")
        self.expect(":")
        fmt = self.take("name", "a format")
        self.expect("[")
        shape = [self.number()]
        while self.accept(","):
            shape.append(self.number())
        self.expect("]")
        role = cast(Role, self.one_of(get_args(Role)))
        space = self.one_of(SHARED_SPACES) if self.next.text in SHARED_SPACES else "GM"
        tensor = Tensor(name, fmt, tuple(shape), role, space)
        self.names[name] = tensor
        return tensor

    # Statements

    def block(self) -> Block:
        self.expect("{")
        statements = []
        while not self.accept("}"):
            statements.append(self.statement())
        return tuple(statements)

    def statement(self) -> Statement:
        line = self.next.line
        if self.accept("buffer"):
            return Alloc(self.buffer(), line)
        if self.accept("for"):
            var = self.take("name", "a loop variable")
            self.expect("in")
            low = self.expr()
            self.expect("..")
            high = self.expr()
            step = self.number() if self.accept("step") else 1
            return For(var, low, high, step, self.block(), line)
        if self.accept("when"):
            condition = self.expr()
            return When(condition, self.block(), line)
        return self.operation(line)

    def buffer(self) -> Buffer:
        name = self.take("name", "the buffer's name")
        self.expect(":")
        space = self.take("name", "a memory space")
        fmt = self.take("name", "a format")
        self.expect("[")
        rows = self.number()
        self.expect(",")
        cols = self.number()
        self.expect("]")
        self.expect("ring")
        ring = self.number()
        address = self.number("a byte address") if self.accept("at") else None
        buffer = Buffer(name, space, fmt, (rows, cols), ring, address)
        self.names[name] = buffer
        return buffer

    def operation(self, line: int) -> Op:
        if self.next.text not in OPS:
            self.fail(f"a statement (buffer, for, when, or one of {', '.join(OPS)})")
        kind = self.take("name", "an operation")
        out, ins = None, []
        if self.next.kind == "name" and self.tokens[self.at + 1].text == "[":
            out = self.slice()
            if self.accept("<-"):
                ins.append(self.slice())
                while self.accept(","):
                    ins.append(self.slice())
        attrs = []
        if self.accept("{"):
            attrs.append(self.attribute(kind))
            while self.accept(","):
                attrs.append(self.attribute(kind))
            self.expect("}")
        return Op(kind, out, tuple(ins), tuple(attrs), line)

    def slice(self) -> Slice:
        name = self.take("name", "a tensor or buffer")
        if name not in self.names:
            self.at -= 1
            self.fail(f"a declared tensor or buffer (declared: {', '.join(self.names) or 'none'})")
        self.expect("[")
        starts, sizes = [], []
        while True:
            starts.append(self.expr())
            self.expect("+:")
            sizes.append(self.expr())
            if not self.accept(","):
                break
        self.expect("]")
        return Slice(self.names[name], tuple(starts), tuple(sizes))

    def attribute(self, kind: str) -> tuple[str, AttrValue]:
        name = self.take("name", "an attribute")
        self.expect("=")
        form = OPS[kind].attrs.get(name)
        if form == "name":
            return name, self.take("name", "a name")
        if form == "float":
            negative = self.next.kind == "symbol" and self.accept("-")
            if self.next.kind not in ("float", "int"):
                self.fail("a number")
            value = float(self.number() if self.next.kind == "int" else self.take("float", "a number"))
            return name, -value if negative else value
        value_expr = self.expr()
        if form == "int" and isinstance(value_expr, Const):
            return name, value_expr.value
        return name, value_expr

    # Expressions, loosest operators first

    def expr(self, level: int = 1) -> Expr:
        if level > max(PRECEDENCE.values()):
            return self.atom()
        left = self.expr(level + 1)
        while self.next.kind in ("symbol", "float", "int") and self._operator(level):
            op = self.tokens[self.at - 1].text
            left = binary(op, left, self.expr(level + 1))
        return left

    def _operator(self, level: int) -> bool:
        if self.next.kind == "symbol" and PRECEDENCE.get(self.next.text) == level:
            self.at += 1
            return True
        return False

    def atom(self) -> Expr:
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
            return binary(name, left, right)
        return Var(name)
