"""Pictures, CSV and pages of sweeps, from the sweep and from its folder; specs of the page run."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

import msdsim
from msdsim.errors import InputError
from msdsim.explore.sweep import parse_spec, run_sweep
from msdsim.report.sweep_plot import cost_of, front, plot_sweep, varied
from tests.ir.kernels import copy_kernel

GRID = {"problem": "gemm:m=4,k=64,n=96", "hw": "toy", "dataflow": ["bf16", "msd-int8"],
        "parameters": {"hbm.bandwidth_gbps": [32, 128], "l2.read_gbps": [100, 200]}}


@pytest.fixture(scope="module")
def rows():
    return run_sweep(GRID)


def test_what_was_varied(rows):
    assert set(varied(rows)) == {"hbm.bandwidth_gbps", "l2.read_gbps"}


@pytest.mark.parametrize(("kind", "axes"), [("auto", 3), ("heat", 3), ("lines", 1), ("front", 1)])
def test_pictures(rows, kind, axes):
    figure = plot_sweep(rows, kind)
    assert len(figure.axes) == axes
    figure.savefig("/dev/null", format="png")


def test_lines_have_the_times(rows):
    [axes] = plot_sweep(rows, "lines").axes
    drawn = sorted(float(y) for line in axes.lines for y in line.get_ydata())
    assert drawn == pytest.approx(sorted(row["time_us"] for row in rows))


def test_a_heat_map_has_a_cell_for_every_point(rows):
    cells = [text.get_text() for axes in plot_sweep(rows, "heat").axes[:2] for text in axes.texts]
    assert sorted(cells) == sorted(f"{row['time_us']:,.3g}" for row in rows)


def test_nothing_beats_the_front(rows):
    cost, _ = cost_of(rows)
    best = front(rows, cost)
    for row in rows:
        assert any(other["time_us"] <= row["time_us"] and other[cost] <= row[cost] for other in best)
    for row in best:
        assert not any(other["time_us"] < row["time_us"] and other[cost] < row[cost] for other in rows)


def test_what_cannot_be_drawn_is_refused(rows):
    with pytest.raises(InputError, match="lines need a parameter"):
        plot_sweep([row for row in rows if row["hbm.bandwidth_gbps"] == row["l2.read_gbps"] or row is rows[0]], "lines")
    with pytest.raises(InputError, match="no point of the sweep ran"):
        plot_sweep([row | {"status": "refused"} for row in rows])


def test_files_of_a_sweep_and_of_its_folder(cli, tmp_path):
    (tmp_path / "s.toml").write_text('problem = "gemm:m={m},k=64,n=96"\nhw = "toy"\n[parameters]\nm = [1, 4, 0]\n')
    done = cli("sweep", "s.toml", "--out", "out", "--jobs", "1", "--csv", "a.csv", "--plot", "a.png", "--html", "a.html", "--json", "a.json")
    assert (done.code, done.err) == (0, "")
    again = cli("report", "out", "--csv", "b.csv", "--plot", "b.svg", "--html", "b.html")
    assert (again.code, again.err) == (0, "")
    one, two = (list(csv.DictReader(Path(name).read_text().splitlines())) for name in ("a.csv", "b.csv"))
    assert one == two
    documents = json.loads(Path("a.json").read_text())["rows"]
    for row, document in zip(one, documents, strict=True):
        assert row["time_us"] == ("" if document.get("time_us") is None else str(document["time_us"]))
    assert "Did not run" in Path("a.html").read_text()
    assert "<text" in Path("b.svg").read_text()
    wrong = cli("report", "nowhere")
    assert (wrong.code, wrong.err) == (2, "error: 'nowhere/results.jsonl' cannot be read (No such file or directory); give the folder of a sweep\n")


def test_objects_are_swept():
    from msdsim.problems import Entry, Gemm, Workload

    two = Workload("two layers", "d", "s", None, (Entry("up", 2, Gemm(m=4, k=64, n=96)), Entry("down", 1, Gemm(m=4, k=96, n=64))))
    slow = msdsim.load_hw("toy").replace(hbm__bandwidth_gbps=64)
    found = msdsim.sweep(two, ["toy", slow], "bf16")
    assert list(found["hw"]) == ["toy", "toy, hbm.bandwidth_gbps=64"]
    assert list(found["time_us"]) == [msdsim.simulate(two, hw, "bf16").time_us for hw in ("toy", slow)]
    assert set(found["problem"]) == {"two layers"}
    kernel = msdsim.sweep(copy_kernel(), "toy", parameters={"hbm.bandwidth_gbps": [64]})
    assert kernel["cycles"].iloc[0] == msdsim.simulate(copy_kernel(), msdsim.load_hw("toy").replace(hbm__bandwidth_gbps=64)).cycles


def test_specs_of_the_page_are_read():
    import tomllib

    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    specs = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(specs) == 4
    for spec in specs:
        assert len(parse_spec(tomllib.loads(spec))) >= 3
