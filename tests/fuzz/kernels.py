"""Mutated kernel texts: every one is verified and lowered, or refused in one line that names a line.

``python -m tests.fuzz.kernels --count 20000 --seed 1`` prints what broke, with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator

from msdsim.api import find_dataflow
from msdsim.errors import MsdsimError
from msdsim.hardware import load_hw
from msdsim.ir import print_kernel
from msdsim.ir.lower import lower
from msdsim.ir.order import check_order
from msdsim.ir.parser import parse_kernel
from msdsim.ir.verify import verify
from msdsim.problems import parse_problem
from msdsim.tilings import choose_tiling
from tests.ir.kernels import copy_kernel, exchange_kernel, matmul_kernel, scale_kernel

#: Seconds that one text may take.
LIMIT = 10
TOY = load_hw("toy")
_PROBLEMS = [("gemm:m=16,k=512,n=512", "dequant-int8"), ("gemm:m=16,k=256,n=256", "msd-int8"), ("gemm:m=7,k=96,n=80", "w8a8"),
             ("attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=1,kv=200", "bf16")]
_VALUES = ["0", "1", "-1", "2", "7", "16", "64", "4096", "99999999", "1152921504606846976", "999999999999999999999", "0x7fffffff"]
_WORDS = ["core", "sub", "let", "for", "in", "when", "buffer", "ring", "on", "signal", "wait", "copy", "mmad", "min", "max", "barrier",
          "MTE2", "V", "GM", "UB", "int4", "fp32", "{", "}", "[", "]", "(", ")", ",", ":", "+:", "<-", "..", "==", "//", "%", "*", "-", "#",
          "\n", "lambda", "1.5", "inf", "e"]


def bases() -> list[str]:
    """The texts that are mutated."""
    found = [print_kernel(kernel) for kernel in (copy_kernel(cores=2), scale_kernel(), matmul_kernel(), exchange_kernel())]
    for problem, name in _PROBLEMS:
        shape = parse_problem(problem)
        entry = find_dataflow(shape, name)
        found.append(print_kernel(entry.build(shape, TOY.chip, choose_tiling(entry, shape, TOY.chip, None))))
    return found


def mutated(text: str, draw: random.Random) -> str:
    """``text`` with one to four changes of a token, a line or a block."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        text = draw.choice((_number, _number, _token, _drop, _double, _swap, _character, _deepen, _expression))(text, draw)
    return text


def _number(text: str, draw: random.Random) -> str:
    found = list(re.finditer(r"\b\d+\b", text))
    if not found:
        return text
    at = draw.choice(found)
    value = draw.choice([*_VALUES, str(int(at[0][:17]) + draw.choice((-1, 1))), str(int(at[0][:17]) * 2)])
    return text[: at.start()] + value + text[at.end() :]


def _token(text: str, draw: random.Random) -> str:
    found = list(re.finditer(r"\w+|[^\w\s]+", text))
    at = draw.choice(found)
    other = draw.choice([*_WORDS, draw.choice(found)[0]])
    return text[: at.start()] + draw.choice((other, "", f"{at[0]} {other}")) + text[at.end() :]


def _lines(text: str, draw: random.Random) -> tuple[list[str], int]:
    lines = text.split("\n")
    return lines, draw.randrange(len(lines))


def _drop(text: str, draw: random.Random) -> str:
    lines, at = _lines(text, draw)
    return "\n".join(lines[:at] + lines[at + draw.choice((1, 1, 3)) :])


def _double(text: str, draw: random.Random) -> str:
    lines, at = _lines(text, draw)
    return "\n".join(lines[: at + 1] + lines[at:])


def _swap(text: str, draw: random.Random) -> str:
    lines, at = _lines(text, draw)
    other = draw.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines)


def _character(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text))
    return text[:at] + draw.choice((chr(draw.randrange(32, 127)), "\x00", "\u00e9", "\u0661", "")) + text[at + 1 :]


def _deepen(text: str, draw: random.Random) -> str:
    lines, at = _lines(text, draw)
    depth = draw.choice((1, 3, 30, 80))
    head = draw.choice(("when core < {i}", "for z{i} in 0 .. 2", "for z{i} in 0 .. core + {i}"))
    return "\n".join([*lines[:at], *(head.format(i=i) + " {" for i in range(depth)), lines[at], "}" * depth, *lines[at + 1 :]])


def _expression(text: str, draw: random.Random) -> str:
    found = list(re.finditer(r"\b\d+\b", text))
    if not found:
        return text
    at = draw.choice(found)
    term = draw.choice(("core", "sub", "3", "0", at[0]))
    op = draw.choice(("+", "-", "*", "//", "%", "<", "=="))
    new = draw.choice((f"({at[0]} {op} {term})", f"min({at[0]}, {term})", f" {op} ".join([at[0], *[term] * draw.choice((1, 40, 200))])))
    return text[: at.start()] + new + text[at.end() :]


class TookTooLong(Exception):
    """A text that takes longer than :data:`LIMIT`."""


def outcome(text: str) -> str:
    """``good``, ``refused``; or what broke: a traceback, a refusal without a line, too long a time."""

    def stop(*_: object) -> None:
        raise TookTooLong

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        kernel = parse_kernel(text)
        verify(kernel, TOY.chip)
        check_order(lower(kernel, TOY.chip))
        assert parse_kernel(print_kernel(kernel)) == kernel
    except MsdsimError as err:
        message = str(err)
        if not re.search(r"\bline \d+: ", message) or "\n" in message or len(message) > 2000:
            return f"no line: {message[:300]}"
        return "refused"
    except TookTooLong:
        return "too long"
    except Exception as err:
        where = traceback.extract_tb(err.__traceback__)[-1]
        return f"traceback: {type(err).__name__} in {where.filename.rsplit('/', 1)[-1]}:{where.lineno}: {str(err)[:100]}"
    finally:
        signal.alarm(0)
    return "good"


def run(count: int, seed: int) -> Iterator[tuple[int, str, str]]:
    """Number, text and outcome of so many mutations."""
    texts = bases()
    for number in range(count):
        draw = random.Random(f"{seed}:{number}")
        text = mutated(draw.choice(texts), draw)
        yield number, text, outcome(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun, kinds, longest = time.process_time(), Counter[str](), 0.0
    at = begun
    for number, _, found in run(given.count, given.seed):
        now = time.process_time()
        longest, at = max(longest, now - at), now
        kinds[found.split(":")[0]] += 1
        if found not in ("good", "refused"):
            print(f"{number}: {found}")
    print(dict(kinds), f"{time.process_time() - begun:.0f} s of CPU, the longest {longest:.1f} s")


if __name__ == "__main__":
    main()
