"""Every field of a schedule is compared, and everything of a request is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdsim.problems import parse_inline
from msdsim.schedules.difference import differences
from msdsim.schedules.schedule import record_schedule, repeat_schedule

PROBLEM = parse_inline("gemm:m=4,k=512,n=256")


@pytest.fixture(scope="module")
def schedule():
    return record_schedule(PROBLEM, "toy", "bf16")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"cycles": 1}, "cycles"), ({"instructions": 1}, "instructions"), ({"memory": "banked"}, "memory"), ({"hw": "ascend910b1"}, "hw"),
        ({"dataflow": "w8a8"}, "dataflow"), ({"kernel_sha256": "0" * 64}, "kernel text"), ({"chip_sha256": "0" * 64}, "chip numbers"),
    ],
)
def test_each_field(schedule, changes, what):
    found = differences(schedule, schedule.model_copy(update=changes))
    assert [item.what for item in found] == [what]


def test_a_new_kind_of_traffic_and_one_that_went_away(schedule):
    more = schedule.model_copy(update={"traffic": {**schedule.traffic, "l3_read_bytes": 5}})
    assert [(item.what, item.before, item.after) for item in differences(schedule, more)] == [("traffic l3_read_bytes", "0", "5")]
    assert [(item.what, item.before, item.after) for item in differences(more, schedule)] == [("traffic l3_read_bytes", "5", "0")]


def test_the_memory_model_is_repeated():
    plain, banked = (record_schedule(PROBLEM, "toy", "bf16", memory=memory) for memory in ("bandwidth", "banked"))
    assert plain.cycles != banked.cycles
    again = repeat_schedule(banked, Path())
    assert (again.memory, again.cycles) == ("banked", banked.cycles)
