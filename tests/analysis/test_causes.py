"""What binds a run: by construction, each unit of the chip made slow in turn; and a change moves the unit that it names."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.explore.whatif import CHANGES, RESOURCES, causes, path_widths, walk, what_if, with_causes, works_us
from msdsim.hardware import load_hw

HW = load_hw("ascend910b1")


def _slow(changes):
    """Changes are values, or what to do with those that are there; the window of bytes in flight stays, or latency would bind."""
    return HW.replace(**{key: change(_value(key)) if callable(change) else change for key, change in changes.items()
                         if not key.endswith("outstanding_bytes")})


def _value(key):
    found = HW.chip.model_dump()
    for part in key.split("."):
        found = found[part]
    return found


def _again(result):
    return lambda hardware: msdsim.simulate(result.kernel, hardware)


#: The chip's change, the problem that shows it, and what must be named first.
MADE_SLOW = {
    "HBM": ({"hbm.bandwidth_gbps": lambda v: v / 8}, "gemm:m=16,k=2048,n=4096", "bf16"),
    "L2": ({"l2.read_gbps": lambda v: v / 16, "l2.write_gbps": lambda v: v / 16}, "gemm:m=16,k=2048,n=4096", "dequant-int8"),
    "Cube": ({f"cube.rates.{name}.cycles_per_fractal": lambda v: v * 16 for name in HW.chip.cube.rates}, "gemm:m=256,k=1024,n=2048",
             "bf16"),
    "Vector": ({"vector.repeat_bytes": lambda v: v // 8}, "gemm:m=16,k=2048,n=2048", "dequant-int4"),
    # Everything that a row costs a port: its rate alone leaves what rows into fractals cost.
    "the cores' ports to L2": (path_widths(HW, gm=True, factor=1 / 128), "gemm:m=16,k=2048,n=2048", "bf16"),
    "paths between the buffers": (path_widths(HW, gm=False, factor=1 / 64), "gemm:m=16,k=2048,n=4096", "bf16"),
    "dispatch and flags": ({"dispatch.issue_cycles": lambda v: v * 200}, "gemm:m=16,k=1024,n=2048", "msd-int8"),
    "signals and barriers": ({"cross_core.signal_latency_cycles": lambda v: 50_000, "cross_core.barrier_latency_cycles":
                              lambda v: 50_000}, "gemm:m=16,k=1024,n=2048", "msd-int8"),
}


@pytest.mark.parametrize("resource", MADE_SLOW)
def test_what_was_made_slow_is_named_first(resource):
    changes, problem, dataflow = MADE_SLOW[resource]
    hardware = _slow(changes)
    result = msdsim.simulate(problem, hardware, dataflow)
    found = causes(what_if(result, _again(result)))
    assert found[0].resource == resource
    # The gain it predicts is that of the changed chip, simulated anew.
    changed = hardware.replace(**CHANGES[found[0].change](hardware))
    assert result.time_us / msdsim.simulate(result.kernel, changed).time_us == pytest.approx(found[0].speedup, rel=0.02)


@pytest.mark.parametrize(("problem", "dataflow", "chip"), [("gemm:m=16,k=4096,n=4096", "dequant-int4", "ascend950pr"),
                                                           ("gemm:m=16,k=4096,n=4096", "dequant-mxfp4", "ascend910b1")])
def test_a_vector_twice_as_fast_works_half_as_long(problem, dataflow, chip):
    hardware = load_hw(chip)
    result = msdsim.simulate(problem, hardware, dataflow)
    changed = msdsim.simulate(result.kernel, hardware.replace(**CHANGES["Vector twice as fast"](hardware)))
    busy = [run.stalls["aiv.v"]["busy"] for run in (result, changed)]
    assert 0.45 < busy[1] / busy[0] < 0.65
    assert changed.cycles < result.cycles


#: A kernel in which each change's unit has much to do.
WORKS = {"HBM twice as fast": "bf16", "L2 twice as fast": "dequant-int8", "GM ports twice as wide": "bf16",
         "local paths twice as wide": "bf16", "Cube twice as fast": "bf16", "Vector twice as fast": "dequant-int4",
         "no latencies": "msd-int8", "signals and barriers free": "msd-int8", "dispatch and flags free": "msd-int8"}


@pytest.mark.parametrize("change", WORKS)
def test_a_change_moves_the_unit_that_it_names(change):
    """What doubles works about half as long, what is free no time at all, and the times are those of a run of that chip."""
    result = msdsim.simulate("gemm:m=16,k=1024,n=2048", HW, WORKS[change])
    changed = msdsim.simulate(result.kernel, HW.replace(**CHANGES[change](HW)))
    before, after = works_us(result, change), works_us(changed, change)
    assert before > 0
    if change == "no latencies":
        # Heads of L0C's drains and of transfers in flight have other reasons.
        assert after < 0.6 * before
    elif change.endswith("free"):
        assert after < 0.02 * before
    else:
        # A start of its own is left to every transfer and instruction.
        assert 0.48 <= after / before < (0.8 if "ports" in change else 0.65)


def test_the_walk_only_gains_and_ends_at_a_floor():
    result = msdsim.simulate("gemm:m=16,k=2048,n=2048", HW, "dequant-int8")
    steps = walk(result, _again(result))
    assert len(steps) >= 2
    assert [step.speedup for step in steps] == sorted(step.speedup for step in steps)
    assert len({step.change for step in steps}) == len(steps)
    first = causes(what_if(result, _again(result)))[0]
    assert (steps[0].change, steps[0].speedup) == (first.change, pytest.approx(first.speedup))


def test_every_change_names_its_resource():
    assert set(RESOURCES) == set(CHANGES)


def test_long_kernels_are_not_asked_ten_times(monkeypatch):
    from msdsim.explore import whatif

    result = msdsim.simulate("gemm:m=4,k=256,n=64", "toy", "bf16")
    monkeypatch.setattr(whatif, "MOST_INSTRUCTIONS", result.record.instructions - 1)
    assert with_causes(result, _again(result)).causes is None
    assert "bound_by" not in result.to_json()


def test_public_names_are_what_dir_shows():
    assert "simulate" in dir(msdsim)
    assert not [name for name in dir(msdsim) if name in ("Any", "TYPE_CHECKING", "annotations", "moved")]
