"""The parts of the machine both engines are built from, each on numbers small enough to work out: servers, turns of a line, the
cache, pieces of a transfer, the accounting of a pipe, and what a transfer costs on its port."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from msdsim.engine.accounting import Split, split
from msdsim.engine.memory import CacheLine, L2Cache, MemorySystem, Server, Turns, pieces, set_of
from msdsim.hardware import load_hw
from msdsim.hardware.cost import PortCost, UnitCost
from msdsim.hardware.units.mte import drain_cost, local_copy_cost, port_cost
from msdsim.timeline.record import BUSY, WAIT_DATA, WAIT_ISSUE

TOY = load_hw("toy").chip
LINE = TOY.l2.line_bytes


def test_a_server_keeps_the_remainder():
    """3 bytes in 2 cycles: 1 byte takes 2/3, so that three single bytes take 1, 2 and 2 whole cycles."""
    server = Server(Fraction(3, 2))
    assert [server.serve(0, 1) for _ in range(4)] == [1, 2, 2, 3]
    assert server.serve(10, 1) == 11, "what was free before is not saved up"
    assert server.serve(10, 4) == 14, "asked for at the same time, it comes after: 10 2/3 + 8/3 = 13 1/3"


def test_turns_of_a_line():
    turns = Turns(50)
    assert turns.start(10, line=5, unit=0) == 10
    turns.serve(5, 0, 10)
    assert turns.start(20, line=5, unit=1) == 60
    assert turns.start(20, line=5, unit=0) == 20, "a core does not wait for itself"
    assert turns.start(5, line=5, unit=0) == 10, "only for what it had to wait for then"
    assert turns.start(20, line=6, unit=1) == 20
    turns.serve(5, 1, 60)
    assert turns.start(70, line=5, unit=0) == 110


def test_the_cache_forgets_what_was_used_longest_ago():
    """Three ways of one set, by lines that fall into it."""
    cache = L2Cache(load_hw("toy").replace(**{"l2.ways": 3, "l2.capacity_bytes": 3 * LINE}).chip)
    assert (cache.sets, cache.ways) == (1, 3)
    assert [cache.insert(CacheLine(number, dirty=number == 2)) for number in (1, 2, 3)] == [-1, -1, -1]
    # Use 2 (in the middle), then 1 (the last): 3 is the oldest, and clean.
    assert cache.find(2, write=False).dirty
    assert not cache.find(1, write=False).dirty
    assert cache.insert(CacheLine(4, dirty=False)) == -1
    assert cache.find(3, write=False) is None
    # 2 is the oldest now, and what was written into it must go to HBM; a read has not made it clean.
    assert cache.insert(CacheLine(5, dirty=False)) == 2
    # A write makes a clean line dirty.
    assert cache.find(4, write=True).dirty
    assert cache.dirty_bytes() == LINE
    assert [entry.number for entry in cache.content[0]] == [4, 5, 1]


def test_lines_are_skewed_over_the_sets():
    assert [set_of(line, 8) for line in (0, 7, 8, 15, 16)] == [0, 7, (8 + 7919) % 8, (15 + 7919) % 8, (16 + 2 * 7919) % 8]


@pytest.mark.parametrize(("start", "count", "sectors"), [(0, 1, 1), (0, 512, 16), (31, 2, 2), (32, 32, 1), (500, 12, 1), (480, 33, 1)])
def test_sectors_of_a_line(start, count, sectors):
    """Sectors of 32 bytes; what lies in the next line does not count."""
    cache = L2Cache(load_hw("toy").replace(**{"l2.line_bytes": 512, "l2.sector_bytes": 32}).chip)
    assert cache.sectors_of(0, start, count) == sectors


@pytest.mark.parametrize(("arguments", "found"), [
    ((100, 2, 40, 40, 64), [[(100, 64)], [(164, 16)]]),  # rows without a gap are one row
    ((100, 2, 40, 40, 64, False), [[(100, 40)], [(140, 40)]]),
    ((0, 2, 100, 128, 64), [[(0, 64)], [(64, 36)], [(128, 64)], [(192, 36)]]),
    ((0, 5, 20, 100, 64), [[(0, 20), (100, 20), (200, 20)], [(300, 20), (400, 20)]]),  # three short rows fit 64 bytes
    ((0, 5, 20, 100, 64, True, 32), [[(0, 20), (100, 20)], [(200, 20), (300, 20)], [(400, 20)]]),  # each holds 32 of the window
    ((0, 3, 20, 100, 16), [[(0, 16)], [(16, 4)], [(100, 16)], [(116, 4)], [(200, 16)], [(216, 4)]]),
    ((0, 0, 20, 100, 64), []), ((0, 3, 0, 100, 64), []),
])
def test_pieces_of_a_transfer(arguments, found):
    assert list(pieces(*arguments)) == found


@pytest.mark.parametrize(("cursor", "start", "end", "work", "excess", "found"), [
    (0, 10, 60, 20, 30, (10, 20, 30, 0)),  # waits 10, works 20, 30 longer than alone
    (0, 10, 60, 20, 5, (10, 20, 5, 25)),  # the rest is its head
    (0, 10, 60, 70, 30, (10, 50, 0, 0)),  # work that overlaps what comes next is not counted twice
    (40, 10, 60, 20, 30, (0, 20, 0, 0)),  # only what is beyond the cursor counts
    (40, 10, 60, 15, 3, (0, 15, 3, 2)),
    (60, 10, 60, 20, 30, (0, 0, 0, 0)),
])
def test_accounting_of_an_instruction(cursor, start, end, work, excess, found):
    gap, busy, memory, head = found
    assert split(cursor, start, end, work, excess, WAIT_DATA) == Split(gap, WAIT_DATA, busy, memory, head)
    assert gap + busy + memory + head == max(0, end - cursor), "every cycle once"
    assert split(cursor, start, end, work, excess).gap_category == WAIT_ISSUE != BUSY


def system(state=None, **changes) -> MemorySystem:
    """L2 of 64-byte lines at 2 bytes a cycle, HBM at 1, a miss 100 more."""
    return MemorySystem(load_hw("toy").replace(**{
        "l2.line_bytes": 64, "l2.sector_bytes": 64, "l2.ways": 1, "l2.capacity_bytes": 64 * 2, "l2.read_gbps": 2, "l2.write_gbps": 2, "l2.same_line_cycles": 0,
        "hbm.bandwidth_gbps": 1, "hbm.efficiency": 1, "hbm.extra_latency_cycles": 100} | changes).chip, state=state)


def test_misses_hits_and_lines_in_flight():
    memory = system()
    # 64 bytes of L2 until 32; HBM until 64, and 100 for the miss.
    assert memory.access(0, 0, [(0, 64)], False, 64) == (164, 64, 0)
    # A hit on the line in flight: L2 has served it at 64, the data is there at 164.
    assert memory.access(10, 1, [(0, 64)], False, 64) == (164, 0, 0)
    assert memory.access(1000, 1, [(0, 64)], False, 64) == (1032, 0, 0)
    # A write that hits waits for no data: 1032 + 32.
    assert memory.access(1032, 0, [(0, 64)], True, 64) == (1064, 0, 0)


def test_a_write_waits_for_what_it_evicts():
    memory = system()
    assert memory.access(0, 0, [(0, 64)], True, 64) == (32, 0, 0)
    other = next(number for number in range(1, 9) if set_of(number, 2) == set_of(0, 2))
    # The dirty line goes to HBM in 64 cycles; nothing is read, so there is no latency of a miss.
    assert memory.access(1000, 0, [(64 * other, 64)], True, 64) == (1064, 0, 64)
    # A read that evicts pays both ways: 64 read and 64 written, then the miss.
    assert memory.access(2000, 0, [(0, 64)], False, 64) == (2000 + 128 + 100, 64, 64)


def test_efficiency_and_sectors_past_the_cache():
    """Half the peak takes twice as long; past L2, a sector is fetched alone."""
    assert system(**{"hbm.efficiency": 0.5}).access(0, 0, [(0, 64)], False, 64)[0] == 228
    memory = system(**{"l2.sector_bytes": 32})
    assert memory.access(0, 0, [(0, 20)], False, 20, bypass=True) == (32 + 100, 32, 0)
    assert memory.access(1000, 0, [(0, 20)], False, 20) == (1000 + 64 + 100, 64, 0), "the one before left nothing in L2"


# What instructions and transfers cost


@pytest.mark.parametrize(("dims", "work"), [((1, 1), 3), ((16, 32), 3), ((17, 32), 5), ((16, 33), 5), ((17, 33), 10), ((0, 33), 0)])
def test_work_in_whole_grains_is_rounded_up(dims, work):
    assert UnitCost(0, 0, (16, 32), Fraction(5, 2), minimum=3).work(dims) == work


def test_flat_work_is_one_run():
    cost = UnitCost(0, 0, (64, 1), Fraction(3, 2), flat=True)
    assert [cost.work(dims) for dims in ((1, 64), (2, 32), (3, 32), (5, 13), (5, 0))] == [2, 2, 3, 3, 0]


@pytest.mark.parametrize(("row", "stride", "held"), [(64, 64, 64), (20, 100, 32), (20, 24, 24), (40, 100, 64), (33, 33, 33), (1, 1, 1)])
def test_a_row_in_flight_takes_whole_slots_unless_the_next_row_shares_its_last(row, stride, held):
    assert PortCost(0, 0, Fraction(1), 1, 1024, slot_bytes=32).window_bytes(row, stride) == held


@pytest.mark.parametrize(("path", "rows", "cols", "work"), [
    # 910B1: L1 to L0A 256 bytes a cycle, to L0B 128; fractals of 16 rows x 32 bytes, so 16 x 16 of bf16.
    ("l1_l0a", 16, 16, 2), ("l1_l0a", 1, 1, 2), ("l1_l0a", 17, 16, 4), ("l1_l0b", 16, 16, 4), ("l1_l0b", 1, 1, 4), ("l1_l0b", 16, 17, 8)])
def test_copies_into_operand_buffers_move_whole_fractals(path, rows, cols, work):
    found = load_hw("ascend910b1").chip.paths[path]
    rate = {"l1_l0a": 256, "l1_l0b": 128}[path]
    assert local_copy_cost(replace_path(found, bytes_per_cycle=rate), 16).work((rows, cols)) == work


def replace_path(path, **changes):
    return path.model_copy(update=changes)


def test_a_drain_is_as_fast_as_the_accumulator_is_read():
    """Rows of the accumulator leave at 128 bytes a cycle: as BF16 that is 64 of the output, whatever the path could take."""
    path = replace_path(load_hw("ascend910b1").chip.paths["l0c_gm"], bytes_per_cycle=100, accumulator_bytes_per_cycle=128, row_cycles=3, granule_bytes=32)
    to_bf16, to_fp32, slow = (drain_cost(path, 32, bits, 512) for bits in (16, 32, 8))
    assert (to_bf16.bytes_per_cycle, to_fp32.bytes_per_cycle, slow.bytes_per_cycle) == (64, 100, 32)
    assert (to_bf16.granule_bytes, to_fp32.granule_bytes, slow.granule_bytes) == (192, 300, 96)
    plain = drain_cost(replace_path(path, accumulator_bytes_per_cycle=None), 32, 16, 512)
    assert (plain.bytes_per_cycle, plain.granule_bytes) == (100, 32)


def test_fractals_of_several_rows_have_a_window_of_their_own():
    path = load_hw("ascend910b1").chip.paths["gm_l1"]
    given = replace_path(path, outstanding_bytes=4096, nd2nz=path.nd2nz.model_copy(update={"outstanding_bytes": 1024}))
    assert port_cost(given, several_rows=True).outstanding_bytes == 1024
    assert port_cost(given, several_rows=False).outstanding_bytes == 4096
    inherited = replace_path(given, nd2nz=path.nd2nz.model_copy(update={"outstanding_bytes": None}))
    assert port_cost(inherited, several_rows=True).outstanding_bytes == 4096


@pytest.mark.parametrize(("row", "address", "port"), [
    (64, 0, 64), (64, 96, 64), (64, 448, 64),  # inside a line
    (64, 480, 64 + 10),  # 32 bytes in either line: two requests, 10 for the second
    (40, 480, 40 + 10),  # 32 and 8 are two granules, as the 40 were
    (8, 508, 8 + 32 + 10),  # 4 and 4 are two granules where the 8 were one
    (512, 32, 512 + 10), (1024, 32, 1024 + 20), (8, 0, 32)])
def test_a_burst_across_lines_is_two(row, address, port):
    """Lines of 512 bytes, granules of 32, 10 bytes of port time for the second half."""
    cost = PortCost(0, 0, Fraction(1), 32, 4096, burst_bytes=512, split_bytes=10)
    assert cost.port_bytes(row, address) == port
    assert replace(cost, split_bytes=None).port_bytes(row, address) == max(32, row)
