"""Timelines as traces; the ending of the file chooses the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msdsim.report.files import replacing, require_writable
from msdsim.report.tracks import TracedRun, TraceOptions

if TYPE_CHECKING:
    from msdsim.report.result import Result

PERFETTO = (".pftrace", ".perfetto-trace")
CHROME = (".json",)
#: Endings of traces: for ui.perfetto.dev, and for MindStudio Insight and chrome://tracing.
ENDINGS = PERFETTO + CHROME


def write_traces(runs: Sequence[Result], path: str, options: TraceOptions | None = None) -> list[str]:
    """Write timelines into one trace, a group of tracks for each; what was left out for the sake of size, in sentences.

    The runs must have been simulated with ``timeline=True``; InputError for another ending than those of :data:`ENDINGS`.
    """
    require_writable(path, "trace file", ENDINGS)
    shown = [TracedRun(run, options) for run in runs]
    if Path(path).suffix.lower() in CHROME:
        from msdsim.report.chrome_trace import chrome_text

        _write(path, chrome_text(shown).encode())
    else:
        _write_perfetto(path, shown)
    return [item.note for item in shown if item.note]


def write_perfetto(runs: Sequence[Result], path: str) -> None:
    """Write timelines for ui.perfetto.dev, whatever the ending."""
    require_writable(path, "trace file")
    _write_perfetto(path, [TracedRun(run) for run in runs])


def _write_perfetto(path: str, shown: Sequence[TracedRun]) -> None:
    from msdsim.report.perfetto_trace import perfetto_bytes

    _write(path, perfetto_bytes(shown))


def _write(path: str, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
