"""How reports name and paint things: categories of cycles, pipes, resources, and numbers with their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any


@dataclass(frozen=True)
class Look:
    """One category of a pipe's cycles: its colour, and marks that tell it apart without colour."""

    category: str
    mark: str
    plain_mark: str
    colour: str
    meaning: str
    text_style: str = ""
    #: Lines or dots over the colour in pictures, where it looks like its neighbours in grey.
    hatch: str = ""

    @property
    def style(self) -> str:
        """Style of the mark on a terminal; greys must be seen on light and dark ones."""
        return self.text_style or self.colour


#: In the order in which bars stack them.  Colours are those of Okabe and Ito, made for colour-blind readers.
LOOKS = (
    Look("busy", "█", "#", "#0072B2", "doing its work"),
    Look("head", "▓", "+", "#56B4E9", "start-up and latency of an instruction"),
    Look("wait_memory", "▒", "m", "#D55E00", "a transfer takes longer than it would alone", hatch="||"),
    Look("wait_data", "░", "d", "#E69F00", "another pipe has not produced the data yet", hatch="////"),
    Look("wait_buffer", "▚", "b", "#F0E442", "another pipe still uses the buffer slot", hatch="...."),
    Look("wait_sync", "\u2571", "s", "#CC79A7", "a signal of another core has not come yet", hatch="\\\\\\\\"),
    Look("wait_issue", "┊", "i", "#666666", "the scalar unit has not dispatched yet (on S: a queue is full)", "bright_black"),
    Look("drained", "·", ".", "#E5E5E5", "no more work", "bright_black"),
)

#: What each kind of pipe does, and the order in which people follow the data.
PIPE_ROLES = {
    "aic.mte2": "GM to L1",
    "aic.mte1": "L1 to L0",
    "aic.m": "Cube",
    "aic.fix": "L0C to out",
    "aic.s": "scalar",
    "aiv.mte2": "GM to UB",
    "aiv.v": "Vector",
    "aiv.mte3": "UB to GM",
    "aiv.s": "scalar",
}

_RESOURCES = {"hbm": "HBM", "l2.read": "L2 reads", "l2.write": "L2 writes", "aic.m": "Cube", "aiv.v": "Vector"}


def pipe_label(kind: str) -> str:
    """``aic.mte2`` as ``AIC MTE2``."""
    return kind.upper().replace(".", " ")


def resource_label(name: str) -> str:
    """A bottleneck's name as a person says it: ``HBM``, ``Cube``, ``AIC MTE2``."""
    return _RESOURCES.get(name) or pipe_label(name)


def ordered_pipes(pipes: Mapping[str, Any]) -> list[str]:
    """Kinds of pipes in the order of the data's way; kinds unknown here come last."""
    known = [kind for kind in PIPE_ROLES if kind in pipes]
    return known + [kind for kind in pipes if kind not in PIPE_ROLES]


def problem_text(problem: Mapping[str, Any]) -> str:
    """A problem's JSON as a heading: ``gemm m=16 k=8192 n=12288``."""
    return " ".join([str(problem["kind"]), *(f"{key}={_plain(value)}" for key, value in problem.items() if key != "kind")])


def _plain(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) > 8 and all(isinstance(item, int) for item in value):
        # Rows of experts: how many have how many.
        return "+".join(f"{len(list(run))}x{rows}" for rows, run in groupby(value))[:60]
    return int(value) if isinstance(value, bool) else value


def tiling_text(tiling: Mapping[str, int]) -> str:
    """``base_m=16 base_n=256 ...``."""
    return " ".join(f"{key}={value}" for key, value in tiling.items())


def us(value: float) -> str:
    """Microseconds with a sensible number of digits, milliseconds from 1,000 us on."""
    if value >= 1000:
        return f"{value / 1000:,.2f} ms"
    return f"{value:,.1f} us" if value >= 10 else f"{value:.2f} us"


def megabytes(count: float) -> str:
    """Bytes in decimal megabytes, the unit that goes with GB/s."""
    size = count / 1e6
    return f"{size:,.0f}" if size >= 1000 else f"{size:.1f}" if size >= 1 else f"{size:.3g}"


def percent(share: float) -> str:
    """A share as whole percent; a share that is not zero never reads 0%."""
    if 0 < share < 0.005:
        return "<1%"
    return f"{100 * share:.0f}%"


def figure(value: float) -> str:
    """An error figure: three digits."""
    return "0" if value == 0 else f"{value:.2e}"
