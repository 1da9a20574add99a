"""A kernel's text with what the placement decided: addresses of buffers in UB and bank conflicts, as comments."""

from __future__ import annotations

from dataclasses import replace

from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Alloc, Kernel, operations, walk
from msdsim.ir.lets import plain
from msdsim.ir.placement import Placement, placed
from msdsim.ir.printer import number_lines, print_kernel

#: How the comments begin.
_BEGINNINGS = ("at 0x", "bank conflicts: ")


def annotated_kernel(kernel: Kernel, chip: Chip, placement: Placement | None = None) -> str:
    """:func:`print_kernel` with comments, which the parser skips: the address of every UB buffer, and cycles that an operation
    spends on bank conflicts; ``placement`` is the kernel's, for who has it already."""
    shown = number_lines(kernel)
    # What an earlier annotation said is said anew.
    shown = replace(shown, comments=tuple(comment for comment in shown.comments if not comment.behind
                                          or not comment.text.startswith(_BEGINNINGS)))
    numbered = plain(shown)
    found = placed(numbered, chip) if placement is None else placement
    lines = print_kernel(shown).splitlines()
    for statement in walk(numbered.aiv):
        if isinstance(statement, Alloc) and statement.buffer.space == "UB":
            where, buffer = found.places[statement.buffer.name], statement.buffer
            slots = f", slots {where.stride_bytes:#x} apart" if buffer.ring > 1 else ""
            lines[statement.line - 1] += f"  # at {where.address:#x}{slots}"
    for number, op in enumerate(operations(numbered.aiv)):
        cost = found.costs.get(number)
        if cost is not None and cost.without_conflicts is not None:
            needed, own = cost.cost.cycles_per_unit, cost.without_conflicts.cycles_per_unit
            lines[op.line - 1] += f"  # bank conflicts: {float(needed):.4g} cycles per repeat instead of {float(own):.4g}"
    return "\n".join(lines) + "\n"
