"""Changes of texts and bytes that people, programs and disks make."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

_EXTREMES = ("0", "-1", "1", "2", "3", "1e30", "-1e30", "1e308", "1e-308", "nan", "inf", "-inf", "9223372036854775807", "1" + "0" * 30, "4294967296", "2147483648",
             "0.5", "true", "null", '"text"', "[]", "{}", "[1, 2]", '""', "0x10")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")


def text(given: str, draw: random.Random) -> str:
    """``given`` with one to three changes of a number, a word, a line or a character."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        given = draw.choice((_number, _number, _number, _word, _line, _character, _deep))(given, draw)
    return given


def _replace(given: str, found: list[re.Match[str]], draw: random.Random, new: Callable[[str], str]) -> str:
    if not found:
        return given
    at = draw.choice(found)
    return given[: at.start()] + new(at[0]) + given[at.end() :]


def _number(given: str, draw: random.Random) -> str:
    near = draw.choice(("+", "*2", "/2", "-", "extreme", "extreme"))

    def other(old: str) -> str:
        value = float(old)
        return {"+": str(value + 1), "*2": str(value * 2), "/2": str(value / 2), "-": f"-{old}"}.get(near) or draw.choice(_EXTREMES)

    return _replace(given, list(_NUMBER.finditer(given)), draw, other)


def _word(given: str, draw: random.Random) -> str:
    words = list(re.finditer(r"\w+|[^\w\s]", given))
    other = draw.choice((draw.choice(words)[0] if words else "", "", draw.choice(_EXTREMES), "é", "'"))
    return _replace(given, words, draw, lambda old: draw.choice((other, old + other, old[:-1], old + old)))


def _line(given: str, draw: random.Random) -> str:
    lines = given.split("\n")
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    how = draw.choice(("drop", "double", "swap"))
    if how == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines[at : at + 1] = [] if how == "drop" else [lines[at]] * 2
    return "\n".join(lines)


def _character(given: str, draw: random.Random) -> str:
    at = draw.randrange(len(given) + 1)
    return given[:at] + draw.choice(("\x00", "\n", '"', "[", "}", "=", "\ufeff", "\u0661", chr(draw.randrange(32, 127)), "")) + given[at + draw.choice((0, 1)) :]


def _deep(given: str, draw: random.Random) -> str:
    depth = draw.choice((3, 50, 2000))
    return _replace(given, list(_NUMBER.finditer(given)), draw, lambda old: draw.choice(("[" * depth + old + "]" * depth, '{"a":' * depth + old + "}" * depth, old * min(depth, 200))))


def json_text(given: str, draw: random.Random) -> str:
    """A JSON text with one to three of its values changed, or as :func:`text` changes it."""
    if draw.random() < 0.3:
        return text(given, draw)
    tree = json.loads(given)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        table, key = draw.choice(places)
        old = table[key]
        how = draw.randrange(6)
        if how == 0:
            del table[key]
        elif how == 1:
            table[key] = copy.deepcopy(draw.choice(places)[0])
        elif how == 2 and isinstance(table, dict):
            table[draw.choice((f"{key}x", key.upper(), f"num_{key}", "", "model_type"))] = table.pop(key)
        elif type(old) in (int, float):
            table[key] = draw.choice((old * 2, old // 2, old + 1, -old, 0, 1, 3, 10**18, 10**30, 0.5, float("nan"), float("inf"), str(old), [old], None, old > 1))
        else:
            table[key] = draw.choice((None, 0, -1, 10**12, "", "text", [], {}, True, [old], [None], {"a": old}))
    return json.dumps(tree)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every table or list with a key or place of its own."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def data(given: bytes, draw: random.Random) -> bytes:
    """``given`` with flipped bits, cut off, with a piece lost, doubled or zeroed."""
    changed = bytearray(given)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if not changed:
            break
        # Headers stand in front: half of the changes go there.
        at = draw.randrange(draw.choice((len(changed), min(len(changed), 200))))
        size = draw.choice((1, 2, 8, 64))
        how = draw.randrange(6)
        if how <= 1:
            changed[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            del changed[at:]
        elif how == 3:
            del changed[at : at + size]
        elif how == 4:
            changed[at:at] = changed[at : at + size]
        else:
            changed[at : at + size] = draw.choice((b"\x00", b"\xff")) * size
    return bytes(changed)
