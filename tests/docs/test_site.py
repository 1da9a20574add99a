"""The documentation: its commands run, and its site builds strictly and needs no network to be read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from msdsim.cli.program import program, run_program

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:\$ )?msdsim (.*)")

#: Pages whose commands run here, one after the other, in one folder.
RUN = ("quick-start.md", "concepts/time.md", "concepts/memory.md", "howto/ci.md", "howto/kernel-engineer.md", "howto/architect.md",
       "energy.md")
#: Commands that take minutes, or need a file that is not there.
LONG = ("msdsim import ", "msdsim run deepseek-v3-decode", "msdsim run qwen3-14b-decode", "msdsim compare qwen3-14b-decode",
        "msdsim tune qwen3-14b-decode", "msdsim accuracy qwen3-14b-decode",
        "msdsim run gemm:m=16,k=1024,n=1536 --dataflow mine.py", "OPPROF_1/")


def commands(page):
    """Command lines of a page, without what they print."""
    found = []
    for _, block in _FENCE.findall((DOCS / page).read_text(encoding="utf-8")):
        found += [f"msdsim {match[1].partition('  #')[0].strip()}" for line in block.splitlines() if (match := _COMMAND.fullmatch(line.strip()))]
    return found


def files(page):
    """Files that a page shows before it uses them: its last TOML block is the spec of a sweep."""
    blocks = [block for language, block in _FENCE.findall((DOCS / page).read_text(encoding="utf-8")) if language == "toml"]
    return {"spec.toml": blocks[-1]} if page == "howto/architect.md" else {}


def execute(line, capsys):
    """Run one line in this process; output redirected to a file goes there."""
    words = shlex.split(line)
    target = None
    if ">" in words:
        target, words = words[words.index(">") + 1], words[: words.index(">")]
    code = run_program(words[1:])
    printed = capsys.readouterr()
    assert code == 0, f"{line}: {printed.err}"
    if target is not None:
        Path(target).write_text(printed.out, encoding="utf-8")
    return printed.out


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_commands_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in files(page).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    lines = commands(page)
    assert lines
    for line in lines:
        assert execute(line, capsys) or "--quiet" in line or ">" in line


@pytest.mark.slow
def test_commands_of_schedules_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "golden").mkdir()
    execute("msdsim ir gemm:m=16,k=1024,n=1536 --hw ascend910b1 --dataflow msd-int8 > my.kir", capsys)
    execute("msdsim schedule record gemm:m=16,k=1024,n=1536 --hw ascend910b1 --dataflow msd-int8 --out before.json", capsys)
    execute("msdsim schedule record gemm:m=16,k=1024,n=1536 --hw ascend910b1 --dataflow msd-int8 --out after.json", capsys)
    lines = [line for line in commands("schedules.md") if not any(part in line for part in LONG)]
    assert len(lines) >= 8
    for line in lines:
        execute(line, capsys)


def test_every_page_with_commands_is_run_or_marked():
    for page in PAGES:
        name = page.relative_to(DOCS).as_posix()
        lines = commands(name)
        if name in RUN or name == "schedules.md":
            continue
        rest = [line for line in lines if not any(part in line for part in LONG)]
        assert rest == [], f"{name}: add it to RUN, or what is long to LONG"


def test_every_page_is_in_the_site():
    """What the nav lacks would fail the strict build later."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r":\s+([\w/-]+\.md)$", text, re.MULTILINE))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} == listed - {"findings.md"}


@pytest.mark.slow
def test_the_site_builds_strictly_and_needs_no_network(tmp_path):
    missing = [name for name in ("mkdocs", "material", "mkdocstrings") if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install -e '.[docs]'")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")], cwd=ROOT,
                          env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe)[^>]+src=\"?https?://[^\s\">]*", text) == [], page
        assert re.findall(r"<link[^>]+href=\"?https?://[^\s\">]*", text) == [], page
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?https?:", sheet.read_text(encoding="utf-8")) == [], sheet
    cli = (tmp_path / "site" / "reference" / "cli.html").read_text(encoding="utf-8")
    for command in program.list_commands(None):
        assert f"msdsim {command}" in cli
    assert "dispatch.issue_cycles" in (tmp_path / "site" / "reference" / "chip-file.html").read_text(encoding="utf-8")
