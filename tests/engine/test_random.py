"""Random kernels on random chips: both engines, every field, every row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from .comparison import Refused, assert_engines_agree
from .random_kernels import Case, cases, long_loops


@given(cases())
@settings(max_examples=50)
def test_random_kernels_that_end(case: Case):
    assert not isinstance(assert_engines_agree(case.program()), Refused)


@given(cases(balanced=False))
@settings(max_examples=40)
def test_random_kernels_that_may_deadlock(case: Case):
    assert_engines_agree(case.program())


@given(long_loops())
@settings(max_examples=50)
def test_long_loops(case: Case):
    assert not isinstance(assert_engines_agree(case.program()), Refused)


@pytest.mark.slow
@given(long_loops())
@settings(max_examples=1000)
def test_many_long_loops(case: Case):
    assert not isinstance(assert_engines_agree(case.program()), Refused)


@pytest.mark.slow
@given(cases())
@settings(max_examples=2000)
def test_many_random_kernels_that_end(case: Case):
    assert not isinstance(assert_engines_agree(case.program()), Refused)


@pytest.mark.slow
@given(cases(balanced=False))
@settings(max_examples=1000)
def test_many_random_kernels_that_may_deadlock(case: Case):
    assert_engines_agree(case.program())
