"""What users type, as the library gets it."""

from __future__ import annotations

import pytest

from msdsim.cli.arguments import read_changes, read_dataflows, read_tiling, read_tilings
from msdsim.errors import MsdsimError


@pytest.mark.parametrize(("texts", "found"), [
    (["slots=2"], {"bf16": {"slots": 2}, "w8a8": {"slots": 2}}),
    (["slots=2,base_m=16", "w8a8:slots=3"], {"bf16": {"slots": 2, "base_m": 16}, "w8a8": {"slots": 3, "base_m": 16}}),
    (["w8a8:slots=3", "base_m=16"], {"bf16": {"base_m": 16}, "w8a8": {"slots": 3, "base_m": 16}}),
    (["auto", "w8a8:auto"], {}), (["w8a8: slots = 3 , base_m=1,"], {"w8a8": {"slots": 3, "base_m": 1}})])
def test_tilings_by_dataflow(texts, found):
    assert read_tilings(texts, ["bf16", "w8a8"]) == found


@pytest.mark.parametrize("text", ["", ",", "slots", "slots=", "=2", "slots=-1", "slots=1.5", "slots=1,slots=2", "slots=" + "9" * 19, "slots=\u0661"])
def test_tilings_that_are_none(text):
    with pytest.raises(MsdsimError, match="tiling"):
        read_tiling(text)


@pytest.mark.parametrize(("text", "found"), [
    ("bf16", ["bf16"]), (" bf16 , w8a8,bf16", ["bf16", "w8a8"]), ("bf16,all", "all"),
    ("gemm=w8a8,attention=bf16", ["gemm=w8a8+attention=bf16"]), ("bf16,gemm=w8a8,attention=bf16", ["bf16", "gemm=w8a8+attention=bf16"]),
    ("gemm=w8a8,attention=bf16,gemm=bf16,attention=msd-int8", ["gemm=w8a8+attention=bf16", "gemm=bf16+attention=msd-int8"]),
    ("gemm=w8a8,gemm=bf16", ["gemm=w8a8", "gemm=bf16"]), ("gemm=w8a8+attention=bf16,lm_head=bf16", ["gemm=w8a8+attention=bf16+lm_head=bf16"]),
    ("gemm=w8a8,bf16,attention=bf16", ["gemm=w8a8", "bf16", "attention=bf16"])])
def test_dataflows_and_mixes(text, found):
    assert read_dataflows(text) == found


@pytest.mark.parametrize("text", ["", "hbm", "=5", "hbm=", " = ", "hbm.bandwidth_gbps"])
def test_changes_need_both_sides(text):
    with pytest.raises(MsdsimError, match="is not KEY=VALUE"):
        read_changes([text])


def test_changes():
    assert read_changes(["a.b = 5", "c=x", "d=1.5"]) == {"a.b": 5, "c": "x", "d": 1.5}
    with pytest.raises(MsdsimError, match="--set gives 'a' twice"):
        read_changes(["a=1", "a=1"])
