"""Speed of the engines: instructions per second, wall time against size, memory against size, start-up.

Run ``python benchmarks/engine.py`` (about two minutes; ``--quick`` leaves out what takes longest).  It writes the picture
``benchmarks/out/engine.png``.  Figures of one run are comparable with each other, not with another machine's: what counts are
the ratios, and the limits beside the figures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.dataflows import DATAFLOWS, choose_tiling
from msdsim.engine import EngineOptions, load_engine
from msdsim.engine.fast import warm_up
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder, at
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.program import Program
from msdsim.problems import parse_problem
from msdsim.timeline.record import RunRecord

CHIP = load_hw("ascend910b1").chip
OUT = Path(__file__).resolve().parent / "out"


def best(function: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Shortest of some runs in seconds, and what the last returned."""
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def gemm(problem: str, dataflow: str) -> Program:
    """A GEMM lowered for the chip with the dataflow's own tiling."""
    flow, shape = DATAFLOWS[dataflow], parse_problem(problem)
    return lower(flow.build(shape, CHIP, choose_tiling(flow, shape, CHIP, None)), CHIP)


def vector_kernel(count: int) -> Kernel:
    """Four dependent Vector instructions a turn on one AIV, ``count`` instructions in all."""
    kb = KernelBuilder("vector", 1, 1)
    with kb.part("aiv"):
        a, b = kb.buffer("a", "UB", "fp32", (8, 64)), kb.buffer("b", "UB", "fp32", (8, 64))
        with kb.loop("i", 0, count // 4):
            kb.op("adds", b[:, :], a[:, :], scalar=1.0)
            kb.op("muls", a[:, :], b[:, :], scalar=1.0)
            kb.op("add", b[:, :], a[:, :], b[:, :])
            kb.op("exp", a[:, :], b[:, :])
    return kb.build()


def cube_kernel(count: int) -> Kernel:
    """Two copies into L0 and a product a turn on one AIC, double-buffered, ``count`` instructions in all."""
    kb = KernelBuilder("cube", 1, 1)
    with kb.part("aic"):
        a1, b1 = kb.buffer("a1", "L1", "bf16", (128, 256)), kb.buffer("b1", "L1", "bf16", (256, 128))
        acc = kb.buffer("acc", "L0C", "fp32", (128, 128))
        with kb.loop("i", 0, count // 12), kb.loop("k", 0, 4) as k:
            a0, b0 = kb.buffer("a0", "L0A", "bf16", (128, 64), 2), kb.buffer("b0", "L0B", "bf16", (64, 128), 2)
            kb.copy(a0[:, :], a1[:, at(k * 64, 64)])
            kb.copy(b0[:, :], b1[at(k * 64, 64), :])
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :], accumulate=k)
    return kb.build()


