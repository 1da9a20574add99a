"""What the least certain constants of a chip file do to the predictions: each multiplied, every row predicted again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msdsim.explore.measurements import PUBLISHED
from msdsim.explore.validate import validate
from msdsim.hardware import load_hw

#: The constants of the chip files that are least certain (assumed, or inferred from few numbers) and can matter to a time.
UNCERTAIN = (
    "launch.head_us", "launch.mix_us", "l2.read_gbps", "paths.gm_l1.nd2nz.l2_share",
    "paths.gm_l1.nd2nz.row_cycles", "paths.gm_l1.nd2nz.unaligned_block_cycles", "hbm.efficiency",
    "hbm.extra_latency_cycles", "paths.gm_l1.outstanding_bytes", "paths.gm_ub.interval_cycles",
    "l2.same_line_cycles", "dispatch.matmul_setup_cycles", "cross_core.signal_latency_cycles",
    "cross_core.barrier_latency_cycles",
)


@dataclass(frozen=True)
class Sensitivity:
    """How the predictions move when one constant is multiplied: relative change by row, for each factor."""

    constant: str
    kind: str
    changes: Mapping[float, Mapping[str, float]]

    def largest(self, factor: float) -> tuple[str, float]:
        """The row that moves most, and by how much."""
        return max(self.changes[factor].items(), key=lambda item: abs(item[1]))


def sensitivity(file: str | Path = PUBLISHED, constants: Sequence[str] = UNCERTAIN, factors: Sequence[float] = (0.7, 1.3), *,
                engine: str = "fast", memory: str = "bandwidth") -> list[Sensitivity]:
    """Predict every row with each constant multiplied by each factor."""
    base = {row.id: row.predicted_us for row in validate(file, engine=engine, memory=memory, long=False).rows}
    kinds = load_hw("ascend910b1").provenance
    found = []
    for constant in constants:
        changes = {}
        for factor in factors:
            turned = validate(file, engine=engine, memory=memory, factors={constant: factor}, long=False)
            changes[factor] = {row.id: row.predicted_us / before - 1 for row in turned.rows
                               if row.predicted_us is not None and (before := base[row.id]) is not None}
        found.append(Sensitivity(constant, kinds[constant].kind if constant in kinds else "", changes))
    return found
