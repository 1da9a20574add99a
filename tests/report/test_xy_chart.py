"""Points of the charts stand where their values are, on linear and logarithmic axes."""

from __future__ import annotations

import re

import pytest

from msdsim.report.xy_chart import Bands, ChartAxis, Mark, Scale, xy_chart


def dots(chart):
    """Place of every point by what is said about it, in percent."""
    return {text: (float(left), float(bottom)) for text, left, bottom in re.findall(
        r'data-tip="([^"]*)" style="left:([0-9.]+)%;bottom:([0-9.]+)%', chart)}


def test_a_linear_axis_begins_at_zero_where_zero_is_near():
    scale = Scale.over([2.0, 10.0], ChartAxis("x"))
    assert (scale.low, scale.high) == (0.0, pytest.approx(10.4))
    assert scale.at(5.2) == pytest.approx(50)
    far = Scale.over([90.0, 100.0], ChartAxis("x"))
    assert (far.low, far.high) == (pytest.approx(89.5), pytest.approx(100.5))


def test_a_logarithm_puts_the_geometric_mean_in_the_middle():
    scale = Scale.over([1.0, 10000.0], ChartAxis("x", log=True))
    assert scale.at(100.0) == pytest.approx(50)
    assert scale.ticks() == [1, 10, 100, 1000, 10000]


def test_one_value_has_a_scale_too():
    for log in (False, True):
        assert 0 < Scale.over([7.0, 7.0], ChartAxis("x", log)).at(7.0) <= 100


def test_points_lines_and_legend():
    chart = xy_chart({"a": [Mark(0, 0, "origin"), Mark(10, 100, "top")], "<b>": [Mark(5, 50, "middle")]}, ChartAxis("x"), ChartAxis("y"),
                     lines=True)
    place = dots(chart)
    assert place["origin"] == (0, 0)
    assert place["middle"] == (pytest.approx(place["top"][0] / 2, abs=0.01), pytest.approx(place["top"][1] / 2, abs=0.01))
    assert 'data-key="&lt;b&gt;"' in chart
    assert chart.count("<path") == 2


def test_what_a_logarithm_cannot_show_is_counted():
    chart = xy_chart({"a": [Mark(1, 0, "none"), Mark(2, 3, "some")]}, ChartAxis("x"), ChartAxis("y", log=True))
    assert list(dots(chart)) == ["some"]
    assert "a logarithm has no 0: 1" in chart
    assert "No point" in xy_chart({"a": [Mark(1, 0, "none")]}, ChartAxis("x"), ChartAxis("y", log=True))


def test_bands_and_points_share_one_scale():
    """A point at twice its measurement lies above the diagonal by the logarithm of two."""
    chart = xy_chart({"a": [Mark(10, 10, "equal"), Mark(100, 200, "twice")]}, ChartAxis("x", True), ChartAxis("y", True),
                     bands=Bands((0.3, 0.1)))
    place = dots(chart)
    assert place["equal"][0] == place["equal"][1]
    scale = Scale.over([10, 10, 100, 200], ChartAxis("x", True))
    assert place["twice"][1] - place["twice"][0] == pytest.approx(scale.at(20) - scale.at(10), abs=0.02)
    assert chart.count('class="band"') == 2
