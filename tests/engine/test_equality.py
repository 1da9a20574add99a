"""Every dataflow on every chip through both engines: every field of the record and every row of the timeline.

Runs over the registries, so that a new dataflow or chip is compared by being there.
"""

from __future__ import annotations

from functools import cache

import pytest

from msdsim.dataflows import DATAFLOWS
from msdsim.errors import InputError
from msdsim.hardware import Chip, Hardware, load_hw
from msdsim.ir.lower import lower
from msdsim.problems import parse_problem
from msdsim.resources import shipped_names
from msdsim.tilings import choose_tiling

from ..products import diagonals, each
from .comparison import Refused, assert_engines_agree

CHIPS = shipped_names("hwmodels")
#: By kind of problem; the first goes to every chip, the others to the toy chip, and all to all in the slow suite.
SHAPES = {
    "gemm": ("gemm:m=7,k=333,n=518", "gemm:m=1,k=1,n=1", "gemm:m=70,k=200,n=130,offset=1", "gemm:m=16,k=512,n=96,trans_b=1",
             "gemm:m=300,k=65,n=100"),
    "grouped_gemm": ("grouped_gemm:groups=3,m=5,k=100,n=130", "grouped_gemm:groups=2,m=40,k=65,n=33,offset=1"),
    "attention": ("attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=3,kv=150",
                  "attention:batch=2,heads=2,kv_heads=2,head_dim=32,q=70,kv=70,causal=1",
                  "attention:batch=1,heads=2,kv_heads=1,head_dim=32,q=1,kv=300,scales=token",
                  "attention:batch=1,heads=24,kv_heads=1,head_dim=48,v_dim=288,q=1,kv=150"),
    "micro": ("micro:matmul,m=300,k=700,n=260,base_m=64,base_n=64,single_m=150,single_n=260,step_ka=4,step_kb=2,trans_b=1",
              "micro:copy_gm_l1,bytes=8192,rows=16,warm=0", "micro:copy_l0c_gm,bytes=2048",
              "micro:read_matrix,m=200,n=300,base_m=16,base_n=64,slices=2,rounds=2", "micro:vector,instr=exp,isolated=1"),
}
#: Chips at the edges: one number or a few, far from where they were.
DEPTHS = {f"dispatch.queue_depth.{pipe}": 1 for pipe in ("MTE1", "MTE2", "MTE3", "M", "V", "FIX")}
GM_PATHS = ("gm_l1", "gm_ub", "ub_gm", "l0c_gm")
EXTREMES: dict[str, dict[str, object]] = {
    "queues of one": DEPTHS,
    "deep queues": dict.fromkeys(DEPTHS, 1000),
    "no latency": {f"paths.{path}.latency_cycles": 0 for path in GM_PATHS}
    | {f"paths.{path}.interval_cycles": 0 for path in GM_PATHS}
    | {"cross_core.signal_latency_cycles": 0, "cross_core.barrier_latency_cycles": 0, "hbm.extra_latency_cycles": 0,
       "cube.head_isolated_cycles": 0, "cube.head_back_to_back_cycles": 0},
    "huge latency": {f"paths.{path}.latency_cycles": 10**6 for path in GM_PATHS} | {"hbm.extra_latency_cycles": 10**8},
    "one core": {"cores.aic": 1, "cores.aiv_per_aic": 1},
    "free flags": {"dispatch.flag_cycles": 0, "dispatch.issue_cycles": 0},
    "dear flags": {"dispatch.flag_cycles": 5, "dispatch.issue_cycles": 7},
    "tiny L2": {"l2.ways": 2, "l2.capacity_bytes": 2 * 512 * 3},
    "direct-mapped L2": {"l2.ways": 1, "l2.capacity_bytes": 512 * 101},
    "small pieces": {"memory.chunk_bytes": 512},
    "large pieces": {"memory.chunk_bytes": 8192} | {f"paths.{path}.outstanding_bytes": 16384 for path in GM_PATHS},
    "narrow windows": {f"paths.{path}.outstanding_bytes": 4096 for path in GM_PATHS},
    "odd rates": {"clock_mhz": 1733, "hbm.bandwidth_gbps": 777.7, "hbm.efficiency": 0.91, "l2.read_gbps": 333.3}
    | {f"paths.{path}.bytes_per_cycle": 77.7 for path in GM_PATHS},
    "slow memory": {"hbm.bandwidth_gbps": 1, "l2.read_gbps": 3, "l2.write_gbps": 2},
    "fast ports": {f"paths.{path}.bytes_per_cycle": 10**5 for path in GM_PATHS},
}


def shapes_for(dataflow: str) -> tuple[str, ...]:
    kind = DATAFLOWS[dataflow].kind
    assert kind in SHAPES, f"give this suite shapes of the new kind of problem '{kind}'"
    return SHAPES[kind]


@cache
def _hardware(chip: str) -> Hardware:
    return load_hw(chip)


def compare(dataflow: str, shape: str, chip: Chip, tiled_for: Chip | None = None) -> None:
    """Both engines on the kernel that ``dataflow`` builds, if it runs the problem on this chip."""
    flow, problem = DATAFLOWS[dataflow], parse_problem(shape)
    reason = flow.refuses(problem, chip)
    if reason is not None:
        pytest.skip(reason)
    try:
        kernel = flow.build(problem, chip, choose_tiling(flow, problem, tiled_for or chip, None))
    except InputError as err:
        pytest.skip(str(err))
    assert not isinstance(assert_engines_agree(lower(kernel, chip)), Refused)


@pytest.mark.parametrize(("dataflow", "chip"), diagonals(DATAFLOWS, CHIPS, every=3))
def test_every_dataflow_on_every_chip(dataflow: str, chip: str):
    compare(dataflow, shapes_for(dataflow)[0], _hardware(chip).chip)


@pytest.mark.parametrize(("dataflow", "shape"), [(d, s) for d in DATAFLOWS for s in shapes_for(d)[1:]])
def test_shapes(dataflow: str, shape: str):
    compare(dataflow, shape, _hardware("toy").chip)


@pytest.mark.parametrize(("dataflow", "extreme"), diagonals(DATAFLOWS, EXTREMES, every=7))
def test_extreme_chips(dataflow: str, extreme: str):
    toy = _hardware("toy")
    compare(dataflow, shapes_for(dataflow)[0], toy.replace(**EXTREMES[extreme]).chip, tiled_for=toy.chip)


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dataflow", list(DATAFLOWS))
def test_everything_everywhere(dataflow: str, chip: str):
    each(compare, ((dataflow, shape, _hardware(chip).chip) for shape in shapes_for(dataflow)))


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dataflow", list(DATAFLOWS))
def test_extreme_chips_everywhere(dataflow: str, chip: str):
    hardware = _hardware(chip)
    each(compare, ((dataflow, shapes_for(dataflow)[-1], hardware.replace(**changes).chip, hardware.chip)
                   for changes in EXTREMES.values()))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["gemm:m=64,k=4096,n=4096", "gemm:m=700,k=1000,n=1300", "gemm:m=130,k=7168,n=512"])
@pytest.mark.parametrize("dataflow", [name for name, flow in DATAFLOWS.items() if flow.kind == "gemm"])
def test_larger_problems(dataflow: str, shape: str):
    compare(dataflow, shape, _hardware("ascend910b1").chip)
