"""What a sweep runs: a spec, read strictly, and its points in a fixed order.

A spec is a TOML file::

    problem = "gemm:m={m},k=8192,n={n}"        # {name} takes the parameter of that name; or a kernel's .kir file
    hw = "ascend910b1"                         # one or a list
    dataflow = ["dequant-int8", "msd-int8"]    # one or a list
    memory = "bandwidth"                       # optional: the memory model
    check = false                              # optional: execute the numbers too, for columns of accuracy

    [parameters]
    m = [1, 4, 16, 64]                         # a list: every value
    "k, n" = [[4096, 4096], [8192, 12288]]     # several names: values that go together
    "l2.read_gbps" = { start = 4000, stop = 8000, count = 5 }                    # evenly spaced, ends included
    "hbm.bandwidth_gbps" = { start = 800, stop = 3200, count = 3, log = true }   # evenly over the logarithm
    n = { start = 1024, stop = 4096, step = 512 }
    "vector.clock_mhz" = { low = 900, high = 1900 }   # drawn at random

    [random]                                   # needed with draws: how many, from which seed
    samples = 50
    seed = 0

Parameters with a dot in their name are chip parameters, those that start with ``tiling.`` belong to the tiling, the others
fill in the problem.  Lists are crossed with each other; with draws, every combination of the lists gets ``samples`` of them.
A name that nothing uses, a key that is not known and a value that is no number, text or list of them are refused before
anything runs.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdsim.errors import InputError
from msdsim.registry import unknown_name
from msdsim.resources import read_toml

_KEYS = ("problem", "hw", "dataflow", "memory", "check", "parameters", "random")
_DRAW = ("low", "high", "log", "whole")
_STEPS = ("start", "stop", "step")
_COUNT = ("start", "stop", "count", "log", "whole")
#: Axes longer than this are a slip of the keyboard; a sweep of so many points would not end.
_LONGEST_AXIS = 1_000_000
_MOST_SAMPLES = 10_000_000
#: The largest whole number that tables of results hold.
_LARGEST = 2**63 - 1

#: Columns of a row that a parameter may not be named after.
COLUMNS = frozenset(("key", "problem", "hw", "dataflow", "memory", "status", "error", "time_us", "cycles", "bottleneck",
                     "hbm_gbps", "hbm_read_bytes", "hbm_write_bytes", "l2_read_bytes", "l2_write_bytes", "bit_exact",
                     "relative_l2", "bound_ratio", "version", "launch_us", "hbm_utilization", "l2_dirty_bytes",
                     "l2_read_hit_rate", "instructions", "bound_by", "max_abs_error", "overflowed"))


@dataclass(frozen=True)
class Axis:
    """Parameters that are set together, and the values they take in turn."""

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Draw:
    """Values drawn between ``low`` and ``high``; ``log`` draws evenly over the logarithm, ``whole`` gives whole numbers."""

    name: str
    low: float
    high: float
    log: bool
    whole: bool

    def at(self, share: float) -> int | float:
        """The value at a ``share`` of 0 to 1 of the way from ``low`` to ``high``."""
        return _between(self.low, self.high, share, self.log, self.whole)


@dataclass(frozen=True)
class Spec:
    """A sweep's points: ``hw`` x ``dataflow`` x the axes x the draws."""

    problem: str
    hw: tuple[str, ...]
    dataflow: tuple[str, ...]
    axes: tuple[Axis, ...]
    draws: tuple[Draw, ...] = ()
    samples: int = 1
    seed: int = 0
    memory: str = "bandwidth"
    check: bool = False

    @property
    def names(self) -> list[str]:
        """Every parameter, in the order of the columns."""
        return [name for axis in self.axes for name in axis.names] + [draw.name for draw in self.draws]

    def __len__(self) -> int:
        return len(self.hw) * len(self.dataflow) * math.prod(len(axis.values) for axis in self.axes) * self.samples

    def combinations(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        """Problem, chip, dataflow and parameters of every point; the same order on every machine."""
        drawn = self._drawn()
        for hw, dataflow in itertools.product(self.hw, self.dataflow):
            for values in itertools.product(*(axis.values for axis in self.axes)):
                chosen = {name: value for axis, together in zip(self.axes, values, strict=True)
                          for name, value in zip(axis.names, together, strict=True)}
                for sample in drawn:
                    parameters = chosen | sample
                    yield _fill(self.problem, parameters), hw, dataflow, parameters

    def _drawn(self) -> list[dict[str, Any]]:
        if not self.draws:
            return [{}]
        import numpy as np

        rng = np.random.default_rng(self.seed)
        return [{draw.name: draw.at(rng.random()) for draw in self.draws} for _ in range(self.samples)]


def read_spec(path: str | Path) -> dict[str, Any]:
    """The parsed TOML of a spec's file; InputError for what is no TOML."""
    return read_toml(Path(path), f"sweep spec '{path}'")


def parse_spec(spec: Mapping[str, Any]) -> Spec:
    """A spec's table as a :class:`Spec`; InputError names the key that is wrong."""
    for key in spec:
        if key not in _KEYS:
            raise InputError(f"sweep spec: unknown key '{key}' (keys: {', '.join(_KEYS)})")
    problem = spec.get("problem")
    if not isinstance(problem, str):
        raise InputError("sweep spec: 'problem' must be an inline form such as \"gemm:m={m},k=4096,n=4096\"")
    parameters = spec.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise InputError(f"sweep spec: 'parameters' is {parameters!s:.60}; give a table of names and values")
    axes, draws = [], []
    for name, given in parameters.items():
        if isinstance(given, Mapping) and {"low", "high"} & set(given):
            draws.append(_draw(name, given))
        else:
            axes.append(_axis(name, given))
    samples, seed = _random(spec.get("random"), bool(draws))
    found = Spec(problem, _texts(spec, "hw", "ascend910b1"), _texts(spec, "dataflow", "bf16"), tuple(axes), tuple(draws),
                 samples, seed, _memory(spec.get("memory", "bandwidth")), _flag(spec, "check", "'check'"))
    _check_names(found)
    return found


def _texts(spec: Mapping[str, Any], key: str, default: str) -> tuple[str, ...]:
    value = spec.get(key, default)
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(item, str) for item in values):
        raise InputError(f"sweep spec: '{key}' must be a name or a list of names")
    _refuse_twice(f"'{key}'", list(values))
    return tuple(values)


