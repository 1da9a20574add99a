"""Plain tables of text: columns as wide as their widest cell, nothing cut off, no trailing blanks.

Tables are also read in pipes and logs, where a cell that was shortened to fit a width is lost.  Only the last column of
a table may wrap, and only when a width is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

Cell = str | Text
_GAP = 2
_LEAST_WRAP = 24


@dataclass
class TextTable:
    """Rows of cells under titles; ``right`` are the indices of right-aligned columns, ``indent`` the
    cells of a terminal that it is set in.  A title may have several lines."""

    titles: Sequence[str]
    right: frozenset[int] = frozenset()
    indent: int = 2
    rows: list[tuple[list[Cell], str]] = field(default_factory=list)

    def add(self, *cells: Cell, style: str = "") -> None:
        """Add a row."""
        self.rows.append((list(cells), style))

    def lines(self, indent: int | None = None, width: int | None = None) -> list[Text]:
        """The table as lines; with ``width`` the last column wraps at it."""
        indent = self.indent if indent is None else indent
        rows: list[tuple[list[Cell], str]] = [*((cells, "dim") for cells in _title_rows(self.titles)), *self.rows]
        widths = [max((cell_len(_plain(cells[column])) for cells, _ in rows if column < len(cells)), default=0)
                  for column in range(len(self.titles))]
        found = []
        for cells, style in rows:
            texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
            endings = _endings(texts, width - indent, widths) if width is not None else texts[-1:]
            for number, ending in enumerate(endings or [Text()]):
                line = Text(" " * indent)
                for column, text in enumerate(texts[:-1]):
                    shown = text if number == 0 else Text()
                    line.append_text(_aligned(shown, widths[column], column in self.right))
                    line.append(" " * _GAP)
                line.append_text(_aligned(ending, widths[len(texts) - 1], True) if texts and len(texts) - 1 in self.right
                                 else ending)
                line.rstrip()
                if style:
                    line.stylize(style)
                found.append(line)
        return found


def _endings(texts: Sequence[Text], width: int, widths: Sequence[int]) -> Sequence[Text]:
    """The last cell of a row in lines, if the row has all columns and leaves room to wrap it."""
    left = width - sum(size + _GAP for size in widths[: len(texts) - 1])
    parts = wrap(texts[-1].plain, left) if len(texts) == len(widths) and left >= _LEAST_WRAP else []
    return [Text(part) for part in parts] if len(parts) > 1 else texts[-1:]


def _title_rows(titles: Sequence[str]) -> list[list[Cell]]:
    """Lines of the titles, those with fewer lines at the bottom."""
    parts = [title.split("\n") for title in titles]
    height = max(len(part) for part in parts)
    return [[*(([""] * (height - len(part)) + part)[row] for part in parts)] for row in range(height)]


def wrap(text: str, width: int) -> list[str]:
    """Lines of whole words of at most ``width`` cells."""
    import textwrap

    return textwrap.wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]


def _aligned(text: Text, width: int, right: bool) -> Text:
    pad = Text(" " * max(0, width - cell_len(text.plain)))
    return Text.assemble(pad, text) if right else Text.assemble(text, pad)


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell
