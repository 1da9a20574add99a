"""The fast engine's own limits and promises: what does not fit grows, what cannot be counted is refused, imports stay light."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from msdsim.api import simulate
from msdsim.engine import EngineOptions, load_engine
from msdsim.engine.fast import compiled, engine
from msdsim.errors import InputError, KernelError
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder, at
from msdsim.ir.expr import lift
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower

from .comparison import Refused, assert_engines_agree

TOY = load_hw("toy")


def burst_kernel(count: int) -> Kernel:
    """``count`` signals raised at once, taken one by one with work between."""
    kb = KernelBuilder("burst", cores=1, aiv_per_core=2)
    kb.signal("go", "aic_to_aiv")
    kb.signal("all", "barrier")
    with kb.part("aic"), kb.loop("i", 0, count):
        kb.raise_signal("go", "M")
        kb.raise_signal("all", "FIX")
    with kb.part("aiv"), kb.loop("j", 0, count):
        tile = kb.buffer("tile", "UB", "fp32", (1, 64))
        kb.wait_signal("go", "V")
        kb.op("dup", tile[:, :], scalar=0.0)
        kb.raise_signal("all", "V")
        kb.wait_signal("all", "MTE2")
    return kb.build()


@pytest.mark.parametrize("count", [3, 64, 65, 500])
def test_any_number_of_outstanding_signals(count: int):
    assert not isinstance(assert_engines_agree(lower(burst_kernel(count), TOY.chip)), Refused)


def strided_kernel(rows: int) -> Kernel:
    """Many short rows in flight at once, in deep queues."""
    kb = KernelBuilder("strided", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (rows, 2048), "in")
    with kb.part("aiv"), kb.loop("i", 0, rows) as i:
        tile = kb.buffer("tile", "UB", "int8", (1, 2), 8)
        kb.copy(tile[:, :], x[at(i, 1), at(i, 2)])
    return kb.build()


def test_any_number_of_pieces_in_flight_and_of_queued_instructions():
    hardware = TOY.replace(**{"paths.gm_ub.outstanding_bytes": 2**40, "paths.gm_ub.granule_bytes": 1, "paths.gm_ub.interval_cycles": 0,
                              "dispatch.queue_depth.MTE2": 2**40, "hbm.extra_latency_cycles": 10**6})
    assert not isinstance(assert_engines_agree(lower(strided_kernel(700), hardware.chip)), Refused)


def test_a_program_that_runs_again_begins_anew():
    """Its tables and first arrays are kept, whatever runs in between and however much room it turned out to need."""
    fast = load_engine("fast")
    programs = [lower(burst_kernel(count), TOY.chip) for count in (3, 500, 7, 9, 11)]
    options = [EngineOptions(skip=False), EngineOptions(skip=False, record_timeline=True), EngineOptions(memory="banked")]
    first = [[fast.run(program, option) for option in options] for program in programs]
    for program, records in zip(programs, first, strict=True):
        for option, record in zip(options, records, strict=True):
            again = fast.run(program, option)
            assert again.cycles == record.cycles > 0
            assert (again.totals == record.totals).all()
            assert (again.bandwidth.bytes == record.bandwidth.bytes).all()


def test_a_kernel_on_changed_chips_is_another_program():
    """Lowered kernels are kept by chip."""
    kernel, slower = burst_kernel(20), TOY.replace(**{"cross_core.signal_latency_cycles": 500})
    found = [simulate(kernel, hardware).cycles for hardware in (TOY, slower, TOY, TOY.replace(name="toy2"), slower)]
    assert found[0] == found[2] == found[3] < found[1] == found[4]


def test_time_beyond_the_counters_is_refused():
    kb = KernelBuilder("slow", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (1, 64), "in")
    with kb.part("aiv"), kb.loop("i", 0, 5000):
        tile = kb.buffer("tile", "UB", "int8", (1, 64))
        kb.copy(tile[:, :], x[:, :])
        kb.copy(x[:, :], tile[:, :])
    chip = TOY.replace(paths__gm_ub__latency_cycles=10**9).chip
    with pytest.raises(InputError, match="kernel 'slow' runs beyond cycle 4398046511104"):
        load_engine("fast").run(lower(kb.build(), chip), EngineOptions(skip=False))


def test_pieces_beyond_the_counters_are_refused():
    chip = TOY.replace(**{"memory.chunk_bytes": 2**45, "clock_mhz": 1733, "hbm.efficiency": 0.91} | {
        f"paths.{name}.outstanding_bytes": 2**45 for name, path in TOY.chip.paths.items() if path.outstanding_bytes}).chip
    kb = KernelBuilder("copy", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (1, 64), "in")
    with kb.part("aiv"):
        kb.copy(kb.buffer("tile", "UB", "int8", (1, 64))[:, :], x[:, :])
    with pytest.raises(InputError, match="chunk_bytes 35184372088832 is more than the fast engine can count"):
        load_engine("fast").run(lower(kb.build(), chip), EngineOptions())


def test_a_slice_outside_of_all_tensors_is_refused():
    kb = KernelBuilder("outside", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (4, 64), "in")
    with kb.part("aiv"), kb.loop("i", 0, 9) as i:
        kb.copy(kb.buffer("tile", "UB", "int8", (1, 64))[:, :], x[at(i, 1), :])
    with pytest.raises(KernelError, match="instruction 0 of kernel 'outside' reaches outside of the kernel's tensors"):
        load_engine("fast").run(lower(kb.build(), TOY.chip), EngineOptions())


def test_numbers_beyond_64_bits_are_refused():
    kb = KernelBuilder("large", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (4, 64), "in")
    with kb.part("aiv"), kb.loop("i", 0, 2**40) as i:
        kb.copy(kb.buffer("tile", "UB", "int8", (1, 64))[:, :], x[at(i * 2**40, 1), :])
    with pytest.raises(InputError, match="beyond 2\\*\\*61"):
        load_engine("fast").run(lower(kb.build(), TOY.chip), EngineOptions())


def cycles_of_copies(trips: int) -> int:
    """One copy in the first of so many iterations, then another one."""
    kb = KernelBuilder("sparse", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (4, 4096), "in")
    with kb.part("aiv"):
        tile = kb.buffer("tile", "UB", "int8", (1, 4096), ring=1)
        with kb.loop("i", 0, trips) as i, kb.when(i < 1):
            kb.copy(tile[:, :], x[at(i, 1), :])
        kb.copy(tile[:, :], x[at(1, 1), :])
    return load_engine("fast").run(lower(kb.build(), TOY.chip), EngineOptions()).cycles


def test_iterations_without_an_instruction_take_no_time_and_leave_room_for_an_interruption(monkeypatch):
    run, calls = engine._compiled_run(), []
    monkeypatch.setattr(engine, "_compiled_run", lambda: lambda *arrays: (calls.append(1), run(*arrays)))
    long, in_pieces = cycles_of_copies(2**26), len(calls)
    assert long == cycles_of_copies(2) > cycles_of_copies(0)
    # Between two calls Python sees that Ctrl-C was pressed.
    assert in_pieces > len(calls) - in_pieces == 2


def test_division_by_what_may_be_zero_is_refused():
    kb = KernelBuilder("zero", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (4, 64), "in")
    with kb.part("aiv"), kb.loop("i", 0, 4) as i:
        kb.copy(kb.buffer("tile", "UB", "int8", (1, 64))[:, :], x[at(lift(3) // i, 1), :])
    with pytest.raises(InputError, match="divides by 'i', which can be zero"):
        load_engine("fast").run(lower(kb.build(), TOY.chip), EngineOptions())


def test_numba_is_imported_only_where_nothing_was_compiled_ahead():
    code = ("import sys, msdsim.engine.fast as fast; from msdsim.engine.fast import native; "
            "fast.is_compiled(); assert 'numba' not in sys.modules; fast.warm_up(); "
            "assert ('numba' in sys.modules) == (native.load() is None); assert fast.is_compiled()")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compiled_code_goes_where_one_can_write(tmp_path, monkeypatch):
    compiled.cache_dir.cache_clear()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    given = compiled.cache_dir()
    assert given is not None
    assert given.parent == tmp_path / "given"
    assert not compiled.is_cached()
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder is wanted")
    compiled.cache_dir.cache_clear()
    monkeypatch.setattr(compiled, "_bases", lambda: [blocked, tmp_path / "second"])
    second = compiled.cache_dir()
    assert second is not None
    assert second.parent == tmp_path / "second"
    compiled.cache_dir.cache_clear()
    monkeypatch.setattr(compiled, "_bases", lambda: [blocked])
    assert compiled.cache_dir() is None
    compiled.cache_dir.cache_clear()


@pytest.mark.slow
def test_a_second_process_does_not_compile(tmp_path):
    code = ("import msdsim.engine.fast as fast; fast.native.load = lambda: None; print(fast.is_compiled()); fast.warm_up(); "
            "print(fast.is_compiled())")
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = [subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True, text=True).stdout
               for _ in range(2)]
    assert outputs == ["False\nTrue\n", "True\nTrue\n"]


@pytest.mark.parametrize("changes", [
    {"hbm.bandwidth_gbps": 321.5}, {"l2.read_gbps": 20, "l2.write_gbps": 10}, {"l2.capacity_bytes": 2**16},
    {"hbm.extra_latency_cycles": 77}, {"cross_core.signal_latency_cycles": 901, "cross_core.barrier_latency_cycles": 17},
])
def test_what_is_kept_of_a_program_serves_chips_with_other_memory(changes):
    kernel = simulate("gemm:m=40,k=192,n=256", TOY, "dequant-int8").kernel
    here, there = TOY.chip, TOY.replace(**changes).chip
    program = lower(kernel, here)
    fast, options = load_engine("fast"), EngineOptions()
    before = fast.run(program, options)
    for _ in range(2):  # the arrays at the beginning are made once and kept
        moved = fast.run(replace(program, chip=there), options)
        alone = load_engine("reference").run(lower(kernel, there), options)
        assert (moved.cycles, moved.traffic) == (alone.cycles, alone.traffic)
        assert fast.run(program, options).cycles == fast.cycles(program) == before.cycles
    assert moved.cycles != before.cycles


def test_a_chip_that_lowers_otherwise_is_compiled_anew():
    kernel = simulate("gemm:m=40,k=192,n=256", TOY, "dequant-int8").kernel
    program, slow = lower(kernel, TOY.chip), TOY.replace(**{"dispatch.issue_cycles": 500}).chip
    fast, options = load_engine("fast"), EngineOptions()
    assert fast.run(program, options).cycles < fast.run(replace(program, chip=slow), options).cycles
