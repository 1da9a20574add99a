"""Tables and files of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.report.frames import csv_text
from msdsim.report.table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console


def write_parquet(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """``results.parquet`` where pandas and pyarrow are installed, else the JSON lines that are there already."""
    try:
        import pandas as pd
        import pyarrow  # noqa: F401
    except ImportError:
        return folder / "results.jsonl"
    path = folder / "results.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def write_files(outputs: Any, rows: Sequence[Mapping[str, Any]], name: str, kind: str) -> None:
    """CSV, picture and page of a sweep's rows, where they were asked for (:class:`msdsim.cli.outputs.Outputs`)."""
    outputs.write_csv(lambda: csv_text(rows))
    outputs.write_plot(lambda: _plot(rows, kind))
    outputs.write_html(lambda: _page(rows, name))


def _plot(rows: Sequence[Mapping[str, Any]], kind: str) -> Figure:
    from msdsim.report.sweep_plot import plot_sweep

    return plot_sweep(rows, kind)


def _page(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    from msdsim.report.sweep_page import sweep_page

    return sweep_page(rows, name)


def print_sweep(console: Console, rows: Sequence[Mapping[str, Any]], parameters: Sequence[str], stored: Path,
                most: int = 40) -> None:
    """``parameters`` and times of the first rows, how many were refused or broke, and where all of it is."""
    varied = list(parameters)
    several_hw = len({row["hw"] for row in rows}) > 1
    titles = [*(["hw"] if several_hw else []), "dataflow", *varied, "time us", "busiest", "HBM GB/s"]
    table = TextTable(titles, frozenset(range(len(titles))) - {titles.index("dataflow"), len(titles) - 2})
    for row in rows[:most]:
        cells = [*([row["hw"]] if several_hw else []), row["dataflow"], *(str(row.get(name, "")) for name in varied)]
        if row.get("error"):
            table.add(*cells, "-", row["status"], "-")
        else:
            table.add(*cells, f"{row['time_us']:,.2f}", row["bottleneck"], f"{row['hbm_gbps']:,.0f}")
    for line in table.lines():
        console.print(line, soft_wrap=True)
    failed = [row for row in rows if row["status"] == "failed"]
    refused = [row for row in rows if row["status"] == "refused"]
    more = f", {len(rows) - most} more than shown" if len(rows) > most else ""
    failures = f", {len(failed)} failed (the same command tries them again)" if failed else ""
    console.print(Text(f"{len(rows)} runs{more}, {len(refused)} refused{failures}; all of them in {stored}"), soft_wrap=True)
    for name, found in (("refusal", refused), ("failure", failed)):
        if found:
            console.print(Text(f"first {name}: {found[0]['error']}"), soft_wrap=True)
