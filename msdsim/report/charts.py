"""Charts of the pages, as HTML and SVG that are complete without a script; with it they answer the pointer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from msdsim.report.bandwidth import bandwidth_steps
from msdsim.report.facts import PipeTimes
from msdsim.report.labels import LOOKS, percent, pipe_label, us
from msdsim.report.result import Result
from msdsim.timeline.record import CATEGORIES, HBM_READ, HBM_WRITE, L2_READ, L2_WRITE

_WIDTH, _HEIGHT = 1000, 150


def keys(categories: Sequence[str]) -> str:
    """The legend of categories; pressing one lets it stand out."""
    looks = [look for look in LOOKS if look.category in categories]
    return '<div class="keys" role="group" aria-label="Legend">' + "".join(
        f'<button type="button" data-key="{look.category}" aria-pressed="false" data-tip="{escape(look.meaning)}">'
        f'<i class="k-{look.category}"></i>{look.category.replace("_", " ")}</button>' for look in looks) + "</div>"


def bar(shares: Mapping[str, float], total_us: float, label: str, width: float = 1.0) -> str:
    """A stacked bar; ``width`` is its share of the place."""
    pieces = "".join(
        f'<span class="k-{look.category}" data-part="{look.category}" style="width:{100 * share:.3f}%" '
        f'data-tip="{escape(label)}\n{look.category.replace("_", " ")}: {100 * share:.1f}%, {us(share * total_us)}"></span>'
        for look in LOOKS if (share := shares.get(look.category, 0.0)))
    said = ", ".join(f"{name.replace('_', ' ')} {percent(share)}" for name, share in shares.items() if share >= 0.005)
    return f'<div class="bar" role="img" aria-label="{escape(label)}: {said}" style="width:{100 * width:.2f}%">{pieces}</div>'


def pipe_bars(pipes: PipeTimes, total_us: float) -> str:
    """Where the time of the pipes went."""
    rows = "".join(
        f'<div class="pipe"><div class="label"><b>{escape(row.label)}</b> <span class="role">{escape(row.role)}</span></div>'
        f'{bar(row.shares, total_us, row.label)}<div class="busy r">{row.busy}</div>'
        f'<div class="why">{escape(f"waits most for: {row.waits_for}" if row.waits_for else "")}</div></div>'
        for row in pipes.rows)
    legend = keys([look.category for look in pipes.looks])
    return (f"<h3>Where the time of the pipes went, mean over {escape(pipes.units)}</h3>{legend}"
            f'<div class="r role">busy</div>{rows}')


def flow_bars(runs: Sequence[Result], pipes: Sequence[str]) -> str:
    """Time by dataflow, fastest first, and what these pipes do in it; bars are as long as the time."""
    longest = max((run.time_us for run in runs), default=1.0)
    parts = [keys(CATEGORIES)]
    for run in sorted(runs, key=lambda run: run.cycles):
        bars = []
        for kind in (kind for kind in pipes if kind in run.stalls):
            row = run.stalls[kind]
            whole = row["instances"] * max(1, run.cycles)
            shares = {name: row[name] / whole for name in CATEGORIES if row[name]}
            name = f"{run.dataflow}, {pipe_label(kind)}"
            bars.append(f'<div class="pipe"><div class="label">{pipe_label(kind)}</div>'
                        f'<div>{bar(shares, run.time_us, name, run.time_us / longest)}</div>'
                        f'<div class="busy r">{percent(shares.get("busy", 0.0))}</div></div>')
        parts.append(f'<div class="flow"><span class="name">{escape(run.dataflow)}</span> {us(run.time_us)}'
                     f'{"".join(bars)}</div>')
    return (f'<figure aria-label="Time by dataflow">{"".join(parts)}<figcaption>Bars are as long as the time; busy on the '
            f"right.</figcaption></figure>")


def amount_bars(rows: Sequence[tuple[str, float, str]], unit: str) -> str:
    """Single bars by name, longest possible width for the largest; the text stands beside each."""
    most = max((value for _, value, _ in rows), default=1.0) or 1.0
    return "<figure>" + "".join(
        f'<div class="pipe"><div class="label">{escape(name)}</div><div>'
        f'<div class="bar" style="width:{100 * value / most:.2f}%"><span class="k-bar" style="width:100%" '
        f'data-tip="{escape(name)}\n{value:,.2f} {unit}"></span></div></div>'
        f'<div class="busy r">{value:,.1f}</div><div class="why">{escape(text)}</div></div>' for name, value, text in rows) + (
        f"<figcaption>{unit}</figcaption></figure>")


def bandwidth_curves(run: Result) -> str:
    """GB/s of HBM and L2 over time."""
    edges, rates = bandwidth_steps(run)
    chip = run.hardware.chip
    return (_curve(run, "HBM", edges, {"read": rates[HBM_READ], "written": rates[HBM_WRITE]}, chip.hbm.bandwidth_gbps)
            + _curve(run, "L2", edges, {"read": rates[L2_READ], "written": rates[L2_WRITE]},
                     max(chip.l2.read_gbps, chip.l2.write_gbps)))


def _curve(run: Result, name: str, edges: np.ndarray, series: Mapping[str, np.ndarray], peak: float) -> str:
    top = max(1.08 * peak, *(float(values.max(initial=0.0)) for values in series.values()))
    end = max(float(edges[-1]), 1e-9)

    def y(value: float) -> float:
        return _HEIGHT - value / top * _HEIGHT

    lines = []
    for label, values in series.items():
        steps = "".join(f"H{edge / end * _WIDTH:.1f}V{y(value):.1f}" for edge, value in zip(edges[:-1], values, strict=True))
        lines.append(f'<path class="line-{label}" vector-effect="non-scaling-stroke" '
                     f'd="M0 {_HEIGHT}{steps}H{_WIDTH}V{_HEIGHT}"/>')
    data = json.dumps({"edges": [round(float(edge), 4) for edge in edges],
                       "values": {f"{name} {label}": [round(float(value), 1) for value in values]
                                  for label, values in series.items()}}, separators=(",", ":"))
    legend = "".join(f'<span><i class="key-{label}" style="display:inline-block;width:.9em;height:.9em"></i> {label}</span>'
                     for label in series)
    said = ", ".join(f"{label} {float(np.average(values, weights=np.diff(edges))):,.0f} GB/s in the mean"
                     for label, values in series.items())
    return (f'<figure><figcaption><b>{name}</b> in GB/s over {us(run.time_us)}; peak {peak:,.0f} (dashed). '
            f'<span class="keys">{legend}</span></figcaption>'
            f'<svg class="curve" tabindex="0" role="img" aria-label="{name} over time: {said}" '
            f'viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" height="{_HEIGHT}" data-series="{escape(data)}">'
            f'<path class="peak" vector-effect="non-scaling-stroke" d="M0 {y(peak):.1f}H{_WIDTH}"/>{"".join(lines)}'
            f'<line class="cross" vector-effect="non-scaling-stroke" x1="0" x2="0" y1="0" y2="{_HEIGHT}"/></svg></figure>')
