"""What a sweep costs above its simulations: CPU a point with every row on disk at once, against the same points in a loop.

    python benchmarks/sweeps.py [--points 200] [--times 3]

CPU seconds of this process, rows in a new folder each time, the two in turn and the best of each.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import msdsim
from msdsim.explore.sweep import run_sweep
from msdsim.explore.sweep.spec import parse_spec
from msdsim.hardware import load_hw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    asked = {"problem": "gemm:m={m},k=512,n={n}", "hw": "toy", "dataflow": ["bf16", "msd-int8"],
             "parameters": {"m": [1, 2, 3, 4], "n": {"start": 16, "stop": 2 * given.points, "step": 16}}}
    spec = parse_spec(asked)
    points = list(spec.combinations())
    chip = load_hw("toy")

    def swept() -> object:
        with tempfile.TemporaryDirectory() as folder:
            return run_sweep(spec, folder)

    def simulated() -> object:
        return [msdsim.simulate(problem, chip, dataflow) for problem, _, dataflow, _ in points]

    best = {}
    for _ in range(given.times + 1):  # the first fills caches
        for name, work in (("swept", swept), ("simulated", simulated)):
            start = time.process_time()
            work()
            spent = (time.process_time() - start) / len(points) * 1000
            best[name] = min(best.get(name, spent), spent) if name in best else float("inf")
    above = best["swept"] - best["simulated"]
    print(f"{len(points)} points: a sweep takes {best['swept']:.2f} ms of CPU a point, the simulations alone "
          f"{best['simulated']:.2f} ms; {above:.2f} ms for the row, its key and the disk (at most 3 are wanted)")


if __name__ == "__main__":
    main()
