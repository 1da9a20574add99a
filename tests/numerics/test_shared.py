"""What several dataflows share changes no number: one at a time, side by side in threads, or each by itself."""

from __future__ import annotations

import numpy as np
import pytest

import msdsim
from msdsim.dataflows.lookup import dataflows_for
from msdsim.errors import ProblemError
from msdsim.numerics.operands import gemm_operands
from msdsim.numerics.shared import Shared, once
from msdsim.problems import parse_problem

FORMATS = ("bf16", "int8", "int4", "mxfp4")


@pytest.mark.parametrize("problem", ["gemm:m=5,k=100,n=70", "gemm:m=5,k=96,n=70,trans_b=1"])
def test_shared_operands_are_those_of_each(problem: str):
    shape, shared = parse_problem(problem), Shared(FORMATS)
    for fmt in FORMATS:
        alone = gemm_operands(shape, None, 3, fmt)
        with shared.opened():
            together = gemm_operands(shape, None, 3, fmt)
        assert alone.keys() == together.keys()
        for name in alone:
            np.testing.assert_array_equal(alone[name].view(np.uint8), together[name].view(np.uint8))


def test_what_is_wrong_with_one_format_is_said_to_who_asks_for_it():
    shape, shared = parse_problem("gemm:m=5,k=64,n=70,group=32"), Shared(FORMATS)
    with shared.opened():
        assert gemm_operands(shape, None, 0, "int8")["w"].shape == (64, 70)
        with pytest.raises(ProblemError, match="mxfp4 weights have blocks of 32"):
            gemm_operands(shape, None, 0, "mxfp4")


def test_once_is_once_only_while_something_is_shared():
    calls: list[int] = []

    def make() -> int:
        calls.append(0)
        return len(calls)

    assert [once("key", make), once("key", make)] == [1, 2]
    with Shared().opened():
        assert [once("key", make), once("key", make)] == [3, 3]
    assert once("key", make) == 4


def test_a_comparison_does_not_depend_on_how_many_run_at_once():
    one, several, alone = (
        [(run.dataflow, run.record.cycles, run.numerics) for run in runs] for runs in (
            msdsim.compare("gemm:m=16,k=512,n=512", check=True, jobs=1).runs,
            msdsim.compare("gemm:m=16,k=512,n=512", check=True, jobs=4).runs,
            [msdsim.simulate("gemm:m=16,k=512,n=512", dataflow=name, check=True)
             for name in dataflows_for("gemm") if "mxfp8" not in name and name not in ("msd-mxfp4", "w4a4-mxfp4")]))
    assert one == several
    assert sorted(one, key=lambda item: item[0]) == sorted(alone, key=lambda item: item[0])
