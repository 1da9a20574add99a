"""Speed of one checkout against another, case by case: CPU time (user + system) in pairs, the smaller of each.

Run ``python benchmarks/ratios.py OLD NEW`` with the folders of two checkouts that each have a ``.venv``; ``--case NAME`` (part
of the name) for some of the cases, ``--pairs N`` for more than two runs of each.  A ratio is that of this run on this machine;
it is what counts, not the seconds.  The limits stand beside the cases.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_PREFILL = "attention:batch=1,heads=32,kv_heads=8,head_dim=128,q=2048,kv=2048,causal=1"
_MAIN = "gemm:m=16,k=8192,n=12288"

#: In both checkouts: a program of a problem and a dataflow, timed by CPU time of this process alone.
_PRELUDE = """
import time, warnings
warnings.simplefilter("ignore")
import msdsim
from msdsim.api import build_kernel, find_dataflow
from msdsim.engine import EngineOptions, load_engine
from msdsim.engine.fast import warm_up
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder
from msdsim.ir.lower import lower
from msdsim.problems import parse_problem
HARDWARE = load_hw("ascend910b1")
def kernel(problem, dataflow):
    shape = parse_problem(problem)
    return build_kernel(find_dataflow(shape, dataflow), shape, HARDWARE, None)[0]
def best(function, repeats=5):
    times = []
    for _ in range(repeats):
        start = time.process_time(); function(); times.append(time.process_time() - start)
    print(min(times))
warm_up()
"""


def _engine(problem: str, dataflow: str) -> str:
    return _PRELUDE + (f"program = lower(kernel({problem!r}, {dataflow!r}), HARDWARE.chip)\n"
                       "best(lambda: load_engine('fast').run(program, EngineOptions()))\n")


_TINY = _PRELUDE + """
kb = KernelBuilder("tiny", 1, 1)
with kb.part("aiv"):
    a, b = kb.buffer("a", "UB", "fp32", (8, 64)), kb.buffer("b", "UB", "fp32", (8, 64))
    kb.op("dup", a[:, :], scalar=1.0)
    for _ in range(7):
        kb.op("exp", b[:, :], a[:, :])
        kb.op("abs", a[:, :], b[:, :])
tiny = kb.build()
best(lambda: msdsim.simulate(tiny, "ascend910b1"), 20)
"""
_POINTS = _PRELUDE + """
from msdsim.explore.sweep import sweep
numbers = {"hbm.bandwidth_gbps": [1000 + 10 * i for i in range(100)], "l2.read_gbps": [4000, 5000]}
best(lambda: sweep("gemm:m=16,k=4096,n=4096", "ascend910b1", "msd-int8", parameters=numbers), 1)
"""


@dataclass(frozen=True)
class Case:
    """A case: a command of the program, or Python code that prints its own CPU seconds."""

    name: str
    limit: str
    command: tuple[str, ...] = ()
    code: str = ""
    fresh: bool = False
    pairs: int = 0


CASES = (
    Case("first run, no cache", "1/20", ("run", "gemm:m=16,k=512,n=512"), fresh=True, pairs=1),
    Case("run, warm", "1/2", ("run", "gemm:m=16,k=512,n=512")),
    Case("compare --check, warm", "1/5 CPU, 1/8 wall on two cores", ("compare", _MAIN, "--check"), pairs=1),
    Case("compare --check, no cache", "1/5", ("compare", _MAIN, "--check"), fresh=True, pairs=1),
    Case("sweep of 200 points", "1/10", code=_POINTS, pairs=1),
    Case("build, verify, lower causal prefill", "1/10", code=_PRELUDE + (
        f"best(lambda: lower(kernel({_PREFILL!r}, 'msd-int8'), HARDWARE.chip), 1)\n")),
    Case("engine, bf16 m=16 k=8192 n=12288", "1/5", code=_engine(_MAIN, "bf16")),
    Case("engine, bf16 m=1024 k=n=4096", "1/2", code=_engine("gemm:m=1024,k=4096,n=4096", "bf16")),
    Case("engine, bf16 m=k=n=8192", "1/2", code=_engine("gemm:m=8192,k=8192,n=8192", "bf16")),
    Case("engine, causal prefill", "1/2", code=_engine(_PREFILL, "bf16")),
    Case("deepseek-v3-decode", "1/3", code=_PRELUDE + (
        "workload = parse_problem('deepseek-v3-decode')\n"
        "best(lambda: msdsim.simulate_workload(workload, 'ascend910b1', 'msd-int8'), 2)\n"), pairs=1),
    Case("simulate 15 instructions", "1/15", code=_TINY),
    Case("compare --html", "1/2", ("compare", _MAIN, "--html", "{out}/page.html")),
    Case("run --trace", "1/2", ("run", _MAIN, "--dataflow", "dequant-int8", "--trace", "{out}/trace.pftrace")),
)


def measure(checkout: Path, case: Case) -> tuple[float, float, int] | str:
    """CPU seconds, wall seconds and peak MiB of one run; the last line of its error where it fails."""
    with tempfile.TemporaryDirectory() as out:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"OPENBLAS_NUM_THREADS": "1"}
        if case.fresh:
            environment |= {"NUMBA_CACHE_DIR": f"{out}/numba", "XDG_CACHE_HOME": f"{out}/cache"}
        program = [str(checkout / ".venv" / "bin" / "msdsim"), *(part.format(out=out) for part in case.command)]
        command = [str(checkout / ".venv" / "bin" / "python"), "-c", case.code] if case.code else program
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            return (done.stderr.strip().splitlines() or ["failed"])[-1]
        cpu = float(done.stdout.split()[-1]) if case.code else (
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return cpu, wall, after.ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--case", default="", help="only cases with this in their name")
    parser.add_argument("--pairs", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{'case':40} {'old CPU s':>10} {'new CPU s':>10} {'ratio':>7}  {'wall':>7}  limit")
    for case in CASES:
        if arguments.case not in case.name:
            continue
        found: dict[Path, list[tuple[float, float, int]]] = {arguments.old: [], arguments.new: []}
        failed = ""
        for _ in range(case.pairs or arguments.pairs):
            for checkout, runs in found.items():
                run = measure(checkout.resolve(), case)
                if isinstance(run, str):
                    failed = f"{checkout}: {run}"
                else:
                    runs.append(run)
        if failed:
            print(f"{case.name:40} {failed}")
            continue
        (old, old_wall), (new, new_wall) = ((min(run[0] for run in runs), min(run[1] for run in runs))
                                            for runs in found.values())
        print(f"{case.name:40} {old:10.3f} {new:10.3f} 1/{old / new:<5.1f}  1/{old_wall / new_wall:<5.1f}  {case.limit}",
              flush=True)


if __name__ == "__main__":
    main()
