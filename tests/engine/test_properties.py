"""What must hold for any run: conservation, physical floors, determinism, deadlocks that say who waits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings

from msdsim.dataflows import DATAFLOWS
from msdsim.engine import ENGINES, EngineOptions, load_engine
from msdsim.errors import Deadlock, KernelError
from msdsim.hardware import load_hw
from msdsim.hardware.sanity import rates
from msdsim.ir import KernelBuilder, at
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.naming import PIPES
from msdsim.problems import parse_problem
from msdsim.tilings import choose_tiling
from msdsim.timeline.record import BUSY, L2_READ, L2_WRITE

from .comparison import Refused, run
from .random_kernels import Case, cases

TOY = load_hw("toy").chip


@given(cases())
@settings(max_examples=30)
def test_conservation_and_floors(case: Case):
    record = run(case.program(), "fast")
    assert not isinstance(record, Refused)
    record.assert_coverage()
    timeline, cycles = record.timeline, record.cycles
    assert timeline is not None
    assert len(timeline["unit"]) == record.instructions + record.flags_only
    # What is charged to instructions is what is charged to pipes.
    for name, part in (("aic", "AIC"), ("aiv", "AIV")):
        pipes = record.totals[record.units.of_part(part), 1 : len(PIPES[part])].sum(axis=(0, 1))
        assert (record.instr_totals[name].sum(axis=0)[: -1] == pipes[: -1]).all()
    # Work on one pipe is not faster than the pipe, bytes are not faster than the servers.
    for unit in range(record.units.count):
        for pipe in range(1, len(PIPES[record.units.part(unit)])):
            rows = (timeline["unit"] == unit) & (timeline["pipe"] == pipe)
            assert timeline["work"][rows].sum() <= cycles
            assert record.totals[unit, pipe, BUSY] <= timeline["work"][rows].sum()
            assert (np.diff(timeline["start"][rows]) >= 0).all()
            assert (np.diff(timeline["end"][rows]) >= 0).all()
    assert (timeline["start"] >= timeline["dispatched"]).all()
    assert (timeline["end"] >= timeline["start"]).all()
    chip_rates, traffic = rates(case.hardware.chip), record.traffic
    assert cycles >= (traffic["hbm_read_bytes"] + traffic["hbm_write_bytes"]) / chip_rates["hbm.bandwidth_gbps"]
    assert cycles >= traffic["l2_read_bytes"] / chip_rates["l2.read_gbps"]
    assert cycles >= traffic["l2_write_bytes"] / chip_rates["l2.write_gbps"]
    # Every counter of bytes says the same.
    assert record.bandwidth.bytes.sum(axis=1).tolist() == record.tensor_traffic.sum(axis=0).tolist()
    assert timeline["bytes"].sum() == record.tensor_traffic[:, [L2_READ, L2_WRITE]].sum()


@pytest.mark.parametrize("dataflow", [name for name, flow in DATAFLOWS.items() if flow.kind == "gemm"])
def test_the_cube_is_not_faster_than_its_fractals(dataflow: str):
    problem, flow = parse_problem("gemm:m=256,k=1024,n=1024"), DATAFLOWS[dataflow]
    chip = next((chip for chip in (load_hw("ascend910b1").chip, load_hw("ascend950pr").chip) if not flow.refuses(problem, chip)), None)
    if chip is None:
        pytest.skip("needs a problem of its own")
    kernel = flow.build(problem, chip, choose_tiling(flow, problem, chip, None))
    record = load_engine("fast").run(lower(kernel, chip), EngineOptions())
    depth = max(rate.fractal_k for rate in chip.cube.rates.values())
    fractals = 256 // 16 * (1024 // 16) * (1024 // depth)
    assert record.cycles * chip.cores.aic >= fractals * min(rate.cycles_per_fractal for rate in chip.cube.rates.values())


_DIGEST = """
import hashlib
from msdsim.dataflows import DATAFLOWS
from msdsim.tilings import choose_tiling
from msdsim.engine import EngineOptions, load_engine
from msdsim.hardware import load_hw
from msdsim.ir.lower import lower
from msdsim.problems import parse_problem
digest = hashlib.sha256()
for chip in (load_hw("toy").chip, load_hw("ascend910b1").chip):
    for dataflow in ("bf16", "msd-int8"):
        problem = parse_problem("gemm:m=70,k=200,n=130")
        flow = DATAFLOWS[dataflow]
        program = lower(flow.build(problem, chip, choose_tiling(flow, problem, chip, None)), chip)
        for engine in ("fast", "reference"):
            record = load_engine(engine).run(program, EngineOptions(record_timeline=True))
            for column in record.timeline.values():
                digest.update(column.tobytes())
            digest.update(record.totals.tobytes() + record.bandwidth.bytes.tobytes() + record.tensor_traffic.tobytes())
