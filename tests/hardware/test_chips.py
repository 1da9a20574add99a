"""The shipped chips: where every number comes from, and whether the numbers add up to what was published."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

import pytest

import msdsim
from msdsim.errors import ChipError
from msdsim.formats import FORMATS
from msdsim.hardware import load_hw
from msdsim.hardware.chip import Path
from msdsim.hardware.describe import rows, unit_of
from msdsim.hardware.sanity import CUBE_FORMATS, rates
from msdsim.hardware.units.mte import port_cost
from msdsim.hardware.units.vector import lanes
from msdsim.resources import data_dir, shipped_names

CHIPS = shipped_names("hwmodels")
A2 = ["ascend910b1", "ascend910b2", "ascend910b3", "ascend910b4", "ascend910c-die"]
A5 = ["ascend950pr", "ascend950dt"]
MACS_PER_FRACTAL_K = 16 * 16
KIB = 1024


def peak_tflops(name: str, a: str) -> float:
    """Operations per second of all Cubes, in units of 10**12; a multiply and an add are two."""
    chip = load_hw(name).chip
    rate = chip.cube.rate(a, a)
    assert rate is not None
    per_cycle = MACS_PER_FRACTAL_K * rate.fractal_k / rate.cycles_per_fractal
    return 2 * chip.cores.aic * per_cycle * chip.clock_mhz / 1e6


def isolated_cycles(path: Path, size: int) -> float:
    return path.interval_cycles + size / path.bytes_per_cycle + path.latency_cycles


def test_the_shipped_chips_are_those_of_the_interface():
    assert sorted([*A2, *A5, "toy"]) == CHIPS


@pytest.mark.parametrize("name", CHIPS)
def test_every_number_says_where_it_comes_from(name):
    hardware = load_hw(name)
    assert hardware.name == name
    for row in rows(hardware):
        if isinstance(row.value, str):
            continue
        assert row.kind in ("measured", "vendor", "paper", "simulator", "inferred", "assumed"), row.key
        # A single word would be the key of a [sources] table that does not hold it.
        assert " " in row.source, (row.key, row.source)
    assert {row.key for row in rows(hardware)} >= set(hardware.provenance)


@pytest.mark.parametrize("name", CHIPS)
def test_no_source_is_left_unused(name):
    text = (data_dir("hwmodels") / f"{name}.toml").read_text(encoding="utf-8")
    for key in tomllib.loads(text).get("sources", {}):
        assert f'source = "{key}"' in text, f"source '{key}' of {name} is not used"


@pytest.mark.parametrize("name", CHIPS)
def test_rows_have_units(name):
    found = {row.key: row.unit for row in rows(load_hw(name))}
    assert found["clock_mhz"] == "MHz"
    assert found["buffers.l1_bytes"] == "B"
    assert found["paths.gm_l1.bytes_per_cycle"] == "B/cycle"
    assert found["paths.gm_l1.latency_cycles"] == "cycles"
    assert found["cube.rates.int8.cycles_per_fractal"] == "cycles/fractal"
    assert found["vector.ops.add.slope_cycles_per_repeat"] == "cycles/repeat"
    assert found["hbm.bandwidth_gbps"] == "GB/s"
    assert found["launch.head_us"] == "us"
    assert found["cores.aic"] == found["hbm.efficiency"] == ""
    assert "paths.l1_l0a.outstanding_bytes" not in found


def test_unit_of_an_unknown_ending_is_empty():
    assert unit_of("cube.hazard_fractals") == ""


@pytest.mark.parametrize(
    ("name", "a", "tflops"),
    [
        ("ascend910b1", "bf16", 363.7),
        ("ascend910b1", "int8", 2 * 363.7),
        ("ascend910b1", "int4", 4 * 363.7),
        ("ascend910b2", "fp16", 353.9),
        ("ascend910b3", "fp16", 294.9),
        ("ascend910b4", "fp16", 270.3),
        ("ascend910c-die", "bf16", 363.7),
        ("ascend950pr", "bf16", 432.5),
        ("ascend950pr", "int8", 865),
        ("ascend950pr", "fp8_e4m3fn", 865),
        ("ascend950pr", "mxfp8", 865),
        ("ascend950pr", "mxfp4", 1730),
        ("ascend950dt", "bf16", 432.5),
    ],
)
def test_cube_peak_is_the_published_one(name, a, tflops):
    assert peak_tflops(name, a) == pytest.approx(tflops, rel=5e-4)


def test_910c_die_is_within_a_core_of_the_published_376_tflops():
    assert peak_tflops("ascend910c-die", "bf16") * 25 / 24 > 376 > peak_tflops("ascend910c-die", "bf16")


@pytest.mark.parametrize(
    ("path", "points", "tolerance"),
    [
        # msKPP, one core, data in L2: KiB -> cycles.
        ("gm_l1", {4: 234, 16: 295, 32: 373, 64: 623, 512: 3356}, 0.08),
        ("gm_ub", {4: 238, 16: 300, 64: 747, 192: 1765}, 0.10),
        ("gm_l0a", {1: 216, 4: 226, 64: 615}, 0.10),
        ("gm_l0b", {1: 199, 4: 219, 32: 458, 64: 714}, 0.06),
        ("ub_gm", {1: 151, 4: 181, 16: 316}, 0.08),
    ],
)
def test_isolated_transfers_of_the_910b1_take_what_was_measured(path, points, tolerance):
    found = load_hw("ascend910b1").chip.paths[path]
    for kib, cycles in points.items():
        assert isolated_cycles(found, kib * KIB) == pytest.approx(cycles, rel=tolerance)


@pytest.mark.parametrize(
    ("path", "points"), [("l1_l0a", {4: 18, 16: 64, 64: 251}), ("l1_l0b", {4: 33, 16: 127, 64: 500}),
                         ("l0c_gm", {1: 83, 4: 80, 16: 135, 32: 273, 64: 559, 128: 1116})]
)
def test_back_to_back_transfers_of_the_910b1_take_what_was_measured(path, points):
    found = load_hw("ascend910b1").chip.paths[path]
    for kib, cycles in points.items():
        at_rate = found.interval_cycles + kib * KIB / found.bytes_per_cycle
        assert max(found.minimum_cycles or 0, at_rate) == pytest.approx(cycles, rel=0.05)


@pytest.mark.parametrize(("kib", "cycles"), {4: 781, 16: 794, 32: 784, 64: 824, 128: 1149, 192: 1612}.items())
def test_rows_that_become_fractals_take_what_was_measured(kib, cycles):
    """msKPP's ND2NZ copies into L1, 256 rows each."""
    cost = port_cost(load_hw("ascend910b1").chip.paths["gm_l1"], several_rows=True)
    on_port = 256 * cost.port_bytes(kib * KIB // 256)
    assert cost.interval + cost.latency + on_port / cost.bytes_per_cycle == pytest.approx(cycles, rel=0.06)


def test_a_row_is_cut_into_requests_of_powers_of_two():
    cost = replace(port_cost(load_hw("ascend910b1").chip.paths["gm_l1"], several_rows=True), granule_bytes=1, request_bytes=1)
    assert [cost.port_bytes(size) for size in (1, 64, 65, 512, 513, 480, 1000)] == [64, 64, 128, 512, 576, 512, 1024]


def test_streaming_302_mb_on_the_910b1_takes_what_was_measured():
    hbm = load_hw("ascend910b1").chip.hbm
    assert 12288 * 12288 * 2 / (hbm.bandwidth_gbps * hbm.efficiency * 1e3) == pytest.approx(202.7, rel=0.01)


def test_a_copy_in_pieces_of_128_bytes_on_the_910b1_takes_what_was_measured():
    chip = load_hw("ascend910b1").chip
    path = chip.paths["gm_ub"]
    transfers_per_aiv = 12288 * 12288 * 2 // 128 // chip.aiv
    cycles = transfers_per_aiv * (path.interval_cycles + 128 / path.bytes_per_cycle)
    launch_us = 215.8 - 202.7
    assert cycles / chip.clock_mhz + launch_us == pytest.approx(564.8, rel=0.02)


@pytest.mark.parametrize("name", CHIPS)
def test_one_core_reaches_its_port_on_hits_and_a_part_of_it_on_misses(name):
    chip = load_hw(name).chip
    for key, path in chip.paths.items():
        if path.outstanding_bytes is None:
            continue
        # Long transfers UB->GM are slower than their start (msKPP): their window is measured to be narrower.
        share = 0.9 if key == "ub_gm" else 1
        assert path.outstanding_bytes >= share * path.bytes_per_cycle * path.latency_cycles, key
        assert path.outstanding_bytes % chip.memory.chunk_bytes == 0, key
        if path.source == "GM" and name != "toy":
            miss = path.outstanding_bytes / (path.latency_cycles + chip.hbm.extra_latency_cycles)
            # An AIC of the 950 can take 80 of 106 B/cycle from memory, where the 950DT's is fast enough to give them.
            most = 0.8 if chip.arch == "3510" and key == "gm_l1" else 0.6
            assert 1 / 4.5 <= miss / path.bytes_per_cycle <= most, key


@pytest.mark.parametrize("name", CHIPS)
def test_l2_is_faster_than_hbm_and_slower_than_all_ports(name):
    chip = load_hw(name).chip
    ports = chip.cores.aic * chip.paths["gm_l1"].bytes_per_cycle * chip.clock_mhz / 1e3
    ports += chip.aiv * chip.paths["gm_ub"].bytes_per_cycle * chip.clock_mhz / 1e3
    assert chip.hbm.bandwidth_gbps < chip.l2.read_gbps < ports
    assert chip.l2.write_gbps <= chip.l2.read_gbps


@pytest.mark.parametrize("name", CHIPS)
def test_a_fractal_of_every_rate_fits_its_buffers(name):
    chip = load_hw(name).chip
    bits = {"bf16": 16, "fp16": 16, "fp8_e4m3fn": 8, "int8": 8, "mxfp8": 8, "int4": 4, "mxfp4": 4}
    for rate in chip.cube.rates.values():
        # One row of a fractal is 32 bytes in every format; that is what the hardware's fractal is.
        assert rate.fractal_k * bits[rate.a] == 32 * 8
        assert chip.cube.fractal_m * 32 <= chip.buffers.capacity("L0A")


@pytest.mark.parametrize("name", [*A2, "toy"])
def test_a2_joins_cube_and_vector_only_through_gm(name):
    chip = load_hw(name).chip
    for absent in (("UB", "L1"), ("L1", "UB"), ("L0C", "UB")):
        assert chip.path(*absent) is None
    for present in (("GM", "L0A"), ("GM", "L0B"), ("L1", "GM"), ("L0C", "GM"), ("L0C", "L1"), ("L1", "BT")):
        assert chip.path(*present) is not None
    assert chip.cube.rate("int4", "int4") is not None
    assert chip.cube.rate("mxfp4", "mxfp4") is None


@pytest.mark.parametrize("name", A5)
def test_a5_joins_cube_and_vector_directly(name):
    chip = load_hw(name).chip
    for present in (("UB", "L1"), ("L1", "UB"), ("L0C", "UB")):
        assert chip.path(*present) is not None
    for absent in (("GM", "L0A"), ("GM", "L0B"), ("L1", "GM")):
        assert chip.path(*absent) is None
    assert chip.cube.rate("int4", "int4") is None
    assert chip.cube.rate("mxfp8", "mxfp4") is None


def test_register_vector_of_the_950_follows_from_its_ports():
    ops = load_hw("ascend950pr").chip.vector.ops
    loads = {"add": 2, "adds": 1, "select": 3, "dup": 0, "cast": 1}
    for name, count in loads.items():
        assert ops[name].slope_cycles_per_repeat == max(count / 2, 1)
    assert ops["add"].latency_cycles - 7 == ops["mul"].latency_cycles - 8 == ops["exp"].latency_cycles - 16


def test_toy_has_round_numbers():
    chip = load_hw("toy").chip
    found = rates(chip)
    assert found["l2.read_gbps"] == 256
    assert found["hbm.bandwidth_gbps"] == 128
    assert all(rate.denominator == 1 for rate in found.values())
    assert isolated_cycles(chip.paths["gm_l1"], 6400) == 200
    assert isolated_cycles(chip.paths["l1_l0a"], 1280) == 22


def test_cube_formats_are_number_formats_or_mx():
    assert {name for name in CUBE_FORMATS if not name.startswith("mx")} <= set(FORMATS)


@pytest.mark.parametrize("name", CHIPS)
def test_descriptions_fit_a_table(name):
    text = load_hw(name).chip.description
    assert 20 < len(text) <= 140
    assert not re.search(r"[\n\t]|\.$", text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trefi_ns": 100}, "'hbm.banked.trefi_ns' = 100 leaves no time between refreshes; it must be above"),
        ({"trefi_ns": 1e30}, "'hbm.banked.trefi_ns' = 1e+30 must be at most 1000000"),
        *(({name: 1e30}, f"'hbm.banked.{name}' = 1e+30 must be at most 1000000") for name in (
            "trcd_ns", "trp_ns", "tcl_ns", "tcwl_ns", "tras_ns", "trtp_ns", "twr_ns", "twtr_ns", "trrd_ns", "tfaw_ns", "trfc_ns")),
    ],
)
def test_timings_of_the_banks(changes, message):
    with pytest.raises(ChipError, match=message.replace("1e+30 must", r"1e\+30 must")):
        load_hw("toy").replace(**{f"hbm.banked.{name}": value for name, value in changes.items()})


