"""What a user hands over, changed at random: chips, ``--set``, arrays, checkpoints, workloads, configs and sweeps.

Each kind makes a file or an option and runs a command on it, which must end within :data:`LIMIT` seconds of CPU in a result, a failed
check, or one ``error:`` line of fewer than 2,000 characters.

``python -m tests.fuzz.inputs --count 2000 --seed 1 [--kind chip]`` prints what broke with its number, and the counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import signal
import tempfile
import time
import tomllib
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np

from msdsim.cli import program
from msdsim.dataflows import DATAFLOWS
from msdsim.explore.sweep import read_spec
from msdsim.explore.sweep.spec import parse_spec
from tests.checkpoints import files
from tests.fuzz import commands, mutations

LIMIT = 20
_ALARMS = (signal.SIGALRM, signal.SIGPROF)
ROOT = Path(__file__).parents[2]
GEMM, ATTENTION = "gemm:m=4,k=64,n=24", "attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=1,kv=40"
_CHIPS = ("toy", "ascend910b1", "ascend950pr")
_VALUES = ("0", "1", "-1", "2", "3", "7", "0.5", "1e-300", "1e-9", "1e6", "1e12", "1e30", "1e308", "nan", "inf", "-inf", "9" * 25, "true", "text", "", "[1]", "1.5e", "0x10")


def _chip(draw: random.Random, folder: Path) -> list[str]:
    path = folder / "chip.toml"
    path.write_text(mutations.text((ROOT / f"hwmodels/{draw.choice(_CHIPS)}.toml").read_text(encoding="utf-8"), draw), encoding="utf-8")
    return ["run", draw.choice((GEMM, ATTENTION)), "--hw", str(path), "--dataflow", draw.choice(("bf16", "msd-int8")), *_memory(draw)]


def _memory(draw: random.Random) -> list[str]:
    return draw.choice(([], [], ["--memory", "banked"]))


@cache
def keys(chip: str) -> list[tuple[str, float]]:
    """The dotted numbers of a chip file."""
    def below(table: Mapping[str, object], front: str) -> Iterator[tuple[str, float]]:
        for name, value in table.items():
            if isinstance(value, dict):
                yield from below(value, f"{front}{name}.")
            elif isinstance(value, int | float):
                yield (front + name).removesuffix(".value"), value

    return list(below(tomllib.loads((ROOT / f"hwmodels/{chip}.toml").read_text(encoding="utf-8")), ""))


def _set(draw: random.Random, folder: Path) -> list[str]:
    chip = draw.choice(_CHIPS)
    chosen = []
    for _ in range(draw.choice((1, 1, 2, 3))):
        key, old = draw.choice(keys(chip))
        near = str(type(old)(old * draw.choice((0.25, 0.5, 2, 4, 10, 100))))
        chosen.append(f"{key}{draw.choice(('=',) * 9 + ('', ' = ', '=='))}{draw.choice((near, near, draw.choice(_VALUES)))}")
    return ["run", draw.choice((GEMM, ATTENTION)), "--hw", chip, "--dataflow", draw.choice(("bf16", "msd-int8")), *_memory(draw),
            *(word for one in chosen for word in ("--set", one))]


def _arrays(draw: random.Random, problem: str) -> dict[str, np.ndarray]:
    """Arrays of a problem, some of them of a wrong shape, kind or size."""
    rng = np.random.default_rng(draw.randrange(1 << 30))
    shapes = {"x": (4, 64), "w": (64, 24)} if problem == GEMM else {"q": (1, 4, 1, 64), "k": (1, 2, 40, 64), "v": (1, 2, 40, 64)}
    found = {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}
    for _ in range(draw.choice((0, 1, 1, 2))):
        name = draw.choice(list(found))
        array = found[name]
        change: Callable[[], np.ndarray] = draw.choice((
            lambda array=array: array.real.astype("f4").astype(draw.choice(("f2", "f8", "i1", "u1", "i4", "i8", "c8", "?", "U3", ">f4"))),
            lambda array=array: array.real.astype("f4").astype(draw.choice((ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float4_e2m1fn, ml_dtypes.int4))),
            lambda array=array: array.real.astype("f4") * np.float32(draw.choice((1e38, 1e30, 1e-38, 1e-45, 0, -1))),
            lambda array=array: np.where(array.real.astype("f4") > 1, np.float32(draw.choice((np.nan, np.inf, -np.inf, 3e38))), array),
            lambda array=array: np.atleast_1d(array)[draw.choice((slice(1), slice(0), slice(None, None, -1)))],
            lambda array=array: draw.choice((array.T, array.reshape(-1), array[None], np.float32(3), np.asarray(array, order="F")))))
        found[name] = np.asarray(change())
    if draw.random() < 0.2:
        found[draw.choice(("w_scale", "scale", "y", "w_offset", "", "k_scale", "ü", "a/b"))] = np.ones(draw.choice(((24,), (1, 24), (3,), ())), np.float32)
    return found


def _npz(draw: random.Random, folder: Path) -> list[str]:
    path, problem = folder / "in.npz", draw.choice((GEMM, GEMM, ATTENTION))
    if draw.random() < 0.5:
        given = io.BytesIO()
        draw.choice((np.savez, np.savez_compressed))(given, **_arrays(random.Random(3), problem))
        path.write_bytes(mutations.data(given.getvalue(), draw))
    else:
        np.savez(path, **_arrays(draw, problem))
    flows = ("bf16", "dequant-int8", "msd-int8", "w8a8", "msd-int4") if problem == GEMM else ("bf16", "msd-int8")
    return ["run", problem, "--hw", "toy", "--dataflow", draw.choice(flows), "--inputs", str(path), "--check",
            *draw.choice(([], [], ["--dtype", draw.choice(("bfloat16", "x=float8_e4m3fn", "w=int4", "q=bfloat16", "nothing", "=", "x="))]))]


_CHECKPOINTS = (files.gptq(), files.gptq(act_order=True), files.awq(), files.compressed(k=64, group=16), files.bytes8(), files.output_pairs(), files.quark(),
                files.fp8(n=24, k=64), files.mxfp4(), files.nvfp4())


def _safetensors(draw: random.Random, folder: Path) -> list[str]:
    spec = draw.choice(_CHECKPOINTS).write(folder)
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    if draw.random() < 0.7:
        header = mutations.json_text(raw[8 : 8 + size].decode(), draw).encode(errors="replace")
        raw = (size if draw.random() < 0.1 else len(header)).to_bytes(8, "little") + header + raw[8 + size :]
    else:
        raw = mutations.data(raw, draw)
    path.write_bytes(raw)
    return ["run", GEMM, "--hw", "toy", "--dataflow", draw.choice(("bf16", "dequant-int8", "msd-int4", "dequant-mxfp4")), "--weights", spec, "--check"]


def _workload(draw: random.Random, folder: Path) -> list[str]:
    path = folder / "work.toml"
    base = """name = "small"
