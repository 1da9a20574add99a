"""The fast part of the fuzzers of inputs."""

from __future__ import annotations

import pytest

from tests.fuzz.inputs import KINDS, run

COUNTS = {"chip": 5, "set": 5, "npz": 12, "safetensors": 16, "workload": 10, "config": 40, "sweep": 8, "words": 20,
          "measured": 5, "schedule": 30, "dataflow": 20, "kernel": 16, "outputs": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_ends_in_a_result_or_one_error_line(kind):
    broken = [(number, arguments, found) for number, arguments, found in run(kind, COUNTS[kind], seed=7) if found not in ("good", "refused")]
    assert broken == []
