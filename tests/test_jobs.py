"""Work in several processes gives what work in one gives."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.errors import InputError
from msdsim.jobs import run_all
from msdsim.problems import Gemm
from msdsim.problems.workload import Entry, Workload

LAYERS = Workload(name="layers", description="three layers", source="made up", batch=1, entries=tuple(
    Entry(name=name, count=count, problem=Gemm(m=m, k=64, n=96)) for name, count, m in (("a", 2, 1), ("b", 3, 20), ("c", 1, 1))))


def square(value: int) -> int:
    if value == 13:
        raise InputError("13 is not allowed")
    return value * value


@pytest.mark.parametrize("jobs", [1, 2])
def test_order_and_progress(jobs):
    seen = []
    assert run_all(square, [3, 1, 2], jobs, lambda done, total: seen.append((done, total))) == [9, 1, 4]
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_come_through(jobs):
    with pytest.raises(InputError, match="13 is not allowed"):
        run_all(square, [1, 13, 2], jobs)


def test_no_work():
    assert run_all(square, [], 4) == []


def test_workloads_do_not_depend_on_the_number_of_processes():
    one, two = (msdsim.simulate_workload(LAYERS, "toy", "bf16", jobs=jobs) for jobs in (1, 2))
    assert [run.result.cycles for run in one.runs] == [run.result.cycles for run in two.runs]
    assert one.runs[0].result.kernel is one.runs[2].result.kernel, "equal problems are prepared once"
