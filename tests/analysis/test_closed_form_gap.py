"""Closed forms against simulations of random problems: how far apart they may be, and the gap accounted for part by part."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import msdsim
from msdsim.analysis.closed_form import closed_form
from msdsim.analysis.closed_form_attention import METHODS
from msdsim.api import build_kernel, find_dataflow
from msdsim.errors import InputError
from msdsim.formats.number import FORMATS
from msdsim.hardware import load_hw
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.executor import execute
from msdsim.problems import Gemm, parse_problem
from msdsim.report.formulas import PARTS, formula_json, gap_us

CHIPS = ("ascend910b1", "ascend910b4", "ascend950pr", "ascend950dt")
GEMMS = ("bf16", "dequant-int8", "dequant-mxfp4", "convert-int4", "msd-int8", "msd-int4", "msd-mxfp4", "w8a8", "mxfp8",
         "w8a8-mxfp8", "w4a4-mxfp4")


def _run(problem, chip, dataflow, **options):
    try:
        return msdsim.simulate(problem, chip, dataflow, **options)
    except InputError:  # this chip's Cube has no such rate, or the format no groups
        return None


def _assert_near(result, factor):
    found = result.closed_form
    # No schedule beats the largest term at peak rates.
    assert result.time_us >= found.floor_us
    # What a formula leaves out: starts, barriers, the fill and drain of a pipeline are some microseconds whatever the size; uneven
    # tiles, short rows and units that wait for each other are a factor.
    assert result.time_us <= factor * found.time_us + 12
    # Every input is read once, in whole lines of L2, whose capacity these problems do not exceed.
    assert 0.999 * found.hbm_bytes <= result.hbm_bytes <= 1.02 * found.hbm_bytes + 64 * 512
    parts = gap_us(result, found)
    assert set(parts) == set(PARTS)
    assert sum(parts.values()) == pytest.approx(result.time_us - found.time_us)
    assert all(value >= 0 for name, value in parts.items() if name != "contention")


GEMM_SIZES = {"m": st.sampled_from([1, 7, 16, 40, 130, 300]), "k": st.integers(1, 100), "n": st.integers(1, 200),
              "chip": st.sampled_from(CHIPS), "dataflow": st.sampled_from(GEMMS), "extra": st.sampled_from(["", ",group=128"])}


def _gemm(m, k, n, chip, dataflow, extra):
    result = _run(f"gemm:m={m},k={32 * k},n={16 * n}{extra}", chip, dataflow)
    if result is not None:
        _assert_near(result, 3.5)


@settings(max_examples=6, deadline=None)
@given(**GEMM_SIZES)
def test_random_gemms(**sizes):
    _gemm(**sizes)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(**GEMM_SIZES)
def test_many_random_gemms(**sizes):
    _gemm(**sizes)


ATTENTION_SIZES = {"batch": st.integers(1, 4), "kv_heads": st.sampled_from([1, 2, 4]), "group": st.sampled_from([1, 4, 8]),
                   "q": st.sampled_from([1, 2, 64]), "kv": st.integers(64, 2000), "chip": st.sampled_from(CHIPS),
                   "dataflow": st.sampled_from(list(METHODS)), "extra": st.sampled_from(["", ",scales=token", ",causal=1"])}


def _attention(batch, kv_heads, group, q, kv, chip, dataflow, extra):
    result = _run(f"attention:batch={batch},heads={kv_heads * group},kv_heads={kv_heads},head_dim=128,q={q},kv={kv}{extra}", chip,
                  dataflow)
    if result is not None:
        # Rows of one token's head lie apart, and the two products and the softmax of a step follow one another.
        _assert_near(result, 7)


@settings(max_examples=4, deadline=None)
@given(**ATTENTION_SIZES)
def test_random_attention(**sizes):
    _attention(**sizes)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(**ATTENTION_SIZES)
def test_many_random_attentions(**sizes):
    _attention(**sizes)


def test_the_papers_traffic():
    """5 Md for a dequantized INT8 cache, 2 Md for two passes, and what L2 makes of both: 1 Md."""
    problem = parse_problem("attention:batch=8,heads=32,kv_heads=8,head_dim=128,q=1,kv=4096")
    elements = 2 * 8 * 8 * 4096 * 128
    chip = load_hw("ascend910b1").chip
    for dataflow, md in (("dequant-int8", 5), ("msd-int8", 2), ("bf16", 2)):
        found = closed_form(dataflow, problem, chip)
        assert found.uncached_bytes / elements == pytest.approx(md, rel=0.01)
        assert found.hbm_bytes / elements == pytest.approx(2 if dataflow == "bf16" else 1, rel=0.01)


def test_a_formula_by_hand():
    """910B1: 16 rows of [8192, 12288] INT8 are memory; MSD adds its split and merge."""
    found = closed_form("msd-int8", Gemm(m=16, k=8192, n=12288), load_hw("ascend910b1").chip)
    assert found.formula == "split + max(cube, memory) + merge"
    assert found.binding == "memory"
    assert found.time_us == pytest.approx(sum(found.terms_us[name] for name in ("split", "memory", "merge")))
    assert found.hbm_bytes == 2 * 16 * 8192 + 8192 * 12288 + 4 * 12288
    one = closed_form("msd-int8", Gemm(m=16, k=8192, n=12288), load_hw("ascend910b1").chip, {"passes": 1})
    assert one.terms_us["split"] < found.terms_us["split"]


def test_formulas_are_in_json_reports_and_explanations(cli):
    done = cli("compare", "gemm:m=4,k=256,n=96", "--hw", "ascend910b4", "--dataflow", "bf16,msd-int8")
    assert "most of the gap" in done.out
    result = msdsim.simulate("gemm:m=4,k=256,n=96", "ascend910b4", "msd-int8", timeline=True)
    document = result.to_json()["closed_form"]
    assert document == formula_json(result)
    assert document["ratio"] == pytest.approx(result.time_us / document["time_us"])
    assert document["gap_us"]["fill"] > 0
    assert msdsim.simulate("micro:copy_gm_ub", "toy", "micro").closed_form is None
    run = cli("run", "gemm:m=4,k=256,n=96", "--hw", "ascend910b4", "--dataflow", "msd-int8").out
    assert "split + max(cube, memory) + merge" in run
    assert "every input once" in run
    assert "From the closed form to the simulation" in cli("explain", "gemm:m=4,k=256,n=96", "--hw", "toy").out


def test_crossings(cli):
    from msdsim.explore.crossing import _last, crossings

    for rows in (0, 1, 16, 100, 500, 10_000):
        found = _last(lambda m, rows=rows: 2.0 if m <= rows else 0.5)
        assert found == (None if rows > 4096 else rows if rows < 16 else rows // 16 * 16)
    [crossing] = [item for item in crossings("gemm:m=1,k=256,n=256", "ascend910b4") if item.dataflow == "msd-int8"]
    assert crossing.baselines == ("dequant-int8", "convert-int8", "convert-fp16-int8")
    assert all(speedup >= 1 / 1.02 for m, _, speedup in crossing.steps if m <= crossing.rows_simulated)
    bad = cli("compare", "attention:batch=1,heads=1,kv_heads=1,head_dim=64,q=1,kv=64", "--hw", "ascend910b4", "--crossing")
    assert (bad.code, bad.err.count("\n")) == (2, 1)
    assert "--crossing looks for the rows of one plain matmul" in bad.err


#: Instructions on one number for each row, which the statement leaves out.
SMALL = {"reduce_max", "reduce_add", "maxs", "max", "dup", "copy", "fixpipe", "mask_causal"}


@pytest.mark.parametrize("scales", ["channel", "token"])
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.mx])
def test_every_instruction_of_attention_is_stated(name, scales):
    hardware = load_hw("ascend910b1")
    problem = parse_problem(f"attention:batch=1,heads=16,kv_heads=2,head_dim=64,q=1,kv=256,scales={scales}")
    kernel, tiles = build_kernel(find_dataflow(problem, name), problem, hardware, {"kv_splits": 1, "rows": 8})
    found, stated = Counter(), Counter()

    def observe(unit, op, reads, write):
        if unit[1] != "aiv" or op.kind in SMALL:
            return
        elements = max(prod(region.sizes) for region in (*reads, write))
        if elements > write.sizes[0] or op.kind.startswith("fold"):
            found[op.kind, max(FORMATS[item.fmt].bits for item in (op.out, *op.ins))] += elements

    execute(kernel, contract_for("attention", name).operands(problem, None, 0), observer=observe)
    method, token = METHODS[name], scales == "token"
    rows, steps = 16, -(-256 // tiles.kv_tile)
    logits, outputs = method.of_logits(token), method.of_outputs(token)
    cache = 2 * 2 * 256 * 64 if name.startswith(("dequant", "convert")) else 0
    final = (*((("mul", 32),) if (method.spec or method.converted) and not token else ()), ("div", 32), ("cast", 32))
    for work, elements in ((logits[0] + logits[1], rows * 256), (outputs[0] + outputs[1], rows * 64 * steps),
                           (method.of_cache(), cache), (method.of_queries(token), rows * 64), (final, rows * 64)):
        for op in work:
            stated[op] += elements
    assert found == +stated
