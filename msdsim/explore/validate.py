"""Predictions against published measurements of whole kernels on real chips.

A validation file holds rows: a chip, a problem, how it was run and what was measured.  All rows of all files are
predicted with the chip files as they are; nothing can be set for a single row but how its kernel cuts its work, where
the source says it.  Rows that the simulator cannot express are listed with the reason.

What the source timed is handled once, by ``scope``: a ``task`` is the kernel's time plus the launch head of the chip
file, a ``kernel`` is the kernel's time alone, and so is ``unknown``, since a benchmark that runs an operator over and
over hides its launch.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from msdsim.errors import InputError, MsdsimError
from msdsim.explore.families import FAMILIES, family_of
from msdsim.hardware import Hardware, load_hw
from msdsim.hardware.chip import Chip
from msdsim.hardware.hardware import leaves, override
from msdsim.problems import Attention, Gemm, GroupedGemm, parse_inline
from msdsim.report.result import Result
from msdsim.resources import find_file, shipped_names
from msdsim.runs import RunOptions, as_problem, run
from msdsim.timeline.record import BUSY, DRAINED, HEAD, WAIT_MEMORY
from msdsim.units import ceil_div, ticks_to_us

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The shipped file of published kernels.
PUBLISHED = "published"
_COPY = re.compile(r"copy (\d+)x(\d+) fp16 GM->(UB|L1), \d+ AI[CV], tile \[(\d+),\s*(\d+)\]")
_BASE = re.compile(r"base (\d+)x(\d+)x(\d+)")
#: Both operands in one format, as in "mxfp8 x mxfp8".
_PAIR = re.compile(r"(\w+) x \1")
#: Numbers of the chip that a note says to set.
_SET = re.compile(r"--set ([a-z0-9_.]+)=([0-9.]*[0-9])")
#: Dataflows that say of a row that it cannot be run.
_NONE = ("inexpressible", "needs-set")


class Measurement(BaseModel):
    """One row of a validation file, as it is written there.

    ``informs`` names the constants of chip files that were inferred with this row's help; a row without is a test of them all.
    ``set`` changes numbers of the chip (a kernel on one core), ``ambiguous`` says what is uncertain about a row, which is then
    reported apart, and ``long`` marks one that takes minutes to simulate.  Further times of the same source (``time_us_...``)
    may stand beside and are not used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    chip: str
    problem: str
    dataflow: str = ""
    run_as: str = ""
    tiling: str | dict[str, int] = field(default_factory=dict)
    time_us: float | None = None
    tflops: float | None = None
    scope: Literal["task", "kernel", "unknown"] = "unknown"
    components_us: dict[str, float] = field(default_factory=dict)
    source: str
    note: str = ""
    ratio_to: str = ""
    ratio_only: float | None = None
    informs: tuple[str, ...] = ()
    set: dict[str, float | str] = field(default_factory=dict)
    ambiguous: str = ""
    long: bool = False


@dataclass(frozen=True)
class Component:
    """Time of one pipe, averaged over the cores, as published and as predicted."""

    name: str
    measured_us: float
    predicted_us: float

    @property
    def error(self) -> float:
        return self.predicted_us / self.measured_us - 1


@dataclass(frozen=True)
class Prediction:
    """One measurement and what the simulator says; ``reason`` tells why it says nothing."""

    id: str
    chip: str
    problem: str
    dataflow: str
    run_as: str
    scope: str
    source: str
    note: str
    measured_us: float | None
    predicted_us: float | None = None
    kernel_us: float | None = None
    components: tuple[Component, ...] = ()
    informs: tuple[str, ...] = ()
    reason: str = ""
    ambiguous: str = ""

    @property
    def family(self) -> str:
        """What kind of kernel it is, one of :data:`msdsim.explore.families.FAMILIES`."""
        return family_of(self.problem, self.dataflow, self.measured_us)

    @property
    def error(self) -> float | None:
        """Relative error of the prediction, where there are both numbers."""
        if self.measured_us is None or self.predicted_us is None:
            return None
        return self.predicted_us / self.measured_us - 1