description = "two layers"
source = "made up"
[[op]]
name = "up"
problem = "gemm:m=4,k=64,n=24"
count = 3
[[op]]
name = "attention"
problem = "attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=1,kv=40"
count = 2
dataflow = "bf16"
"""
    path.write_text(mutations.text(base, draw), encoding="utf-8")
    return [draw.choice(("run", "run", "compare")), str(path), "--hw", "toy"]


@cache
def _configs() -> list[str]:
    published = tomllib.loads((ROOT / "tests/models/published.toml").read_text(encoding="utf-8"))
    return [one["config"] for one in published.values()]


def _config(draw: random.Random, folder: Path) -> list[str]:
    path = folder / "config.json"
    text = json.dumps(json.loads(draw.choice(_configs())), indent=1)
    if draw.random() < 0.1:
        path.write_bytes(mutations.data(text.encode(), draw))
    else:
        path.write_text(mutations.json_text(text, draw), encoding="utf-8", errors="replace")
    return ["import", str(path), "--out", str(folder / "out.toml"), "--kv", draw.choice(("1", "64", "5000")), "--batch", draw.choice(("1", "3", "100000"))]


def _sweep(draw: random.Random, folder: Path) -> list[str]:
    base = """problem = "gemm:m={m},k={k},n=24"
