"""Charts of a sweep on its page: time over one parameter, maps over two, and the front of time against what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from msdsim.report.sweep_plot import Rows, cost_of, front, series_of, spread
from msdsim.report.xy_chart import ChartAxis, Mark, xy_chart

#: Series, or cells of a map, beyond which a chart tells nobody anything; the table has them.
_MOST_SERIES, _MOST_CELLS = 24, 900


def _numbers(rows: Rows, names: Sequence[str]) -> list[str]:
    return [name for name in names if all(isinstance(row.get(name), int | float) for row in rows)]


def _said(row: Mapping[str, Any], names: Sequence[str], *more: str) -> str:
    """A row in words, a line for each thing."""
    return "\n".join([f"{row['dataflow']} on {row['hw']}", *(f"{name} = {row[name]}" for name in names if name in row),
                      f"{row['time_us']:,.2f} us", *more])


def lines_chart(rows: Rows, names: Sequence[str]) -> str:
    """Time over the parameter with most values; empty where there is none."""
    numbers = _numbers(rows, names)
    if not numbers:
        return ""
    name = numbers[0]
    series = series_of(rows, [other for other in names if other != name])
    if len(series) > _MOST_SERIES:
        return ""
    points = {label: sorted((Mark(row[name], row["time_us"], _said(row, names)) for row in own), key=lambda point: point.x)
              for label, own in series.items()}
    # A dataflow has one colour; what else is varied changes shape and dashes.
    flows = list(dict.fromkeys((row["dataflow"], row["hw"]) for row in rows))
    others = [other for other in names if other != name]
    kinds = list(dict.fromkeys(tuple(str(row[other]) for other in others) for row in rows))
    looks = {}
    for label, own in series.items():
        kind = tuple(str(own[0][other]) for other in others)
        looks[label] = flows.index((own[0]["dataflow"], own[0]["hw"])), kinds.index(kind)
    return xy_chart(points, ChartAxis(name, spread([row[name] for row in rows])),
                    ChartAxis("time (us)", spread([row["time_us"] for row in rows])), lines=True, looks=looks,
                    label=f"time over {name}")


def maps(rows: Rows, names: Sequence[str]) -> str:
    """A map of time over two parameters for every dataflow and chip; empty where two are not crossed."""
    numbers = _numbers(rows, names)
    if len(numbers) < 2:
        return ""
    down, across = numbers[1], numbers[0]
    series = series_of(rows, [other for other in names if other not in (down, across)])
    tops, lefts = (sorted({row[name] for row in rows}) for name in (across, down))
    if len(series) > _MOST_SERIES or len(tops) * len(lefts) > _MOST_CELLS:
        return ""
    cells = len(tops) * len(lefts)
    if any(len({(row[across], row[down]) for row in own}) < 0.6 * cells for own in series.values()):
        return ""
    times = [row["time_us"] for row in rows]
    shade = _shades(min(times), max(times))
    shown = "".join(f"<div><h3>{escape(label)}</h3>{_map(own, across, down, tops, lefts, shade)}</div>"
                    for label, own in series.items())
    return f'<div class="maps">{shown}</div><p>Time in us; the lighter, the faster.</p>'


def _map(rows: Rows, across: str, down: str, tops: Sequence[float], lefts: Sequence[float],
         shade: Callable[[float], str]) -> str:
    at = {(row[across], row[down]): row for row in rows}
    head = "".join(f'<th class="r" scope="col">{top:,g}</th>' for top in tops)
    lines = []
    for left in lefts:
        cells = []
        for top in tops:
            row = at.get((top, left))
            cells.append("<td></td>" if row is None else
                         f'<td class="c" style="background:{shade(row["time_us"])}" data-tip="'
                         f'{escape(_said(row, [across, down]))}">{row["time_us"]:,.4g}</td>')
        lines.append(f'<tr><th scope="row" class="r">{left:,g}</th>{"".join(cells)}</tr>')
    return (f'<div class="scroll" tabindex="0"><table class="grid"><thead><tr><th>{escape(down)} \\ {escape(across)}</th>{head}'
            f'</tr></thead><tbody>{"".join(lines)}</tbody></table></div>')


def _shades(low: float, high: float) -> Callable[[float], str]:
    """Colours of times, light enough for black figures."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize, to_hex

    norm = (LogNorm if spread([low, high]) else Normalize)(low, high if high > low else low * 1.01 + 1e-12)
    return lambda value: to_hex(colormaps["YlOrBr"](0.62 * float(norm(value))))


def front_chart(rows: Rows, names: Sequence[str]) -> str:
    """Time against energy, error or traffic, and the front; empty where the rows are of several problems, of which none is
    better than the other."""
    if len({row["problem"] for row in rows}) != 1:
        return ""
    cost, label = cost_of(rows)
    known = [row for row in rows if row.get(cost) is not None]
    if not known:
        return ""
    series = series_of(known, [])
    points = {name: [Mark(row["time_us"], row[cost], _said(row, names, f"{label}: {row[cost]:,.4g}")) for row in own]
              for name, own in series.items()}
    best = front(known, cost)
    return xy_chart(points, ChartAxis("time (us)", spread([row["time_us"] for row in known])),
                    ChartAxis(label, spread([row[cost] for row in known if row[cost]] or [1.0])),
                    step=[(row["time_us"], row[cost]) for row in best], label=f"time against {label}")


CHARTS: dict[str, Callable[[Rows, Sequence[str]], str]] = {
    "Time by parameter": lines_chart, "Two parameters": maps, "Time against what it costs": front_chart}
