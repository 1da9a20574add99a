"""Where GM has very many lines, the compiled engine keeps what it knows of pieces in a table in which they push each other out."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.engine.fast import builder, engine

SMALL = msdsim.load_hw("toy").replace(l2__capacity_bytes=8192, l2__ways=4)
CASES = [("gemm:m=20,k=200,n=130", "bf16"), ("gemm:m=16,k=256,n=96,group=32", "dequant-int8"),
         ("attention:batch=1,heads=4,kv_heads=2,head_dim=32,q=3,kv=150", "msd-int8")]


@pytest.mark.parametrize("memory", ["bandwidth", "banked"])
@pytest.mark.parametrize(("problem", "dataflow"), CASES)
def test_a_table_changes_nothing(problem, dataflow, memory, monkeypatch):
    """Warm, so that the second run begins on what the first has left."""
    def run(name):
        engine._kept.clear()
        found = msdsim.simulate(problem, SMALL, dataflow, engine=name, memory=memory, warm=True)
        return found.cycles, found.traffic, found.stalls

    whole = run("fast")
    monkeypatch.setattr(builder, "MOST_BLOCKS", 1)
    for blocks in (1, 4, 64):
        monkeypatch.setattr(builder, "TABLE_BLOCKS", blocks)
        assert run("fast") == whole
    assert run("reference") == whole
