"""What one to 48 AIVs reach together, against TileSim's table of an A2 (triton-ascend), in GB/s for each of them."""

from __future__ import annotations

import pytest

from msdsim.hardware import load_hw
from msdsim.hardware.hardware import override
from msdsim.ir import Kernel, KernelBuilder
from msdsim.runs import RunOptions, run

READS = {2: 65, 4: 78, 8: 69, 16: 73, 24: 65, 48: 34}
WRITES = {16: 100, 24: 77, 48: 34}
ROW, COLUMNS = 16384, 8192


def stream(aic: int, write: bool, rows: int) -> Kernel:
    """Every AIV moves rows of 16 KiB of its own, reads with four in flight."""
    kb = KernelBuilder("stream", aic, 2)
    tensor = kb.tensor("t", "fp16", (rows * 2 * aic, COLUMNS), "out" if write else "in")
    with kb.part("aiv"):
        if write:
            tile = kb.buffer("tile", "UB", "fp16", (1, COLUMNS))
            kb.op("dup", tile[:, :], scalar=0.0)
        with kb.loop("i", 0, rows) as i:
            place = tensor[kb.aiv * rows + i, :]
            if write:
                kb.copy(place, tile[:, :])
            else:
                kb.copy(kb.buffer("tile", "UB", "fp16", (1, COLUMNS), 4)[:, :], place)
    return kb.build()


def reached(aivs: int, write: bool) -> float:
    """GB/s of an AIV, on more than L2 holds where it is written."""
    hardware = override(load_hw("ascend910b1"), {"cores.aic": aivs // 2})
    rows = (448 if write else 64) * 2**20 // ROW // aivs
    result = run(stream(aivs // 2, write, rows), hardware, "stream", RunOptions(warm=write))
    return rows * ROW / result.time_us / 1000


@pytest.mark.parametrize(("aivs", "published"), READS.items())
def test_reads(aivs, published):
    assert reached(aivs, write=False) == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize(("aivs", "published"), WRITES.items())
def test_writes(aivs, published):
    assert reached(aivs, write=True) == pytest.approx(published, rel=0.20)
