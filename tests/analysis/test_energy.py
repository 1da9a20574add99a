"""Energy: worked out by hand for a small kernel, adding up by unit, and held to what the chips may draw."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import msdsim
from msdsim.analysis.energy import UNITS, Range, run_energy
from msdsim.api import simulate
from msdsim.cli.program import run_program
from msdsim.errors import ChipError
from msdsim.hardware import load_hw
from msdsim.hardware.energy import CORNERS
from msdsim.ir import KernelBuilder
from msdsim.problems import Entry, Gemm, Workload
from msdsim.resources import data_dir, shipped_names
from msdsim.schedules.schedule import chip_hash

GEMM = "gemm:m=16,k=256,n=192"
CASES = [(GEMM, "toy", "dequant-int8"), ("gemm:m=7,k=100,n=80", "toy", "msd-int8"),
         ("gemm:m=16,k=1024,n=1536", "ascend950pr", "msd-mxfp4"),
         ("attention:batch=1,heads=4,kv_heads=2,head_dim=128,q=1,kv=300", "ascend910b1", "msd-int8")]
TOY = (data_dir("hwmodels") / "toy.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    path = tmp_path_factory.mktemp("chip") / "plain.toml"
    path.write_text(TOY[: TOY.index("[energy]")], encoding="utf-8")
    return load_hw(str(path))


def small_kernel():
    """A product of [20, 40] and [40, 16] on the Cube; two Vector instructions on a tile of [3, 70]."""
    kb = KernelBuilder("small", cores=1, aiv_per_core=1)
    x, w = kb.tensor("x", "bf16", (20, 40), "in"), kb.tensor("w", "bf16", (40, 16), "in")
    y = kb.tensor("y", "bf16", (20, 16), "out")
    u, v = kb.tensor("u", "fp16", (3, 70), "in"), kb.tensor("v", "fp32", (3, 70), "out")
    with kb.part("aic"):
        x1, w1 = kb.buffer("x1", "L1", "bf16", (20, 40)), kb.buffer("w1", "L1", "bf16", (40, 16))
        x0, w0 = kb.buffer("x0", "L0A", "bf16", (20, 40)), kb.buffer("w0", "L0B", "bf16", (40, 16))
        acc = kb.buffer("acc", "L0C", "fp32", (20, 16))
        for to, source in ((x1, x), (w1, w), (x0, x1), (w0, w1)):
            kb.copy(to[:, :], source[:, :])
        kb.op("mmad", acc[:, :], x0[:, :], w0[:, :])
        kb.op("fixpipe", y[:, :], acc[:, :])
    with kb.part("aiv"):
        a, b = kb.buffer("a", "UB", "fp16", (3, 70)), kb.buffer("b", "UB", "fp32", (3, 70))
        kb.copy(a[:, :], u[:, :])
        kb.op("cast", b[:, :], a[:, :])
        kb.op("muls", b[:, :], b[:, :], scalar=2.0)
        kb.copy(v[:, :], b[:, :])
    return kb.build()


def test_a_small_kernel_worked_out_by_hand():
    """On toy a MAC takes 1 pJ, a simple 32-bit result 2, a product 4, a byte 2 in L1, 1 in L0 and UB, 10 in L2, 50 in HBM; an
    instruction 10; static power is 1 W."""
    run = simulate(small_kernel(), "toy")
    picojoules = {unit: 1e6 * value.middle for unit, value in run.energy.by_unit.items()}
    operands = 20 * 40 * 2 + 40 * 16 * 2
    assert picojoules["Cube"] == pytest.approx(32 * 48 * 16)  # whole fractals of 16 x 16 x 16
    assert picojoules["L1"] == pytest.approx(2 * 2 * operands)  # written by MTE2, read by MTE1
    assert picojoules["L0"] == pytest.approx(operands + 20 * 16 * 4)  # operands written, the accumulator drained in FP32
    assert picojoules["Vector"] == pytest.approx(3 * 70 * (2 + 4))
    assert picojoules["UB"] == pytest.approx(3 * 70 * (2 + (2 + 4) + (4 + 4) + 4))
    assert picojoules["L2"] == pytest.approx(10 * (operands + 20 * 16 * 2 + 3 * 70 * (2 + 4)))
    assert picojoules["HBM"] == pytest.approx(50 * run.hbm_bytes)
    assert picojoules["issue"] == pytest.approx(10 * run.record.instructions)
    assert picojoules["static"] == pytest.approx(1e6 * run.time_us)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])
def test_energy_adds_up_by_unit_and_each_figure_moves_its_unit_alone(case):
    run = simulate(*case)
    energy = run.energy
    assert tuple(energy.by_unit) == UNITS
    assert np.allclose(energy.total, np.sum(list(energy.by_unit.values()), axis=0))
    assert np.allclose(energy.dynamic, np.subtract(energy.total, energy.by_unit["static"]))
    assert np.allclose(np.multiply(energy.power_w, run.time_us), energy.total)
    moved = run.traffic["l2_read_bytes"] + run.traffic["l2_write_bytes"]
    figures = run.hardware.chip.energy
    assert energy.by_unit["L2"].high == pytest.approx(moved * figures.byte_pj.l2.high / 1e6)
    for key, unit in {"byte_pj.l2": "L2", "byte_pj.hbm": "HBM", "byte_pj.l1": "L1", "byte_pj.ub": "UB", "static_w": "static"}.items():
        before = energy.by_unit[unit].high
        factor = 1.5
        value = getattr(figures, key) if "." not in key else getattr(figures.byte_pj, key.partition(".")[2])
        chip = run.hardware.replace(**{f"energy.{key}.high": factor * value.high}).chip
        changed = run_energy(replace(run.record, program=replace(run.record.program, chip=chip)))
        assert changed.by_unit[unit].high == pytest.approx(factor * before)
        assert changed.total.high - energy.total.high == pytest.approx((factor - 1) * before)
        assert changed.total.middle == energy.total.middle


@pytest.mark.parametrize("name", shipped_names("hwmodels"))
def test_chips_stay_within_what_they_may_draw(name):
    """Cube and HBM at their full rates at once, in the middle of the range; 16 bits draw at least what int8 does; idle is less."""
    chip = load_hw(name).chip
    figures = chip.energy
    assert figures is not None

    def full_rate(rate):
        fractal = chip.cube.fractal_m * chip.cube.fractal_n * chip.cube.rates[rate].fractal_k
        macs = chip.cores.aic * fractal / chip.cube.rates[rate].cycles_per_fractal * chip.clock_mhz * 1e6
        moved = chip.hbm.bandwidth_gbps * 1e9
        read = macs / 256 * 2  # each byte of an operand is read for 256 MACs or so: base blocks of 128 x 256
        pj = (macs * figures.mac_pj[rate].middle + moved * (figures.byte_pj.hbm.middle + figures.byte_pj.l2.middle)
              + read * (figures.byte_pj.l1.middle + figures.byte_pj.l0a.middle))
        return figures.static_w.middle + pj / 1e12

    assert figures.static_w.middle < full_rate("int8") <= full_rate("bf16")
    if figures.limit_w is not None:
        assert full_rate("bf16") <= figures.limit_w


@pytest.mark.parametrize(("problem", "dataflow"), [("gemm:m=16,k=4096,n=4096", "bf16"), ("gemm:m=16,k=4096,n=4096", "msd-int8"),
                                                   ("gemm:m=1024,k=1024,n=3072", "bf16")])
def test_runs_lie_between_idle_and_the_limit(problem, dataflow):
    run = simulate(problem, "ascend910b1", dataflow)
    figures = run.hardware.chip.energy
    assert figures.static_w.low < run.energy.power_w.low < run.energy.power_w.middle <= figures.limit_w
    assert run.energy.above_limit == ()


def test_above_the_limit_is_said():
    run = simulate(GEMM, load_hw("toy").replace(energy__limit_w=3), "bf16")
    assert run.energy.above_limit
    assert "above_limit" in run.to_json()["energy"]
    from msdsim.report.facts import run_facts

    assert any("above the 3 W that the chip may draw" in fact.text for fact in run_facts(run))


def test_chips_without_the_section_report_none(without):
    run = simulate(GEMM, without, "bf16")
    assert run.energy is None
    assert "energy" not in run.to_json()
    from msdsim.report.facts import comparison_report, run_facts

    assert "energy" not in {fact.name for fact in run_facts(run)}
    report = comparison_report(msdsim.compare(GEMM, without, ["bf16", "msd-int8"]))
    assert "energy" not in {fact.name for fact in report.facts}


def test_a_rate_without_a_figure_is_said(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOY.replace("int8 = { value = 0.4", "# { value = 0.4", 1), encoding="utf-8")
    run, other = simulate(GEMM, str(path), "msd-int8"), simulate(GEMM, str(path), "bf16")
    assert run.energy is None
    assert other.energy is not None
    from msdsim.report.facts import run_facts

    assert any("no energy" in fact.text for fact in run_facts(run))


def test_neither_times_nor_schedules_depend_on_it(without):
    with_energy, plain = simulate(GEMM, "toy", "msd-int8"), simulate(GEMM, without, "msd-int8")
    assert with_energy.cycles == plain.cycles
    assert chip_hash(load_hw("toy")) == chip_hash(without)


def test_ranges_compare_at_the_same_end():
    assert Range(1, 2, 4).over(Range(1, 4, 5)) == Range(0.5, 0.5, 1)


def test_run_compare_sweep_and_json_agree(tmp_path):
    run = simulate(GEMM, "toy", "msd-int8")
    spec = tmp_path / "spec.toml"
    spec.write_text('problem = "gemm:m={m},k=256,n=192"\nhw = "toy"\ndataflow = ["msd-int8"]\n[parameters]\nm = [16]\n')
    table = msdsim.sweep("gemm:m={m},k=256,n=192", "toy", ["msd-int8"], parameters={"m": [16]})
    assert table["energy_uj"][0] == run.energy.total.middle
    assert table["energy_uj.low"][0] <= table["energy_uj"][0] <= table["energy_uj.high"][0]
    assert sum(table[f"energy_uj.{unit}"][0] for unit in UNITS) == pytest.approx(table["energy_uj"][0])
    found = tmp_path / "run.json"
    assert run_program(["run", GEMM, "--hw", "toy", "--dataflow", "msd-int8", "--quiet", "--json", str(found)]) == 0
    assert json.loads(found.read_text())["energy"]["total_uj"] == run.energy.total._asdict()


def test_a_workload_counts_every_layer():
    workload = Workload("two", "", "", None, (Entry("up", 3, Gemm(m=4, k=64, n=96)), Entry("down", 1, Gemm(m=4, k=96, n=64))))
    found = msdsim.simulate_workload(workload, "toy", "msd-int8")
    assert found.energy.total.middle == pytest.approx(sum(run.count * run.result.energy.total.middle for run in found.runs))
    assert found.to_json()["total"]["energy"]["by_unit_uj"]["HBM"]["middle"] == found.energy.by_unit["HBM"].middle


#: Mistakes in the section: what is changed in toy's file, and what is said.
MISTAKES = {
    "order": ("low = 0.5, high = 2,", "low = 3, high = 2,", "must have low <= value <= high"),
    "one end": ("low = 0.5, high = 2,", "low = 0.5,", "a range has both low and high beside its value"),
    "no rate": ("[energy.mac_pj]", "[energy.mac_pj]\nfp4 = 1", "key 'energy.mac_pj.fp4' is no rate of the Cube"),
    "misspelt": ("special = {", "specal = {", "key 'energy.vector_16bit_pj.specal' is not known; did you mean 'energy.vector_16bit_pj.special'?"),
    "negative": ("instruction_pj = { value = 10", "instruction_pj = { value = -10", "must be at least 0"),
    "a range elsewhere": ("clock_mhz = { value = 1000,", "clock_mhz = { value = 1000, low = 1,", "unknown field 'low'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name, tmp_path):
    old, new, said = MISTAKES[name]
    assert old in TOY
    path = tmp_path / "mine.toml"
    path.write_text(TOY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ChipError) as caught:
        load_hw(str(path))
    assert said in str(caught.value)


def test_a_plain_number_is_sure_of_itself_and_corners_can_be_set():
    hw = load_hw("toy").replace(energy__static_w__high=5)
    assert [hw.chip.energy.static_w.at(corner) for corner in CORNERS] == [0.5, 1, 5]
    assert hw.chip.energy.instruction_pj.low == hw.chip.energy.instruction_pj.high == 10
