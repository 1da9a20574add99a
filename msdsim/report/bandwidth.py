"""Bandwidth over time, as the memories served it."""

from __future__ import annotations

import numpy as np

from msdsim.report.result import Result
from msdsim.timeline.record import HBM_READ, HBM_WRITE, L2_READ, L2_WRITE

_MOST_STEPS = 100


def bandwidth_steps(run: Result) -> tuple[np.ndarray, np.ndarray]:
    """Edges in microseconds, and GB/s between them per entry of TRAFFIC; at most a readable number of steps.

    Records count bytes when they are asked for; here they count when the memory serves them, at most at its peak: what is
    asked for beyond it waits in a queue.  HBM's reads and writes share its peak.
    """
    found, clock = run.bandwidth, float(run.hardware.chip.clock_mhz)
    used = max(1, -(-run.cycles // found.interval_cycles))
    merge = max(1, -(-used // _MOST_STEPS))
    steps = -(-used // merge)
    padded = np.zeros((found.bytes.shape[0], steps * merge))
    padded[:, : min(used, found.bytes.shape[1])] = found.bytes[:, :used]
    cycles = np.minimum(np.arange(steps + 1) * merge * found.interval_cycles, max(1, run.cycles))
    asked = padded.reshape(-1, steps, merge).sum(axis=2)
    seconds, chip = np.diff(cycles) / clock * 1000, run.hardware.chip
    served = np.zeros_like(asked)
    for rows, peak in (((HBM_READ, HBM_WRITE), chip.hbm.bandwidth_gbps), ((L2_READ,), chip.l2.read_gbps),
                       ((L2_WRITE,), chip.l2.write_gbps)):
        served[list(rows)] = _served(asked[list(rows)], peak * seconds)
    return cycles / clock, served / seconds


def _served(asked: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Bytes by row and step when at most ``most`` are served in a step, rows in proportion to what waits; nothing is lost: what
    is left at the end belongs to the last steps that have room."""
    found, waiting = np.zeros_like(asked), np.zeros(len(asked))
    for step in range(asked.shape[1]):
        waiting = waiting + asked[:, step]
        total = waiting.sum()
        part = waiting * (min(1.0, most[step] / total) if total else 0.0)
        found[:, step] = part
        waiting = waiting - part
    for step in reversed(range(asked.shape[1])):
        left = waiting.sum()
        if left <= 0:
            break
        part = waiting * min(1.0, max(0.0, most[step] - found[:, step].sum()) / left)
        found[:, step] += part
        waiting = waiting - part
    # A record that asks for more than the peak could ever serve keeps its bytes.
    found[:, -1] += waiting
    return found