@dataclass(frozen=True)
class Ratio:
    """What one row gains over another, as published and as predicted."""

    id: str
    of: str
    to: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Overall:
    """|error| of a number of predictions: how many, the median, the 90th percentile and the worst, and the median of the signed
    errors; zeros for none."""

    predicted: int
    median_error: float
    p90_error: float
    worst_error: float
    signed_median: float = 0.0

    @classmethod
    def of(cls, errors: Iterable[float | None]) -> Overall:
        """From signed errors; None where there is none."""
        signed = np.array([error for error in errors if error is not None])
        if not signed.size:
            return cls(0, 0.0, 0.0, 0.0)
        known = np.abs(signed)
        return cls(known.size, float(np.median(known)), float(np.percentile(known, 90)), float(known.max()),
                   float(np.median(signed)))


@dataclass(frozen=True)
class ValidationReport:
    """All rows of a validation file."""

    file: str
    engine: str
    memory: str
    rows: tuple[Prediction, ...]
    ratios: tuple[Ratio, ...]

    @property
    def certain(self) -> tuple[Prediction, ...]:
        """The rows about which nothing is uncertain."""
        return tuple(row for row in self.rows if not row.ambiguous)

    @property
    def overall(self) -> Overall:
        """|error| over every certain row that has one."""
        return Overall.of(row.error for row in self.certain)

    @property
    def unseen(self) -> Overall:
        """|error| over the certain rows that informed no constant."""
        return Overall.of(row.error for row in self.certain if not row.informs)

    @property
    def ambiguous(self) -> Overall:
        """|error| over the other rows."""
        return Overall.of(row.error for row in self.rows if row.ambiguous)

    def by(self, what: Callable[[Prediction], str]) -> dict[str, Overall]:
        """|error| of the certain rows that have one, by what a row is, in the order in which they come."""
        groups: dict[str, list[float]] = {}
        for row in self.certain:
            if row.error is not None:
                groups.setdefault(what(row), []).append(row.error)
        return {name: Overall.of(errors) for name, errors in groups.items()}

    @property
    def families(self) -> dict[str, Overall]:
        """|error| by family, in the order of :data:`msdsim.explore.families.FAMILIES`."""
        found = self.by(lambda row: row.family)
        return {name: found[name] for name in FAMILIES if name in found}

    def to_json(self) -> dict[str, Any]:
        """Plain data, ``schema: "msdsim.validate/1"``."""
        rows = []
        for row in self.rows:
            parts = [asdict(item) | {"error": item.error} for item in row.components]
            rows.append(asdict(row) | {"error": row.error, "family": row.family, "components": parts})
        return {
            "schema": "msdsim.validate/1", "file": self.file, "engine": self.engine, "memory": self.memory, "rows": rows,
            "ratios": [asdict(item) | {"error": item.error} for item in self.ratios],
            "overall": {"rows": len(self.certain)} | asdict(self.overall),
            "unseen": {"rows": sum(not row.informs for row in self.certain)} | asdict(self.unseen),
            "ambiguous": {"rows": len(self.rows) - len(self.certain)} | asdict(self.ambiguous),
            "families": {name: asdict(errors) for name, errors in self.families.items()},
        }


def load_measurements(file: str | Path = PUBLISHED) -> list[Measurement]:
    """The rows of a validation file, its sources put in.

    A row that has the id of a shipped row and does not say how the published kernel cuts its work takes it from there, and
    whether only its ratio to another row means anything.
    """
    path = find_file("validation", "validation", str(file))
    where = f"validation file '{path.name}'"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise InputError(f"{where} cannot be read: {err}") from None
    if not isinstance(raw.get("row"), list):
        raise InputError(f"{where} has no rows; add a [[row]] with id, chip, problem, dataflow, time_us, scope and source")
    shipped = {} if Path(path).stem == PUBLISHED and str(file) in shipped_names("validation") else {
        row.id: row for row in load_measurements()}
    sources = raw.get("sources", {})
    found = []
    for index, item in enumerate(raw["row"], start=1):
        values = {"run_as" if key == "as" else key: value for key, value in item.items() if not key.startswith("time_us_")}
        values["source"] = sources.get(values.get("source"), values.get("source", ""))
        _understand_note(values)
        try:
            row = Measurement(**values)
        except ValidationError as err:
            first = err.errors()[0]
            key = ".".join(str(part) for part in first["loc"]).replace("run_as", "as")
            raise InputError(f"{where}, row {index} '{item.get('id', '')}': key '{key}': {first['msg'].lower()}") from None
        same = shipped.get(row.id)
        found.append(row if same is None or row.run_as else _spelled_out(row, same))
    return found


