"""The search for tilings: complete, legal on any chip, as fast as what others found, and the same every time."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

import msdsim
from msdsim.dataflows.lookup import find_dataflow
from msdsim.engine import EngineOptions, load_engine
from msdsim.errors import TilingError
from msdsim.hardware import load_hw, override
from msdsim.ir.lower import lower
from msdsim.ir.verify import verify
from msdsim.problems import parse_problem
from msdsim.tilings import choose
from msdsim.tilings.search import QUICK, STATEMENTS, candidates
from msdsim.tilings.shorter import shorter

GEMM, DECODE = "gemm:m=40,k=1024,n=1024", "attention:batch=2,heads=8,kv_heads=2,head_dim=128,q=1,kv=512"


def chosen(problem, dataflow, hardware, given=None):
    shape = parse_problem(problem)
    return shape, find_dataflow(shape, dataflow), choose(find_dataflow(shape, dataflow), shape, hardware.chip, given)


def cycles(problem, dataflow, hardware, given=None):
    shape, flow, choice = chosen(problem, dataflow, hardware, given)
    kernel = flow.build(shape, hardware.chip, choice.tiling)
    verify(kernel, hardware.chip)
    return load_engine("fast").run(lower(kernel, hardware.chip), EngineOptions()).cycles


@pytest.mark.parametrize(("problem", "dataflow", "given"), [
    (DECODE, "bf16", {"rows": 128, "kv_splits": 1}),
    (DECODE, "msd-int8", {"kv_tile": 64, "preload": 1}),
    (GEMM, "bf16", {"base_n": 48, "l0c_ring": 1}),
    (GEMM, "dequant-int8", {"slot_k": 96, "base_m": 32}),
    (GEMM + ",group=64", "dequant-int4", {"slot_k": 64}),
    (GEMM + ",group=64", "msd-int8", {"slots": 4, "base_n": 64}),
    (GEMM, "msd-int8", {"passes": 3}),
])
def test_what_is_given_is_kept_and_the_rest_fits_it(problem, dataflow, given):
    hardware = load_hw("ascend910b1")
    _, _, choice = chosen(problem, dataflow, hardware, given)
    assert {key: getattr(choice.tiling, key) for key in given} == given
    assert cycles(problem, dataflow, hardware, given) > 0


@pytest.mark.parametrize("changes", [
    {"cube__fractal_m": 128}, {"cube__fractal_m": 32}, {"cores__aic": 1}, {"cores__aic": 64}, {"hbm__bandwidth_gbps": 12800},
    {f"buffers__{name}": size // 2 for name, size in load_hw("ascend950pr").chip.buffers.model_dump().items()},
], ids=lambda changes: next(iter(changes)))
@pytest.mark.parametrize(("problem", "dataflow"), [(GEMM, "bf16"), (GEMM, "mxfp8"), (GEMM + ",group=64", "msd-int8"),
                                                   (GEMM + ",group=32,offset=1", "dequant-int4"), (DECODE, "msd-int8")])
def test_chips_far_from_those_that_ship_have_tilings(problem, dataflow, changes):
    assert cycles(problem, dataflow, load_hw("ascend950pr").replace(**changes)) > 0


def test_larger_buffers_are_used():
    hardware = load_hw("ascend950pr")
    larger = hardware.replace(**{f"buffers__{name}": 8 * size for name, size in hardware.chip.buffers.model_dump().items()})
    problem = "gemm:m=256,k=2048,n=2048"
    assert cycles(problem, "bf16", larger) <= 1.03 * cycles(problem, "bf16", hardware)


@pytest.mark.parametrize(("problem", "hw", "dataflow", "found"), [
    # Tilings that a search by hand has found.
    ("gemm:m=96,k=4096,n=4096", "ascend950pr", "dequant-int8", {"slot_k": 128, "slots": 2}),
    ("gemm:m=64,k=4096,n=4096", "ascend910b1", "dequant-int4", {"k_parts": 3, "slot_k": 128, "slots": 2}),
    ("gemm:m=256,k=8192,n=3072", "ascend950dt", "dequant-int8",
     {"base_m": 128, "base_n": 192, "slot_k": 160, "vector_k": 80, "swizzle": 2}),
])
def test_no_worse_than_what_was_found_by_hand(problem, hw, dataflow, found):
    hardware = load_hw(hw)
    assert cycles(problem, dataflow, hardware) <= 1.08 * cycles(problem, dataflow, hardware, found)


@pytest.mark.parametrize(("problem", "dataflow", "hw"), [("gemm:m=64,k=1536,n=1536", "msd-int4", "ascend910b3"),
                                                         (GEMM, "bf16", "ascend910b1"), (DECODE, "bf16", "ascend950pr")])
def test_a_better_memory_makes_nothing_slower(problem, dataflow, hw):
    hardware = load_hw(hw)
    faster = hardware.replace(hbm__bandwidth_gbps=2 * hardware.chip.hbm.bandwidth_gbps)
    assert cycles(problem, dataflow, faster) <= 1.03 * cycles(problem, dataflow, hardware)


def test_more_room_in_ub_makes_no_addition_of_parts_slower():
    """All AIVs add up the parts of K, however large their UB."""
    hardware, problem = load_hw("ascend950dt"), "gemm:m=96,k=1984,n=544"
    larger = hardware.replace(buffers__ub_bytes=2 * hardware.chip.buffers.ub_bytes)
    assert cycles(problem, "bf16", larger) <= 1.03 * cycles(problem, "bf16", hardware)
    assert cycles(problem, "bf16", larger, {"k_parts": 4}) <= 1.03 * cycles(problem, "bf16", hardware, {"k_parts": 4})


@pytest.mark.parametrize(("problem", "dataflow"), [(GEMM, "bf16"), (DECODE, "bf16"), ("gemm:m=16,k=2048,n=1024", "msd-int8")])
def test_more_cores_make_nothing_slower(problem, dataflow):
    hardware = load_hw("ascend910b3")
    assert cycles(problem, dataflow, hardware.replace(cores__aic=24)) <= 1.03 * cycles(problem, dataflow, hardware)


@pytest.mark.parametrize(("small", "large", "dataflow"), [
    ("gemm:m=16,k=1024,n=256", "gemm:m=16,k=1024,n=320", "mxfp8"), ("gemm:m=16,k=1024,n=512", "gemm:m=24,k=1024,n=512", "bf16"),
    ("gemm:m=16,k=1024,n=512", "gemm:m=16,k=1280,n=512", "dequant-int8")])
def test_a_larger_problem_is_hardly_faster(small, large, dataflow):
    hardware = load_hw("ascend950dt")
    assert cycles(large, dataflow, hardware) >= 0.95 * cycles(small, dataflow, hardware)


@pytest.mark.parametrize(("problem", "dataflow"), [
    ("gemm:m=1,k=49,n=2,group=49,offset=1", "convert-int8"), ("gemm:m=2,k=92,n=6,group=46", "convert-int4"),
    ("gemm:m=32,k=86,n=2,group=86,trans_b=1", "dequant-int4"), ("gemm:m=11,k=400,n=102,group=2,offset=1", "w8a8"),
    ("gemm:m=86,k=352,n=2,group=176,offset=1,trans_b=1", "msd-int8")])
def test_odd_groups_have_tilings_on_the_smallest_buffers(problem, dataflow):
    result = msdsim.simulate(problem, "toy", dataflow, check=True)
    assert result.numerics.bit_exact, result.numerics.first_mismatch


def test_a_choice_is_the_same_every_time_and_kept():
    hardware, shape = load_hw("ascend910b1"), parse_problem(GEMM)
    flow = find_dataflow(shape, "dequant-int8")
    first = choose(flow, shape, hardware.chip)
    assert choose(flow, shape, hardware.chip) is first
    assert choose(flow, shape, hardware.replace(launch__mix_us=1).chip) is first
    statement = STATEMENTS["gemm:dequant-int8"]
    tables = [candidates(statement(shape, hardware.chip), {}, QUICK.width)[0] for _ in range(2)]
    assert [tables[0].row(i) for i in range(tables[0].count)] == [tables[1].row(i) for i in range(tables[1].count)]
    assert first.ranked > 100
    assert asdict(first.tiling) in [tables[0].row(i) for i in range(tables[0].count)]


def test_the_estimate_knows_the_work_of_the_pipes():
    """Cycles of the Cube and of the loads that are stated for a tiling are those that the engine counts."""
    hardware, shape = load_hw("ascend910b1"), parse_problem("gemm:m=64,k=2048,n=3072")
    statement = STATEMENTS["gemm:bf16"](shape, hardware.chip)
    space, estimate, _ = candidates(statement, {"k_parts": 1}, QUICK.width)
    result = msdsim.simulate(shape, hardware, "bf16", tiling=space.row(0))
    [phase, _] = statement.phases(space)
    part = next(part for part in result.record.program.parts if part.name == "aic")
    for pipe in ("M", "MTE1"):
        spent = result.record.totals[:, part.pipes.index(pipe), :2].sum(axis=1).max()
        assert phase.pipes[pipe][0] == pytest.approx(spent, rel=0.15)
    assert estimate[0] == pytest.approx(result.cycles, rel=0.25)


@pytest.mark.parametrize(("shape", "ahead"), [
    # One row tile of four rows reads the cache; the port is slower than the Cube.
    ("batch=8,heads=32,kv_heads=8,head_dim=128,q=1,kv=4096", True),
    # Several row tiles read it, few rows each or many.
    ("batch=1,heads=4,kv_heads=4,head_dim=64,q=256,kv=4096", False),
    # One row tile of 128 rows, which the Cube multiplies with K and with V from one load.
    ("batch=4,heads=128,kv_heads=1,head_dim=576,v_dim=512,q=1,kv=4096,shared_kv=1,scale_dim=192", False)])
def test_the_cache_is_read_ahead_only_where_loads_bind(shape, ahead):
    problem, chip = parse_problem(f"attention:{shape}"), load_hw("ascend910b1").chip
    table, _, _ = candidates(STATEMENTS["attention:bf16"](problem, chip), {"rows": 16} if "q=256" in shape else {}, 600)
    assert bool(np.any(table.l2_ahead > 0)) == ahead


@pytest.mark.parametrize("dataflow", ["dequant-int8", "convert-int8"])
def test_a_third_vector_core_does_not_slow_a_group_down(dataflow):
    """Slots stay whole fractals deep, though three AIVs do not share their lines evenly."""
    two, three = (msdsim.simulate("gemm:m=16,k=4096,n=6144", override(load_hw("ascend910b1"), {"cores.aiv_per_aic": aivs}), dataflow)
                  for aivs in (2, 3))
    assert three.cycles <= 1.01 * two.cycles
    assert three.tiling["slot_k"] % 16 == 0


def test_with_few_events_single_slots_are_chosen_or_what_is_lacking_is_named():
    """Two events a pair of pipes leave room for rings of one; what needs three whatever its rings are is refused for that."""
    hardware = load_hw("ascend910b1").replace(dispatch__event_ids_per_pipe_pair=2)
    _, _, choice = chosen("gemm:m=16,k=512,n=512", "dequant-int8", hardware)
    assert choice.tiling.ub_ring == 1
    with pytest.raises(TilingError, match="aiv needs 3 event ids from V to MTE2, chip 'ascend910b1' has 2"):
        chosen("gemm:m=16,k=512,n=512", "convert-int8", hardware)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_too_long_for_the_engine_is_judged_on_a_shorter_one(causal):
    hardware, long = load_hw("ascend950dt"), f"attention:batch=1,heads=1,kv_heads=1,head_dim=128,q=32768,kv=32768,causal={causal}"
    choice = chosen(long, "bf16", hardware)[2]
    assert choice.judged > 1
    short = parse_problem(choice.on)
    assert short.q == short.kv < 32768
    assert short.causal == causal
    assert f"judged on {short}" in choice.how
    # By estimate S, P and O go through L2; the engine knows better.
    assert choice.tiling.direct == 1
    others = chosen(choice.on, "bf16", hardware, {"direct": 0})[2]
    assert cycles(choice.on, "bf16", hardware, asdict(choice.tiling)) < cycles(choice.on, "bf16", hardware, asdict(others.tiling))


def test_shorter_problems_keep_rows_for_every_core_and_are_of_the_same_kind():
    chip = load_hw("ascend910b1").chip
    whole = parse_problem("attention:batch=2,heads=8,kv_heads=2,head_dim=128,q=16384,kv=32768,causal=1")
    found = list(shorter(whole, chip))
    assert [(p.batch, p.heads, p.kv_heads, p.q, p.kv) for p in found] == [
        (1, 8, 2, 16384, 32768), (1, 4, 1, 16384, 32768), (1, 4, 1, 8192, 16384), (1, 4, 1, 4096, 8192), (1, 4, 1, 2048, 4096)]
    assert all(p.causal and p.batch * p.heads * p.q >= 128 * chip.cores.aic for p in found)
    assert not list(shorter(parse_problem(DECODE), chip))
    assert not list(shorter(parse_problem(GEMM), chip))
