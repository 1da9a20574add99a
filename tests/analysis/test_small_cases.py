"""Analysis on cases small enough to know the answer: what counts as a resource, when turns agree, when an order is broken."""

from __future__ import annotations

import types

import pytest

import msdsim
from msdsim.analysis.bottleneck import find_bottleneck, utilizations
from msdsim.analysis.critical_path import Segment, circuit
from msdsim.analysis.hazards import HazardCheck, _Access
from msdsim.errors import CheckFailed
from tests.ir.kernels import copy_kernel, scale_kernel


def test_scalar_pipes_are_no_resource():
    """With an issue of 200 cycles the scalar unit works most of the time and binds nothing that could be bought."""
    hardware = msdsim.load_hw("toy").replace(**{"dispatch.issue_cycles": 200})
    result = msdsim.simulate(scale_kernel(rows=16), hardware)
    scalar = result.stalls["aiv.s"]["busy"] / result.cycles
    shares = utilizations(result.record)
    assert scalar > max(shares.values())
    assert not [name for name in shares if name.endswith(".s")]
    assert find_bottleneck(result.record).name != "aiv.s"


def test_hbm_counts_what_is_written():
    result = msdsim.simulate(copy_kernel(rows=64, cols=256), "toy")
    moved = result.traffic["hbm_read_bytes"] + result.traffic["hbm_write_bytes"]
    assert result.hbm_gbps == pytest.approx(moved / result.time_us / 1000)
    if result.traffic["hbm_write_bytes"]:
        assert result.hbm_gbps > result.traffic["hbm_read_bytes"] / result.time_us / 1000


def _path(places):
    return [Segment(0, "aiv", pipe, number, 10 * at, 10 * at + 10) for at, (pipe, number) in enumerate(places)]


def test_a_circuit_repeats_for_three_turns_at_a_time():
    turn = [("MTE2", 0), ("V", 1)]
    assert [(step.pipe, step.instr, step.cycles) for step in circuit(_path(turn * 40))] == [("MTE2", 0, 10), ("V", 1, 10)]
    # Every fourth turn goes another way: three of four turns alike are no steady state.
    strays = [place if turn % 4 else ("MTE3", 2 + turn) for turn in range(80) for place in turn_of(turn)]
    assert circuit(_path(strays)) == []


def turn_of(turn):
    return [("MTE2", 0), ("V", 1)] if turn % 4 else [("MTE2", 0)]


def _access(begin, end, pipe="V", unit=0, start=0):
    return _Access((0, start), (1, 64), begin, end, unit, pipe, f"access at {begin}")


def _check():
    found = object.__new__(HazardCheck)
    found.tensors = {}
    return found


def test_the_order_check_is_exact_to_the_cycle():
    check = _check()
    check._demand(_access(0, 10), _access(10, 20), "reads what", "writes")
    with pytest.raises(CheckFailed, match="starts at cycle 9 and reads what access at 0 writes until cycle 10"):
        check._demand(_access(0, 10), _access(9, 20), "reads what", "writes")
    check._demand(_access(0, 10), _access(9, 20, start=64), "reads what", "writes")


def test_two_writers_on_two_pipes_are_held_against_each_other():
    """Nothing reads in between; the later write of the program must still come after the earlier one."""
    from collections import defaultdict

    ops = [types.SimpleNamespace(kind="copy", line=line) for line in (1, 2)]
    region = types.SimpleNamespace(name="tile", slot=0, starts=(0, 0), sizes=(1, 64))
    check = _check()
    check.pipe_of = {"aiv": {id(ops[0]): ("MTE2", 0), id(ops[1]): ("V", 1)}}
    check.next, check.writes, check.reads = defaultdict(lambda: [0]), defaultdict(list), defaultdict(list)
    check.times = {(0, 0): [(0, 10)], (0, 1): [(5, 8)]}
    check.record = types.SimpleNamespace(units=types.SimpleNamespace(unit=lambda *_: 0, pipe_name=lambda *_: "AIV pipe"))
    check.observe((0, "aiv", 0), ops[0], [], region)
    with pytest.raises(CheckFailed, match=r"overwrites what .* still writes until cycle 10"):
        check.observe((0, "aiv", 0), ops[1], [], region)