def _understand_note(values: dict[str, Any]) -> None:
    """What a collector of rows puts into the note: that something is uncertain, and numbers of the chip to set."""
    note = str(values.get("note", ""))
    _, doubt, uncertain = note.partition("AMBIGUOUS:")
    if doubt and not values.get("ambiguous"):
        values["ambiguous"] = uncertain.partition(";")[0].strip() or "not said why"
    changes = _SET.findall(note)
    if changes and "set" not in values:
        values["set"] = {key: float(number) if "." in number else int(number) for key, number in changes}


def _spelled_out(row: Measurement, same: Measurement) -> Measurement:
    """``row`` with what the shipped row of the same id says about how it was run."""
    known = same.model_dump(include={"problem", "dataflow", "run_as", "tiling", "ratio_to", "ratio_only", "informs", "set",
                                     "ambiguous", "long"})
    if same.time_us is None and same.tflops is None:
        known |= {"time_us": None, "tflops": None}
    return row.model_copy(update=known)


def validate(file: str | Path = PUBLISHED, *, engine: str = "fast", memory: str = "bandwidth",
             factors: Mapping[str, float] | None = None, long: bool = True) -> ValidationReport:
    """Predict every row of a validation file, a shipped one by name or a user's own by path.

    ``factors`` multiply chip parameters by dotted path on every chip that has them: what a sensitivity study turns.  Without
    ``long`` rows that take minutes are left out.
    """
    measurements = [row for row in load_measurements(file) if long or not row.long]
    rows = [_predict(row, engine, memory, factors or {}) for row in measurements]
    return ValidationReport(str(file), engine, memory, tuple(rows), tuple(_ratios(measurements, rows)))


def _predict(row: Measurement, engine: str, memory: str, factors: Mapping[str, float]) -> Prediction:
    measured = row.time_us if row.time_us is not None else _time_of(row)
    about = Prediction(row.id, row.chip, row.problem, row.dataflow, row.run_as, row.scope, row.source, row.note, measured,
                       informs=row.informs, ambiguous=row.ambiguous)
    try:
        if row.dataflow in _NONE:
            raise InputError(row.note or f"the row's dataflow is '{row.dataflow}'")
        hardware = scaled(load_hw(row.chip), factors)
        hardware = override(hardware, row.set) if row.set else hardware
        result = _run(row, hardware, RunOptions(engine=engine, memory=memory))
    except MsdsimError as err:
        return _with(about, reason=str(err))
    launch = hardware.chip.launch.head_us if row.scope == "task" else 0.0
    return _with(about, kernel_us=result.time_us, predicted_us=result.time_us + launch,
                 components=tuple(_components(row, result)))


def _with(prediction: Prediction, **values: Any) -> Prediction:
    return Prediction(**{key: getattr(prediction, key) for key in Prediction.__dataclass_fields__} | values)


def _run(row: Measurement, hardware: Hardware, options: RunOptions) -> Result:
    text = row.run_as or _spelled(row, hardware.chip)
    if text.startswith("micro:"):
        return run(as_problem(text), hardware, "micro", options)
    if ":" not in text:
        raise InputError(f"'{row.problem}' is no problem the simulator knows; spell it as a problem in 'as'")
    # 16 bits are 16 bits to the Cube and to memory.
    dataflow = "bf16" if row.dataflow == "fp16" else row.dataflow
    return run(as_problem(text), hardware, dataflow, options.but(tiling=_tiling(row)))


def _spelled(row: Measurement, chip: Chip) -> str:
    """A copy of a matrix described in words, and a product of two operands of one format, as the microbenchmarks they are."""
    found = _COPY.match(row.problem)
    if found is not None:
        m, n, into, base_m, base_n = found.groups()
        return f"micro:read_matrix,m={m},n={n},into={into.lower()},base_m={base_m},base_n={base_n}"
    pair = _PAIR.fullmatch(row.dataflow)
    if pair is not None and row.problem.startswith("gemm:"):
        return _matmul(row, pair[1], chip)
    return row.problem


