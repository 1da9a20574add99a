"""What binds a run is said in the same words by every command; a number that changes nothing is named."""

from __future__ import annotations

import json


def test_run_compare_and_explain_say_the_same(cli):
    arguments = ["gemm:m=16,k=2048,n=4096", "--hw", "ascend910b1"]
    run = json.loads(cli("run", *arguments, "--dataflow", "dequant-int8", "--json", "-").out)
    compared = json.loads(cli("compare", *arguments, "--dataflow", "dequant-int8", "--json", "-").out)["runs"][0]
    explained = json.loads(cli("explain", *arguments, "--dataflow", "dequant-int8", "--json", "-").out)["run"]
    assert run["bound_by"] == compared["bound_by"] == explained["bound_by"] != []
    told = cli("run", *arguments, "--dataflow", "dequant-int8").out
    assert f"bound by   {run['bound_by'][0]['resource']}" in told
    assert "busiest" in told


def test_a_number_that_another_overrules_is_named(cli):
    told = cli("run", "gemm:m=16,k=512,n=512", "--dataflow", "dequant-int4", "--set", "vector.ops.cast.slope_cycles_per_repeat=0.5").out
    assert "vector.ops.cast.slope_cycles_per_repeat = 0.5 has no effect below 1" in " ".join(told.split())
    told = cli("run", "gemm:m=16,k=512,n=512", "--dataflow", "dequant-int4", "--set", "vector.repeat_bytes=2048").out
    assert "vector.repeat_bytes = 2048 takes the banks of UB 4 cycles a repeat" in " ".join(told.split())
