"""The text form of a kernel: what users read, diff in a review, and hash in golden schedules."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from msdsim.ir.kernel import Alloc, Block, For, Kernel, Op, Statement

_INDENT = "  "


def print_kernel(kernel: Kernel) -> str:
    """Text of the kernel, ending in a newline."""
    return "\n".join(_lines(kernel)) + "\n"


def kernel_hash(kernel: Kernel) -> str:
    """SHA-256 of the kernel's text, the identity that golden schedules record."""
    return hashlib.sha256(print_kernel(kernel).encode()).hexdigest()


def _header(kernel: Kernel) -> list[str]:
    lines = [f"kernel {kernel.name} {{", f"{_INDENT}cores {kernel.cores} x {kernel.aiv_per_core}"]
    for tensor in kernel.tensors:
        shape = ", ".join(str(extent) for extent in tensor.shape)
        where = "" if tensor.space == "GM" else f" {tensor.space}"
        lines.append(f"{_INDENT}tensor {tensor.name}: {tensor.fmt}[{shape}] {tensor.role}{where}")
    lines += [f"{_INDENT}signal {signal.name}: {signal.kind}" for signal in kernel.signals]
    return lines


def _lines(kernel: Kernel) -> list[str]:
    lines = _header(kernel)
    for name in ("aic", "aiv"):
        if kernel.part(name):
            lines.append(f"{_INDENT}{name} {{")
            lines += _block(kernel.part(name), 2)
            lines.append(f"{_INDENT}}}")
    lines.append("}")
    return lines


def _block(block: Block, depth: int) -> list[str]:
    lines: list[str] = []
    for statement in block:
        head = _INDENT * depth + statement_text(statement)
        if isinstance(statement, Op | Alloc):
            lines.append(head)
        else:
            lines.append(head + " {")
            lines += _block(statement.body, depth + 1)
            lines.append(_INDENT * depth + "}")
    return lines


def statement_text(statement: Statement) -> str:
    """One statement's own line, without its body."""
    if isinstance(statement, Op):
        return str(statement)
    if isinstance(statement, Alloc):
        b = statement.buffer
        pinned = "" if b.address is None else f" at {b.address:#x}"
        return f"buffer {b.name}: {b.space} {b.fmt}[{b.shape[0]}, {b.shape[1]}] ring {b.ring}{pinned}"
    if isinstance(statement, For):
        step = f" step {statement.step}" if statement.step != 1 else ""
        return f"for {statement.var} in {statement.low} .. {statement.high}{step}"
    return f"when {statement.condition}"


def number_lines(kernel: Kernel) -> Kernel:
    """The same kernel with every statement carrying its line number in the printed text."""
    counter = len(_header(kernel))
    parts: dict[str, Block] = {}
    for name in ("aic", "aiv"):
        if not kernel.part(name):
            parts[name] = ()
            continue
        counter += 1
        parts[name], counter = _number(kernel.part(name), counter)
        counter += 1
    return replace(kernel, aic=parts["aic"], aiv=parts["aiv"])


def _number(block: Block, counter: int) -> tuple[Block, int]:
    numbered: list[Statement] = []
    for statement in block:
        counter += 1
        if isinstance(statement, Op | Alloc):
            numbered.append(replace(statement, line=counter))
        else:
            line = counter
            body, counter = _number(statement.body, counter)
            counter += 1
            numbered.append(replace(statement, line=line, body=body))
    return tuple(numbered), counter
