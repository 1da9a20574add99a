"""Hierarchical names of the simulated machine's parts: ``Chip.Core[3].AIV[1].MTE2``."""

from __future__ import annotations

import re
from dataclasses import dataclass

PARTS = ("AIC", "AIV")
PIPES: dict[str, tuple[str, ...]] = {"AIC": ("S", "MTE2", "MTE1", "M", "FIX"), "AIV": ("S", "MTE2", "V", "MTE3")}
_NAME = re.compile(r"^Chip\.Core\[(\d+)\]\.(?:(AIC)|AIV\[(\d+)\])\.(\w+)$")


@dataclass(frozen=True, order=True)
class PipeName:
    """One pipe of one core: group index, part, AIV index inside the group (0 for the AIC), pipe."""

    core: int
    part: str
    sub: int
    pipe: str

    def __str__(self) -> str:
        unit = "AIC" if self.part == "AIC" else f"AIV[{self.sub}]"
        return f"Chip.Core[{self.core}].{unit}.{self.pipe}"

    @property
    def kind(self) -> str:
        """Name of the pipe's kind as the JSON uses it, for example ``aiv.mte2``."""
        return pipe_kind(self.part, self.pipe)


def pipe_kind(part: str, pipe: str) -> str:
    """``aic.m``, ``aiv.mte2``: a pipe of any core, as results and reports name it."""
    return f"{part}.{pipe}".lower()


def parse_pipe_name(text: str) -> PipeName:
    """Inverse of ``str(PipeName)``; ValueError for anything that is not such a name."""
    match = _NAME.match(text)
    if not match:
        raise ValueError(f"'{text}' is not a pipe name such as Chip.Core[3].AIV[1].MTE2")
    part = match[2] or "AIV"
    if match[4] not in PIPES[part]:
        raise ValueError(f"'{text}': {part} has no pipe {match[4]} (pipes: {', '.join(PIPES[part])})")
    return PipeName(int(match[1]), part, int(match[3] or 0), match[4])
