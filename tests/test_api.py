"""The Python interface: kernels as problems, workloads, names that do not exist."""

from __future__ import annotations

import numpy as np
import pytest

import msdsim
from msdsim.errors import InputError, UnknownNameError
from msdsim.ir import print_kernel
from msdsim.problems import Gemm
from msdsim.problems.workload import Entry, Workload
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
    assert msdsim.simulate(scale_kernel(), "toy", check=True).numerics is None
    with pytest.raises(InputError, match="one dataflow already"):
        msdsim.compare(scale_kernel(), "toy")


def test_missing_kernel_input_is_named():
    with pytest.raises(InputError, match=r"reads tensor 'x', which was not given; give an array of shape \[8, 64\]"):
        msdsim.simulate(scale_kernel(), "toy", inputs={"z": np.zeros(3)})


def test_compare_lists_what_it_skips():
    comparison = msdsim.compare("gemm:m=4,k=64,n=64,offset=1", "toy", ["dequant-mxfp4", "msd-int8"])
    assert [run.dataflow for run in comparison.runs] == ["msd-int8"]
    assert [item.dataflow for item in comparison.skipped] == ["dequant-mxfp4"]
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
    workload = Workload("two", "", "", None, (Entry("up", 3, Gemm(m=5, k=100, n=70)), Entry("head", 1, Gemm(m=5, k=70, n=130))))
    result = msdsim.simulate_workload(workload, "ascend910b1", "msd-int8")
    assert result.cycles == sum(run.count * run.result.cycles for run in result.runs)
    assert result.to_json()["total"]["cycles"] == result.cycles


def test_operators_of_a_workload_find_what_those_before_left():
    """Two layers of a small model: what a layer reads from HBM are its weights; alone it also fetches its activation."""
    up, down = Gemm(m=16, k=256, n=512), Gemm(m=16, k=512, n=256)
    workload = Workload("two", "", "", None, (Entry("up", 2, up), Entry("down", 2, down), Entry("head", 1, up)))
    # Parts of K would leave their sums in L2 as well.
    result = msdsim.simulate_workload(workload, "ascend910b1", "bf16", tiling={"k_parts": 1})
    weights, alone = 256 * 512 * 2, msdsim.simulate(up, "ascend910b1").traffic["hbm_read_bytes"]
    assert alone == weights + 16 * 256 * 2
    assert [run.result.traffic["hbm_read_bytes"] for run in result.runs] == [weights] * 3
    assert [run.result.l2_start for run in result.runs] == ["workload"] * 3
    # Outputs: twice two, and one more, all still in L2.
    outputs = [16 * 512 * 2, 16 * 256 * 2] * 2 + [16 * 512 * 2]
    assert result.traffic["l2_dirty_bytes"] == sum(outputs)
    assert result.traffic["hbm_write_bytes"] == 0


def test_workloads_are_the_same_in_both_engines():
    workload = Workload("two", "", "", None, (Entry("up", 3, Gemm(m=5, k=100, n=70)), Entry("head", 1, Gemm(m=5, k=70, n=130))))
    chip = msdsim.load_hw("toy").replace(**{"l2.ways": 2, "l2.capacity_bytes": 16384})
    for dataflow in ("bf16", "dequant-int8"):
        one, two = (msdsim.simulate_workload(workload, chip, dataflow, engine=engine) for engine in ("fast", "reference"))
        assert [run.result.cycles for run in one.runs] == [run.result.cycles for run in two.runs]
        assert one.traffic == two.traffic


def test_import_is_light():
    """Nothing heavy is loaded before something is simulated."""
    import subprocess
    import sys

    code = "import sys, msdsim; print([m for m in ('numpy', 'numba', 'pydantic', 'matplotlib', 'simpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_options_travel_as_one_object():
    """An object, keywords, and an object with some of it changed are the same request."""
    asked = msdsim.RunOptions(tiling={"l1_ring": 1}, engine="reference", check=True, seed=3)
    one = msdsim.simulate("gemm:m=4,k=64,n=64", "toy", options=asked)
    two = msdsim.simulate("gemm:m=4,k=64,n=64", "toy", tiling={"l1_ring": 1}, engine="reference", check=True, seed=3)
    assert one.to_json() | {"wall_s": 0} == two.to_json() | {"wall_s": 0}
    assert (one.tiling["l1_ring"], one.engine, one.seed) == (1, "reference", 3)
    changed = msdsim.simulate("gemm:m=4,k=64,n=64", "toy", options=asked, engine="fast", check=False)
    assert (changed.engine, changed.tiling, changed.numerics) == ("fast", one.tiling, None)
    found = msdsim.compare("gemm:m=4,k=64,n=64", "toy", ["bf16", "w8a8"], tilings={"bf16": {"l1_ring": 1}}, options=asked)
    assert [run.engine for run in found.runs] == ["reference", "reference"]


def test_a_misspelt_option_is_named():
    with pytest.raises(TypeError, match=r"no option 'tilling' of a run \(options: tiling, engine, "):
        msdsim.simulate("gemm:m=4,k=64,n=64", "toy", tilling={})


def test_help_shows_the_options():
    import inspect

    assert {"tiling", "engine", "check", "warm"} <= set(inspect.signature(msdsim.simulate).parameters)


def test_what_is_in_l2_is_not_for_the_user_to_say_in_a_workload():
    workload = Workload("one", "", "", None, (Entry("up", 2, Gemm(m=4, k=64, n=64)),))
    with pytest.raises(InputError, match="warm belongs to one problem; the operators of 'one' find in L2"):
        msdsim.simulate_workload(workload, "toy", "bf16", warm=True)
