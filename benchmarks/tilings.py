"""How good the automatic tilings are: random problems on random chips, each against random legal tilings.

Run ``python benchmarks/tilings.py [--seed 1] [--problems 300] [--tilings 100]``; a sample (``--problems 40 --tilings 30``)
takes some minutes.  For every problem it draws a dataflow and a chip, chooses a tiling, and times legal tilings in which one
to four keys are drawn anew.  It prints the share of problems whose automatic tiling is beaten by more than 3%, the worst, and
the CPU time of a choice; ``--far`` takes chips far from those that ship, ``--better`` compares choices on a chip and on a
better one.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from msdsim.dataflows import DATAFLOWS, Dataflow
from msdsim.dataflows.lookup import find_dataflow
from msdsim.engine import EngineOptions, load_engine
from msdsim.engine.fast import warm_up
from msdsim.errors import MsdsimError
from msdsim.hardware import Hardware, load_hw
from msdsim.ir.lower import lower
from msdsim.ir.verify import verify
from msdsim.problems import parse_problem
from msdsim.tilings import choose

CHIPS = ("ascend910b1", "ascend910b3", "ascend950pr", "ascend950dt")
#: Numbers of a chip that make it better when they grow, or when they shrink.
MORE = ("hbm.bandwidth_gbps", "l2.read_gbps", "cores.aic", "buffers.l1_bytes", "buffers.ub_bytes")
LESS = ("hbm.extra_latency_cycles", "cross_core.barrier_latency_cycles", "cross_core.signal_latency_cycles")


def problem(rng: random.Random) -> str:
    """A random problem: GEMMs, plain, with groups and grouped; attention of a decode step, of a prefill, and latent."""
    kind = rng.random()
    if kind < 0.6:
        m, k, n = rng.choice((1, 4, 16, 48, 96, 200, 512)), 64 * rng.randint(4, 96), 32 * rng.randint(8, 160)
        text = f"gemm:m={m},k={k},n={n}"
        if rng.random() < 0.4:
            text += f",group={rng.choice((32, 64, 128))}" + ",offset=1" * (rng.random() < 0.4)
        return text + ",trans_b=1" * (rng.random() < 0.2)
    if kind < 0.75:
        return f"grouped_gemm:groups={rng.choice((2, 4, 8))},m={rng.choice((1, 8, 40))},k={128 * rng.randint(2, 24)},n=" \
               f"{64 * rng.randint(4, 32)}"
    if kind < 0.88:
        kv_heads = rng.choice((1, 2, 8))
        return f"attention:batch={rng.choice((1, 4))},heads={kv_heads * rng.choice((1, 4, 8))},kv_heads={kv_heads}," \
               f"head_dim={rng.choice((64, 128))},q=1,kv={256 * rng.randint(1, 16)}"
    if kind < 0.96:
        q = 64 * rng.randint(1, 8)
        return f"attention:batch=1,heads=4,kv_heads={rng.choice((1, 4))},head_dim={rng.choice((64, 128))},q={q},kv={q},causal=1"
    return f"attention:batch=1,heads={rng.choice((16, 64))},kv_heads=1,head_dim=576,v_dim=512,shared_kv=1,scale_dim=192,q=1," \
           f"kv={512 * rng.randint(1, 4)}"


def far(rng: random.Random, hardware: Hardware) -> Hardware:
    """A chip far from the one given."""
    chip = hardware.chip
    changes: dict[str, Any] = rng.choice((
        *({f"buffers.{name}": int(size * times) for name, size in chip.buffers.model_dump().items() if size}
          for times in (0.5, 2, 8)),
        {"hbm.extra_latency_cycles": 4 * chip.hbm.extra_latency_cycles, "cross_core.signal_latency_cycles": 240},
        *({"cube.fractal_m": rows} for rows in (32, 64, 128)),
        {"cores.aic": 1}, {"cores.aic": 64}, {"hbm.bandwidth_gbps": 8 * chip.hbm.bandwidth_gbps},
    ))
    return hardware.replace(**changes)


def better(rng: random.Random, hardware: Hardware) -> tuple[Hardware, str]:
    """A chip of which one number is better, and which."""
    chip = hardware.chip
    key = rng.choice(MORE + LESS)
    room, name = key.split(".")
    value = getattr(getattr(chip, room), name)
    times = rng.choice((1.25, 1.5, 2)) if key in MORE else rng.choice((0.25, 0.5, 0.75))
    return hardware.replace(**{key: int(value * times)}), f"{key} x{times}"


def mutated(rng: random.Random, tiling: dict[str, int]) -> dict[str, int]:
    """A tiling in which one to four keys are drawn anew."""
    changed = dict(tiling)
    for key in rng.sample([key for key in tiling if key not in ("passes", "fused")], rng.randint(1, 4)):
        value = tiling[key]
        small = value < 16
        changed[key] = rng.randint(0 if value == 0 else 1, 8) if small else max(1, rng.choice(
            (value // 2, value * 2, value * 3 // 4 // 16 * 16, value * 3 // 2 // 16 * 16, 16 * rng.randint(1, 64))))
    return changed


def cycles(flow: Dataflow, shape: Any, hardware: Hardware, tiling: Any) -> int:
    """Of a legal tiling; MsdsimError for others."""
    kernel = flow.build(shape, hardware.chip, tiling)
    verify(kernel, hardware.chip)
    return load_engine("fast").run(lower(kernel, hardware.chip), EngineOptions()).cycles


def cases(seed: int, count: int, distant: bool):
    """Problems, dataflows and chips that go together."""
    rng = random.Random(seed)
    while count:
        shape, hardware = parse_problem(problem(rng)), load_hw(rng.choice(CHIPS))
        hardware = far(rng, hardware) if distant else hardware
        names = [entry.name for entry in DATAFLOWS.values() if entry.kind == shape.kind]
        flow = find_dataflow(shape, rng.choice(sorted(names)))
        if flow.refuses(shape, hardware.chip) is None:
            count -= 1
            yield rng, shape, hardware, flow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--tilings", type=int, default=100)
    parser.add_argument("--far", action="store_true", help="chips far from those that ship")
    parser.add_argument("--better", action="store_true", help="choices on a chip and on a better one")
    args = parser.parse_args()
    warm_up()
    ratios, times, again = [], [], []
    for number, (_, shape, hardware, flow) in enumerate(cases(args.seed, args.problems, args.far)):
        # What is drawn for one problem changes no other.
        rng = random.Random(f"{args.seed}-{number}")
        start = time.process_time()
        choice = choose(flow, shape, hardware.chip)
        times.append(time.process_time() - start)
        start = time.process_time()
        choose(flow, shape, hardware.chip)
        again.append(time.process_time() - start)
        mine = cycles(flow, shape, hardware, choice.tiling)
        if args.better:
            improved, what = better(rng, hardware)
            ratio = cycles(flow, shape, improved, choose(flow, shape, improved.chip).tiling) / mine
            note = what
        else:
            best, note = mine, ""
            tries = legal = 0
            while legal < args.tilings and tries < 20 * args.tilings:
                tries += 1
                tiling = mutated(rng, asdict(choice.tiling))
                try:
                    found = cycles(flow, shape, hardware, flow.tiling(**tiling))
                except MsdsimError:
                    continue
                legal += 1
                if found < best:
                    best, note = found, ", ".join(f"{key}={value}" for key, value in tiling.items()
                                                  if value != getattr(choice.tiling, key))
            ratio = mine / best
        ratios.append(ratio)
        if ratio > 1.03:
            print(f"{ratio:.3f}  {shape} {flow.name} {hardware.name}  {note}", flush=True)
    over = np.array(ratios)
    print(f"{len(over)} cases, seed {args.seed}: {100 * (over > 1.03).mean():.1f}% above 1.03, worst {over.max():.3f}, "
          f"geometric mean {np.exp(np.log(over).mean()):.3f}")
    print(f"a choice takes {1e3 * np.median(times):.1f} ms CPU in the median, {1e3 * np.percentile(times, 95):.1f} ms at the "
          f"95th percentile; again {1e3 * np.median(again):.2f} ms")


if __name__ == "__main__":
    main()