def _memory(value: object) -> str:
    from msdsim.engine.base import MEMORY_MODELS

    if not isinstance(value, str) or value not in MEMORY_MODELS:
        raise unknown_name("memory model", str(value), list(MEMORY_MODELS))
    return value


def _axis(name: str, given: object) -> Axis:
    names = tuple(part.strip() for part in name.split(","))
    if isinstance(given, Mapping):
        values = _steps(name, given)
    elif isinstance(given, list):
        values = given
    else:
        raise InputError(f"sweep spec: parameter '{name}' must be a list of values, a range {{ start = .., stop = .., step or "
                         f"count = .. }} or one to draw from {{ low = .., high = .. }}")
    if not values:
        raise InputError(f"sweep spec: parameter '{name}' has an empty list; give at least one value")
    rows = [_together(name, len(names), value) for value in values]
    _refuse_twice(f"parameter '{name}'", rows)
    for own, column in zip(names, zip(*rows, strict=True), strict=True):
        if len({isinstance(value, str) for value in column}) > 1:
            raise InputError(f"sweep spec: parameter '{own}' has texts and numbers; a column of results is one or the other")
    return Axis(names, tuple(rows))


def _together(name: str, count: int, value: object) -> tuple[int | float | str, ...]:
    """One value of each name of an axis."""
    if count == 1:
        return (_value(name, value),)
    if not isinstance(value, list) or len(value) != count:
        raise InputError(f"sweep spec: parameter '{name}' has {count} names, and {value!s:.60} is no list of so many values")
    return tuple(_value(name, item) for item in value)


def _refuse_twice(what: str, values: list[Any]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            shown = value[0] if isinstance(value, tuple) and len(value) == 1 else value
            raise InputError(f"sweep spec: {what} has {shown!s:.60} twice; every point runs once")
        seen.add(value)


def _value(name: str, value: object) -> int | float | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError(f"sweep spec: parameter '{name}' has the value {value!s:.60}; give numbers or texts (1 and 0 for yes "
                         f"and no)")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"sweep spec: parameter '{name}' has the value {value}; numbers must be finite")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise InputError(f"sweep spec: parameter '{name}' has a value of {len(str(value))} digits; give one below 2^63")
    return value


