"""The words of a kernel's text, and how a mistake in it is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from msdsim.errors import KernelError

#: Where users find the whole language.
PAGE = "docs/kernel-language.md"
#: Limits of a text; what people and generators write stays far below them.
MOST_CHARACTERS, MOST_DIGITS = 2_000_000, 18

_TOKEN = re.compile(r"""
    (?P<space>[ \t\r]+)
  | (?P<comment>\#[^\n]*)
  | (?P<newline>\n)
  | (?P<float>[+-]?(?:\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|inf\b|nan\b))
  | (?P<int>0[xX][0-9a-fA-F]+|\d+)
  | (?P<name>[A-Za-z_$][\w$]*)
  | (?P<symbol><-|\+:|\.\.|==|!=|<=|>=|//|[-+*%<>(){}\[\],:=])
""", re.VERBOSE | re.ASCII)


@dataclass(frozen=True)
class Token:
    """A word with its line and, for the first of a line, the column where it begins (-1 for the others)."""

    kind: str
    text: str
    line: int
    indent: int = -1


def tokens(text: str) -> tuple[list[Token], list[tuple[int, Token]]]:
    """The words of ``text``, ended by one of kind ``end``; and its comments, each with the number of words before it."""
    if len(text) > MOST_CHARACTERS:
        raise KernelError(f"line 1: the text has {len(text)} characters, at most {MOST_CHARACTERS} are read; make the kernel "
                          f"smaller")
    found: list[Token] = []
    comments: list[tuple[int, Token]] = []
    at, line, begin = 0, 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise KernelError(f"line {line}: unexpected character {text[at]!r}; a statement ends with its line, and a comment "
                              f"begins with '#' ({PAGE})")
        kind, piece = str(match.lastgroup), match[0]
        # A range such as 0..8 is not the float 0. followed by .8
        if kind == "float" and text.startswith("..", at + len(piece) - 1):
            kind, piece = "int", piece[:-1]
        first = not found or found[-1].line != line
        if kind == "newline":
            line, begin = line + 1, at + 1
        elif kind == "comment":
            comments.append((len(found), Token(kind, piece[1:].strip(), line, 0 if first else -1)))
        elif kind != "space":
            if kind in ("int", "float") and len(piece) > MOST_DIGITS + 2 * (kind == "float") * MOST_DIGITS:
                raise KernelError(f"line {line}: the number {piece[:12]}... has {len(piece)} digits; at most {MOST_DIGITS} are "
                                  f"read")
            found.append(Token(kind, piece, line, at - begin if first else -1))
        at += len(piece)
    return [*found, Token("end", "end of file", line)], comments


def nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    """``; did you mean 'x'?`` where a known word is near."""
    close = get_close_matches(word, known, 1)
    return f"; did you mean '{close[0]}'?" if close else ""
