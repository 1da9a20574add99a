"""The frame of the pages that stand alone: style, script, contents, sections that fold, tables that sort; nothing to fetch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from rich.text import Text

from msdsim.report.files import finite
from msdsim.report.table import Cell, TextTable


@dataclass(frozen=True)
class Section:
    """A part of a page under its heading; ``folded`` ones are opened by the reader."""

    heading: str
    body: str
    folded: bool = False


def page(title: str, lead: str, sections: Sequence[Section], document: Mapping[str, Any]) -> str:
    """A whole page: heading, ``lead`` (HTML), contents, sections, and its data as JSON."""
    ids = [f"s{number}" for number in range(1, len(sections) + 1)]
    contents = "".join(f'<li><a href="#{name}">{escape(item.heading)}</a></li>'
                       for name, item in zip(ids, sections, strict=True))
    parts = "".join(f'<details class="sec" id="{name}"{"" if item.folded else " open"}><summary><h2>{escape(item.heading)}</h2>'
                    f"</summary>{item.body}</details>" for name, item in zip(ids, sections, strict=True))
    data = escape(json.dumps(finite(document), indent=1))
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(f"msdsim: {title}")}</title>'
            f"<style>{_asset('page.css')}</style></head>\n<body><main><h1>{escape(title)}</h1>{lead}"
            f'<nav aria-label="Contents"><ul>{contents}<li><a href="#json">JSON</a></li></ul></nav>{parts}'
            f'<details class="sec json" id="json"><summary><h2>The same as JSON</h2></summary><pre tabindex="0">{data}</pre>'
            f"</details></main><script>{_asset('page.js')}</script></body></html>\n")


@cache
def _asset(name: str) -> str:
    return (files("msdsim.report") / "assets" / name).read_text(encoding="utf-8")


def table(found: TextTable, sortable: bool = True) -> str:
    """A text table that scrolls inside itself where the page is narrow; rows in plain bold are totals and stay last."""
    def cells(tag: str, row: Sequence[Cell], bold: bool) -> str:
        made = []
        for column, cell in enumerate(row):
            text, strong = (cell.plain, bool(cell.style)) if isinstance(cell, Text) else (cell, False)
            names = [name for name, on in (("r", column in found.right), ("w", strong or bold)) if on]
            made.append(f'<{tag} class="{" ".join(names)}">{escape(text)}</{tag}>')
        return "".join(made)

    head = cells("th", [title.replace("-\n", "").replace("\n", " ") for title in found.titles], False)
    body = "".join(f'<tr{" class=total" if style == "bold" else ""}>{cells("td", row, bool(style) and style != "dim")}</tr>'
                   for row, style in found.rows if any(row))
    kind = ' class="sort"' if sortable and len(found.rows) > 1 else ""
    return f'<div class="scroll" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
