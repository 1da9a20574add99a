"""Fit constants of chip files to measurements of one's own.

The fitted numbers are the logarithms of factors on the chip file's values; the residual of a row is the logarithm of predicted
over measured time.  Gauss and Newton's method minimises the squares of the residuals, plus, for each factor, that of its
logarithm over :data:`PRIOR`: what the rows do not determine stays as the file has it.  Differences are taken over
:data:`STEP`, since cycles and windows are whole numbers.

How far a fit can be trusted is seen from rows that it has not: each group of rows is left out in turn, the constants are
fitted to the others, with the slopes of the whole fit, and the rows left out are simulated with them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.errors import InputError, MsdsimError
from msdsim.explore.measurements import Measurement
from msdsim.explore.sensitivity import UNCERTAIN
from msdsim.explore.validate import Overall, predict
from msdsim.hardware import Hardware, load_hw
from msdsim.hardware.hardware import leaves, scaled

#: Standard deviation of the logarithm of a factor before anything is measured.
PRIOR = 0.5
#: Relative step of the differences, iterations of a fit and of one without a group, and the largest factor either way.
STEP, ITERATIONS, FOLD_ITERATIONS, LARGEST = 0.1, 3, 2, 3.0
#: Kinds of numbers that may be fitted.
KINDS = ("assumed", "inferred")
#: What a residual is beside the constants: measurements, rounding and what the simulator leaves out.
_NOISE = 0.05
#: A factor whose deviation is more than this share of the prior's is hardly determined.
_HARDLY = 0.7
#: Beginnings of the constants that ``all`` means: what a kernel's time can depend on.
_TIMES = ("launch.", "dispatch.issue", "dispatch.flag", "dispatch.matmul", "cross_core.signal", "cross_core.barrier",
          "cube.head", "l2.read", "l2.write", "l2.same", "hbm.efficiency", "hbm.extra", "paths.", "vector.ops.")


@dataclass(frozen=True)
class Constant:
    """A constant as it was and as it was fitted; ``deviation`` is that of its relative value."""

    key: str
    before: float
    after: float
    deviation: float

    @property
    def determined(self) -> str:
        """In words how well."""
        if self.deviation > _HARDLY * PRIOR:
            return "hardly determined by these rows"
        return f"within {self.deviation:.0%} (one standard deviation)"


@dataclass(frozen=True)
class Fold:
    """A group of rows that was left out: its error with the constants as they were, and fitted to the others."""

    group: str
    before: Overall
    after: Overall


@dataclass(frozen=True)
class Calibration:
    """Fitted constants, and the error of the rows: before, with the fit, and each row predicted without its group."""

    hardware: Hardware
    file: str
    rows: int
    left_out: tuple[str, ...]
    constants: tuple[Constant, ...]
    before: Overall
    fitted: Overall
    unseen: Overall
    folds: tuple[Fold, ...]

    @property
    def factors(self) -> dict[str, float]:
        """Factor of each constant."""
        return {item.key: item.after / item.before for item in self.constants}

    def to_json(self) -> dict[str, Any]:
        """Plain data, ``schema: "msdsim.calibrate/1"``."""
        constants = [asdict(item) | {"determined": item.determined} for item in self.constants]
        return {"schema": "msdsim.calibrate/1", "chip": self.hardware.name, "file": self.file, "rows": self.rows,
                "left_out": list(self.left_out), "constants": constants, "before": asdict(self.before),
                "fitted": asdict(self.fitted), "unseen": asdict(self.unseen), "folds": [asdict(fold) for fold in self.folds]}


def constants_of(hardware: Hardware, names: Sequence[str] = ()) -> list[str]:
    """Keys of the constants to fit: those named, ``all`` that a time can depend on, or those that are known to matter.

    Only numbers of kind assumed or inferred are fitted; another one is refused by name.
    """
    values = {key: value for key, value in leaves(hardware.chip.model_dump()).items()
              if isinstance(value, int | float) and not isinstance(value, bool) and value > 0}

    def kind(key: str) -> str:
        return hardware.provenance[key].kind if key in hardware.provenance else "unstated"

    if not names:
        return [key for key in UNCERTAIN if key in values and kind(key) in KINDS]
    if list(names) == ["all"]:
        return [key for key in values if key.startswith(_TIMES) and kind(key) in KINDS and not key.endswith("granule_bytes")]
    for key in names:
        if key not in values:
            raise InputError(f"'{key}' is no number of chip '{hardware.name}' that can be fitted "
                             f"('msdsim list hw --verbose' lists them)")
        if kind(key) not in KINDS:
            raise InputError(f"'{key}' of chip '{hardware.name}' is {kind(key)}, and only numbers that are assumed or inferred "
                             f"are fitted; change it in a chip file of your own")
    return list(names)


def calibrate(rows: Sequence[Measurement], hardware: Hardware, names: Sequence[str] = (), *, others: Sequence[str] = (),
              file: str = "", engine: str = "fast", memory: str = "bandwidth") -> Calibration:
    """Fit constants of ``hardware`` to the rows of its chip, and of ``others`` whose files take the same factors.

    ``names`` as in :func:`constants_of`.  Rows that are ambiguous, of another chip or beyond the simulator are left out.
    InputError where fewer than three rows are left.
    """
    keys = constants_of(hardware, names)
    fit = _Fit(hardware, keys, engine, memory)
    kept, left_out = [], []
    for row in rows:
        if row.ambiguous or row.chip not in (hardware.name, *others) or fit.residual(row, np.zeros(len(keys))) is None:
            left_out.append(row.id)
        else:
            kept.append(row)
    if len(kept) < 3:
        raise InputError(f"{len(kept)} rows of '{file or 'the measurements'}' can be used for chip '{hardware.name}' and at "
                         f"least 3 are needed; rows of other chips, ambiguous and inexpressible ones do not count")
    start = np.zeros(len(keys))
    best, slopes = fit.solve(kept, start)
    information = slopes.T @ slopes / _variance(fit, kept, best, len(keys)) + np.eye(len(keys)) / PRIOR**2
    spread = np.sqrt(np.diag(np.linalg.inv(information)))
    folds, unseen = [], []
    groups = list(dict.fromkeys(row.source for row in kept))
    for group in groups if len(groups) > 1 else []:
        inside = [row.source == group for row in kept]
        rest = [row for row, here in zip(kept, inside, strict=True) if not here]
        theta = fit.follow(rest, slopes[[not here for here in inside]], start)
        here = [row for row in kept if row.source == group]
        errors = fit.errors(here, theta)
        unseen += errors
        folds.append(Fold(group, Overall.of(fit.errors(here, start)), Overall.of(errors)))
    values = leaves(hardware.chip.model_dump())
    after = leaves(scaled(hardware, fit.factors(best)).chip.model_dump())
    constants = tuple(Constant(key, values[key], after[key], float(spread[number])) for number, key in enumerate(keys))
    return Calibration(hardware, file, len(kept), tuple(left_out), constants, Overall.of(fit.errors(kept, start)),
                       Overall.of(fit.errors(kept, best)), Overall.of(unseen), tuple(folds))


def _variance(fit: _Fit, rows: Sequence[Measurement], theta: np.ndarray, parameters: int) -> float:
    """Of the residuals, at least that of an error of 2%."""
    residuals = fit.residuals(rows, theta)
    return max(0.02**2, float(residuals @ residuals) / max(1, len(rows) - parameters))


class _Fit:
    """Residuals of rows at logarithms of factors, each simulated once."""

    def __init__(self, hardware: Hardware, keys: Sequence[str], engine: str, memory: str) -> None:
        self.hardware, self.keys, self.engine, self.memory = hardware, keys, engine, memory
        self.known: dict[tuple[str, tuple[float, ...]], float | None] = {}

    def factors(self, theta: np.ndarray) -> dict[str, float]:
        return {key: float(np.exp(value)) for key, value in zip(self.keys, theta, strict=True) if value}

    def residual(self, row: Measurement, theta: np.ndarray) -> float | None:
        """log(predicted / measured), None where there is no prediction."""
        place = row.id, tuple(np.round(theta, 6).tolist())
        if place not in self.known:
            base = self.hardware if row.chip == self.hardware.name else load_hw(row.chip)
            try:
                found = predict(row, scaled(base, self.factors(theta)), self.engine, self.memory)
            except MsdsimError:
                found = None
            error = None if found is None else found.error
            self.known[place] = None if error is None else float(np.log1p(error))
        return self.known[place]

    def residuals(self, rows: Sequence[Measurement], theta: np.ndarray) -> np.ndarray:
        return np.array([self.residual(row, theta) or 0.0 for row in rows])

    def errors(self, rows: Sequence[Measurement], theta: np.ndarray) -> list[float]:
        """Relative errors."""
        return [float(np.expm1(value)) for value in self.residuals(rows, theta)]

    def slopes(self, rows: Sequence[Measurement], theta: np.ndarray) -> np.ndarray:
        """Change of each residual with each logarithm."""
        here = self.residuals(rows, theta)
        columns = []
        for number in range(len(self.keys)):
            moved = theta.copy()
            moved[number] += np.log1p(STEP)
            columns.append((self.residuals(rows, moved) - here) / np.log1p(STEP))
        return np.array(columns).T

    def step(self, rows: Sequence[Measurement], slopes: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """One step of Gauss and Newton, halved until it helps."""
        residuals = self.residuals(rows, theta)
        weight = _NOISE**2 / PRIOR**2
        normal = slopes.T @ slopes + weight * np.eye(len(self.keys))
        change = np.linalg.solve(normal, -(slopes.T @ residuals + weight * theta))

        def cost(at: np.ndarray) -> float:
            found = self.residuals(rows, at)
            return float(found @ found + weight * at @ at)

        now = cost(theta)
        for share in (1.0, 0.5, 0.25):
            there = np.clip(theta + share * change, -np.log(LARGEST), np.log(LARGEST))
            if cost(there) < now:
                return there
        return theta

    def solve(self, rows: Sequence[Measurement], theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best logarithms, and the slopes of the last iteration."""
        slopes = np.zeros((len(rows), len(self.keys)))
        for _ in range(ITERATIONS):
            slopes = self.slopes(rows, theta)
            there = self.step(rows, slopes, theta)
            if np.abs(there - theta).max(initial=0) < 0.01:
                return there, slopes
            theta = there
        return theta, slopes

    def follow(self, rows: Sequence[Measurement], slopes: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The same with slopes that are known."""
        for _ in range(FOLD_ITERATIONS):
            theta = self.step(rows, slopes, theta)
        return theta


def chip_file(found: Calibration, base: str) -> str:
    """The text of a chip file that extends ``base`` by the fitted constants."""
    name = Path(found.file).name or "measurements"
    lines = [
        f"# {found.hardware.name} calibrated on {name}: {found.rows} rows, {len(found.constants)} constants.",
        f"# Median |error| {found.before.median_error:.1%} before, {found.fitted.median_error:.1%} in the fitted rows"
        + (f", {found.unseen.median_error:.1%} when each source is predicted without its own rows." if found.folds else "."),
        f'extends = "{base}"', f'description = "{found.hardware.chip.description}; calibrated on {name}"', "",
    ]
    for item in found.constants:
        about = f"calibrated on {name}: {item.before:g} before, {item.determined}; median error "
        about += f"{found.fitted.median_error:.1%} in the fitted rows"
        about += f", {found.unseen.median_error:.1%} out of them" if found.folds else ""
        lines.append(f'{item.key} = {{ value = {item.after!r}, kind = "inferred", source = "{about}" }}')
    return "\n".join(lines) + "\n"


def base_of(hw: str, out: str) -> str:
    """What the written file has to extend: a chip's name, or the path of its file from beside the written one."""
    path = Path(hw)
    return os.path.relpath(path, Path(out).parent or ".") if path.suffix == ".toml" else hw
