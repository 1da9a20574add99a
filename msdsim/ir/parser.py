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
from msdsim.ir.expr import Const, free_vars, substitute
from msdsim.ir.kernel import (
    SHARED_SPACES,
    Block,
    Comment,
    Kernel,
    Layout,
    Let,
    Role,
    Signal,
    SignalKind,
    Tensor,
)
from msdsim.ir.parse_statements import StatementParser
from msdsim.ir.tokens import Token, tokens

#: Lines of the printed text come in this order, whatever the order in the file is.
_KERNEL, _LET, _CORES, _TENSOR, _SIGNAL, _AIC, _AIV, _END = range(8)


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


def _one_of(choices: list[int]) -> str:
    *first, last = map(str, choices)
    return f"{', '.join(first)} or {last}" if first else last


class _Parser(StatementParser):
    def __init__(self, words: list[Token], comments: list[tuple[int, Token]], params: Mapping[str, int]) -> None:
        super().__init__(words)
        self.comments, self.params = comments, params

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
