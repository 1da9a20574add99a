"""The fast part of the fuzzer of numbers."""

from __future__ import annotations

from tests.fuzz.numbers import PROBLEMS, cases, outcome


def test_awkward_arrays_of_every_dataflow():
    broken, kinds = [], set()
    for number, problem, chip, dataflow, drawn, arrays in cases(40, seed=7, problems=PROBLEMS[:1], chips=["toy"]):
        found = outcome(problem, chip, dataflow, arrays)
        kinds.add(found)
        if found not in ("good", "overflowed", "refused"):
            broken.append((number, problem, chip, dataflow, drawn, found))
    assert broken == []
    assert {"good", "overflowed"} <= kinds
