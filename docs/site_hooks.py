"""What the documentation site has that no file in ``docs`` holds: the command line, and the findings beside their scripts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

_ROLE = re.compile(r":(?:class|mod|func|attr|data|meth|exc):<code>~?([^<]+)</code>")
_EXAMPLE = re.compile(r"(?:<blockquote>\s*){3}<p>(.*?)</p>\s*(?:</blockquote>\s*){3}", re.DOTALL)

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Add the page of the findings; their scripts are named, not linked."""
    from mkdocs.structure.files import File

    text = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\[[^]]*\]\(([\w.-]+\.sh)\)", r"`findings/\1`", text)
    files.append(File.generated(config, "findings.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put every command's help into the page of the command line, and every key of a chip into that of chip files."""
    if page.file.src_uri == "reference/cli.md":
        return markdown.replace("<!-- commands -->", "\n".join(_commands()))
    if page.file.src_uri == "reference/chip-file.md":
        return markdown.replace("<!-- keys -->", "\n".join(_keys()))
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings (``:class:`Name```) as the name alone, and their examples, which Markdown takes for quotations."""
    html = _EXAMPLE.sub(r"<pre><code>\1</code></pre>", html)
    return _ROLE.sub(r"<code>\1</code>", html)


def _keys() -> list[str]:
    from msdsim.hardware import load_hw
    from msdsim.hardware.describe import rows

    found = ["| key | 910B1 | unit | kind |", "|---|---:|---|---|"]
    return [*found, *(f"| `{row.key}` | {row.value} | {row.unit} | {row.kind} |" for row in rows(load_hw("ascend910b1")))]


def _commands() -> list[str]:
    from msdsim.cli.program import program

    found: list[str] = []
    context = click.Context(program, info_name="msdsim", terminal_width=80, max_content_width=80)
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        found += _help(command, name, context)
    return found


def _help(command: click.Command, name: str, parent: click.Context) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80, max_content_width=80)
    found = [f"## {context.command_path}", "```text", command.get_help(context), "```", ""]
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            below = command.get_command(context, inner)
            assert below is not None
            found += _help(below, inner, context)
    return found
