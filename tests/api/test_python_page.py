"""The page on the Python interface: every block of it runs, one after the other as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import msdsim

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 7
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"run.png", "run.pftrace", "why.png"}
    assert names["result"].numerics.bit_exact
    assert len(names["table"]) == 8


def test_the_table_names_what_there_is():
    text = PAGE.read_text(encoding="utf-8")
    for name in dir(msdsim):
        assert name in text or name in ("__version__", "compare_workload", "simulate_workload"), name
