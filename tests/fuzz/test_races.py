"""Races planted everywhere they can be: none passes.  The default suite takes a sample of them."""

from __future__ import annotations

import pytest

from tests.fuzz.races import run


@pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_planted_races_are_refused(every):
    found = [outcome for _, _, outcome in run(every)]
    assert found.count("missed") == 0
    assert found.count("refused") >= len(found) // 2 > 0
