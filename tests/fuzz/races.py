"""Planted races: what a kernel engineer gets wrong about order, planted everywhere it can be in kernels that are right.

Every mutant is verified and its order checked, as ``msdsim ir --verify`` does it.  One that passes is run on chips whose pipes are
slower and faster at random, and a check that knows nothing of flags (:mod:`msdsim.analysis.hazards`) looks at what happened, and
at the numbers: a mutant in which it finds something passed wrongly; one in which it finds nothing on any of the chips is taken to be
right too (a wait that was moved to where it still orders everything).  A moved block or index makes another program, whose numbers
may be others: there only its order counts.

``python -m tests.fuzz.races`` counts them by kind.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from msdsim.analysis.hazards import HazardCheck
from msdsim.api import find_dataflow
from msdsim.engine import EngineOptions, load_engine
from msdsim.errors import CheckFailed, Deadlock, MsdsimError
from msdsim.formats.number import FORMATS
from msdsim.hardware import Hardware, load_hw
from msdsim.ir import print_kernel
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.order import check_order
from msdsim.ir.parser import parse_kernel
from msdsim.ir.verify import verify
from msdsim.naming import PIPES
from msdsim.numerics.executor import execute
from msdsim.problems import parse_problem
from msdsim.tilings import choose_tiling

DECODE = "attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=1,kv=300"
#: Rings in GM, barriers, steps with sums of their own, parts of K, and rings in L1 and UB (the 950's).
BASES = [("gemm:m=16,k=512,n=512", "dequant-int8", "toy"), ("gemm:m=16,k=256,n=512", "msd-int8", "toy"),
         ("gemm:m=4,k=256,n=128,group=64", "msd-int4", "toy"), ("gemm:m=4,k=1024,n=64", "bf16", "toy"),
         (DECODE, "bf16", "toy"), (DECODE, "dequant-int8", "toy"), (DECODE, "msd-int8", "toy"),
         ("gemm:m=16,k=512,n=2048", "dequant-int8", "ascend950pr"), ("gemm:m=16,k=256,n=1024", "msd-int8", "ascend950pr")]
_SYNC = re.compile(r"^ *(signal|wait) (\w+) on (\w+)$")


def texts() -> Iterator[tuple[str, Hardware]]:
    """The kernels that are right, and their chips."""
    for problem, name, hw in BASES:
        shape, hardware = parse_problem(problem), load_hw(hw)
        entry = find_dataflow(shape, name)
        yield print_kernel(entry.build(shape, hardware.chip, choose_tiling(entry, shape, hardware.chip, None))), hardware


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """Kind and text of every mutant of a kernel."""
    lines = text.splitlines()
    slots = set(_slots(text))
    begins = [number for number, line in enumerate(lines) if line.strip() in ("aic {", "aiv {")]
    for number, line in enumerate(lines):
        sync = _SYNC.match(line)
        part = "aiv" if (len(begins) > 1 and number > begins[1]) or lines[begins[0]].strip() == "aiv {" else "aic"
        if sync and number > begins[0]:
            yield "dropped", "\n".join(lines[:number] + lines[number + 1 :])
            for pipe in PIPES[part.upper()]:
                if pipe not in (sync[3], "S"):
                    yield "wrong pipe", "\n".join([*lines[:number], line.replace(f"on {sync[3]}", f"on {pipe}"), *lines[number + 1 :]])
            for distance in (-2, -1, 1, 2):
                moved = _moved(lines, number, distance)
                if moved is not None:
                    early = (distance < 0) == (sync[1] == "signal")
                    yield "released early or awaited late" if early else "released late or awaited early", "\n".join(moved)
        for found in re.finditer(r"% (\d+)", line):
            if int(found[1]) > 1 and number in slots:
                shorter = line[: found.start()] + f"% {int(found[1]) - 1}" + line[found.end() :]
                yield "ring one shorter", "\n".join([*lines[:number], shorter, *lines[number + 1 :]])
        loop = re.match(r"^ *for (\w+) in 0 \.\. (\d+) \{$", line)
        if loop and number + 1 < len(lines) and _SYNC.match(lines[number + 1]):
            more = line.replace(f".. {loop[2]}", f".. {int(loop[2]) + 1}")
            yield "one slot more handed out", "\n".join([*lines[:number], more, *lines[number + 1 :]])
        if line.endswith("{") and number > begins[0] and line.strip() not in ("aic {", "aiv {"):
            for distance in (-1, 1):
                moved = _moved(lines, number, distance)
                if moved is not None:
                    yield "block moved", "\n".join(moved)
    names = set(re.findall(r"signal (\w+):", text))
    for name in names:
        yield "dropped with its waits", re.sub(rf"\n *(signal|wait) {name}( on \w+|: \w+)(?=\n)", "", text)


def _slots(text: str) -> Iterator[int]:
    """Lines that say which slot of a workspace is meant: those that use one with '%', or name such an index."""
    workspaces = "|".join(re.findall(r"tensor (\w+): .* workspace", text)) or "$"
    used = set(re.findall(r"\w+", " ".join(re.findall(rf"\b(?:{workspaces})\[([^\]]*)\]", text))))
    for number, line in enumerate(text.splitlines()):
        let = re.match(r"^ *let (\w+) =", line)
        if re.search(rf"\b(?:{workspaces})\[[^\]]*%", line) or (let and let[1] in used and not re.search(r"% \d+ \*", line)):
            yield number


def _siblings(lines: list[str], number: int) -> list[tuple[int, int]]:
    """First and last line of every statement of the block that a line belongs to."""
    indent = _indent(lines[number])
    first = next(at for at in range(number - 1, -1, -1) if _indent(lines[at]) < indent) + 1
    found = []
    at = first
    while _indent(lines[at]) >= indent:
        last = at
        if lines[at].endswith("{"):
            last = next(end for end in range(at + 1, len(lines)) if lines[end] == " " * indent + "}")
        found.append((at, last))
        at = last + 1
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _moved(lines: list[str], number: int, distance: int) -> list[str] | None:
    """The statement of a line moved past others of its block; past buffers and names at no cost."""
    siblings = _siblings(lines, number)
    at = next(index for index, (first, _) in enumerate(siblings) if first == number)
    step, target = (1 if distance > 0 else -1), at
    while distance and 0 <= target + step < len(siblings):
        target += step
        if not lines[siblings[target][0]].lstrip().startswith(("buffer ", "let ")):
            distance -= step
    if distance or target == at:
        return None
    order = [index for index in range(len(siblings)) if index != at]
    order.insert(target, at)
    body = [line for index in order for line in lines[siblings[index][0] : siblings[index][1] + 1]]
    return [*lines[: siblings[0][0]], *body, *lines[siblings[-1][1] + 1 :]]


def outcome(text: str, right: str | None, hardware: Hardware, draws: int = 5) -> str:
    """``refused``, ``missed`` (passed, and a hazard or a number that is not ``right``'s was seen) or ``equivalent``."""
    try:
        kernel = parse_kernel(text + "\n")
        verify(kernel, hardware.chip)
        check_order(lower(kernel, hardware.chip))
    except MsdsimError:
        return "refused"
    expected = {} if right is None else execute(parse_kernel(right), _inputs(kernel))
    return "missed" if any(_wrong(kernel, chip, expected) for chip in _chips(hardware, draws)) else "equivalent"


def _inputs(kernel: Kernel) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for tensor in kernel.tensors:
        if tensor.role == "in":
            dtype = FORMATS[tensor.fmt].dtype
            whole = FORMATS[tensor.fmt].kind == "int"
            values = rng.integers(-7, 8, tensor.shape) if whole else rng.uniform(0.5, 2, tensor.shape)
            found[tensor.name] = values.astype(dtype)
    return found


def _chips(hardware: Hardware, draws: int) -> Iterator[Hardware]:
    yield hardware
    for seed in range(draws):
        draw = random.Random(seed)
        changes: dict[str, object] = {"hbm.bandwidth_gbps": round(hardware.chip.hbm.bandwidth_gbps * draw.choice((0.2, 1, 5)))}
        for name, path in hardware.chip.paths.items():
            changes[f"paths.{name}.latency_cycles"] = path.latency_cycles + draw.choice((0, 0, 50, 3000))
        for name, op in hardware.chip.vector.ops.items():
            changes[f"vector.ops.{name}.latency_cycles"] = op.latency_cycles + draw.choice((0, 1000))
        yield hardware.replace(**changes)


def _wrong(kernel: Kernel, chip: Hardware, expected: Mapping[str, np.ndarray]) -> bool:
    program = lower(kernel, chip.chip)
    try:
        record = load_engine("fast").run(program, EngineOptions(record_timeline=True, skip=False))
        found = execute(program.kernel, _inputs(kernel), observer=HazardCheck(record).observe)
    except (CheckFailed, Deadlock):
        return True
    outs = [tensor.name for tensor in kernel.tensors if tensor.role == "out"]
    return any(found[name].tobytes() != expected[name].tobytes() for name in outs if expected)


def run(every: int = 1, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """Kind, text and outcome of one in ``every`` mutants."""
    for text, hardware in texts():
        for kind, mutant in mutants(text):
            if random.Random(f"{seed}:{mutant}").randrange(every) == 0:
                yield kind, mutant, outcome(mutant, None if kind in ("block moved", "ring one shorter") else text, hardware)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    begun = time.process_time()
    for kind, text, found in run(given.every):
        counts[kind, found] += 1
        if found == "missed":
            print(f"# missed: {kind}\n{text}")
    print(f"{'kind':<32} refused  missed  equivalent")
    for kind in dict.fromkeys(kind for kind, _ in counts):
        print(f"{kind:<32} {counts[kind, 'refused']:>7} {counts[kind, 'missed']:>7} {counts[kind, 'equivalent']:>11}")
    refused, missed = (sum(count for (_, what), count in counts.items() if what == wanted) for wanted in ("refused", "missed"))
    print(f"{refused} of {refused + missed} that are wrong are refused; {time.process_time() - begun:.0f} s of CPU")


if __name__ == "__main__":
    main()
