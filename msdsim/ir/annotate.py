"""A kernel's text with what the placement decided: addresses of buffers in UB and bank conflicts, as comments."""

from __future__ import annotations

from msdsim.hardware.chip import Chip
from msdsim.hardware.units.banks import bank_model
from msdsim.ir.kernel import Alloc, Kernel, walk
from msdsim.ir.placement import demands_of, place, with_conflicts
from msdsim.ir.printer import number_lines, print_kernel


def annotated_kernel(kernel: Kernel, chip: Chip) -> str:
    """:func:`print_kernel` with comments, which the parser skips: the address of every UB buffer, and cycles that an operation
    spends on bank conflicts."""
    numbered = number_lines(kernel)
    demands, banks = demands_of(numbered, chip), chip.vector.banks
    places = place(numbered, chip, demands)
    model = None if banks is None else bank_model(banks)
    lines = print_kernel(numbered).splitlines()
    for statement in walk(numbered.aiv):
        if isinstance(statement, Alloc) and statement.buffer.space == "UB":
            where, buffer = places[statement.buffer.name], statement.buffer
            slots = f", slots {where.stride_bytes:#x} apart" if buffer.ring > 1 else ""
            lines[statement.line - 1] += f"  # at {where.address:#x}{slots}"
        elif model is not None and id(statement) in demands:
            placed = with_conflicts(demands[id(statement)], model, places)
            if placed.without_conflicts is not None:
                needed, own = placed.cost.cycles_per_unit, placed.without_conflicts.cycles_per_unit
                lines[statement.line - 1] += (f"  # bank conflicts: {float(needed):.4g} cycles per repeat instead of "
                                              f"{float(own):.4g}")
    return "\n".join(lines) + "\n"
