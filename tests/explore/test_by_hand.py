"""Studies on made-up numbers: where two curves cross, and how a prediction moves with a constant."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from msdsim.explore import sensitivity as module
from msdsim.explore.crossing import _last
from msdsim.explore.sensitivity import Sensitivity, sensitivity


@pytest.mark.parametrize(("speedup", "last"), [
    (lambda m: 1.5 if m <= 100 else 0.9, 96), (lambda m: 1.5 if m <= 112 else 0.9, 112), (lambda m: 1.5 if m <= 127 else 0.9, 112), (lambda m: 1.5 if m <= 16 else 0.9, 16),
    (lambda m: 1.5 if m <= 63 else 0.9, 48), (lambda m: 1.5 if m <= 64 else 0.9, 64),
    # Less than 2% slower is a tie, and no loss.
    (lambda m: 0.985 if m <= 100 else 0.9, 96), (lambda m: 0.97 if m > 32 else 0.985, 32),
    (lambda m: 0.979, 0), (lambda m: 1.1 if m == 1 else 0.5, 1), (lambda m: 0.985 if m == 1 else 0.5, 1), (lambda m: 2.0, None)])
def test_the_most_rows_before_the_baseline_is_faster(speedup, last):
    """Multiples of 16, the height of a fractal; 1 or 0 where 16 are too many."""
    assert _last(speedup) == last


def test_a_prediction_moves_with_its_constant(monkeypatch):
    """1.3 times a constant makes 10 us 13, 20 us 19 and says nothing of a row without a prediction."""
    def validate(*_, factors=None, **__):
        times = {"a": 13.0, "b": 19.0, "c": None, "d": 5.0} if factors == {"hbm.efficiency": 1.3} else {"a": 10.0, "b": 20.0, "c": None, "d": None} if factors is None else \
            {"a": 9.0, "b": 25.0, "c": 1.0, "d": None}
        return SimpleNamespace(rows=[SimpleNamespace(id=name, predicted_us=us) for name, us in times.items()])

    monkeypatch.setattr(module, "validate", validate)
    found, = sensitivity(constants=["hbm.efficiency"])
    assert found.changes == {0.7: {"a": pytest.approx(-0.1), "b": pytest.approx(0.25)}, 1.3: {"a": pytest.approx(0.3), "b": pytest.approx(-0.05)}}
    assert found.largest(0.7) == ("b", pytest.approx(0.25))
    assert Sensitivity("x", "", {2.0: {"a": 0.1, "b": -0.2}}).largest(2.0) == ("b", -0.2)
