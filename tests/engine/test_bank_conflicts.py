"""Bank conflicts of UB in whole runs: the vendor's measurements, the count of lost cycles, and both engines."""

from __future__ import annotations

import pytest

from msdsim.api import simulate
from msdsim.hardware import load_hw
from msdsim.ir.parser import parse_kernel
from msdsim.report.facts import run_facts
from tests.engine.comparison import assert_engines_agree

A2 = load_hw("ascend910b1")

LOOP = """\
kernel loop {{
  cores 1 x 1
  tensor x: fp32[64, 64] in
  aiv {{
    buffer a: UB fp32[64, 64] ring 1 at {a:#x}
    buffer b: UB fp32[64, 64] ring 1 at {b:#x}
    {declare}
    copy a[0 +: 64, 0 +: 64] <- x[0 +: 64, 0 +: 64]
    copy b[0 +: 64, 0 +: 64] <- x[0 +: 64, 0 +: 64]
    for i in 0 .. 1000 {{
      add {c}[0 +: 64, 0 +: 64] <- a[0 +: 64, 0 +: 64], b[0 +: 64, 0 +: 64]
    }}
  }}
}}
"""


def loop(a: int, b: int, c: int):
    """1000 additions of 64 repeats, as in the vendor's sample bank_conflict_ub; ``c == b`` adds in place."""
    declare = "" if c == b else f"buffer c: UB fp32[64, 64] ring 1 at {c:#x}"
    return parse_kernel(LOOP.format(a=a, b=b, declare=declare, c="b" if c == b else "c"))


def per_addition(kernel, chip=A2) -> float:
    """Cycles from one addition to the next."""
    run = simulate(kernel, chip, timeline=True)
    starts = run.timeline["start"][run.timeline["work"] >= 64]
    starts = sorted(starts)[-1000:]
    return (starts[-1] - starts[0]) / 999


#: GetSystemCycle counts at 50 MHz, the core runs at 1850 MHz, and the loop is 1000 instructions long.
def published(ticks: int) -> float:
    return ticks * 1850 / 50 / 1000


#: What the sample's instructions take beyond their repeats: 88.4 - 64 cycles, and an addition's latency in the chip file is 24.
#: On the chip they follow each other that far apart because all write one buffer; here only reading it makes them wait.
HEAD = 24


@pytest.mark.parametrize(("addresses", "ticks", "error"), [
    pytest.param((0, 0x10100, 0x20000), 2390, -0.01, id="no conflict"),
    pytest.param((0, 0x4000, 0x10000), 4167, -0.02, id="read-read, one bank"),
    pytest.param((0, 0x10000, 0x14100), 4167, -0.02, id="read-read, one group"),
    pytest.param((0, 0x10100, 0x4000), 2389, -0.01, id="the very banks of a source"),
    # The rule charges a full cycle a repeat for what is measured as 0.8.
    pytest.param((0, 0x10100, 0x4020), 3751, 0.10, id="read-write"),
])
def test_the_vendors_loop(addresses, ticks, error):
    assert (per_addition(loop(*addresses)) + HEAD) / published(ticks) == pytest.approx(1 + error, abs=0.01)


def test_the_vendors_loop_in_place():
    """Scenario 6.  Here every addition reads what the one before wrote, so the head is part of the simulation."""
    assert per_addition(loop(0, 0x10100, 0x10100)) / published(2390) == pytest.approx(0.995, abs=0.005)


