"""How the engine's arrays are described and filled: tables of named words, and arrays that grow as things are put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Block:
    """A table of consecutive words in one of the engine's arrays: each call of :meth:`word` describes the next one.

    ``prefixes`` are what the constants that hold the positions begin with; a block without an array is a set of codes.
    """

    array: str
    prefixes: str
    text: str
    meanings: list[str] = field(default_factory=list)

    def word(self, meaning: str) -> int:
        """The position of the next word, which holds ``meaning``."""
        self.meanings.append(meaning)
        return len(self.meanings) - 1

    def size(self) -> int:
        """Words so far; a block that goes on in other arrays' words ends with it."""
        return len(self.meanings)

    def table(self, constants: Mapping[str, object]) -> list[tuple[int, str, str]]:
        """(position, name, meaning) of every word, the names found among the ``constants`` of the module that defines it."""
        prefixes = tuple(self.prefixes.split())
        names = [name for name in constants if name.startswith(prefixes) and not name.endswith("_SIZE")] if prefixes else []
        names = [name for name in names if isinstance(constants[name], int)][: len(self.meanings)]
        found = [(position, name, meaning) for position, (name, meaning) in enumerate(zip(names, self.meanings, strict=True))]
        assert all(constants[name] == position for position, name, _ in found), self.prefixes
        return found


class Words:
    """A growing array that says where things were put."""

    def __init__(self, count: int) -> None:
        self.words = [0] * count

    def add(self, words: Sequence[int]) -> int:
        """Append words; where they begin."""
        start = len(self.words)
        self.words += words
        return start

    def room(self, count: int, value: int = 0) -> int:
        """Append ``count`` times the same word; where they begin."""
        return self.add([value] * count)
