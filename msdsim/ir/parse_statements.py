"""Statements of a kernel's text: between :mod:`msdsim.ir.parse_expr` and :mod:`msdsim.ir.parser`."""

from __future__ import annotations

from msdsim.ir.expr import FUNCTIONS, Const, Expr, free_vars, substitute
from msdsim.ir.kernel import (
    SIGNALLING,
    Alloc,
    AttrValue,
    Block,
    Buffer,
    Extent,
    For,
    Let,
    Op,
    Slice,
    Statement,
    Tensor,
    Vf,
    When,
    whole,
)
from msdsim.ir.ops import OPS
from msdsim.ir.parse_expr import ExpressionParser, OpenBlock
from msdsim.ir.tokens import PAGE, Token, nearest

#: Blocks inside blocks, and statements of one kernel, at most.
MOST_NESTED, MOST_STATEMENTS = 64, 20_000
_WORDS = ("buffer", "for", "when", "vf", "let")


#: What users write who come from other languages, and what it is here.
_ELSEWHERE = {"matmul": "mmad", "gemm": "mmad", "dot": "mmad", "load": "copy", "store": "copy", "move": "copy", "set_flag":
              "signal", "wait_flag": "wait", "if": "when", "alloc": "buffer"}


def _meant(word: str) -> str:
    return f"; did you mean '{_ELSEWHERE[word]}'?" if word in _ELSEWHERE else ""


