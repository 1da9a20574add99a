"""The text form of a kernel: what users read and diff in a review, and the identity that golden schedules record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from msdsim.ir.kernel import Alloc, Block, Comment, For, Kernel, Let, Op, Slice, Statement, Vf, When, attr_text, copied
from msdsim.moved import old_names

_INDENT = "  "
Text = Callable[[Statement], str]


def print_kernel(kernel: Kernel) -> str:
    """Text of the kernel, comments included, ending in a newline."""
    lines = _lines(kernel, statement_text)
    return "\n".join(_with_comments(lines, kernel.comments)) + "\n"


def full_text(kernel: Kernel) -> str:
    """The text of a kernel without names, every range written out."""
    return "\n".join(_lines(kernel, _full_text)) + "\n"


def _header(kernel: Kernel) -> list[str]:
    lines = [f"kernel {kernel.name} {{", *(f"{_INDENT}{statement_text(let)}" for let in kernel.lets)]
    lines.append(f"{_INDENT}cores {kernel.cores} x {kernel.aiv_per_core}")
    for tensor in kernel.tensors:
        shape = ", ".join(str(extent) for extent in tensor.shape)
        where = "" if tensor.space == "GM" else f" {tensor.space}"
        where += "" if tensor.beside == 1 else f" beside {tensor.beside}"
        where += " nz" if tensor.layout == "nz" else ""
        lines.append(f"{_INDENT}tensor {tensor.name}: {tensor.fmt}[{shape}] {tensor.role}{where}")
    lines += [f"{_INDENT}signal {signal.name}: {signal.kind}" for signal in kernel.signals]
    return lines


def _lines(kernel: Kernel, text: Text) -> list[str]:
    lines = _header(kernel)
    for name in ("aic", "aiv"):
        if kernel.part(name):
            lines.append(f"{_INDENT}{name} {{")
            lines += _block(kernel.part(name), 2, text)
            lines.append(f"{_INDENT}}}")
    lines.append("}")
    return lines


def _block(block: Block, depth: int, text: Text) -> list[str]:
    lines: list[str] = []
    for statement in block:
        head = _INDENT * depth + text(statement)
        if isinstance(statement, For | When):
            lines.append(head + " {")
            lines += _block(statement.body, depth + 1, text)
            lines.append(_INDENT * depth + "}")
        else:
            lines.append(head)
    return lines


def _with_comments(lines: list[str], comments: tuple[Comment, ...]) -> list[str]:
    found: list[str] = []
    for number in range(len(lines) + 1):
        line = lines[number] if number < len(lines) else ""
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip() == "}":
            indent += _INDENT
        here = [comment for comment in comments if comment.line == number]
        found += [f"{indent}# {comment.text}".rstrip() for comment in here if not comment.behind]
        if number < len(lines):
            found.append(line + "".join(f"  # {comment.text}".rstrip() for comment in here if comment.behind))
    return found


def statement_text(statement: Statement) -> str:
    """One statement's own line, without its body."""
    if isinstance(statement, Op):
        return str(statement)
    if isinstance(statement, Let):
        choices = f" in [{', '.join(map(str, statement.choices))}]" if statement.choices else ""
        return f"{'param' if choices else 'let'} {statement.name} = {statement.value}{choices}"
    if isinstance(statement, Alloc):
        b = statement.buffer
        pinned = "" if b.address is None else f" at {b.address:#x}"
        return f"buffer {b.name}: {b.space} {b.fmt}[{b.shape[0]}, {b.shape[1]}] ring {b.ring}{pinned}"
    if isinstance(statement, For):
        step = f" step {statement.step}" if statement.step != 1 else ""
        return f"for {statement.var} in {statement.low} .. {statement.high}{step}"
    return "vf" if isinstance(statement, Vf) else f"when {statement.condition}"


def _full_text(statement: Statement) -> str:
    """A statement with nothing left out."""
    if not isinstance(statement, Op):
        return statement_text(statement)
    text = statement.kind
    if statement.out is not None:
        text += f" {_full_slice(statement.out)}"
    if statement.ins:
        text += " <- " + ", ".join(map(_full_slice, statement.ins))
    if statement.attrs:
        text += " {" + ", ".join(f"{key}={attr_text(value)}" for key, value in statement.attrs) + "}"
    return text


def _full_slice(item: Slice) -> str:
    dims = ", ".join(f"{start} +: {size}" for start, size in zip(item.starts, item.sizes, strict=True))
    return f"{item.of.name}[{dims}]"


def number_lines(kernel: Kernel) -> Kernel:
    """The same kernel with every statement carrying its line number in the printed text."""
    numbers = _Numbers(kernel.comments)
    numbers.at = len(_header(kernel))
    return replace(kernel, aic=numbers.part(kernel.aic), aiv=numbers.part(kernel.aiv))


class _Numbers:
    """Counts the lines of the text; ``at`` are those without comments so far."""

    def __init__(self, comments: tuple[Comment, ...]) -> None:
        self.at = 0
        self.before = sorted(comment.line for comment in comments if not comment.behind)

    def _line(self) -> int:
        self.at += 1
        return self.at + sum(line < self.at for line in self.before)

    def part(self, block: Block) -> Block:
        if not block:
            return ()
        self.at += 1
        found = self.block(block)
        self.at += 1
        return found

    def block(self, block: Block) -> Block:
        numbered: list[Statement] = []
        for statement in block:
            line = self._line()
            if isinstance(statement, For | When):
                numbered.append(copied(statement, line=line, body=self.block(statement.body)))
                self.at += 1
            else:
                numbered.append(copied(statement, line=line))
        return tuple(numbered)


__getattr__ = old_names(__name__)
