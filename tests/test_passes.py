"""The list of passes: each needs what those before it give, nothing is worked out twice, and what was worked out is used."""

from __future__ import annotations

from dataclasses import replace

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.dataflows.lookup import find_dataflow
from msdsim.engine import EngineOptions, load_engine
from msdsim.errors import InvariantError, KernelError
from msdsim.hardware import load_hw
from msdsim.ir import kernel_hash
from msdsim.ir.lower import lower
from msdsim.passes import PASSES, Build, run_passes
from msdsim.problems import Gemm
from msdsim.tilings import choose_tiling
from tests.ir.kernels import scale_kernel

ENTRY = {"chip", "dataflow", "problem", "tiling"}


def start(dataflow="dequant-int8", hw="ascend910b1"):
    chip, problem = load_hw(hw).chip, Gemm(m=16, k=512, n=256)
    chosen = find_dataflow(problem, dataflow)
    return Build(chip, chosen, problem, choose_tiling(chosen, problem, chip, None))


def test_every_pass_needs_only_what_is_given_before_it():
    known = set(ENTRY)
    for item in PASSES:
        assert set(item.needs) <= known, item.name
        assert item.gives not in known, item.name
        known.add(item.gives)
    assert known == set(Build.__dataclass_fields__)


@pytest.mark.parametrize("hw", ["toy", "ascend910b1", "ascend950dt"])
def test_all_passes_give_what_lowering_alone_gives(hw):
    made = run_passes(start(hw=hw), "lower")
    alone = lower(made.kernel, made.chip)
    engine = load_engine("fast")
    one, two = (engine.run(program, EngineOptions()) for program in (made.program, alone))
    assert (one.cycles, one.traffic, one.pipe_totals()) == (two.cycles, two.traffic, two.pipe_totals())
    found = msdsim.simulate(start(hw=hw).problem, hw, "dequant-int8")
    assert (found.cycles, kernel_hash(found.kernel)) == (one.cycles, kernel_hash(made.kernel))


def test_what_is_there_is_not_worked_out_again(monkeypatch):
    calls = []
    for module in ("msdsim.passes", "msdsim.ir.lower", "msdsim.ir.annotate"):
        monkeypatch.setattr(f"{module}.placed", lambda *args, calls=calls: calls.append(args) or real(*args))
    placed = run_passes(start(), "place")
    assert len(calls) == 1
    lowered = run_passes(placed, "lower")
    assert lowered.placement is placed.placement
    assert run_passes(lowered, "lower") is lowered
    assert len(calls) == 1
    calls.clear()
    chip, problem = msdsim.load_hw("ascend910b1"), "gemm:m=17,k=512,n=320"
    first = msdsim.simulate(problem, chip, "dequant-int8")
    assert len(calls) == 1
    # A chip that differs in its memory alone has the same program; one that differs in Vector has another.
    slower = msdsim.simulate(problem, chip.replace(hbm__bandwidth_gbps=100), "dequant-int8", tiling=first.tiling)
    assert len(calls) == 1
    assert slower.cycles > first.cycles
    assert slower.record.program.chip.hbm.bandwidth_gbps == 100
    msdsim.simulate(problem, chip.replace(vector__ops__mul__latency_cycles=99), "dequant-int8", tiling=first.tiling)
    assert len(calls) == 2


def test_printing_a_kernel_places_it_once(monkeypatch):
    calls = []
    for module in ("msdsim.passes", "msdsim.ir.annotate"):
        monkeypatch.setattr(f"{module}.placed", lambda *args, calls=calls: calls.append(args) or real(*args))
    assert run_program(["ir", "gemm:m=18,k=512,n=320", "--dataflow", "dequant-int8"]) == 0
    assert len(calls) == 1


def test_a_pass_out_of_turn_names_what_it_lacks():
    with pytest.raises(InvariantError, match="pass 'build' needs dataflow, problem, tiling, which nothing before it has given"):
        run_passes(Build(load_hw("toy").chip), "lower")


def test_a_kernel_that_does_not_verify_is_not_placed():
    kernel = replace(scale_kernel(), cores=99)
    with pytest.raises(KernelError, match="lower 'cores'"):
        run_passes(Build(load_hw("toy").chip, kernel=kernel), "place")


def real(*args):
    from msdsim.ir.placement import placed

    return placed(*args)
