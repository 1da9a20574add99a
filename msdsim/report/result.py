"""Results: plain data with everything that reports need, and their JSON forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np

from msdsim.analysis.bank_conflicts import conflict_cycles
from msdsim.analysis.bottleneck import Bottleneck, find_bottleneck
from msdsim.analysis.closed_form import ClosedForm
from msdsim.analysis.energy import Energy, run_energy, total_energy
from msdsim.formats.schemes import SCHEMES
from msdsim.hardware import Hardware
from msdsim.hardware.hardware import leaves
from msdsim.ir.kernel import Kernel
from msdsim.ir.lets import plain
from msdsim.moved import renamed
from msdsim.numerics.check import Numerics
from msdsim.timeline.record import Bandwidth, RunRecord
from msdsim.units import ticks_to_us

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class BoundBy:
    """What a run is bound by: a ``resource`` of the chip, and how much faster the same schedule is with the ``change``."""

    resource: str
    change: str
    speedup: float


@dataclass(frozen=True, repr=False)
class Result:
    """One simulated kernel.  ``l2_start`` says what was in L2 at its start: nothing (``empty``), what an earlier run of it left
    (``warm``), or what the operators of the ``workload`` before it left.  ``causes`` are what it is bound by, best change
    first, where that was asked for; empty where no single change of the chip gains two percent."""

    problem: Mapping[str, Any]
    hardware: Hardware
    dataflow: str
    engine: str
    memory: str
    tiling: Mapping[str, int]
    seed: int
    record: RunRecord
    kernel: Kernel
    wall_s: float
    numerics: Numerics | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    l2_start: str = "empty"
    causes: tuple[BoundBy, ...] | None = None
    #: How the weights of a checkpoint were read and taken; empty where there are none.
    weights: str = ""
    #: How the tiling was chosen; empty where all of it was given.
    chosen: str = ""

    @property
    def cycles(self) -> int:
        """Cycles from kernel start to end."""
        return self.record.cycles

    @property
    def time_us(self) -> float:
        """Time of the kernel on the chip, without its launch."""
        return ticks_to_us(self.cycles, self.hardware.chip.clock_mhz)

    @property
    def launch_us(self) -> float:
        """What its launch takes beside it."""
        # Of a kernel as its dataflow builds it, the readable text is only made for who wants to read it.
        kernel = plain(self.kernel)
        return self.hardware.chip.launch.of(bool(kernel.aic and kernel.aiv))

    @property
    def stalls(self) -> dict[str, dict[str, int]]:
        """Per kind of pipe (``aic.m``): instances, and cycles by category summed over them."""
        return self.record.pipe_totals()

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes moved at HBM and L2, and what is still dirty in L2 at the end."""
        return self.record.traffic | {"l2_dirty_bytes": self.record.l2_dirty_bytes}

    @property
    def timeline(self) -> dict[str, np.ndarray]:
        """Every executed instruction, as columns; simulate with ``timeline=True``."""
        if self.record.timeline is None:
            raise ValueError("this run kept no timeline; simulate with timeline=True")
        return self.record.timeline

    @property
    def bandwidth(self) -> Bandwidth:
        """Bytes per interval over the run."""
        return self.record.bandwidth

    @property
    def hbm_bytes(self) -> int:
        """Bytes read from and written to HBM."""
        return self.record.traffic["hbm_read_bytes"] + self.record.traffic["hbm_write_bytes"]

    @property
    def hbm_gbps(self) -> float:
        """Mean HBM bandwidth, GB/s, reads and writes."""
        return self.hbm_bytes / self.time_us / 1000 if self.cycles else 0.0

    @property
    def hbm_utilization(self) -> float:
        """Mean HBM bandwidth over the chip's peak."""
        return self.hbm_gbps / self.hardware.chip.hbm.bandwidth_gbps

    @property
    def overrides(self) -> dict[str, Any]:
        """Chip parameters that the user changed, by dotted path."""
        changed = [key for key, origin in self.hardware.provenance.items() if origin.kind == "override"]
        if not changed:
            return {}
        values = leaves(self.hardware.chip.model_dump())
        return {key: values[key] for key in changed}

    @property
    def l2_read_hit_rate(self) -> float | None:
        """Share of the bytes read that L2 had; 0 where fetching whole lines reads more from HBM than was asked for, None where
        nothing was read."""
        from msdsim.report.lines import hit_rate

        return hit_rate(self.record.traffic["l2_read_bytes"], self.record.traffic["hbm_read_bytes"])

    @property
    def lines(self) -> list[Any]:
        """Every line of the kernel with its executions, cycles, bytes, L2 hit rate and stalls
        (:class:`msdsim.report.lines.Line`)."""
        from msdsim.report.lines import kernel_lines

        return kernel_lines(self.record)

    @cached_property
    def closed_form(self) -> ClosedForm | None:
        """Time and HBM traffic by formula; None for kernels, microbenchmarks and dataflows of one's own."""
        from msdsim.report.formulas import formula

        return formula(self)

    @cached_property
    def bottleneck(self) -> Bottleneck:
        """The busiest resource, which need not be what binds the kernel (:attr:`causes`)."""
        return find_bottleneck(self.record)

    @cached_property
    def ub_conflict_cycles(self) -> int:
        """Cycles that Vector spent on bank conflicts in UB, summed over the AIVs; part of their busy time."""
        return conflict_cycles(self.record.program)

    @cached_property
    def energy(self) -> Energy | None:
        """Energy by unit of the chip, as ranges; None where the chip's file says nothing about it."""
        return run_energy(self.record)

    def to_json(self) -> dict[str, Any]:
        """The run as JSON, schema ``msdsim.run/1``."""
        chip = self.hardware.chip
        found: dict[str, Any] = {
            "schema": "msdsim.run/1",
            "problem": dict(self.problem),
            "hw": self.hardware.name,
            "dataflow": self.dataflow,
            "engine": self.engine,
            "memory": self.memory,
            "tiling": dict(self.tiling),
            "seed": self.seed,
            "cycles": self.cycles,
            "clock_mhz": int(chip.clock_mhz) if float(chip.clock_mhz).is_integer() else chip.clock_mhz,
            "time_us": self.time_us,
            "launch_us": self.launch_us,
            "instructions": self.record.instructions,
            "traffic": self.traffic,
            "bandwidth": {"hbm_gbps": self.hbm_gbps, "hbm_utilization": self.hbm_utilization},
            "pipes": self.stalls,
            "bottleneck": self.bottleneck.name,
            "wall_s": self.wall_s,
            "skipped_iterations": self.record.skipped_iterations,
            "l2_start": self.l2_start,
            "l2_read_hit_rate": self.l2_read_hit_rate,
            "ub_conflict_cycles": self.ub_conflict_cycles,
        }
        if self.causes is not None:
            found["bound_by"] = [asdict(cause) for cause in self.causes]
        if self.energy is not None:
            found["energy"] = self.energy.to_json()
        if self.closed_form is not None:
            from msdsim.report.formulas import formula_json

            found["closed_form"] = formula_json(self)
        if self.chosen:
            found["chosen"] = self.chosen
        if self.weights:
            found["weights"] = self.weights
        if self.overrides:
            found["overrides"] = self.overrides
        if self.record.skip_reason:
            found["skip_reason"] = self.record.skip_reason
        if self.numerics is not None:
            numbers = asdict(self.numerics)
            if not numbers["first_mismatch"]:
                del numbers["first_mismatch"]
            found["numerics"] = numbers
        return found

    def __str__(self) -> str:
        return f"{self.dataflow} on {self.hardware.name}: {self.time_us:.1f} us, busiest {self.bottleneck.name}"

    def __repr__(self) -> str:
        return f"<Result {self}>"


