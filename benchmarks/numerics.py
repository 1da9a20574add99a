"""Speed of the numbers: decomposition against plain numpy passes, and the parts of a numeric check.

Run ``python benchmarks/numerics.py`` (about a minute; ``--quick`` for small shapes).  Figures of one run are comparable
with each other, not with another machine's: what counts are the ratios and the limits beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from msdsim.formats.msd import MSD_INT4, MSD_INT8, MSD_MXFP4, decompose
from msdsim.formats.number import BF16
from msdsim.formats.rounding import round_to
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.matmul import mmad_float, mmad_int, mmad_mx
from msdsim.problems.model import Gemm


def best(function: Callable[[], Any], repeats: int = 3) -> float:
    """Shortest of some runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def decomposition(rows: int, columns: int) -> None:
    x = np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)
    xb = round_to(x, BF16)

    def plain() -> None:
        np.abs(x).max(axis=1)
        np.rint(x)

    base = best(plain)
    print(f"decomposition of {rows}x{columns} (plain numpy: np.abs(x).max(axis=1) and np.rint(x): {base * 1e3:.0f} ms)")
    for name, spec in (("int8, 2 passes", MSD_INT8), ("int4, 3 passes", MSD_INT4), ("mxfp4, 2 passes", MSD_MXFP4)):
        taken = best(lambda spec=spec: decompose(xb, spec))
        limit = " (limit 10)" if spec is MSD_INT8 else ""
        print(f"  {name:16} {taken * 1e3:7.0f} ms  {taken / base:5.1f} x plain{limit}")


def check(m: int, k: int, n: int) -> None:
    problem = Gemm(m=m, k=k, n=n)
    print(f"numeric check of {problem}, seconds per part (limits: msd-int8 5 s in all, bf16 60 s)")
    print(f"  {'contract':14} {'operands':>9} {'reference':>9} {'exact':>9} {'bound':>9} {'sum':>9}")
    for name in ("bf16", "dequant-int8", "msd-int8", "msd-int4", "a8w4", "dequant-mxfp4", "msd-mxfp4", "mxfp8"):
        contract = contract_for("gemm", name)
        marks = [time.perf_counter()]
        operands = contract.operands(problem)
        marks.append(time.perf_counter())
        contract.reference(problem, operands)
        marks.append(time.perf_counter())
        y64 = contract.exact(problem, operands)
        marks.append(time.perf_counter())
        contract.bound(problem, operands, y64)
        marks.append(time.perf_counter())
        parts = np.diff(marks)
        print(f"  {name:14} " + " ".join(f"{part:9.2f}" for part in [*parts, sum(parts)]))


def kernels(m: int, k: int, n: int) -> None:
    problem = Gemm(m=m, k=k, n=n)
    floats, ints, mx = (contract_for("gemm", name) for name in ("bf16", "msd-int8", "msd-mxfp4"))
    fo, io, mo = floats.operands(problem), ints.operands(problem), mx.operands(problem)
    a = decompose(io["x"], MSD_INT8).stacked()
    parts = decompose(mo["x"], MSD_MXFP4)
    a_mx, a_scale = parts.stacked(), np.concatenate(parts.block_scales)
    work = 2 * m * k * n
    print(f"tile kernels on whole operands of {problem}")
    for name, factor, run in (("mmad_float bf16", 1, lambda: mmad_float(fo["x"], fo["w"])),
                              ("mmad_int, 2 passes", 2, lambda: mmad_int(a, io["w"])),
                              ("mmad_mx, 2 passes", 2, lambda: mmad_mx(a_mx, a_scale, mo["w"], mo["scale"]))):
        run()  # compile, or load the compiled kernel
        taken = best(run)
        print(f"  {name:20} {taken:6.2f} s  {factor * work / taken / 1e9:6.1f} Gop/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes")
    quick = parser.parse_args().quick
    decomposition(*((256, 2048) if quick else (4096, 8192)))
    shape = (16, 512, 768) if quick else (16, 8192, 12288)
    kernels(*shape)
    check(*shape)


if __name__ == "__main__":
    main()
