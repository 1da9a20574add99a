"""WordPiece tokens of uncased BERT models from their ``vocab.txt``, so that a model study needs no tokenizer package.

The rules are those of the model's own tokenizer: control characters dropped, lower case, accents stripped, punctuation
and CJK characters on their own, then the longest known piece first, later pieces marked ``##``.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

_MAX_WORD = 100  # longer words become one unknown token
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
        (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


class WordPiece:
    """Tokenizer over the pieces of ``vocab``, one per line."""

    def __init__(self, vocab: Path) -> None:
        pieces = vocab.read_text(encoding="utf-8").splitlines()
        self.ids = {piece: number for number, piece in enumerate(pieces)}

    def encode(self, text: str, max_tokens: int = 256) -> list[int]:
        """Token ids with [CLS] and [SEP], cut to ``max_tokens``."""
        pieces = [piece for word in basic_words(text) for piece in self._pieces(word)]
        return [self.ids[p] for p in ["[CLS]", *pieces[: max_tokens - 2], "[SEP]"]]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > _MAX_WORD:
            return ["[UNK]"]
        result, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self.ids)
            end = next(ends, None)
            if end is None:
                return ["[UNK]"]
            result.append(prefix + word[start:end])
            start = end
        return result


def basic_words(text: str) -> list[str]:
    """Lower-case words, punctuation marks and CJK characters of ``text``."""
    spaced = []
    for char in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(char)
        if category == "Mn" or (category.startswith("C") and char not in "\t\n\r") or char == "\ufffd":
            continue
        spaced.append(f" {char} " if _is_punctuation(char, category) or _is_cjk(ord(char)) else char)
    return "".join(spaced).split()


def _is_punctuation(char: str, category: str) -> bool:
    # Every ASCII symbol counts, also those that Unicode files elsewhere ($, +, <, =, >, ^, `, |, ~).
    ascii_symbol = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
    return ascii_symbol or category.startswith("P")


def _is_cjk(code: int) -> bool:
    return any(low <= code <= high for low, high in _CJK)