hw = "toy"
dataflow = ["bf16", "msd-int8"]
memory = "bandwidth"
check = false
[parameters]
m = [1, 2]
"k, tiling.slots" = [[64, 2], [96, 3]]
"hbm.bandwidth_gbps" = { start = 8, stop = 16, count = 2, log = true }
"l2.read_gbps" = { low = 100, high = 200 }
[random]
samples = 1
seed = 0
"""
    path = folder / "spec.toml"
    path.write_text(mutations.text(base, draw), encoding="utf-8")
    with contextlib.suppress(Exception):
        # Many points are no fault, only long.
        if len(parse_spec(read_spec(path))) > 64:
            path.write_text(base, encoding="utf-8")
    return ["sweep", str(path), "--out", str(folder / "out"), "--quiet", "--jobs", "1"]


def _words(draw: random.Random, folder: Path) -> list[str]:
    """Options themselves: problems, tilings, names."""
    problem = mutations.text(draw.choice((GEMM, ATTENTION, "grouped_gemm:groups=2,m=2,k=64,n=24", "gemm:m=4,k=64,n=24,group=32,offset=1")), draw).replace("\x00", "")
    tiling = mutations.text(draw.choice(("slots=2", "slot_k=64,slots=2", "k_parts=2")), draw).replace("\x00", "")
    return ["run", problem, "--hw", "toy", "--dataflow", draw.choice(("bf16", "msd-int8", "w8a8", "dequant-int4")), *draw.choice(([], ["--tiling", tiling]))]


KINDS: Mapping[str, Callable[[random.Random, Path], list[str]]] = {
    "chip": _chip, "set": _set, "npz": _npz, "safetensors": _safetensors, "workload": _workload, "config": _config, "sweep": _sweep, "words": _words,
    "measured": commands.measured, "schedule": commands.schedule, "dataflow": commands.dataflow, "kernel": commands.kernel, "outputs": commands.outputs}


class TookTooLong(BaseException):
    """A command that takes longer than :data:`LIMIT`."""


def outcome(arguments: list[str]) -> str:
    """``good``, ``refused``; or what broke."""
    def stop(*_: object) -> None:
        raise TookTooLong

    out, err = io.StringIO(), io.StringIO()
    before = [signal.signal(number, stop) for number in _ALARMS]
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    # Whatever waits takes no CPU.
    signal.alarm(6 * LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ResourceWarning)
            code = program.run_program(arguments)
    except TookTooLong:
        return "too long"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback: {type(error).__name__} in {where.filename.rsplit('/', 1)[-1]}:{where.lineno}: {str(error)[:100]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in zip(_ALARMS, before, strict=True):
            signal.signal(number, handler)
        # What a mutated file has registered must not meet the tests that come after.
        for name in [name for name in DATAFLOWS if "fuzzed-" in name]:
            del DATAFLOWS._entries[name]
    told = err.getvalue()
    if code == program.INTERNAL:
        return f"internal: {told[:300]}"
    if code in (program.DONE, 1) and not told.startswith("error:"):
        return "good"
    if not told.startswith("error: ") or told.count("\n") != 1 or len(told) > 2000:
        return f"no error line: exit code {code}: {told[:200]!r}"
    return "refused" if code in (program.USER_ERROR, 3) or (code, arguments[0]) == (1, "schedule") else f"exit code {code}: {told[:200]}"


@np.errstate(all="ignore")
def _made(kind: str, draw: random.Random, folder: Path) -> list[str]:
    return KINDS[kind](draw, folder)


def run(kind: str, count: int, seed: int) -> Iterator[tuple[int, list[str], str]]:
    """Number, arguments and outcome of so many commands of a kind."""
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            arguments = _made(kind, random.Random(f"{kind}:{seed}:{number}"), Path(folder))
            yield number, arguments, outcome(arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append")
    given = parser.parse_args()
    for kind in given.kind or KINDS:
        begun, found, longest = time.process_time(), Counter[str](), 0.0
        at = begun
        for number, arguments, result in run(kind, given.count, given.seed):
            now = time.process_time()
            longest, at = max(longest, now - at), now
            found[result.split(":")[0]] += 1
            if result not in ("good", "refused"):
                print(f"{kind} {number}: {result}\n    {' '.join(arguments)[:400]}", flush=True)
        print(f"{kind}: {given.count} tried, {dict(found)}, {at - begun:.0f} s of CPU, the longest {longest:.1f} s", flush=True)


if __name__ == "__main__":
    main()
