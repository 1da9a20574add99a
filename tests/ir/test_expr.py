"""Index expressions: folding, text, evaluation, and bounds that always hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msdsim.ir.expr import Const, Var, binary, evaluate, free_vars, minimum, tiles_of

X, Y = Var("x"), Var("y")


def expressions(depth=3):
    leaf = st.one_of(st.integers(-40, 40).map(Const), st.sampled_from([X, Y]))
    if depth == 0:
        return leaf
    sub = expressions(depth - 1)
    return st.one_of(
        leaf,
        st.builds(binary, st.sampled_from(["+", "-", "min", "max", "<", "<=", "==", "!="]), sub, sub),
        st.builds(binary, st.just("*"), sub, st.integers(-9, 9).map(Const)),
        st.builds(binary, st.sampled_from(["//", "%"]), sub, st.integers(1, 9).map(Const)),
    )


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (X * 64 + Y, "x * 64 + y"),
        ((X + Y) * 64, "(x + y) * 64"),
        (X - (Y - 1), "x - (y - 1)"),
        (X - Y - 1, "x - y - 1"),
        (minimum(256, 8192 - X * 256), "min(256, 8192 - x * 256)"),
        ((X + 3) // 4 % 2, "(x + 3) // 4 % 2"),
        (X % (2 * Const(4)), "x % 8"),
        (X.equals(Y + 1), "x == y + 1"),
        ((X < 3) + 1, "(x < 3) + 1"),
        (X * -2, "x * (-2)"),
    ],
)
def test_text(expr, text):
    assert str(expr) == text


def test_constants_fold_and_neutral_elements_vanish():
    assert Const(3) + 4 == Const(7)
    assert X + 0 == X
    assert 0 + X == X
    assert X * 1 == X
    assert Const(0) == X * 0
    assert X // 1 == X
    assert Const(0) == X % 1
    assert tiles_of(Const(9), 4) == Const(3)


@given(expressions(), st.integers(-20, 20), st.integers(-20, 20))
def test_text_is_python(expr, x, y):
    """The printed text, read as Python, has the value of the tree."""
    assert int(eval(str(expr), {"x": x, "y": y, "min": min, "max": max})) == evaluate(expr, {"x": x, "y": y})


def test_free_vars():
    assert free_vars(minimum(X, Y + 1)) == {"x", "y"}


def test_any_name_is_a_variable():
    assert evaluate(Var("lambda") * 2 + Var("min"), {"lambda": 3, "min": 1}) == 7


def test_missing_variable_is_named():
    with pytest.raises(KeyError, match="y"):
        evaluate(X + Y, {"x": 1})
