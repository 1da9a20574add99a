"""Random and adversarial arrays through every dataflow: executor and reference equal to the bit, and the bound holds or is not claimed.

``python -m tests.fuzz.numbers --count 10000 --seed 1`` prints what broke, and the counts by dataflow.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from msdsim import simulate
from msdsim.dataflows.lookup import dataflows_for
from msdsim.errors import InputError

PROBLEMS = ("gemm:m=1,k=32,n=16", "gemm:m=5,k=96,n=40", "gemm:m=17,k=64,n=24,group=32", "gemm:m=3,k=128,n=32,group=64,offset=1",
            "gemm:m=4,k=64,n=48,offset=1", "grouped_gemm:rows=3+0+2,k=64,n=32", "grouped_gemm:groups=2,m=2,k=32,n=16",
            "attention:batch=1,heads=4,kv_heads=2,head_dim=32,q=1,kv=40", "attention:batch=2,heads=2,kv_heads=1,head_dim=64,q=3,kv=33,causal=1")
CHIPS = ("toy", "ascend950pr")


def _draws(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Callable[[], np.ndarray]]:
    """Float32 arrays by what is awkward about them."""
    def normal() -> np.ndarray:
        return rng.standard_normal(shape)

    return {
        "normal": normal,
        "outliers": lambda: normal() * np.where(rng.random(shape) < 0.02, 1e3, 1),
        "heavy": lambda: rng.standard_cauchy(shape).clip(-1e6, 1e6),
        "powers of two": lambda: np.ldexp(rng.choice((-1.0, 1.0), shape), rng.integers(-12, 12, shape)),
        "ties": lambda: (rng.integers(-512, 512, shape) + 0.5) / 256,
        "wide": lambda: np.ldexp(normal(), rng.integers(-60, 60, shape)),
        "rows apart": lambda: np.ldexp(normal(), rng.integers(-40, 40, (*shape[:-1], 1))),
        "tiny": lambda: normal() * 2.0**-120,
        "subnormal": lambda: normal() * 2.0**-140,
        "large": lambda: normal() * 2.0**60,
        "at the end": lambda: normal().clip(-1, 1) * 3.3e38,
        "zeros": lambda: np.zeros(shape),
        "sparse": lambda: normal() * (rng.random(shape) < 0.05),
        "constant": lambda: np.full(shape, rng.choice((0.7, -0.3, 1.0, 127.5))),
        "cancelling": lambda: normal() * np.where(np.arange(shape[-1]) % 2, 1, -1) + 100 * np.where(np.arange(shape[-1]) % 2, 1, -1),
        "integers": lambda: rng.integers(-128, 128, shape).astype(float),
        "zero rows": lambda: normal() * (np.arange(shape[-2]) % 2)[:, None],
        "zero columns": lambda: normal() * (np.arange(shape[-1]) % 3 > 0),
        "constant runs": lambda: np.repeat(rng.choice((0.7, -3e38, 1e-44, 2.0**-126, 0.0, 1e30), (*shape[:-2], -(-shape[-2] // 32), shape[-1])), 32, axis=-2)[..., : shape[-2], :],
        "runs apart": lambda: normal() * np.ldexp(1.0, np.repeat(rng.integers(-140, 127, (*shape[:-2], -(-shape[-2] // 32), 1)), 32, axis=-2)[..., : shape[-2], :]),
        "just below overflow": lambda: rng.choice((-1, 1), shape) * np.where(rng.random(shape) < 0.5, 3.3895e38, 3.3953139e38),
        "one of all": lambda: np.where(np.arange(int(np.prod(shape))).reshape(shape) == rng.integers(int(np.prod(shape))), 3e38, 0.0),
        "negative zeros": lambda: np.where(rng.random(shape) < 0.5, -0.0, normal()),
    }


def _shapes(problem: str) -> dict[str, tuple[int, ...]]:
    from msdsim.numerics.contracts import contract_for
    from msdsim.problems import parse_problem

    parsed = parse_problem(problem)
    kind = problem.split(":")[0]
    operands = contract_for(kind, "bf16").operands(parsed, None, 0)
    return {name: operands[name].shape for name in (("q", "k", "v") if kind == "attention" else ("x", "w"))}


def cases(count: int, seed: int, problems: Sequence[str] = PROBLEMS, chips: Sequence[str] = CHIPS) -> Iterator[tuple[int, str, str, str, dict[str, str], dict[str, np.ndarray]]]:
    """Number, problem, chip, dataflow, what was drawn, and the arrays."""
    shapes = {problem: _shapes(problem) for problem in problems}
    for number in range(count):
        draw = random.Random(f"{seed}:{number}")
        problem, chip = draw.choice(problems), draw.choice(chips)
        dataflow = draw.choice(dataflows_for(problem.split(":")[0]))
        rng = np.random.default_rng((seed, number))
        drawn, arrays = {}, {}
        for name, shape in shapes[problem].items():
            ways = _draws(rng, shape)
            drawn[name] = draw.choice(list(ways))
            with np.errstate(all="ignore"):
                arrays[name] = ways[drawn[name]]().astype(np.float32)
        if "w" in arrays and "int" in dataflow and draw.random() < 0.3:
            drawn["w"] = "stored"
            del arrays["w"]
            arrays |= _stored(rng, draw, shapes[problem]["w"], problem, 4 if "int4" in dataflow else 8)
        yield number, problem, chip, dataflow, drawn, arrays


def _stored(rng: np.random.Generator, draw: random.Random, shape: tuple[int, ...], problem: str, bits: int) -> dict[str, np.ndarray]:
    """Weights as they are stored: codes to the ends of their range, scales from the smallest to the largest, offsets far away."""
    limit = 1 << (bits - 1)
    q = draw.choice((lambda: rng.integers(-limit, limit, shape), lambda: rng.choice((-limit, limit - 1), shape), lambda: np.full(shape, -limit), lambda: np.zeros(shape)))()
    size = [part for part in problem.split(",") if part.startswith("group=")]
    groups = (*shape[:-2], *((-(-shape[-2] // int(size[0][6:])),) if size else ()), shape[-1])
    scale = draw.choice((lambda: np.ldexp(1.0, rng.integers(-20, 20, groups)), lambda: np.ldexp(1.5, rng.integers(-126, 127, groups)), lambda: np.full(groups, 1.1754944e-38),
                         lambda: np.full(groups, 3.4e38), lambda: rng.random(groups) + 0.5))()
    found = {"q": q.astype(np.int8), "scale": scale.astype(np.float32)}
    if "offset=1" in problem:
        found["offset"] = draw.choice((lambda: rng.integers(-200, 200, groups), lambda: rng.standard_normal(groups) * 1e3, lambda: np.full(groups, 1e30), lambda: np.full(groups, limit - 0.5)))().astype(np.float32)
    return found


def outcome(problem: str, chip: str, dataflow: str, arrays: dict[str, np.ndarray]) -> str:
    """``good``, ``overflowed`` (and right), ``refused``, or what broke."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbers = simulate(problem, chip, dataflow, inputs=arrays, check=True).numerics
    except InputError:
        return "refused"
    except Exception as err:
        return f"traceback: {type(err).__name__}: {str(err)[:200]}"
    if not numbers.bit_exact:
        return f"differs: {numbers.first_mismatch}"
    if numbers.bound_ratio is not None and not numbers.bound_ratio <= 1:
        return f"bound: {numbers.bound_ratio}"
    if numbers.overflowed == numbers.elements and numbers.bound_ratio is not None:
        return f"bound: {numbers.bound_ratio} where every output overflowed"
    return "overflowed" if numbers.overflowed else "good"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun, found = time.process_time(), Counter[tuple[str, str]]()
    for number, problem, chip, dataflow, drawn, arrays in cases(given.count, given.seed):
        result = outcome(problem, chip, dataflow, arrays)
        found[dataflow, result.split(":")[0]] += 1
        if result not in ("good", "overflowed", "refused"):
            print(f"{number}: {problem} {chip} {dataflow} {drawn}: {result}", flush=True)
    for dataflow in sorted({name for name, _ in found}):
        print(f"{dataflow:16}", {kind: count for (name, kind), count in sorted(found.items()) if name == dataflow})
    print(f"{given.count} tried, {time.process_time() - begun:.0f} s of CPU")


if __name__ == "__main__":
    main()
