"""Single changes of the source that a tired programmer makes, drawn evenly over the rooms.

``python -m tests.mutation.draw --count 180 --seed 1`` prints sites for ``sites.toml``.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COMPARISONS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
_WRITTEN = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_OPERATORS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "//"), ast.FloorDiv: ("//", "*"), ast.Div: ("/", "*"), ast.Mod: ("%", "//")}
#: Pages, pictures and words: their tests are of another kind.
_LEFT_OUT = ("report/pictures", "report/html", "wording", "describe", "_build", "native", "energy")


def changes(path: Path) -> Iterator[tuple[str, str]]:
    """Old and new line of every change of a file whose line is the only one of its text."""
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        for row, start, end, new in _of(node, lines):
            old = lines[row]
            changed = old[:start] + new + old[end:]
            if lines.count(old) == 1 and changed != old and _parses(lines, row, changed):
                yield old.strip(), changed.strip()


def _parses(lines: list[str], row: int, changed: str) -> bool:
    try:
        ast.parse("\n".join([*lines[:row], changed, *lines[row + 1 :]]))
    except SyntaxError:
        return False
    return True


def _of(node: ast.AST, lines: list[str]) -> Iterator[tuple[int, int, int, str]]:
    """Row, start and end of what is replaced, and by what."""
    def between(left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[tuple[int, int, int, str]]:
        if left.end_lineno == right.lineno and left.end_lineno is not None and left.end_col_offset is not None:
            row = lines[left.end_lineno - 1]
            at = row.find(old, left.end_col_offset, right.col_offset)
            if at >= 0 and row.isascii():
                yield left.end_lineno - 1, at, at + len(old), new

    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        kind = type(node.ops[0])
        yield from between(node.left, node.comparators[0], _WRITTEN[kind], _COMPARISONS[kind])
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not isinstance(node.left, ast.JoinedStr):
        yield from between(node.left, node.right, *_OPERATORS[type(node.op)])
    elif isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        yield from between(node.values[0], node.values[1], old, new)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and lines[node.lineno - 1].isascii():
        yield node.lineno - 1, node.col_offset, node.operand.col_offset, ""
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max") and lines[node.lineno - 1].isascii():
        yield node.lineno - 1, node.func.col_offset, node.func.col_offset + 3, "max" if node.func.id == "min" else "min"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, bool) and lines[node.lineno - 1].isascii():
        new = str(not node.value) if isinstance(node.value, bool) else str(node.value + 1)
        if node.end_col_offset is not None:
            yield node.lineno - 1, node.col_offset, node.end_col_offset, new


def drawn(count: int, seed: int) -> list[tuple[str, str, str]]:
    """File, old and new line; every folder of the package alike."""
    draw = random.Random(seed)
    rooms: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "msdsim").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not any(part in name for part in _LEFT_OUT) and not name.startswith("msdsim/engine/fast/"):
            rooms.setdefault("/".join(name.split("/")[1:2]), []).append(path)
    rooms = {room: paths for room, paths in rooms.items() if not room.endswith(".py")}
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        room = draw.choice(sorted(rooms))
        path = draw.choice(rooms[room])
        possible = list(changes(path))
        if possible:
            old, new = draw.choice(possible)
            site = (path.relative_to(ROOT).as_posix(), old, new)
            if site not in found:
                found.append(site)
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=180)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for file, old, new in drawn(given.count, given.seed):
        print(f"[[site]]\nfile = {json.dumps(file)}\nold = {json.dumps(old)}\nnew = {json.dumps(new)}\n")


if __name__ == "__main__":
    main()