@dataclass(frozen=True)
class Skipped:
    """A dataflow that was not run, and why."""

    dataflow: str
    reason: str


R = TypeVar("R", bound="Result | WorkloadResult")


@dataclass(frozen=True, repr=False)
class SideBySide(Generic[R]):
    """The same work done by several dataflows, and those that were not run."""

    runs: Sequence[R]
    skipped: Sequence[Skipped]

    def __repr__(self) -> str:
        return f"<{type(self).__name__.removeprefix('Shown')} {'; '.join(map(str, self.runs))}>"

    @property
    def winner(self) -> R | None:
        """The fastest run; the first of equals."""
        return min(self.runs, key=lambda run: run.cycles, default=None)

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.compare/1``; the runs of a workload are ``msdsim.workload/1``."""
        found: dict[str, Any] = {"schema": "msdsim.compare/1", "runs": [run.to_json() for run in self.runs],
                                 "skipped": [asdict(item) for item in self.skipped]}
        if self.winner is not None:
            found["winner"] = self.winner.dataflow
        return found


#: Methods that quantize activations once, and so with an error of theirs.
ONE_PASS = tuple(name for name, scheme in SCHEMES.items() if scheme.decomposition is not None and scheme.spec.passes == 1)
#: An error so much larger than another's, at most, is as large: samples differ by chance.
AS_ACCURATE = 1.02


class Comparison(SideBySide[Result]):
    """Dataflows side by side."""

    @property
    def fastest(self) -> Result | None:
        """The fastest run, whatever its errors; the first of equals."""
        return min(self.runs, key=lambda run: run.cycles, default=None)

    @property
    def winner(self) -> Result | None:
        """The fastest run of those that are not known to be less accurate than 16-bit weights; of all, where there is none."""
        accurate = [run for run in self.runs if not self.less_accurate(run)]
        return min(accurate or self.runs, key=lambda run: run.cycles, default=None)

    def less_accurate(self, run: Result) -> str:
        """Why a run is less accurate than the 16-bit baseline, as a clause; empty where it is not, as far as is known.

        Known are the errors where numbers were executed with ``bf16`` among the runs, and that a method which quantizes
        activations in one pass loses what that leaves out."""
        base = next((other for other in self.runs if other.dataflow == "bf16"), None)
        if run.numerics is not None and base is not None and base.numerics is not None:
            if run.numerics.overflowed > base.numerics.overflowed:
                return f"{run.numerics.overflowed:,} of its outputs overflow"
            ratio = run.numerics.relative_l2 / max(base.numerics.relative_l2, 1e-300)
            return f"its error is {ratio:.3g}x that of bf16" if ratio > AS_ACCURATE else ""
        return "it quantizes activations in one pass" if run.dataflow in ONE_PASS else ""

    def to_json(self) -> dict[str, Any]:
        """As for all, with ``fastest`` beside ``winner``, which is as accurate as 16-bit weights as far as is known."""
        found = super().to_json()
        if self.fastest is not None:
            found["fastest"] = self.fastest.dataflow
        return found


@dataclass(frozen=True)
class WorkloadRun:
    """One entry of a workload: its name, how often it runs, and one simulation of it; ``note`` says why it was run with another
    dataflow than asked for."""

    name: str
    count: int
    result: Result
    note: str = ""


@dataclass(frozen=True, repr=False)
class WorkloadResult:
    """A workload's entries and their weighted total."""

    name: str
    runs: list[WorkloadRun]
    #: The dataflows as they were asked for; empty where one ran all.
    mix: str = ""
    #: What a reader must know about the whole, such as that it does not fit the chip.
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} with {self.dataflow}: {self.time_us:.1f} us"

    def __repr__(self) -> str:
        return f"<WorkloadResult {self}>"

    @property
    def dataflow(self) -> str:
        """The dataflow that every entry ran with, or the mix."""
        return self.mix or self.runs[0].result.dataflow

    @property
    def mixed(self) -> bool:
        """Whether entries ran with different dataflows."""
        return len({run.result.dataflow for run in self.runs}) > 1

    @property
    def cycles(self) -> int:
        return sum(run.count * run.result.cycles for run in self.runs)

    @property
    def time_us(self) -> float:
        return sum(run.count * run.result.time_us for run in self.runs)

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes over all entries and their counts; what is dirty in L2 counts at the end of the last."""
        total: dict[str, int] = {}
        for run in self.runs:
            for key, value in run.result.traffic.items():
                total[key] = total.get(key, 0) + run.count * value
        return total | {"l2_dirty_bytes": self.runs[-1].result.traffic["l2_dirty_bytes"]}

    @property
    def hbm_bytes(self) -> int:
        """Bytes read from and written to HBM over all entries and their counts."""
        return self.traffic["hbm_read_bytes"] + self.traffic["hbm_write_bytes"]

    @cached_property
    def energy(self) -> Energy | None:
        """Energy over all entries and their counts; None where the chip's file says nothing about it."""
        return total_energy((run.count, run.result.energy) for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.workload/1``."""
        return {
            "schema": "msdsim.workload/1",
            "name": self.name,
            "hw": self.runs[0].result.hardware.name,
            "dataflow": self.dataflow,
            "runs": [run.result.to_json() | {"name": run.name, "count": run.count} | ({"note": run.note} if run.note else {})
                     for run in self.runs],
            "total": {"time_us": self.time_us, "cycles": self.cycles, "traffic": self.traffic,
                      **({"energy": self.energy.to_json()} if self.energy is not None else {})},
            **({"notes": list(self.notes)} if self.notes else {}),
        }


class WorkloadComparison(SideBySide[WorkloadResult]):
    """A workload with several dataflows side by side."""
