"""Plots, pages and notebook forms: complete, self-contained, the same every time, without a display."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from msdsim.api import compare_workload, simulate_workload
from msdsim.problems import Entry, Gemm, Workload
from msdsim.report import html
from msdsim.report.bandwidth import bandwidth_steps
from msdsim.report.labels import LOOKS
from msdsim.report.plots import save
from msdsim.timeline.record import TRAFFIC

TWO = Workload("two", "", "", None, (Entry("up", 2, Gemm(m=4, k=64, n=96)), Entry("<down>", 1, Gemm(m=4, k=96, n=64))))


class _Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_html(text):
    parser = _Balance()
    parser.feed(text)
    assert parser.open == []
    assert "http" not in text
    assert "<script" not in text


def labels(figure):
    return {text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()}


def test_stall_bars_fill_the_whole_time(dequant):
    figure = dequant.plot()
    bars, hbm, l2, _energy = figure.axes
    lengths = {}
    for patch in bars.patches:
        row = round(patch.get_y() + patch.get_height() / 2)
        lengths[row] = lengths.get(row, 0) + patch.get_width()
    assert len(lengths) == len(dequant.stalls)
    assert list(lengths.values()) == pytest.approx([100] * len(lengths))
    assert {text.get_text().split()[0] for text in bars.get_yticklabels()} == {"AIC", "AIV"}
    assert "HBM peak 128 GB/s" in labels(figure)
    assert hbm.get_ylabel() == "HBM (GB/s)"
    assert "us" in l2.get_xlabel()


def test_bandwidth_over_time_adds_up_to_the_traffic(dequant):
    edges, rates = bandwidth_steps(dequant)
    assert edges[0] == 0
    assert edges[-1] == pytest.approx(dequant.time_us)
    moved = (rates * np.diff(edges)).sum(axis=1) * 1000
    assert moved == pytest.approx([dequant.record.traffic[name] for name in TRAFFIC])


def test_comparison_bars_are_as_long_as_the_runs(comparison):
    axes = comparison.plot().axes[0]
    ends = [patch.get_x() + patch.get_width() for patch in axes.patches]
    for run in comparison.runs:
        assert any(end == pytest.approx(run.time_us) for end in ends)
    shown = {text.get_text() for text in axes.texts}
    assert {"bf16", "dequant-int8", "msd-int8"} <= shown


def test_the_same_figure_gives_the_same_bytes(dequant, tmp_path):
    for ending in ("png", "svg", "pdf"):
        for name in ("a", "b"):
            save(dequant.plot(), tmp_path / f"{name}.{ending}")
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_plots_need_neither_display_nor_pyplot():
    code = ("import sys, msdsim\nmsdsim.simulate('gemm:m=4,k=64,n=48', 'toy').plot().savefig('/dev/null', format='png')\n"
            "print('matplotlib.pyplot' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_notebooks_show_figures_by_themselves(dequant):
    assert dequant.plot()._repr_png_().startswith(b"\x89PNG")


def test_colours_can_be_told_apart_by_the_colour_blind():
    """Distances of all colours as seen with deuteranopia and protanopia (Machado 2009, severity 1)."""
    views = {
        "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    }
    colours = np.array([[int(look.colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for look in LOOKS])
    for matrix in views.values():
        seen = np.clip(colours @ np.array(matrix).T, 0, 1)
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
        assert distances[~np.eye(len(LOOKS), dtype=bool)].min() > 0.12


def test_notebook_forms(dequant, comparison):
    for result in (dequant, comparison, simulate_workload(TWO, "toy", "bf16"), compare_workload(TWO, "toy", ["bf16", "msd-int8"])):
        text = result._repr_html_()
        assert text.startswith('<div class="msdsim">')
        assert_html(text)
        assert len(text) < 30_000
    assert "&lt;down&gt;" in simulate_workload(TWO, "toy", "bf16")._repr_html_()


def test_bars_of_the_notebook_fill_the_whole_time(dequant):
    text = dequant._repr_html_()
    widths = [sum(float(part.split("%")[0]) for part in row.split("width:")[1:])
              for row in text.split('<div class="bar">')[1:] for row in [row.split("</div>")[0]]]
    assert len(widths) == len(dequant.stalls)
    assert widths == pytest.approx([100] * len(widths), abs=0.01)


def test_pages_stand_alone(dequant, comparison):
    pages = [html.run_page(dequant), html.comparison_page(comparison), html.workload_page(simulate_workload(TWO, "toy", "bf16")),
             html.workload_comparison_page(compare_workload(TWO, "toy", ["bf16", "msd-int8"]))]
    for page in pages:
        assert page.startswith("<!doctype html>")
        assert_html(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))
        assert page.count("<script>") == 1
        assert 'class="bar"' in page