def stream_kernel(count: int) -> Kernel:
    """GM to UB and back, one row of 1 KiB a copy, on every AIV; ``count`` instructions in all."""
    cores, aivs, rows = CHIP.cores.aic, CHIP.cores.aiv_per_aic, 4096
    kb = KernelBuilder("stream", cores, aivs)
    x, y = (kb.tensor(name, "fp32", (rows, 256), role) for name, role in (("x", "in"), ("y", "out")))
    with kb.part("aiv"), kb.loop("i", 0, count // (2 * cores * aivs)) as i:
        row = (i * (cores * aivs) + kb.core * aivs + kb.sub) % rows
        tile = kb.buffer("tile", "UB", "fp32", (1, 256), 4)
        kb.copy(tile[:, :], x[at(row, 1), :])
        kb.copy(y[at(row, 1), :], tile[:, :])
    return kb.build()


def run(program: Program, engine: str, skip: bool = True) -> Any:
    return load_engine(engine).run(program, EngineOptions(skip=skip))


def rates() -> None:
    print("instructions per second, nothing skipped (limits: fast 30 M/s on one core, 100 x reference)")
    print(f"  {'kernel':34} {'instructions':>12} {'reference':>12} {'fast':>12} {'ratio':>7}")
    cases = [
        ("Vector chain", lambda n: lower(vector_kernel(n), CHIP), 20_000, 2_000_000),
        ("Cube from L1", lambda n: lower(cube_kernel(n), CHIP), 20_000, 2_000_000),
        ("copies of 1 KiB, 48 AIVs", lambda n: lower(stream_kernel(n), CHIP), 20_000, 500_000),
        *[(f"gemm:m=64,k=4096,n=4096 {name}", lambda _, name=name: gemm("gemm:m=64,k=4096,n=4096", name), 0, 0)
          for name in ("bf16", "dequant-int8", "msd-int8")],
        *[(f"gemm:m=1024,k=4096,n=4096 {name}", lambda _, name=name: gemm("gemm:m=1024,k=4096,n=4096", name), 0, 0)
          for name in ("bf16", "dequant-int8", "msd-int8")],
    ]
    for name, build, short, long in cases:
        slow_program, fast_program = build(short), build(long)
        slow, record = best(lambda p=slow_program: run(p, "reference"), repeats=1)
        slow_rate = (record.instructions + record.flags_only) / slow
        fast, record = best(lambda p=fast_program: run(p, "fast", skip=False))
        count = record.instructions + record.flags_only
        rate = count / fast
        print(f"  {name:34} {count:12,} {slow_rate / 1e3:9,.1f} K/s {rate / 1e6:9,.1f} M/s {rate / slow_rate:6,.0f}x")


def pieces() -> None:
    """What moves to and from the cores is cut into pieces of ``memory.chunk_bytes``, whose lines are looked up in L2."""
    print("CPU time of the engine by what moves between L2 and the cores (a piece is 8 lines of 512 bytes)")
    print(f"  {'kernel':38} {'memory':>9} {'pieces':>9} {'CPU ms':>8} {'M instr/s':>10} {'ns/piece':>9} {'ns/line':>8}")
    for where, problem, dataflow in (("in L2", "gemm:m=1024,k=4096,n=4096", "bf16"),
                                     ("beyond", "gemm:m=16,k=8192,n=12288", "bf16"),
                                     ("through L2", "gemm:m=16,k=8192,n=12288", "dequant-int8")):
        program = gemm(problem, dataflow)
        for memory in ("bandwidth", "banked"):
            taken = []
            for _ in range(5):
                start = time.process_time()
                record = load_engine("fast").run(program, EngineOptions(skip=False, memory=memory))
                taken.append(time.process_time() - start)
            moved = record.traffic["l2_read_bytes"] + record.traffic["l2_write_bytes"]
            count, lines = moved / CHIP.memory.chunk_bytes, moved / CHIP.l2.line_bytes
            rate = (record.instructions + record.flags_only) / min(taken)
            print(f"  {where + ': ' + problem[5:] + ' ' + dataflow:38} {memory:>9} {count:9,.0f} {min(taken) * 1e3:8.2f} "
                  f"{rate / 1e6:10.2f} {min(taken) * 1e9 / count:9.0f} {min(taken) * 1e9 / lines:8.1f}")


def sizes(quick: bool) -> dict[str, list[tuple[float, float]]]:
    """Wall time of the engine by dataflow: (multiply-adds, seconds)."""
    print("wall time of the fast engine against size (limits: m=1024 k=n=4096 bf16 0.1 s, m=k=n=8192 bf16 1 s)")
    found: dict[str, list[tuple[float, float]]] = {}
    shapes = [(16, 512, 512), (64, 1024, 1024), (256, 1024, 2048), (1024, 2048, 2048), (1024, 4096, 4096), (4096, 4096, 4096)]
    if not quick:
        shapes += [(8192, 8192, 8192)]
    for dataflow in ("bf16", "dequant-int8", "msd-int8"):
        found[dataflow] = []
        for m, k, n in shapes:
            program = gemm(f"gemm:m={m},k={k},n={n}", dataflow)
            taken, record = best(lambda p=program: run(p, "fast"))
            found[dataflow].append((m * k * n, taken))
            count = record.instructions + record.flags_only
            print(f"  {dataflow:13} m={m:<5} k={k:<5} n={n:<5} {taken * 1e3:9.1f} ms  {record.cycles:10,} cycles "
                  f"{count:10,} instructions, {record.skipped_iterations:,} iterations skipped")
    return found


def counts(quick: bool) -> dict[str, list[tuple[float, float]]]:
    """Wall time by number of instructions of a loop inside a core, with and without skipping."""
    print("wall time against the number of instructions of the Vector chain")
    found: dict[str, list[tuple[float, float]]] = {"skipping": [], "not skipping": []}
    for exponent in range(3, 10):
        program = lower(vector_kernel(10**exponent), CHIP)
        for name, skip in (("skipping", True), ("not skipping", False)):
            if not skip and exponent > (8 if not quick else 7):
                continue
            taken, record = best(lambda p=program, s=skip: run(p, "fast", skip=s), repeats=1 if exponent > 7 else 3)
            assert record.instructions == 10**exponent
            found[name].append((10.0**exponent, taken))
        print(f"  10^{exponent}: " + ", ".join(f"{name} {values[-1][1] * 1e3:.1f} ms" for name, values in found.items()
                                              if values[-1][0] == 10.0**exponent))
    return found


def repeated_share(record: RunRecord) -> float:
    """Share of the run that an exact skip of repetitions could save at most: stretches in which all that starts on any core
    starts again as it did 1 to 16 turns of the first core's main load earlier.  What is in L2 is not even looked at."""
    timeline = record.timeline
    assert timeline is not None
    same = np.stack([timeline[name] for name in ("unit", "pipe", "instr", "work", "bytes", "cause")], axis=1)
    starts, ends = timeline["start"], timeline["end"]
    first = int(timeline["unit"][timeline["bytes"] > 0].min())
    loads = (timeline["unit"] == first) & (timeline["bytes"] > 0)
    instrs, counts = np.unique(timeline["instr"][loads], return_counts=True)
    turns = starts[loads & (timeline["instr"] == instrs[counts.argmax()])]
    rows = np.searchsorted(starts, turns)

    def repeats(turn: int, period: int) -> bool:
        """Whether the ``period`` turns before ``turn`` are as those after it."""
        before, here, after = (slice(rows[turn - period], rows[turn]), rows[turn], rows[turn + period])
        shift = turns[turn] - turns[turn - period]
        return after - here == before.stop - before.start and turns[turn + period] - turns[turn] == shift and all(
            np.array_equal(column[before] + shift, column[here:after]) for column in (starts, ends)
        ) and np.array_equal(same[before], same[here:after])

    covered, turn = 0, 1
    while turn < len(turns) - 1:
        period = next((p for p in range(1, 17) if p <= turn and turn + p < len(turns) and repeats(turn, p)), 0)
        if period:
            covered += int(turns[turn + period] - turns[turn])
        turn += period or 1
    return covered / record.cycles


def repetition() -> None:
    print("share of a run that repeats earlier cycles exactly, on all cores together (what skipping could save at most)")
    for problem in ("gemm:m=16,k=8192,n=8192", "gemm:m=1024,k=8192,n=4096", "gemm:m=4096,k=4096,n=4096"):
        for dataflow in ("bf16", "dequant-int8", "msd-int8"):
            record = load_engine("fast").run(gemm(problem, dataflow), EngineOptions(record_timeline=True))
            print(f"  {problem:26} {dataflow:13} {repeated_share(record):6.1%}")


def picture(by_size: dict[str, list[tuple[float, float]]], by_count: dict[str, list[tuple[float, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axes, series, label in ((left, by_size, "multiply-adds (m k n)"), (right, by_count, "instructions")):
        for name, points in series.items():
            axes.loglog(*zip(*points, strict=True), marker="o", label=name)
        axes.set_xlabel(label)
        axes.set_ylabel("wall time of the fast engine [s]")
        axes.grid(True, which="major", alpha=0.4)
        axes.legend()
    left.set_title(f"GEMM on {CHIP.name}, automatic tiling")
    right.set_title("a loop of Vector instructions inside one core")
    OUT.mkdir(exist_ok=True)
    figure.savefig(OUT / "engine.png", dpi=110)
    print(f"picture: {OUT / 'engine.png'}")


_PEAK = """
import resource, sys
sys.path.insert(0, {folder!r})
import engine
from msdsim.engine.fast import warm_up
warm_up()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
engine.run(engine.{program}, "fast", skip={skip})
print(before // 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def memory(quick: bool) -> None:
    print("peak memory of a process, MiB (limit 1 GB for 10^9 instructions)")
    cases = [("10^6, not skipping", "lower(engine.vector_kernel(10**6), engine.CHIP)", False),
             ("10^9, skipping", "lower(engine.vector_kernel(10**9), engine.CHIP)", True),
             ("m=k=n=4096 bf16", "gemm('gemm:m=4096,k=4096,n=4096', 'bf16')", True)]
    if not quick:
        cases += [("10^9, not skipping", "lower(engine.vector_kernel(10**9), engine.CHIP)", False),
                  ("m=k=n=8192 bf16", "gemm('gemm:m=8192,k=8192,n=8192', 'bf16')", True)]
    for name, program, skip in cases:
        code = _PEAK.format(folder=str(Path(__file__).resolve().parent), program=program, skip=skip)
        output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
        print(f"  {name:22} {output[1]:>5} (ready to run: {output[0]})")


def start_up() -> None:
    print("start-up, whole processes (limits: --help 0.3 s, a small run 1 s)")
    with tempfile.TemporaryDirectory() as folder:
        fresh = os.environ | {"NUMBA_CACHE_DIR": folder}
        cli = [sys.executable, "-c", "from msdsim.cli import main; main()"]
        load = [sys.executable, "-c", "import msdsim.engine.fast as fast; fast.warm_up()"]
        for name, command, env, repeats in (
            ("python -c pass", [sys.executable, "-c", "pass"], os.environ, 3),
            ("python -c 'import numba'", [sys.executable, "-c", "import numba"], os.environ, 3),
            ("fast engine, compiling", load, fresh, 1),
            ("fast engine, compiled code from disk", load, fresh, 3),
            ("msdsim --help", [*cli, "--help"], os.environ, 3),
            ("msdsim run gemm:m=16,k=512,n=512", [*cli, "run", "gemm:m=16,k=512,n=512"], os.environ, 3),
        ):
            taken, done = best(lambda c=command, e=env: subprocess.run(c, env=e, capture_output=True), repeats)
            print(f"  {name:38} {taken:6.2f} s" + ("" if done.returncode == 0 else f"  (exit code {done.returncode})"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out what takes longest")
    parser.add_argument("--pieces", action="store_true", help="only the rates by what moves between L2 and the cores")
    arguments = parser.parse_args()
    quick = arguments.quick
    warm_up()
    pieces()
    if arguments.pieces:
        return
    rates()
    picture(sizes(quick), counts(quick))
    repetition()
    memory(quick)
    start_up()


if __name__ == "__main__":
    main()
