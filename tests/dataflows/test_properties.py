"""Random shapes, tilings and seeds: numbers, accounting and determinism always hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import msdsim
from msdsim.analysis.closed_form import CLOSED_FORMS, floor_us
from msdsim.dataflows import DATAFLOWS
from msdsim.errors import KernelError, TilingError
from msdsim.hardware import load_hw
from msdsim.problems import Gemm

TOY, NEWEST = load_hw("toy"), load_hw("ascend950pr")
sizes = {"m": st.integers(1, 90), "k": st.integers(1, 400), "n": st.integers(1, 200)}
#: Weights per channel, which every tiling of a dataflow can run.
shapes = st.builds(Gemm, **sizes, offset=st.booleans())
all_shapes = st.builds(Gemm, **sizes, offset=st.booleans(), trans_b=st.booleans(),
                       group=st.none() | st.integers(1, 8).map(lambda i: 16 * i) | st.integers(2, 200))
GEMMS = [entry.name for entry in DATAFLOWS.values() if entry.kind == "gemm"]


@pytest.mark.parametrize("dataflow", GEMMS)
@settings(max_examples=15)
@given(shape=all_shapes, seed=st.integers(0, 2**32 - 1))
def test_shapes_and_seeds(dataflow, shape, seed):
    plain = Gemm(m=shape.m, k=shape.k, n=2 * shape.n)
    # The toy chip where it can run the dataflow at all, else one with MX modes.
    hardware = TOY if DATAFLOWS[dataflow].refuses(plain, TOY.chip) is None else NEWEST
    if DATAFLOWS[dataflow].refuses(shape, hardware.chip) is not None:
        shape = plain
    result = msdsim.simulate(shape, hardware, dataflow, check=True, seed=seed)
    assert result.numerics.bit_exact, result.numerics.first_mismatch
    assert result.numerics.bound_ratio <= 1
    if dataflow in CLOSED_FORMS:
        assert result.time_us >= floor_us(dataflow, shape, hardware.chip)


#: The smallest tiling of some dataflows, whose values are multiplied at random.
TILINGS = {
    "bf16": {"base_m": 16, "base_n": 16, "l1_k": 16, "l0_k": 16, "l1_ring": 1, "l0_ring": 1, "l0c_ring": 1},
    "dequant-int8": {"base_m": 16, "base_n": 16, "l1_k": 16, "l0_k": 16, "slot_k": 8, "slots": 1, "vector_k": 1,
                     "l1_ring": 1, "l0_ring": 1, "l0c_ring": 1, "ub_ring": 1},
    "msd-int8": {"base_m": 16, "base_n": 16, "l1_k": 32, "l0_k": 32, "decompose_m": 1, "decompose_k": 64, "merge_m": 1, "slots": 1,
                 "prefetch": 0, "l1_ring": 1, "l0_ring": 1, "l0c_ring": 1, "ub_ring": 1},
}


@pytest.mark.parametrize("dataflow", list(TILINGS))
@settings(max_examples=20)
@given(shape=shapes, data=st.data())
def test_tilings(dataflow, shape, data):
    """A tiling either says why it does not fit, or gives the same bits as any other."""
    if dataflow == "bf16":
        shape = Gemm(m=shape.m, k=shape.k, n=shape.n)
    factors = {key: data.draw(st.integers(1, 3), label=key) for key in TILINGS[dataflow]}
    tiling = {key: value * factors[key] for key, value in TILINGS[dataflow].items()}
    refusal = ""
    try:
        result = msdsim.simulate(shape, TOY, dataflow, tiling=tiling, check=True)
    except (TilingError, KernelError) as err:
        refusal = str(err)
    if refusal:
        assert any(word in refusal for word in ("bytes of", "multiple of", "slots", "event ids")), refusal
        return
    assert result.numerics.bit_exact, result.numerics.first_mismatch
    for row in result.stalls.values():
        assert sum(value for name, value in row.items() if name != "instances") == row["instances"] * result.cycles


@pytest.mark.parametrize("dataflow", list(TILINGS))
def test_the_smallest_tiling_runs(dataflow):
    result = msdsim.simulate("gemm:m=13,k=96,n=40", TOY, dataflow, tiling=TILINGS[dataflow], check=True)
    assert result.numerics.bit_exact, result.numerics.first_mismatch


SCRIPT = """
import json, msdsim
runs = [msdsim.simulate("gemm:m=20,k=300,n=130", "toy", d, engine=e, check=True).to_json()
        for d in ("bf16", "dequant-int8", "msd-int8") for e in ("fast", "reference")]
for run in runs:
    run.pop("wall_s")
print(json.dumps(runs))
"""


def test_same_in_every_process_whatever_the_hash_seed():
    outputs = set()
    for hash_seed in ("0", "1", "4242"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())) == 6


def test_tiling_errors_say_what_and_by_how_much():
    with pytest.raises(TilingError, match=r"needs 262144 bytes of L0C \(acc 262144\), 131072 more than the 131072 bytes of "
                                          r"'ascend910b1'"):
        msdsim.simulate("gemm:m=512,k=64,n=512", "ascend910b1", "bf16", tiling={"base_m": 256, "base_n": 256, "l0_k": 16,
                                                                               "l1_k": 16, "l0c_ring": 1})
    with pytest.raises(TilingError, match="dataflow 'bf16' has no tiling key 'base_k'"):
        msdsim.simulate("gemm:m=1,k=1,n=1", "toy", "bf16", tiling={"base_k": 3})
    with pytest.raises(TilingError, match="tiling base_m=24 is not a multiple of 16"):
        msdsim.simulate("gemm:m=1,k=1,n=1", "toy", "bf16", tiling={"base_m": 24})
    with pytest.raises(TilingError, match="tiling slots=0 is below 1"):
        msdsim.simulate("gemm:m=1,k=1,n=1", "toy", "dequant-int8", tiling={"slots": 0})
    with pytest.raises(TilingError, match=r"slots=2 cannot hold the 7 slots of K that 4 tiles of rows share; raise slots to 7"):
        msdsim.simulate("gemm:m=64,k=400,n=16", "toy", "dequant-int8",
                        tiling={"slots": 2, "slot_k": 64, "base_m": 16, "base_n": 16, "k_parts": 1})


def test_registry_holds_only_what_it_says():
    assert all(name == entry.name or name == f"{entry.kind}:{entry.name}" for name, entry in DATAFLOWS.items())
