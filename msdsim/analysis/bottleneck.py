"""What a run is bound by: the resource that was busy for the largest share of it."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.timeline.record import RunRecord
from msdsim.units import bytes_per_tick, exact


@dataclass(frozen=True)
class Bottleneck:
    """Name of the resource (``hbm``, ``l2.read``, ``l2.write`` or a kind of pipe such as ``aic.m``) and its share of use."""

    name: str
    utilization: float


def utilizations(record: RunRecord) -> dict[str, float]:
    """Share of the run that each resource worked: pipes by busy cycles, memories by bytes over the bytes they could move.

    HBM counts against the bandwidth that streaming reaches (peak times efficiency).
    """
    chip, cycles = record.program.chip, max(1, record.cycles)
    found: dict[str, float] = {}
    for pipe, row in record.pipe_totals().items():
        if not pipe.endswith(".s"):
            found[pipe] = row["busy"] / (row["instances"] * cycles)
    traffic = record.traffic
    hbm = float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz) * exact(chip.hbm.efficiency))
    found["hbm"] = (traffic["hbm_read_bytes"] + traffic["hbm_write_bytes"]) / (hbm * cycles)
    found["l2.read"] = traffic["l2_read_bytes"] / (float(bytes_per_tick(chip.l2.read_gbps, chip.clock_mhz)) * cycles)
    found["l2.write"] = traffic["l2_write_bytes"] / (float(bytes_per_tick(chip.l2.write_gbps, chip.clock_mhz)) * cycles)
    return found


def find_bottleneck(record: RunRecord) -> Bottleneck:
    """The resource with the highest utilization."""
    shares = utilizations(record)
    name = max(shares, key=lambda key: shares[key])
    return Bottleneck(name, shares[name])
