"""Charts of points and lines for the pages: HTML and SVG that fit any width; points answer the pointer and the keyboard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from msdsim.report.plots import SERIES

#: Beyond so many points the keyboard goes to the table, not through every one of them.
_MOST_TABBED = 60
_SHAPES = 4
_DASHES = ("", "6 4", "2 3", "7 3 2 3")


@dataclass(frozen=True)
class Mark:
    """A point at ``x`` and ``y``, and what is said about it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class ChartAxis:
    """An axis: its title, and whether it shows logarithms."""

    title: str
    log: bool = False


@dataclass(frozen=True)
class Bands:
    """Areas between straight lines through the origin: y from ``1 - share`` to ``1 + share`` times x, the widest first."""

    shares: Sequence[float] = ()


@dataclass(frozen=True)
class Scale:
    """From values to percent of the place."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], axis: ChartAxis) -> Scale:
        """A scale with room at both ends for all values; of a logarithm only those above 0 count."""
        shown = [value for value in values if value > 0] if axis.log else list(values)
        low, high = min(shown), max(shown)
        if axis.log:
            room = 1.15 if high == low else (high / low) ** 0.04
            return cls(low / room, high * room, True)
        room = 0.05 * ((high - low) or abs(high) or 1.0)
        return cls(0.0 if 0 <= low <= high / 2 else low - room, high + room, False)

    def at(self, value: float) -> float:
        """Percent of the place from the low end."""
        if not self.log:
            return 100 * (value - self.low) / (self.high - self.low)
        return 100 * math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Round values inside, at most about eight."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        decades = math.log10(self.high / self.low) if self.log else 0.0
        if self.log and decades >= 0.5:
            subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
            found = LogLocator(subs=subs, numticks=30).tick_values(self.low, self.high)
        else:
            found = MaxNLocator(6).tick_values(self.low, self.high)
        return [float(value) for value in found if self.low <= value <= self.high]


def xy_chart(series: Mapping[str, Sequence[Mark]], x: ChartAxis, y: ChartAxis, *, lines: bool = False,
             bands: Bands | None = None, step: Sequence[tuple[float, float]] = (),
             looks: Mapping[str, tuple[int, int]] | None = None, label: str = "") -> str:
    """Points of several series, joined by ``lines`` where wished; ``step`` is a line of steps under them, such as a front.

    ``looks`` has a colour and a shape for series that have something in common.  The legend's buttons let a series stand out.
    Points that a logarithm cannot show are left out, and their number is said.
    """
    looks = looks or {name: (number, number) for number, name in enumerate(series)}
    inside = {name: [point for point in points if not (x.log and point.x <= 0) and not (y.log and point.y <= 0)]
              for name, points in series.items()}
    known = [point for points in inside.values() for point in points]
    left_out = sum(map(len, series.values())) - len(known)
    if not known:
        return "<p>No point can be shown.</p>"
    across, up = Scale.over([point.x for point in known], x), Scale.over([point.y for point in known], y)
    if bands is not None:  # one scale for both, so that equal is the diagonal
        across = up = Scale.over([value for point in known for value in (point.x, point.y)], x)
    drawn = (_bands(bands, across) if bands is not None else "") + (_steps(step, across, up) if step else "")
    if lines:
        drawn += "".join(_line(name, points, looks[name], across, up) for name, points in inside.items())
    focus = ' tabindex="0"' if len(known) <= _MOST_TABBED else ""
    dots = "".join(_dot(name, point, looks[name], across, up, focus) for name, points in inside.items() for point in points)
    ticks = "".join(f'<span class="tx" style="left:{across.at(value):.2f}%">{value:,g}</span>' for value in across.ticks())
    ticks += "".join(f'<span class="ty" style="bottom:{up.at(value):.2f}%">{value:,g}</span>' for value in up.ticks())
    legend = "".join(
        f'<button type="button" data-key="{escape(name)}" aria-pressed="false"><i class="d{looks[name][1] % _SHAPES}" '
        f'style="background:{_colour(looks[name][0])}"></i>{escape(name)}</button>' for name in inside)
    said = f" Left out, since a logarithm has no 0: {left_out}." if left_out else ""
    return (f'<figure class="xy" aria-label="{escape(label)}"><div class="keys" role="group" aria-label="Legend">{legend}'
            f'</div><div class="ylabel">{escape(y.title)}</div><div class="plot"><svg viewBox="0 0 100 100" '
            f'preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>{ticks}{dots}</div>'
            f'<figcaption class="r">{escape(x.title)}{said}</figcaption></figure>')


def _steps(step: Sequence[tuple[float, float]], across: Scale, up: Scale) -> str:
    at = [(across.at(left), up.at(top)) for left, top in step]
    return (f'<path class="steps" vector-effect="non-scaling-stroke" d="M{at[0][0]:.2f} {100 - at[0][1]:.2f}'
            + "".join(f"H{left:.2f}V{100 - top:.2f}" for left, top in at[1:]) + '"/>')


def _line(name: str, points: Sequence[Mark], look: tuple[int, int], across: Scale, up: Scale) -> str:
    path = "L".join(f"{across.at(point.x):.2f} {100 - up.at(point.y):.2f}" for point in points)
    colour, shape = look
    return (f'<path data-part="{escape(name)}" vector-effect="non-scaling-stroke" fill="none" stroke-width="1.6" '
            f'stroke-dasharray="{_DASHES[shape % len(_DASHES)]}" stroke="{_colour(colour)}" d="M{path}"/>')


def _dot(name: str, point: Mark, look: tuple[int, int], across: Scale, up: Scale, focus: str) -> str:
    colour, shape = look
    return (f'<span class="dot d{shape % _SHAPES}" data-part="{escape(name)}"{focus} role="img" '
            f'aria-label="{escape(point.text)}" data-tip="{escape(point.text)}" style="left:{across.at(point.x):.2f}%;'
            f'bottom:{up.at(point.y):.2f}%;background:{_colour(colour)}"></span>')


def _colour(number: int) -> str:
    # Black on a dark page is nothing.
    colour = SERIES[number % len(SERIES)]
    return "var(--fg)" if colour == "#000000" else colour


def _bands(bands: Bands, scale: Scale) -> str:
    """Bands around equal values, of lines that are straight on the scale."""
    found = []
    for share in bands.shares:
        corners = [(scale.low, scale.low * (1 - share)), (scale.high, scale.high * (1 - share)),
                   (scale.high, scale.high * (1 + share)), (scale.low, scale.low * (1 + share))]
        path = "L".join(f"{scale.at(left):.2f} {100 - scale.at(top):.2f}" for left, top in corners)
        found.append(f'<path class="band" d="M{path}Z"/>')
    return "".join(found) + '<path class="steps" vector-effect="non-scaling-stroke" d="M0 100L100 0"/>'