print(digest.hexdigest())
"""


def test_the_same_in_every_process_whatever_the_hash_seed():
    digests = {
        subprocess.run([sys.executable, "-c", _DIGEST], env=os.environ | {"PYTHONHASHSEED": seed}, check=True,
                       capture_output=True, text=True).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


def starving_kernel() -> Kernel:
    """The AIC waits for a signal that is raised once less than it is waited for."""
    kb = KernelBuilder("starving", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "fp32", (4, 128), "in")
    kb.signal("ready", "aiv_to_aic")
    with kb.part("aiv"), kb.loop("i", 0, 3) as i:
        tile = kb.buffer("tile", "UB", "fp32", (1, 128), 2)
        kb.copy(tile[:, :], x[at(i, 1), :])
        kb.raise_signal("ready", "MTE2")
    with kb.part("aic"), kb.loop("j", 0, 4) as j:
        row = kb.buffer("row", "L1", "fp32", (1, 128), 2)
        kb.wait_signal("ready", "MTE2")
        kb.copy(row[:, :], x[at(j, 1), :])
    return kb.build()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_deadlock_says_who_waits_and_when(engine: str):
    """The third load of the AIV ends at 241, its signal is there at 261, the load behind it ends 108 later: the last event."""
    program = lower(starving_kernel(), TOY)
    with pytest.raises(Deadlock) as caught:
        load_engine(engine).run(program, EngineOptions())
    assert str(caught.value) == ("the kernel 'starving' deadlocks at cycle 369: Chip.Core[0].AIC.MTE2 waits for signal 'ready'")


def circular_kernel() -> Kernel:
    """Each side waits for the other first."""
    kb = KernelBuilder("circular", cores=2, aiv_per_core=2)
    kb.signal("ping", "aic_to_aiv")
    kb.signal("pong", "aiv_to_aic")
    with kb.part("aic"):
        kb.wait_signal("pong", "M")
        kb.raise_signal("ping", "M")
    with kb.part("aiv"):
        kb.wait_signal("ping", "V")
        kb.raise_signal("pong", "V")
    return kb.build()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_deadlock_of_many_is_summarised(engine: str):
    with pytest.raises(Deadlock) as caught:
        load_engine(engine).run(lower(circular_kernel(), TOY), EngineOptions())
    assert str(caught.value) == (
        "the kernel 'circular' deadlocks at cycle 2: Chip.Core[0].AIC.M waits for signal 'pong'; "
        "Chip.Core[0].AIV[0].V waits for signal 'ping'; Chip.Core[0].AIV[1].V waits for signal 'ping'; "
        "Chip.Core[1].AIC.M waits for signal 'pong'; and 2 more")


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_signal_has_one_pipe_on_each_side(engine: str):
    kb = KernelBuilder("two_pipes", cores=1, aiv_per_core=1)
    kb.signal("ready", "aiv_to_aic")
    with kb.part("aiv"):
        kb.raise_signal("ready", "MTE3")
        kb.raise_signal("ready", "V")
    with kb.part("aic"), kb.loop("i", 0, 2):
        kb.wait_signal("ready", "MTE2")
    with pytest.raises(KernelError, match="aiv raises signal 'ready' on pipes MTE3 and V; use one pipe, or one signal a pipe"):
        load_engine(engine).run(lower(kb.build(), TOY), EngineOptions())


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_empty_kernel_takes_no_time(engine: str):
    record = load_engine(engine).run(lower(KernelBuilder("empty", 1, 1).build(), TOY), EngineOptions(record_timeline=True))
    assert (record.cycles, record.instructions, record.flags_only) == (0, 0, 0)