def test_the_shortest_time_between_refreshes_still_ends():
    hw = load_hw("toy").replace(**{"hbm.banked.trefi_ns": 138})
    assert msdsim.simulate("gemm:m=16,k=128,n=128", hw, memory="banked").cycles > 0


def test_rows_that_begin_inside_a_block_are_read_block_by_block():
    """17 blocks of 32 B for a row of 512 B that begins anywhere, at 1.3 cycles of 141 B each; one at a block is cut at the line."""
    cost = port_cost(load_hw("ascend910b1").chip.paths["gm_l1"], several_rows=True, line_bytes=512)
    assert cost.block_port_bytes == 184
    assert [cost.port_bytes(512, at) for at in (0, 2, 30, 482)] == [512, 17 * 184, 17 * 184, 17 * 184]
    assert cost.port_bytes(512, 32) < 17 * 184
    assert cost.port_bytes(20, 4) == cost.granule_bytes
    assert port_cost(load_hw("ascend950pr").chip.paths["gm_l1"], several_rows=True, line_bytes=512).port_bytes(512, 2) <= 1024


@pytest.mark.parametrize(("bits", "count"), [(32, 64), (16, 128), (8, 256)])
def test_elements_of_a_repeat(bits, count):
    """A repeat of the A2 works on 256 bytes (CANN, vector instructions)."""
    assert lanes(load_hw("ascend910b1").chip, bits) == count