#: The vendor's sample add_high_performance, cases 5 and 6: 8192 x 8192 fp16 on 48 AIVs, tile by tile in two buffers each.  Its
#: ``aiv_vec_time`` of 12.846 and 6.954 us, for 16384 and 16256 elements an addition, is 278.5 and 149.6 cycles for one.
TILES = """\
kernel tiles {{
  cores 1 x 1
  tensor x: fp16[1, {n}] in
  aiv {{
    for i in 0 .. 20 {{
      buffer a: UB fp16[1, {slot}] ring 2 at {a:#x}
      buffer b: UB fp16[1, {slot}] ring 2 at {b:#x}
      buffer c: UB fp16[1, {slot}] ring 2 at {c:#x}
      copy a[0 +: 1, 0 +: {n}] <- x[0 +: 1, 0 +: {n}]
      copy b[0 +: 1, 0 +: {n}] <- x[0 +: 1, 0 +: {n}]
      add c[0 +: 1, 0 +: {n}] <- a[0 +: 1, 0 +: {n}], b[0 +: 1, 0 +: {n}]
    }}
  }}
}}
"""


@pytest.mark.parametrize(("n", "slot", "addresses", "published"), [
    pytest.param(16384, 16384, (0, 0x10000, 0x20000), 278.5, id="one behind the other"),
    pytest.param(16256, 16256, (0, 0xFF00, 0x20000), 149.6, id="padded by 256 B"),
])
def test_the_vendors_whole_addition(n, slot, addresses, published):
    run = simulate(parse_kernel(TILES.format(n=n, slot=slot, **dict(zip("abc", addresses, strict=True)))), A2)
    vector = run.stalls["aiv.v"]
    assert (vector["busy"] + vector["head"]) / 20 == pytest.approx(published, rel=0.015)


def test_sources_in_one_group_cost_what_mskpp_measured():
    """Two cycles a repeat, where operands lie one behind the other; one where they lie apart."""
    assert per_addition(loop(0, 0x4000, 0x10000), A2) == 128
    assert per_addition(loop(0, 0x10100, 0x20000), A2) == 64


ABS = """\
kernel ragged {
  cores 2 x 2
  tensor x: fp32[256, 64] in
  tensor y: fp32[256, 64] out
  aiv {
    for t in core * 2 + sub .. 10 step 4 {
      buffer a: UB fp32[32, 64] ring 2 at 0x0
      buffer c: UB fp32[32, 64] ring 2 at 0x8020
      for i in 0 .. 3 {
        copy a[0 +: min(32, 250 - t * 25), 0 +: 64] <- x[t * 25 +: min(32, 250 - t * 25), 0 +: 64]
        abs c[0 +: min(32, 250 - t * 25), 0 +: 64] <- a[0 +: min(32, 250 - t * 25), 0 +: 64]
        copy y[t * 25 +: min(32, 250 - t * 25), 0 +: 64] <- c[0 +: min(32, 250 - t * 25), 0 +: 64]
      }
    }
  }
}
"""


def test_lost_cycles_are_counted_and_the_engines_agree():
    """One row off in the same bank: a cycle more for each repeat, which is a row of 64.  Tiles 0 to 8 have 32 rows, the last 25."""
    kernel = parse_kernel(ABS)
    chip = A2.replace(cores__aic=2)
    fast, reference = (simulate(kernel, chip, engine=engine) for engine in ("fast", "reference"))
    assert_engines_agree(fast.record.program)
    assert fast.ub_conflict_cycles == reference.ub_conflict_cycles == 3 * (9 * 32 + 25)
    assert fast.to_json()["ub_conflict_cycles"] == fast.ub_conflict_cycles
    apart = simulate(parse_kernel(ABS.replace("0x8020", "0x8000")), chip)
    assert apart.ub_conflict_cycles == 0
    lines = [[fact.text for fact in run_facts(run) if fact.name == "UB banks"] for run in (fast, apart)]
    assert lines == [["939 cycles lost to conflicts, summed over the AIVs"], []]
    assert fast.stalls["aiv.v"]["busy"] - apart.stalls["aiv.v"]["busy"] == fast.ub_conflict_cycles


def test_a_chip_without_banks_has_no_conflicts():
    toy = load_hw("toy").replace(buffers__ub_bytes=65536)
    assert simulate(parse_kernel(ABS), toy).cycles == simulate(parse_kernel(ABS.replace("0x8020", "0x8000")), toy).cycles
    assert simulate(parse_kernel(ABS), toy).ub_conflict_cycles == 0
