"""Accuracy of every method over the operators of a workload: each distinct reduction once, or on a model's own weights.

Errors are relative and every output is a reduction of its own, so that some rows and columns of a large matmul, and one KV head
of an attention, stand for all of them; K, groups, the cache's length and head sizes are the operator's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.checkpoints.beside import module_of
from msdsim.checkpoints.stored import StoredWeight
from msdsim.checkpoints.weights import matching_names, read_one, split_spec
from msdsim.errors import ArrayError, InputError
from msdsim.explore.accuracy.checkpoint_study import WeightRow, WeightStudy, measure_tensor
from msdsim.explore.accuracy.study import AccuracyRow, accuracy_study
from msdsim.models.operator_names import operator_names
from msdsim.numerics.weights import placed
from msdsim.problems import Workload
from msdsim.problems.model import closest
from msdsim.problems.workload import Entry

#: Of a large operator so many rows (or queries) and columns are measured.
ROWS, COLUMNS = 16, 256
#: Activations where nobody says otherwise.
INPUTS = ("normal", "outliers")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MeasuredShape:
    """Operators whose errors are those of one problem, the part of them that is measured, with its rows."""

    names: tuple[str, ...]
    problem: Any
    rows: tuple[AccuracyRow, ...]


def part(problem: Any) -> Any:
    """The part of an operator that is measured."""
    if problem.kind == "attention":
        sizes = {"batch": 1, "heads": problem.heads // problem.kv_heads, "kv_heads": 1, "q": min(ROWS, problem.q)}
        return problem.model_copy(update=sizes)
    from msdsim.problems.model import Gemm

    m = max(problem.rows) if getattr(problem, "rows", None) else problem.m
    return Gemm(m=min(ROWS, m), k=problem.k, n=min(COLUMNS, problem.n), group=problem.group, offset=problem.offset)


def entries_of(workload: Workload, ops: Sequence[str]) -> list[Entry]:
    """The entries named, or all; InputError for a name that is none and where no entry computes numbers of a method."""
    names = [entry.name for entry in workload.entries]
    for name in ops:
        if name not in names:
            raise InputError(f"'{name[:200]}' is no operator of '{workload.name}'{closest(name, names)} ({', '.join(names)})")
    found = [entry for entry in workload.entries if (not ops or entry.name in ops) and entry.problem.kind != "micro"]
    if not found:
        raise InputError(f"'{workload.name}' has no gemm, grouped_gemm or attention among these operators")
    return found


def workload_study(workload: Workload, distributions: Iterable[str], seed: int, ops: Sequence[str] = (),
                   progress: Progress | None = None) -> list[MeasuredShape]:
    """Every method on each distinct part of the operators, on drawn weights and caches."""
    groups: dict[str, tuple[Any, list[str]]] = {}
    for entry in entries_of(workload, ops):
        problem = part(entry.problem)
        groups.setdefault(str(problem), (problem, []))[1].append(entry.name)
    found = []
    for number, (problem, names) in enumerate(groups.values(), 1):
        found.append(MeasuredShape(tuple(names), problem, tuple(accuracy_study(problem, distributions, None, seed))))
        if progress is not None:
            progress(number, len(groups))
    return found


# The model's own weights


@dataclass(frozen=True)
class _Match:
    tensor: str
    entry: Entry
    fused: bool


def workload_weights(workload: Workload, spec: str, distributions: Iterable[str], seed: int, scale_rule: str,
                     ops: Sequence[str] = (), progress: Progress | None = None) -> tuple[WeightStudy, WeightStudy]:
    """Every method on the tensors of a model that belong to the operators: of all, and root mean squares by operator.

    ``spec`` is ``MODEL`` (one tensor of each kind, from the first layer that has it) or ``MODEL:PATTERN`` (every tensor that
    matches).  A tensor belongs to an operator by its name and must have its K, and at most its N.
    """
    matrices = [entry for entry in entries_of(workload, ops) if entry.problem.kind in ("gemm", "grouped_gemm")]
    if not matrices:
        raise InputError("--weights belongs to matmuls, and there is none among these operators")
    path, pattern = (Path(spec), "*") if Path(spec).exists() else split_spec(spec)
    order = [entry.name for entry in matrices]
    matches = [match for name in matching_names(path, pattern) if (match := _match(name, matrices)) is not None]
    matches.sort(key=lambda match: order.index(match.entry.name))
    if pattern == "*":
        matches = list({(match.entry.name, module_of(match.tensor).rpartition(".")[2]): match
                        for match in reversed(matches)}.values())[::-1]
    if not matches:
        raise ArrayError(f"no tensor of {path.name[:200]} that '{pattern[:200]}' matches is called like an operator of "
                         f"'{workload.name}' ({', '.join(entry.name for entry in matrices)})")
    study = WeightStudy([], {}, [])
    owners: dict[str, str] = {}
    for number, match in enumerate(matches, 1):
        try:
            name, stored, problem = _sample(path, match)
            measure_tensor(study, problem, stored, name, list(distributions), None, seed, scale_rule)
            owners[name] = match.entry.name
        except InputError as err:
            study.skipped.append((match.tensor, "all methods", str(err)))
        if progress is not None:
            progress(number, len(matches))
    if not study.rows:
        raise ArrayError(study.skipped[0][2])
    named = {match.entry.name for match in matches}
    study.skipped.extend((entry.name, "all methods", f"no tensor of {path.name[:200]} that '{pattern[:200]}' matches is called "
                          f"like it") for entry in matrices if entry.name not in named)
    return study, _by_operator(study, owners)


def _match(tensor: str, entries: Sequence[Entry]) -> _Match | None:
    names = operator_names(module_of(tensor))
    for at, name in enumerate(names):
        for entry in entries:
            plain = entry.name == name or entry.name.endswith(f"_{name}")
            kinds = [kind for kind in ("expert_", "shared_") if kind in entry.name]
            if plain and kinds == [kind for kind in ("expert_", "shared_") if name.startswith(kind)]:
                return _Match(tensor, entry, at < len(names) - 1)
    return None


def _sample(path: Path, match: _Match) -> tuple[str, StoredWeight, Any]:
    """Some columns of a tensor, evenly spaced, as a weight of its operator; of several experts in one tensor the first."""
    problem: Any = match.entry.problem
    stored, name = replace(read_one(path, match.tensor), name=match.tensor), match.tensor
    if len(stored.shape) == 3 and stored.oriented:
        stored, name = stored.expert(0), f"{name}, expert 0 of {stored.shape[0]}"
    if len(stored.shape) != 2:
        raise ArrayError(f"tensor '{name[:200]}' has shape {list(stored.shape)}; a weight of '{match.entry.name}' is a matrix")
    k = problem.k
    others = [size for at, size in enumerate(stored.shape) if stored.shape[1 - at] == k and (not stored.oriented or at == 1)]
    if not others:
        raise ArrayError(f"tensor '{name[:200]}' has shape {list(stored.shape)}, and '{match.entry.name}' is {problem}: "
                         f"another model, or one device's share of it")
    n = others[0]
    if n > problem.n or (n != problem.n and not match.fused):
        raise ArrayError(f"tensor '{name[:200]}' has {n} outputs, and '{match.entry.name}' is {problem}: another model, or one "
                         f"device's share of it")
    chosen = np.unique(np.linspace(0, n - 1, min(n, COLUMNS)).astype(np.int64))
    # Integers bring groups of their own; values are quantized as the operator says.
    quantized = {} if stored.kind == "float" else {"group": None, "offset": False}
    own = part(problem).model_copy(update={"n": len(chosen)} | quantized)
    return name, placed(stored, (k, n), name).columns(chosen), own


def _by_operator(study: WeightStudy, owners: dict[str, str]) -> WeightStudy:
    """Root mean squares over the tensors of an operator."""
    rows: dict[tuple[str, str, str, int | None], list[WeightRow]] = {}
    for row in study.rows:
        rows.setdefault((owners[row.tensor], row.input, row.method, row.passes), []).append(row)

    def mean(own: Sequence[WeightRow], what: str) -> float:
        return float(np.sqrt(np.mean([getattr(row, what) ** 2 for row in own])))

    found = [WeightRow(operator, name, method, passes, mean(own, "format_l2"), mean(own, "added_l2"), mean(own, "total_l2"),
                       own[0].taken) for (operator, name, method, passes), own in rows.items()]
    order, inputs = list(dict.fromkeys(owners.values())), list(dict.fromkeys(row.input for row in study.rows))
    found.sort(key=lambda row: (order.index(row.tensor), inputs.index(row.input)))
    stored = {}
    for operator in order:
        own = [tensor for tensor, owner in owners.items() if owner == operator and tensor in study.tensors]
        ways = dict.fromkeys(study.tensors[tensor] for tensor in own)
        what = own[0] if len(own) == 1 else f"{len(own)} tensors such as {own[0]}"
        stored[operator] = f"{' / '.join(ways)} ({what})"
    return WeightStudy(found, stored, list(study.skipped))
