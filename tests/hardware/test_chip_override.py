"""Chip parameters set by the user: ``--set key=value`` and ``Hardware.replace``."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msdsim.errors import ChipError, UnknownNameError
from msdsim.hardware import load_hw, override, parse_value
from msdsim.hardware.sanity import LARGEST_TERM, rates

TOY = load_hw("toy")
LISTS = "('msdsim list hw --verbose' lists them)"


def test_a_number_is_changed_and_says_so():
    base = load_hw("ascend910b1")
    found = base.replace(hbm__bandwidth_gbps=3200)
    assert found.chip.hbm.bandwidth_gbps == 3200
    assert base.chip.hbm.bandwidth_gbps == 1600
    assert (found.provenance["hbm.bandwidth_gbps"].kind, found.provenance["hbm.bandwidth_gbps"].source) == (
        "override", "set by the user")
    assert found.provenance["hbm.efficiency"] == base.provenance["hbm.efficiency"]
    assert found.name == "ascend910b1"
    assert found == base.replace(**{"hbm.bandwidth_gbps": 3200.0})


def test_numbers_of_numpy_are_numbers():
    found = load_hw("toy").replace(hbm__bandwidth_gbps=np.float64(64), cores__aic=np.int64(4)).chip
    assert (found.hbm.bandwidth_gbps, found.cores.aic) == (64, 4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hbm.bandwidth_gpbs", 1,
         f"unknown chip parameter 'hbm.bandwidth_gpbs'; did you mean 'hbm.bandwidth_gbps'? {LISTS}"),
        ("bandwidth", 1, f"unknown chip parameter 'bandwidth'; did you mean 'hbm.bandwidth_gbps'? {LISTS}"),
        ("zebra", 1, f"unknown chip parameter 'zebra' {LISTS}"),
        ("", 1, f"unknown chip parameter '' {LISTS}"),
        ("hbm.bandwidth_gbps.x", 1,
         f"unknown chip parameter 'hbm.bandwidth_gbps.x'; did you mean 'hbm.bandwidth_gbps'? {LISTS}"),
    ],
)
def test_unknown_parameter(key, value, message):
    with pytest.raises(UnknownNameError) as caught:
        override(load_hw("toy"), {key: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hbm", 1, "chip parameter 'hbm' is a table; set one of its keys, for example 'hbm.capacity_bytes'"),
        ("paths", 1, "chip parameter 'paths' is a table; set one of its keys, for example 'paths.gm_l1.source'"),
        ("hbm.bandwidth_gbps", -1, "chip 'toy' as set: key 'hbm.bandwidth_gbps' = -1 must be above 0"),
        ("hbm.bandwidth_gbps", "fast", "chip 'toy' as set: key 'hbm.bandwidth_gbps' = 'fast' must be a number"),
        ("hbm.bandwidth_gbps", [1], "chip 'toy' as set: key 'hbm.bandwidth_gbps' = [1] must be a number"),
        ("hbm.bandwidth_gbps", {"a": 1}, "chip 'toy' as set: key 'hbm.bandwidth_gbps' = a table must be a number"),
        ("hbm.bandwidth_gbps", None, "chip 'toy' as set: key 'hbm.bandwidth_gbps' = None must be a number"),
        ("l2.ways", 7, "chip 'toy' as set: key 'l2.capacity_bytes' = 1048576 is not a whole number of sets of "
                       "7 x 512 bytes; the closest is 1046528"),
        ("arch", "x", "chip 'toy' as set: key 'arch' = 'x' must be '2201', '3510' or 'toy'"),
    ],
)
def test_bad_value(key, value, message):
    with pytest.raises(ChipError) as caught:
        override(load_hw("toy"), {key: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [("3200", 3200), ("1.5", 1.5), ("3.2e3", 3200.0), ("MTE2", "MTE2"), ('"MTE2"', "MTE2"), ("", ""),
     ("1\nother = 2", "1\nother = 2"), ("true", True)],
)
def test_parse_value(text, value):
    assert parse_value(text) == value


@given(st.decimals(min_value="0.001", max_value=100000, places=3))
def test_a_rate_is_exact_or_refused(gbps):
    bytes_per_cycle = Fraction(gbps)  # the toy runs at 1 GHz
    changes = {"l2.write_gbps": float(gbps)}
    if max(bytes_per_cycle.numerator, bytes_per_cycle.denominator) > LARGEST_TERM:
        with pytest.raises(ChipError, match=r"key 'l2.write_gbps' is the exact rate"):
            override(TOY, changes)
    else:
        assert rates(override(TOY, changes).chip)["l2.write_gbps"] == bytes_per_cycle
