"""What a command leaves behind: tables on the terminal, JSON, plot, page, arrays, trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from msdsim.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from rich.console import Console

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Outputs:
    """Where the user wants the results; :meth:`validate` before the work, the others after it."""

    json_to: str | None = None
    plot_to: str | None = None
    html_to: str | None = None
    arrays_to: str | None = None
    trace_to: str | None = None
    quiet: bool = False
    csv_to: str | None = None

    def validate(self) -> None:
        """Refuse what could not be written, before anything is simulated."""
        from msdsim.report.files import require_writable
        from msdsim.report.trace import ENDINGS as TRACES

        files = [("--json", self.json_to, ()), ("--plot", self.plot_to, PICTURES), ("--html", self.html_to, ()),
                 ("--outputs", self.arrays_to, (".npz",)), ("--csv", self.csv_to, (".csv",)),
                 ("--trace", self.trace_to, TRACES)]
        seen: dict[str, str] = {}
        for option, file, endings in files:
            if file is None or (option, file) == ("--json", "-"):
                continue
            require_writable(file, option, endings)
            if file in seen:
                raise InputError(f"{option} and {seen[file]} both write '{file}'; give two names")
            seen[file] = option

    def write_json(self, document: Mapping[str, Any]) -> None:
        """The JSON form, where it was asked for."""
        if self.json_to is None:
            return
        from msdsim.report.files import finite, write_text

        text = json.dumps(finite(document), indent=2, allow_nan=False) + "\n"
        if self.json_to == "-":
            click.echo(text, nl=False)
            return
        write_text(self.json_to, text)

    def write_plot(self, draw: Callable[[], Figure]) -> None:
        """The picture, where it was asked for."""
        if self.plot_to is None:
            return
        from msdsim.report.files import replacing
        from msdsim.report.plots import save

        with replacing(self.plot_to) as path:
            save(draw(), path)

    def write_html(self, page: Callable[[], str]) -> None:
        """The page, where it was asked for."""
        if self.html_to is None:
            return
        from msdsim.report.files import write_text

        write_text(self.html_to, page())

    def write_csv(self, text: Callable[[], str]) -> None:
        """Rows as CSV, where they were asked for."""
        if self.csv_to is None:
            return
        from msdsim.report.files import write_text

        write_text(self.csv_to, text())

    def write_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Output arrays as npz, where they were asked for."""
        if self.arrays_to is None:
            return
        import numpy as np

        from msdsim.report.files import replacing

        with replacing(self.arrays_to) as path:
            np.savez(path, **arrays)  # type: ignore[arg-type]

    def write_trace(self, write: Callable[..., list[str]], chosen: Mapping[str, Any]) -> None:
        """The trace, where it was asked for; what is not in it is said."""
        if self.trace_to is None:
            return
        for note in write(self.trace_to, **chosen):
            if not self.quiet:
                click.echo(f"note: {note}", err=True)

    def print(self, show: Callable[[Console], None]) -> None:
        """The tables, unless the user wants silence or only JSON."""
        if not self.quiet and self.json_to != "-":
            show(console())


def console() -> Console:
    """The terminal or pipe that tables go to."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the program, which knows the exit code."""
            raise BrokenPipeError

    return Terminal(file=sys.stdout, highlight=False, markup=False, emoji=False)

