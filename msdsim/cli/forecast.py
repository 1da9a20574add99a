"""What a run will take, roughly, where that is minutes: said before the work begins.

Rates are those of one core of a machine of 2025 (``benchmarks/engine.py`` and ``benchmarks/ratios.py`` measure them); what they
give is good to a factor of two or three, which is what somebody needs who decides whether to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from msdsim.runs import RunOptions

#: Seconds for each multiply-add of the numbers that are executed and held to a reference.
_NUMBERS = {"gemm": 0.4e-9, "grouped_gemm": 0.4e-9, "attention": 2e-9}
#: Seconds of the fast engine for each byte between L2 and the cores, of which a multiply-add in tiles of 128 x 256 takes 6/256
#: and in attention about five times as much.
_ENGINE, _BYTES = 2.6e-11, {"gemm": 6 / 256, "grouped_gemm": 6 / 256, "attention": 30 / 256}
#: How much slower the reference engine is.
_REFERENCE = 300
#: Runs of the engine for a result: the tilings that are tried, and the run itself.
_RUNS = 5
_A_MINUTE = 60


def multiply_adds(problem: Any) -> int:
    """Products that the result is a sum of; 0 for what is no matmul and no attention."""
    if problem.kind == "attention":
        pairs = problem.q * problem.kv
        if problem.causal:
            pairs -= problem.q * (problem.q - 1) // 2
        return int(problem.batch * problem.heads * pairs * (problem.head_dim + problem.value_dim))
    if problem.kind == "grouped_gemm":
        return int(problem.total_rows * problem.k * problem.n)
    return int(problem.m * problem.k * problem.n) if problem.kind == "gemm" else 0


def seconds(problems: Sequence[Any], options: RunOptions, dataflows: int) -> tuple[float, float]:
    """What the engine and the numbers take for some problems with some dataflows."""
    engine = numbers = 0.0
    for problem in problems:
        count = multiply_adds(problem)
        if count:
            engine += dataflows * (_RUNS - 1 + (_REFERENCE if options.engine == "reference" else 1)) * \
                count * _BYTES[problem.kind] * _ENGINE
            numbers += dataflows * count * _NUMBERS[problem.kind] * options.executes
    return engine, numbers


def forewarn(problems: Sequence[Any], options: RunOptions, dataflows: int = 1) -> None:
    """A note where the work will take minutes, with what takes them."""
    engine, numbers = seconds(problems, options, dataflows)
    if engine + numbers < _A_MINUTE:
        return
    if numbers > engine:
        count = sum(map(multiply_adds, problems)) * dataflows
        why = f"{count:.2g} multiply-adds are executed and compared; the times alone take {_duration(engine)}"
    elif options.engine == "reference":
        why = "the reference engine is meant for small kernels; --engine fast gives the same cycles"
    else:
        why = "all that moves between L2 and the cores is simulated, for several tilings"
    click.echo(f"note: this takes about {_duration(engine + numbers)}: {why}", err=True)


def _duration(taken: float) -> str:
    if taken < _A_MINUTE:
        return "less than a minute" if taken > 5 else "seconds"
    minutes = taken / _A_MINUTE
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.0f} hours"
