"""Work of minutes is announced before it begins, by the order of its size."""

from __future__ import annotations

import pytest

from msdsim import api
from msdsim.cli.forecast import multiply_adds, seconds
from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.problems import parse_problem
from msdsim.runs import RunOptions


@pytest.mark.parametrize(("problem", "count"), [
    ("gemm:m=3,k=32,n=16", 3 * 32 * 16), ("grouped_gemm:rows=5+0+2,k=64,n=16", 7 * 64 * 16),
    ("grouped_gemm:groups=3,m=5,k=64,n=16", 15 * 64 * 16),
    ("attention:batch=2,heads=4,kv_heads=2,head_dim=64,q=3,kv=5", 2 * 4 * 3 * 5 * 2 * 64),
    ("attention:batch=1,heads=1,kv_heads=1,head_dim=64,q=3,kv=5,causal=1", (3 + 4 + 5) * 2 * 64)])
def test_multiply_adds(problem, count):
    assert multiply_adds(parse_problem(problem)) == count


def test_it_grows_with_what_is_done():
    large = parse_problem("gemm:m=8192,k=8192,n=8192")
    engine, numbers = seconds([large], RunOptions(), 1)
    # 0.3 s for each of some runs; CONTRIBUTING's benchmark holds the engine to it.
    assert 0.5 < engine < 10
    assert numbers == 0
    assert seconds([large, large], RunOptions(check=True), 3)[1] == pytest.approx(6 * 220, rel=0.2)
    assert seconds([large], RunOptions(engine="reference"), 1)[0] > 60


@pytest.mark.parametrize(("arguments", "said"), [
    (["run", "gemm:m=8192,k=8192,n=8192", "--check"],
     "note: this takes about 4 minutes: 5.5e+11 multiply-adds are executed and compared; the times alone take seconds\n"),
    (["compare", "gemm:m=8192,k=8192,n=8192", "--dataflow", "bf16,w8a8", "--check"], "note: this takes about 7 minutes"),
    (["run", "gemm:m=8192,k=8192,n=8192", "--engine", "reference"], "the reference engine is meant for small kernels"),
    (["run", "gemm:m=131072,k=131072,n=131072"], "is simulated, for several tilings"),
    (["run", "gemm:m=8192,k=8192,n=8192", "--check", "--quiet"], ""), (["run", "gemm:m=16,k=8192,n=12288", "--check"], "")])
def test_it_is_said_before_the_work_begins(arguments, said, monkeypatch, capsys):
    def stop(*_, **__):
        raise InputError("stopped here")

    monkeypatch.setattr(api, "simulate", stop)
    monkeypatch.setattr(api, "compare", stop)
    assert run_program(arguments) == 2
    before, _, after = capsys.readouterr().err.partition("error: stopped here")
    assert said in before if said else before == ""
    assert after == "\n"