def _matmul(row: Measurement, fmt: str, chip: Chip) -> str:
    """A GEMM of two operands of ``fmt`` with the vendor's common blocks: L0 tiles of 256 columns that are 128 B deep, L1 tiles
    of four of them, and one block of the result for each core, as square as the core count allows."""
    problem = parse_inline(row.problem)
    assert isinstance(problem, Gemm)
    found = _BASE.search(row.tiling) if isinstance(row.tiling, str) else None
    bits = 4 if fmt.endswith("4") else 8 if fmt.endswith("8") else 16
    base_m, base_n, base_k = map(int, found.groups()) if found else (128, 256, 1024 // bits)
    grids = [(down, chip.cores.aic // down) for down in range(1, chip.cores.aic + 1)]
    down, across = min(grids, key=lambda grid: _block_cost(problem, grid, (base_m, base_n)))
    single_m, single_n = _block(problem.m, down, base_m), _block(problem.n, across, base_n)
    return (f"micro:matmul,m={problem.m},k={problem.k},n={problem.n},fmt={fmt},base_m={base_m},base_n={base_n},base_k={base_k},"
            f"single_m={single_m},single_n={single_n},step_ka=4,step_kb=4,trans_b=1")


def _block(size: int, parts: int, base: int) -> int:
    """Size of one of ``parts`` blocks, in whole tiles."""
    return ceil_div(ceil_div(size, base), parts) * base


def _block_cost(problem: Gemm, grid: tuple[int, int], base: tuple[int, int]) -> tuple[int, int]:
    """Area of the largest block, then its circumference, which is what it loads."""
    rows, cols = (_block(size, parts, tile) for size, parts, tile in zip((problem.m, problem.n), grid, base, strict=True))
    return rows * cols, rows + cols


def _tiling(row: Measurement) -> dict[str, int]:
    """The tiling a row asks for: keys and values, or the words "base MxNxK" and "no double buffering"."""
    if not isinstance(row.tiling, str):
        return dict(row.tiling)
    if row.dataflow != "bf16":
        return {}
    found = _BASE.search(row.tiling)
    tiling = dict(zip(("base_m", "base_n", "l0_k"), map(int, found.groups()), strict=True)) if found else {}
    if "no double buffering" in row.tiling:
        tiling |= {"l1_ring": 1, "l0_ring": 1, "l0c_ring": 1}
    elif found:
        # What is left of L0C decides whether accumulators alternate.
        tiling |= {"l0c_ring": 1}
    return tiling


def _time_of(row: Measurement) -> float | None:
    """Time that a rate in TFLOPS stands for; a multiply and an add are two operations."""
    if row.tflops is None:
        return None
    try:
        problem = parse_inline(row.problem if ":" in row.problem else row.run_as)
    except MsdsimError:
        return None
    if isinstance(problem, Attention):
        # Half of a causal square is left out, by convention of those who print the rate.
        pairs = problem.batch * problem.heads * problem.q * problem.kv / (2 if problem.causal else 1)
        return 2 * pairs * (problem.head_dim + problem.value_dim) / row.tflops / 1e6
    rows = problem.total_rows if isinstance(problem, GroupedGemm) else problem.m
    return 2 * rows * problem.k * problem.n / row.tflops / 1e6


# Components


def _components(row: Measurement, result: Result) -> list[Component]:
    """Predicted times of the pipes that the source gives: work, heads and waits for memory, averaged over the cores
    that work."""
    return [Component(name, value, found) for name, value in row.components_us.items()
            if (found := _component(name, result)) is not None]


def _component(name: str, result: Result) -> float | None:
    units, totals = result.record.units, result.record.totals
    on_aic = bool(result.kernel.aic)
    mine = units.of_part("AIC" if on_aic else "AIV")
    pipes = result.record.program.parts[0 if on_aic else 1].pipes
    clock = result.hardware.chip.clock_mhz
    if name == "aicore":
        # A core is done when its last pipe is.
        return ticks_to_us(int(np.mean([result.cycles - totals[u, : len(pipes), DRAINED].min() for u in mine])), clock)
    pipe = {"mac": "M", "mte1": "MTE1", "mte2": "MTE2", "mte3": "MTE3", "fix_min": "FIX", "vec": "V"}.get(name)
    if pipe is None or pipe not in pipes:
        return None
    spent = totals[mine, pipes.index(pipe)][:, [BUSY, HEAD, WAIT_MEMORY]].sum(axis=1)
    return ticks_to_us(int(spent.mean()), clock)


# Ratios


def _ratios(measurements: Sequence[Measurement], rows: Sequence[Prediction]) -> list[Ratio]:
    by_id = {row.id: row for row in rows}
    found = []
    for row in measurements:
        here, other = by_id[row.id], by_id.get(row.ratio_to)
        if other is None or here.predicted_us is None or other.predicted_us is None:
            continue
        if row.ratio_only is not None:
            found.append(Ratio(row.id, row.id, other.id, row.ratio_only, here.predicted_us / other.predicted_us))
        elif here.measured_us and other.measured_us:
            found.append(Ratio(row.id, other.id, row.id, other.measured_us / here.measured_us,
                               other.predicted_us / here.predicted_us))
    return found


# Sensitivity

#: The constants of the chip files that are least certain (assumed, or inferred from few numbers) and can matter to a time.
UNCERTAIN = (
    "launch.head_us", "l2.read_gbps", "paths.gm_l1.nd2nz.l2_share", "paths.gm_l1.nd2nz.row_cycles", "hbm.efficiency",
    "hbm.extra_latency_cycles", "paths.gm_l1.outstanding_bytes", "paths.gm_ub.interval_cycles",
    "l2.same_line_cycles", "dispatch.matmul_setup_cycles", "cross_core.signal_latency_cycles",
    "cross_core.barrier_latency_cycles",
)


def scaled(hardware: Hardware, factors: Mapping[str, float]) -> Hardware:
    """A copy with some numbers multiplied: whole numbers stay whole, shares stay at most 1, numbers a chip lacks stay away."""
    known = {key: value for key, value in leaves(hardware.chip.model_dump()).items() if key in factors and value is not None}
    changes: dict[str, object] = {}
    for key, value in known.items():
        new = value * factors[key]
        if key.endswith(("_share", "efficiency")):
            new = min(1.0, new)
        changes[key] = round(new) if isinstance(value, int) and not key.endswith(("_gbps", "_us")) else round(new, 4)
    return override(hardware, changes) if changes else hardware


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
    base = {row.id: row.predicted_us for row in validate(file, engine=engine, memory=memory).rows}
    kinds = load_hw("ascend910b1").provenance
    found = []
    for constant in constants:
        changes = {}
        for factor in factors:
            turned = validate(file, engine=engine, memory=memory, factors={constant: factor})
            changes[factor] = {row.id: row.predicted_us / before - 1 for row in turned.rows
                               if row.predicted_us is not None and (before := base[row.id]) is not None}
        found.append(Sensitivity(constant, kinds[constant].kind if constant in kinds else "", changes))
    return found


#: Rows that the parity plot names.
_NAMED = 24


def parity_plot(report: ValidationReport) -> Figure:
    """Predicted against measured time of every row, both axes logarithmic, with the band of 30% around equality."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    known = [row for row in report.certain if row.error is not None]
    figure = Figure(figsize=(10.6, 6.5), layout="constrained")
    axes = figure.add_subplot()
    if not known:
        axes.text(0.5, 0.5, "no row with both a measurement and a prediction", ha="center", transform=axes.transAxes)
        return figure
    measured = np.array([row.measured_us for row in known], float)
    predicted = np.array([row.predicted_us for row in known], float)
    low, high = min(measured.min(), predicted.min()) / 1.6, max(measured.max(), predicted.max()) * 1.6
    line = np.array([low, high])
    axes.fill_between(line, line * 0.7, line * 1.3, color="0.93", label="within 30%")
    axes.fill_between(line, line * 0.9, line * 1.1, color="0.84", label="within 10%")
    axes.plot(line, line, color="0.4", linewidth=1)
    chips = list(dict.fromkeys(row.chip for row in known))
    for number, chip in enumerate(chips):
        mask = np.array([row.chip == chip for row in known])
        axes.scatter(measured[mask], predicted[mask], s=42, marker="os^Dv<>P"[number % 8], label=chip, zorder=3)
    # Names for those that are furthest off only: of a hundred nobody reads them.
    worst = sorted(known, key=lambda row: -abs(row.error or 0))[:_NAMED]
    for number, row in enumerate(worst, start=1):
        axes.annotate(str(number), (row.measured_us or 0, row.predicted_us or 0), fontsize=7, textcoords="offset points",
                      xytext=(5, -8))
    names = [f"{number:2}  {row.id}  {row.error:+.0%}" for number, row in enumerate(worst, start=1)]
    axes.text(1.03, 1, "\n".join(["furthest off:", *names]), transform=axes.transAxes, va="top", fontsize=7.5, linespacing=1.5)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel="measured (µs)", ylabel="predicted (µs)",
             title=f"{len(known)} published kernels: median error {report.overall.median_error:.1%}, "
                   f"90th percentile {report.overall.p90_error:.1%}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_aspect("equal")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return figure