def _number(name: str, given: Mapping[str, Any], key: str) -> int | float:
    value = given[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise InputError(f"sweep spec: parameter '{name}' has {key} = {value!s:.60}; give a number between -2^63 and 2^63")
    return value


def _flag(given: Mapping[str, Any], key: str, what: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"sweep spec: {what} is {value!s:.60}; give true or false")
    return value


def _draw(name: str, given: Mapping[str, Any]) -> Draw:
    _check_keys(name, given, _DRAW, ("low", "high"))
    low, high = _number(name, given, "low"), _number(name, given, "high")
    log = _flag(given, "log", f"log of parameter '{name}'")
    _check_ends(name, low, high, log)
    whole = _flag(given, "whole", f"whole of parameter '{name}'") if "whole" in given else _all_whole(low, high)
    return Draw(name, low, high, log, whole)


def _steps(name: str, given: Mapping[str, Any]) -> list[int | float]:
    """A range's values: by ``step``, or ``count`` of them evenly spaced, ends included."""
    by_step = "step" in given
    _check_keys(name, given, _STEPS if by_step else _COUNT, _STEPS if by_step else ("start", "stop", "count"))
    start, stop = _number(name, given, "start"), _number(name, given, "stop")
    log = _flag(given, "log", f"log of parameter '{name}'")
    _check_ends(name, start, stop, log, ("start", "stop"))
    if by_step:
        step = _number(name, given, "step")
        if step <= 0:
            raise InputError(f"sweep spec: parameter '{name}' has step = {step}; give one above 0")
        # An end that the last step reaches but for rounding belongs to the range.
        count = int((stop - start) // step if _all_whole(start, stop, step) else (stop - start) / step * (1 + 1e-12)) + 1
        _check_length(name, count)
        return [start + index * step if _all_whole(start, step) else float(f"{start + index * step:.12g}")
                for index in range(count)]
    count = given["count"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise InputError(f"sweep spec: parameter '{name}' has count = {count!s:.60}; give a whole number of at least 2")
    _check_length(name, count)
    whole = _flag(given, "whole", f"whole of parameter '{name}'") if "whole" in given else _all_whole(start, stop)
    found = [_between(start, stop, index / (count - 1), log, whole) for index in range(count)]
    return list(dict.fromkeys(found)) if whole else found


def _check_keys(name: str, given: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"sweep spec: parameter '{name}' has the unknown key '{key}' (keys: {', '.join(known)})")
    for key in needed:
        if key not in given:
            raise InputError(f"sweep spec: parameter '{name}' has no {key} (keys: {', '.join(known)})")


def _check_ends(name: str, low: float, high: float, log: bool, words: tuple[str, str] = ("low", "high")) -> None:
    if not low <= high or (log and low <= 0):
        raise InputError(f"sweep spec: the range of '{name}' runs from {low} to {high}; give {words[0]} <= {words[1]}"
                         + (", above 0 for a logarithmic one" if log else ""))


def _check_length(name: str, count: int) -> None:
    if count > _LONGEST_AXIS:
        raise InputError(f"sweep spec: parameter '{name}' would take {count:,} values; give at most {_LONGEST_AXIS:,}")


def _all_whole(*values: float) -> bool:
    return all(isinstance(value, int) for value in values)


def _between(low: float, high: float, share: float, log: bool, whole: bool) -> int | float:
    value = low * (high / low) ** share if log else low + (high - low) * share
    # Four significant digits: a rate with many decimals would make the engines' exact rationals needlessly large.
    return round(value) if whole else float(f"{value:.4g}")


def _random(given: object, drawn: bool) -> tuple[int, int]:
    if given is None and not drawn:
        return 1, 0
    if not isinstance(given, Mapping):
        raise InputError("sweep spec: ranges with low and high need [random] with samples of at least 1")
    for key in given:
        if key not in ("samples", "seed"):
            raise InputError(f"sweep spec: [random] has the unknown key '{key}' (keys: samples, seed)")
    if not drawn:
        raise InputError("sweep spec: [random] is given, and no parameter is a range with low and high to draw from; leave it "
                         "out")
    samples, seed = given.get("samples"), given.get("seed", 0)
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise InputError(f"sweep spec: ranges need [random] with samples of at least 1 (samples = {samples!s:.60})")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"sweep spec: [random] has seed = {seed!s:.60}; give a whole number of at least 0")
    if samples > _MOST_SAMPLES:
        raise InputError(f"sweep spec: [random] has samples = {samples!s:.60}; give at most {_MOST_SAMPLES:,}")
    return samples, seed


def _fields(problem: str) -> list[str]:
    return re.findall(r"\{([^{}]*)\}", problem)


def _check_names(spec: Spec) -> None:
    """Every parameter is used by something, and none would overwrite a column of the results."""
    _refuse_twice("[parameters]", spec.names)
    fields = _fields(spec.problem)
    for name in spec.names:
        if name in COLUMNS:
            raise InputError(f"sweep spec: '{name}' cannot be a parameter, since a column of the results has that name")
        if "." not in name and name not in fields:
            raise InputError(f"sweep spec: nothing uses the parameter '{name}' (the problem takes "
                             f"{', '.join(f'{{{field}}}' for field in fields) or 'none'}; chip parameters have a dot in their "
                             f"name, those of the tiling start with 'tiling.')")
    for field in fields:
        if field not in spec.names:
            raise InputError(f"sweep spec: the problem asks for {{{field}}}, which is no parameter "
                             f"(parameters: {', '.join(spec.names) or 'none'})")


def _fill(problem: str, values: Mapping[str, Any]) -> str:
    return re.sub(r"\{([^{}]*)\}", lambda match: str(values[match[1]]), problem)
