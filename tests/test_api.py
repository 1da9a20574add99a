"""The Python interface: kernels as problems, workloads, names that do not exist."""

from __future__ import annotations

import numpy as np
import pytest

import msdsim
from msdsim.errors import InputError, UnknownNameError
from msdsim.ir import print_kernel
from msdsim.problems import parse_problem
from tests.ir.kernels import scale_kernel


def test_a_kernel_file_runs_like_a_dataflow(tmp_path):
    path = tmp_path / "scale.kir"
    path.write_text(print_kernel(scale_kernel()))
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    result = msdsim.simulate(str(path), "toy", inputs={"x": x})
    assert result.cycles == msdsim.simulate(scale_kernel(), "toy", engine="reference").cycles
    assert result.dataflow == "scale"
    np.testing.assert_array_equal(result.arrays["y"], x * np.float32(2) + x)


def test_a_kernel_has_no_reference():
    with pytest.raises(InputError, match="kernel 'scale' has no reference to compare with"):
        msdsim.simulate(scale_kernel(), "toy", check=True)
    with pytest.raises(InputError, match="one dataflow already"):
        msdsim.compare(scale_kernel(), "toy")


def test_missing_kernel_input_is_named():
    with pytest.raises(InputError, match=r"reads tensor 'x', which was not given; give an array of shape \[8, 64\]"):
        msdsim.simulate(scale_kernel(), "toy", inputs={"z": np.zeros(3)})


def test_compare_lists_what_it_skips():
    comparison = msdsim.compare("gemm:m=4,k=64,n=64,offset=1", "toy", ["bf16", "msd-int8"])
    assert [run.dataflow for run in comparison.runs] == ["msd-int8"]
    assert [item.dataflow for item in comparison.skipped] == ["bf16"]
    assert comparison.winner.dataflow == "msd-int8"


def test_unknown_names():
    for call in (
        lambda: msdsim.simulate("gemm:m=4,k=64,n=64", "toy", "msd-int9"),
        lambda: msdsim.simulate("gemm:m=4,k=64,n=64", "toy", engine="faster"),
        lambda: msdsim.simulate("gemm:m=4,k=64,n=64", "toy", memory="perfect"),
        lambda: msdsim.simulate("gemm:m=4,k=64,n=64", "toys"),
    ):
        with pytest.raises(UnknownNameError, match="known: "):
            call()


def test_workloads_weigh_by_count():
    workload = parse_problem("llama3-8b-decode")
    result = msdsim.simulate_workload(workload, "ascend910b1", "msd-int8")
    assert result.cycles == sum(run.count * run.result.cycles for run in result.runs)
    assert result.to_json()["total"]["cycles"] == result.cycles
    with pytest.raises(InputError, match="several problems"):
        msdsim.simulate("llama3-8b-decode")


def test_import_is_light():
    """Nothing heavy is loaded before something is simulated."""
    import subprocess
    import sys

    code = "import sys, msdsim; print([m for m in ('numpy', 'numba', 'pydantic', 'matplotlib', 'simpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
