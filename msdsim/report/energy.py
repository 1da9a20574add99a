"""Energy in words and as a picture: always with its range, since hardly a figure of it is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from msdsim.analysis.energy import UNITS, Energy, Range
from msdsim.report.labels import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Units with a smaller share are not named in the line of a run.
_SMALLEST_NAMED = 0.02
#: Units whose part of every bar is smaller are left out of the legend: it would not be seen.
_SEEN = 0.003
_UJ_PER_MJ = 1000

#: Colour and hatch of each unit's part of a bar: neighbours differ in both.
_LOOKS = {"Cube": ("#0072B2", ""), "L0": ("#56B4E9", "///"), "L1": ("#009E73", ""), "Vector": ("#E69F00", "\\\\\\"),
          "UB": ("#F0E442", ""), "L2": ("#CC79A7", "///"), "HBM": ("#D55E00", ""), "issue": ("#000000", ""),
          "static": ("#CCCCCC", "...")}


class _HasEnergy(Protocol):
    @property
    def dataflow(self) -> str: ...

    @property
    def energy(self) -> Energy | None: ...


def millijoules(energy: Energy | None) -> str:
    """The middle of the range."""
    return "" if energy is None else _mj(energy.total.middle)


def _mj(uj: float) -> str:
    value = uj / _UJ_PER_MJ
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.1 else f"{value:.4f}"


def energy_facts(energy: Energy | None) -> list[tuple[str, str]]:
    """The lines of a run or a workload about its energy: name and text."""
    if energy is None:
        return []
    total, power = energy.total, energy.power_w
    shares = sorted(((value.middle / max(total.middle, 1e-300), unit) for unit, value in energy.by_unit.items()), reverse=True)
    named = ", ".join(f"{unit} {percent(share)}" for share, unit in shares if share >= _SMALLEST_NAMED)
    watts = f"{power.middle:,.0f} W ({power.low:,.0f} to {power.high:,.0f})"
    found = [("energy", f"{_range_text(total)}, mean power {watts}; {named}")]
    if energy.above_limit:
        found.append(("note", f"the {' and '.join(energy.above_limit)} figures of energy together are above the "
                              f"{energy.limit_w:g} W that the chip may draw: all of them cannot be right"))
    return found


def _range_text(total: Range) -> str:
    return f"{_mj(total.middle)} mJ ({_mj(total.low)} to {_mj(total.high)})"


def compared_energy(runs: Sequence[_HasEnergy], named: _HasEnergy | None) -> list[tuple[str, str]]:
    """How the energy of one run compares with that of the first: with the same figures for both, low, middle and high.

    The quotient is far better known than either energy.
    """
    first = runs[0]
    if named is None or named is first or named.energy is None or first.energy is None:
        return []
    return [("energy", f"middle figures; {named.dataflow} takes {_ratio(named.energy.total.over(first.energy.total))} that of "
                       f"{first.dataflow} with the same figures for both")]


def _ratio(found: Range) -> str:
    """A quotient; the range alone where it is all that rounding leaves."""
    low, middle, high = (f"{value:.2f}" for value in found)
    return f"{middle}x" if low == high else f"{middle}x ({low} to {high})"


def energy_bars(axes: Axes, runs: Sequence[_HasEnergy]) -> None:
    """A bar for each run, cut by unit, with a line from the low to the high total."""
    from matplotlib.patches import Patch

    shown = [(run.dataflow, run.energy) for run in runs if run.energy is not None]
    for row, (_, energy) in enumerate(shown):
        left = 0.0
        for unit in UNITS:
            value = energy.by_unit[unit].middle / _UJ_PER_MJ
            colour, hatch = _LOOKS[unit]
            axes.barh(row, value, left=left, height=0.7, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
            left += value
        low, middle, high = (value / _UJ_PER_MJ for value in energy.total)
        axes.errorbar(middle, row, xerr=[[middle - low], [high - middle]], color="#222222", capsize=4, linewidth=1.2)
        axes.text(high, row, f"  {_range_text(energy.total)}", va="center", fontsize=8.5)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=9)
    axes.set_ylim(len(shown) - 0.45, -0.55)
    highest = max((energy.total.high for _, energy in shown), default=1.0) / _UJ_PER_MJ
    axes.set_xlim(0, highest * 1.35)
    seen = [unit for unit in UNITS if any(energy.by_unit[unit].middle >= _SEEN * energy.total.middle for _, energy in shown)]
    looks = [(unit, *_LOOKS[unit]) for unit in seen]
    patches = [Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=unit) for unit, colour, hatch in looks]
    axes.legend(handles=patches, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=len(UNITS), fontsize=8,
                frameon=False, handlelength=1.0, columnspacing=1.2, handletextpad=0.5)
    axes.set_xlabel("energy by unit (mJ, middle figures); the line is from all low to all high figures", fontsize=9)
