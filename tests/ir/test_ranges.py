"""Ranges of index expressions: sound for every operator and sign, and simple forms that keep every value."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msdsim.ir.expr import PRECEDENCE, Binary, Const, Interval, Var, apply, evaluate, maximum, minimum, tiles_of
from msdsim.ir.ranges import Ranges, bounds, combine, lower_bound, simplify, upper_bound
from tests.ir.test_expr import X, Y, expressions

SMALL = [Interval(low, high) for low in range(-5, 6) for high in range(low, 6)]


@pytest.mark.parametrize("op", [*PRECEDENCE, "min", "max"])
def test_every_small_range(op):
    """All pairs of ranges within -5 .. 5, all values in them: what has a result lies in the range, and its ends are reached
    where the operator is monotone."""
    for a, b in product(SMALL, SMALL):
        values = [apply(op, x, y) for x in range(a.low, a.high + 1) for y in range(b.low, b.high + 1) if op not in ("//", "%") or y]
        if not values:
            with pytest.raises(ZeroDivisionError):
                combine(op, a, b)
            continue
        found = combine(op, a, b)
        assert found.low <= min(values), (a, b)
        assert found.high >= max(values), (a, b)
        if op != "%":
            assert found == Interval(min(values), max(values)), (a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Interval(16, 16), Interval(-5, -4), Interval(-4, 0)),
        (Interval(0, 9), Interval(4, 4), Interval(0, 3)),
        (Interval(5, 7), Interval(4, 4), Interval(1, 3)),
        (Interval(0, 2), Interval(4, 9), Interval(0, 2)),
        (Interval(-3, -1), Interval(4, 4), Interval(1, 3)),
        (Interval(-9, 9), Interval(-4, 4), Interval(-3, 3)),
    ],
)
def test_remainders(a, b, expected):
    assert combine("%", a, b) == expected


@given(expressions(), st.integers(-20, 20), st.integers(0, 9), st.integers(-20, 20), st.integers(0, 9), st.data())
def test_bounds_contain_every_value(expr, x_low, x_span, y_low, y_span, data):
    ranges = {"x": Interval(x_low, x_low + x_span), "y": Interval(y_low, y_low + y_span)}
    value = evaluate(expr, {"x": data.draw(st.integers(x_low, x_low + x_span)), "y": data.draw(st.integers(y_low, y_low + y_span))})
    box = bounds(expr, ranges)
    assert box.low <= value <= box.high
    assert value <= upper_bound(expr, ranges)


def test_upper_bound_sees_that_ragged_tiles_end_at_the_total():
    ranges = {"x": Interval(0, 31)}
    assert upper_bound(X * 300 + minimum(300, 9000 - X * 300), ranges) == 9000
    assert upper_bound(Y * 8 + maximum(0, 20 - Y * 8), {"y": Interval(0, 2)}) == 20


@given(expressions(4), st.integers(-20, 20), st.integers(0, 9), st.integers(-20, 20), st.integers(0, 9), st.data())
def test_a_simple_form_has_the_same_values(expr, x_low, x_span, y_low, y_span, data):
    ranges = {"x": Interval(x_low, x_low + x_span), "y": Interval(y_low, y_low + y_span)}
    env = {"x": data.draw(st.integers(x_low, x_low + x_span)), "y": data.draw(st.integers(y_low, y_low + y_span))}
    assert evaluate(simplify(expr, ranges), env) == evaluate(expr, env)


V = Var("v")
RANGES = Ranges({"x": Interval(0, 3), "y": Interval(0, 15)}).inside("v", Const(0), tiles_of(20 - X * 5, 6), 1)


@pytest.mark.parametrize(
    ("expr", "simple"),
    [
        (minimum(16, X + 2), X + 2),
        (maximum(0, 20 - X * 5), 20 - X * 5),
        (minimum(minimum(X + V, 3), 2), minimum(2, X + V)),
        ((X * 16 + Y) // 16, X),
        ((X * 16 + Y) % 16, Y),
        (V // 4 * 4 + V % 4, V),
        (X + Y - X, Y),
        (X < 4, Const(1)),
        ((X * 2).equals(9), Const(0)),
        (minimum(24, 20 - X * 5 - V * 6 + 24), Const(24)),
        (Binary("//", X, Const(0)), Binary("//", X, Const(0))),
    ],
)
def test_simple_forms(expr, simple):
    assert simplify(expr, RANGES) == simple


def test_a_loop_bounds_its_variable():
    """v * 6 stays below what the loop cuts into pieces of 6, although both depend on x."""
    assert upper_bound(V * 6 - (20 - X * 5), RANGES) == -1
    assert lower_bound(20 - X * 5 - V * 6, RANGES) == 1
    assert bounds(V, Ranges({}).inside("v", Const(0), Const(1024), 256)) == Interval(0, 768)


@pytest.mark.parametrize(
    ("condition", "x"),
    [(X < 2, (0, 1)), (X >= 2, (2, 3)), (X.equals(2), (2, 2)), (X * 2 - X < 2, (0, 1)), (X - Y <= 1, (0, 3)), (X + 1 <= 1, (0, 0))],
)
def test_conditions_narrow(condition, x):
    assert RANGES.where(condition).intervals["x"] == Interval(*x)


def test_what_never_runs():
    assert RANGES.where(X < 0).dead
    assert RANGES.inside("i", Const(3), Const(3), 1).dead
    assert not RANGES.inside("i", X, Const(3), 1).dead
