"""The parser: text to kernel, the exact inverse of :mod:`msdsim.ir.printer`.

A small recursive-descent parser over one list of tokens; the grammar is in :mod:`msdsim.ir.kernel`.  Every error gives the
line, what stands there and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from msdsim.errors import KernelError
from msdsim.ir.expr import FUNCTIONS, Const, Expr, free_vars, substitute
from msdsim.ir.kernel import (
    SHARED_SPACES,
    SIGNALLING,
    Alloc,
    AttrValue,
    Block,
    Buffer,
    Comment,
    Extent,
    For,
    Kernel,
    Layout,
    Let,
    Op,
    Role,
    Signal,
    SignalKind,
    Slice,
    Statement,
    Tensor,
    When,
    whole,
)
from msdsim.ir.ops import OPS
from msdsim.ir.parse_expr import ExpressionParser, OpenBlock
from msdsim.ir.tokens import PAGE, Token, nearest, tokens

#: Blocks inside blocks, and statements of one kernel, at most.
MOST_NESTED, MOST_STATEMENTS = 64, 20_000
#: Lines of the printed text come in this order, whatever the order in the file is.
_KERNEL, _LET, _CORES, _TENSOR, _SIGNAL, _AIC, _AIV, _END = range(8)
_WORDS = ("buffer", "for", "when", "let")


def parse_kernel(text: str, params: Mapping[str, int] | None = None) -> Kernel:
    """The kernel that ``text`` describes, with these values of its params; KernelError names the line and what was expected
    there."""
    words, comments = tokens(text)
    return replace(_Parser(words, comments, params or {}).kernel(), source=text)


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


#: What users write who come from other languages, and what it is here.
_ELSEWHERE = {"matmul": "mmad", "gemm": "mmad", "dot": "mmad", "load": "copy", "store": "copy", "move": "copy", "set_flag":
              "signal", "wait_flag": "wait", "if": "when", "alloc": "buffer"}


def _meant(word: str) -> str:
    return f"; did you mean '{_ELSEWHERE[word]}'?" if word in _ELSEWHERE else ""


def _one_of(choices: list[int]) -> str:
    *first, last = map(str, choices)
    return f"{', '.join(first)} or {last}" if first else last


class _Parser(ExpressionParser):
    def __init__(self, words: list[Token], comments: list[tuple[int, Token]], params: Mapping[str, int]) -> None:
        super().__init__(words)
        self.comments, self.params = comments, params
        self.names: dict[str, tuple[Tensor | Buffer, int]] = {}
        #: Section and first word of every line of the printed text.
        self.lines: list[tuple[int, int]] = []
        self.section = _KERNEL
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

    # Kernel

    def kernel(self) -> Kernel:
        self.begins(_KERNEL)
        self.open_block("kernel", "the kernel", named=True)
        name, lets = self.tokens[self.at - 2].text, []
        cores: tuple[int, int] | None = None
        cores_line = 0
        tensors, signals = [], []
        while self.next.text in ("let", "param", "cores", "tensor", "signal"):
            line = self.next.line
            if self.next.text in ("let", "param"):
                self.begins(_LET)
                lets.append(self.let(line) if self.next.text == "let" else self.param(line))
                self.constant(lets[-1])
            elif self.next.text == "cores":
                self.begins(_CORES)
                if cores is not None:
                    self.fail("only one 'cores'")
                cores_line = line
                self.at += 1
                groups = self.extent()
                self.expect("x")
                cores = groups, self.extent()
            elif cores is None:
                self.fail("'cores'")
            elif self.next.text == "tensor":
                self.begins(_TENSOR)
                tensors.append(self.tensor())
            else:
                self.begins(_SIGNAL)
                signals.append(self.signal())
        if cores is None:
            self.fail("'cores'")
        parts: dict[str, Block] = {"aic": (), "aiv": ()}
        shared = dict(self.names)
        while not self.close_block(_END):
            part = self.one_of(("aic", "aiv"))
            if parts[part]:
                self.at -= 1
                self.fail(f"only one '{part}' part")
            self.at -= 1
            self.section, self.names = (_AIC if part == "aic" else _AIV), dict(shared)
            self.begins(self.section)
            self.at += 1
            parts[part] = self.block(f"the part '{part}'", self.tokens[self.at - 1])
        if self.next.kind != "end":
            self.fail("nothing after the kernel", self.odd)
        return Kernel(name, *cores, tuple(tensors), tuple(signals), parts["aic"], parts["aiv"], tuple(lets), self.placed(),
                      cores_line)

    def param(self, line: int) -> Let:
        """``param NAME = N in [N, ...]``: a number that whoever runs the kernel may choose among these."""
        self.expect("param")
        name = self.take("name", "a name")
        self.expect("=")
        value = self.number()
        if not self.accept("in"):
            self.fail("'in' and the values that it may take, such as in [64, 128]")
        self.expect("[")
        choices = [self.number()]
        while self.accept(","):
            choices.append(self.number())
        self.expect("]")
        twice = [choice for number, choice in enumerate(choices) if choice in choices[:number]]
        if twice:
            self.error(f"param '{name}' may take {twice[0]} twice; leave one out", line)
        value = self.params.get(name, value)
        if value not in choices:
            self.error(f"param '{name}' takes {_one_of(choices)}, not {value}", line)
        return Let(name, Const(value), line, tuple(choices))

    def constant(self, let: Let) -> None:
        """A kernel's own name stands for a number."""
        value = substitute(let.value, self.values)
        if not isinstance(value, Const):
            self.error(f"'{let.name}' reads '{min(free_vars(value))}', but names that a kernel gives outside of its parts are "
                       f"numbers; put the 'let' into the part", let.line)
        if let.name in self.values:
            self.error(f"'{let.name}' is already in use; rename it", let.line)
        self.values[let.name] = value

    def placed(self) -> tuple[Comment, ...]:
        """The comments with the lines of the printed text that they belong to."""
        begins = [word for _, word in sorted(self.lines, key=lambda line: line[0])]
        numbers = {word: number for number, word in enumerate(begins)}
        ordered = sorted(numbers)
        found = []
        for before, comment in self.comments:
            if comment.indent < 0:
                found.append(Comment(numbers[max(word for word in ordered if word < before)], comment.text, True))
            else:
                later = [word for word in ordered if word >= before]
                found.append(Comment(numbers[later[0]] if later else len(numbers), comment.text, False))
        return tuple(found)

    def tensor(self) -> Tensor:
        line = self.next.line
        self.expect("tensor")
        name = self.take("name", "the tensor's name")
        self.expect(":")
        fmt = self.take("name", "a format")
        self.expect("[")
        shape = [self.extent()]
        while self.accept(","):
            shape.append(self.extent())
        self.expect("]")
        role = cast(Role, self.one_of(get_args(Role)))
        space = self.one_of(SHARED_SPACES) if self.next.text in SHARED_SPACES else "GM"
        beside = 1
        if self.accept("beside"):
            beside = self.extent()
            if len(shape) != 3 or space != "GM" or shape[0] % beside:
                self.fail(f"a whole number of groups of {beside} matrices in GM ('beside' needs rank 3)")
        layout: Layout = "nz" if self.accept("nz") else "nd"
        if layout == "nz" and (role != "in" or space != "GM" or beside > 1):
            self.fail("an input in GM whose matrices do not lie side by side ('nz' is how weights are stored)")
        tensor = Tensor(name, fmt, tuple(shape), role, space, beside, layout, line)
        self.declare(tensor, line)
        return tensor

    def signal(self) -> Signal:
        line = self.next.line
        self.expect("signal")
        name = self.take("name", "the signal's name")
        self.expect(":")
        return Signal(name, cast(SignalKind, self.one_of(get_args(SignalKind))), line)

    def declare(self, of: Tensor | Buffer, line: int) -> None:
        if of.name in self.names:
            first = self.names[of.name][1]
            self.error(f"'{of.name}' is declared a second time; the first one is in line {first}; rename one", line)
        self.names[of.name] = of, line

    # Statements

    def open_block(self, what: str, shown: str, named: bool = False) -> None:
        first = next(token for token in reversed(self.tokens[: self.at + 1]) if token.indent >= 0)
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