class StatementParser(ExpressionParser):
    """Reads statements and blocks of them; ``names`` has what is declared, ``values`` the kernel's named numbers."""

    def __init__(self, words: list[Token]) -> None:
        super().__init__(words)
        self.names: dict[str, tuple[Tensor | Buffer, int]] = {}
        #: Section and first word of every line of the printed text.
        self.lines: list[tuple[int, int]] = []
        self.section = 0
        self.values: dict[str, Expr] = {}

    # Lines and sizes

    def begins(self, section: int) -> None:
        """The next word begins a line of the printed text."""
        self.lines.append((section, self.at))

    def extent(self, expected: str = "a whole number") -> int:
        """A number, or an expression of the kernel's named numbers."""
        if self.next.kind != "int" and self.next.text not in ("(", *FUNCTIONS, *self.values):
            self.fail(expected)
        begin = self.at
        written = self.expr()
        unknown = sorted(free_vars(written) - self.values.keys())
        if unknown:
            self.error(f"a size cannot depend on '{unknown[0]}'; it is a number, or made of names that the kernel itself gives "
                       f"with 'let'", self.tokens[begin].line)
        value = substitute(written, self.values)
        assert isinstance(value, Const)
        if value.value < 0:
            self.error(f"expected {expected}, found {value.value}", self.tokens[begin].line)
        return value.value if isinstance(written, Const) else Extent(value.value, written)

    def declare(self, of: Tensor | Buffer, line: int) -> None:
        if of.name in self.names:
            first = self.names[of.name][1]
            self.error(f"'{of.name}' is declared a second time; the first one is in line {first}; rename one", line)
        self.names[of.name] = of, line

    # Statements

    def open_block(self, what: str, shown: str, named: bool = False) -> None:
        first = next((token for token in reversed(self.tokens[: self.at + 1]) if token.indent >= 0), self.next)
        if named:
            self.expect(what)
            self.take("name", "the kernel's name")
        self.expect("{")
        self.open.append(OpenBlock(shown, self.tokens[self.at - 1].line, first.indent))
        if len(self.open) > MOST_NESTED:
            self.error(f"blocks are nested too deeply, more than {MOST_NESTED} inside each other", self.open[-1].line)

    def close_block(self, section: int) -> bool:
        if self.next.text != "}":
            return False
        self.begins(section)
        opened = self.open.pop()
        if not self.odd and self.next.indent >= 0 and self.next.indent != opened.indent:
            self.odd = (f"; the '}}' in line {self.next.line}, which closes {opened.what} of line {opened.line}, is indented "
                        f"otherwise: is one missing before it, or one too many?")
        self.at += 1
        return True

    def block(self, what: str, head: Token) -> Block:
        self.open_block(what, what)
        statements: list[Statement] = []
        while not self.close_block(self.section):
            if self.next.text in ("aic", "aiv") and self.tokens[self.at + 1].text == "{":
                self.error(f"'{self.next.text}' begins here, but {what} of line {self.open[-1].line} is still open; close it "
                           f"with '}}'{self.odd}")
            self.begins(self.section)
            statements.append(self.statement())
            if len(self.lines) > MOST_STATEMENTS:
                self.error(f"the kernel has more than {MOST_STATEMENTS} statements; use loops")
        return tuple(statements)

    def statement(self) -> Statement:
        token = self.next
        if self.accept("buffer"):
            return Alloc(self.buffer(token.line), token.line)
        if token.text == "let":
            return self.let(token.line)
        if self.accept("for"):
            var = self.take("name", "a loop variable")
            self.expect("in")
            low = self.expr()
            self.expect("..")
            high = self.expr()
            step = self.extent() if self.accept("step") else 1
            return For(var, low, high, step, self.block(f"the block 'for {var}'", token), token.line)
        if self.accept("when"):
            condition = self.expr()
            return When(condition, self.block("the block 'when'", token), token.line)
        if token.text == "vf":
            self.expect("vf")
            return Vf(Const(1), self.block("the block 'vf'", token), token.line)
        return self.operation(token.line)

    def let(self, line: int) -> Let:
        self.expect("let")
        name = self.take("name", "a name")
        self.expect("=")
        return Let(name, self.expr(), line)

    def buffer(self, line: int) -> Buffer:
        name = self.take("name", "the buffer's name")
        self.expect(":")
        space = self.take("name", "a memory space")
        fmt = self.take("name", "a format")
        self.expect("[")
        rows = self.extent()
        self.expect(",")
        cols = self.extent()
        self.expect("]")
        self.expect("ring")
        ring = self.extent()
        address = self.extent("a byte address") if self.accept("at") else None
        buffer = Buffer(name, space, fmt, (rows, cols), ring, address)
        self.declare(buffer, line)
        return buffer

    def operation(self, line: int) -> Op:
        word = self.next.text
        if word not in OPS:
            known = (*_WORDS, *OPS)
            self.fail("a statement: buffer, let, for, when or an operation",
                      _meant(word) or nearest(word, known) or f"; 'msdsim ir --ops' lists the operations ({PAGE})")
        kind = self.take("name", "an operation")
        if kind in SIGNALLING and self.next.text != "{":
            name = self.take("name", "the signal's name")
            self.expect("on")
            return Op(kind, None, (), (("name", name), ("pipe", self.take("name", "a pipe"))), line)
        out, ins = None, []
        if OPS[kind].has_output or self.tokens[self.at + 1].text == "[":
            out = self.slice()
            if self.accept("<-"):
                ins.append(self.slice())
                while self.accept(","):
                    ins.append(self.slice())
        attrs: list[tuple[str, AttrValue]] = []
        if self.accept("{"):
            attrs.append(self.attribute(kind))
            while self.accept(","):
                attrs.append(self.attribute(kind))
            self.expect("}")
        twice = [key for number, (key, _) in enumerate(attrs) if key in [other for other, _ in attrs[:number]]]
        if twice:
            self.error(f"attribute '{twice[0]}' is given twice; leave one out", line)
        return Op(kind, out, tuple(ins), tuple(attrs), line)

    def slice(self) -> Slice:
        line, name = self.next.line, self.take("name", "a tensor or buffer")
        if name not in self.names:
            self.at -= 1
            known = list(self.names)
            shown = f"{', '.join(known[:20]) or 'none'}{', ...' if len(known) > 20 else ''}"
            self.fail(f"a declared tensor or buffer (declared: {shown})", nearest(name, known))
        of = self.names[name][0]
        ranges: list[tuple[Expr, Expr]] = []
        if self.accept("["):
            ranges.append(self.range(of, 0))
            while self.accept(","):
                ranges.append(self.range(of, len(ranges)))
            self.expect("]")
            if len(ranges) != len(of.shape):
                self.error(f"'{name}' has {len(of.shape)} dimensions, {len(ranges)} ranges are given; give one each", line)
        else:
            ranges = [(Const(0), whole(extent)) for extent in of.shape]
        return Slice(of, tuple(start for start, _ in ranges), tuple(size for _, size in ranges))

    def range(self, of: Tensor | Buffer, axis: int) -> tuple[Expr, Expr]:
        if self.accept(":"):
            if self.next.text in (",", "]"):
                return Const(0), whole(of.shape[min(axis, len(of.shape) - 1)])
            return Const(0), self.expr()
        start = self.expr()
        return start, self.expr() if self.accept("+:") else Const(1)

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
