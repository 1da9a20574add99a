"""Numbers that a user has set and that another number of the chip overrules: they change nothing, and it is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msdsim.hardware.chip import Chip
from msdsim.units import ceil_div


def overruled(chip: Chip, keys: Iterable[str]) -> Iterator[str]:
    """A sentence for each of the dotted ``keys`` whose value has no effect on this chip."""
    banks = chip.vector.banks
    if banks is None:
        return
    # In a cycle a group takes one write; the rows of a repeat lie in consecutive groups.
    rows = ceil_div(chip.vector.repeat_bytes, banks.row_bytes)
    least = ceil_div(rows, banks.groups)
    for key in keys:
        if key.startswith("vector.ops.") and key.endswith(".slope_cycles_per_repeat"):
            value = chip.vector.ops[key.split(".")[2]].slope_cycles_per_repeat
            if value < least:
                yield (f"{key} = {value:g} has no effect below {least}: the banks of UB need that many cycles for what a "
                       f"repeat writes; a wider repeat (vector.repeat_bytes) is what makes Vector faster")
        elif key == "vector.repeat_bytes" and least > 1:
            yield (f"vector.repeat_bytes = {chip.vector.repeat_bytes} takes the banks of UB {least} cycles a repeat "
                   f"({banks.groups} groups of {banks.row_bytes} bytes); vector.banks.groups goes with it")
