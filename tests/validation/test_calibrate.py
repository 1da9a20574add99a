"""Constants are found again from times that were made with other ones; the written chip file predicts those times."""

from __future__ import annotations

import tomllib

import pytest

from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.explore.calibrate import calibrate, constants_of
from msdsim.explore.measurements import Measurement
from msdsim.explore.validate import predict
from msdsim.hardware import load_hw

PROBLEMS = ["gemm:m=16,k=64,n=96", "gemm:m=48,k=256,n=128", "gemm:m=128,k=512,n=256", "gemm:m=32,k=1024,n=64"]


@pytest.fixture
def chip(tmp_path):
    """The toy chip with two numbers that may be fitted."""
    path = tmp_path / "mine.toml"
    path.write_text('extends = "toy"\nclock_mhz = 1000\n'
                    'hbm.bandwidth_gbps = { value = 128, kind = "assumed", source = "a guess" }\n'
                    'launch.head_us = { value = 2, kind = "inferred", source = "a guess" }\n')
    return path


def rows(hardware, truth) -> list[Measurement]:
    """What a chip with other numbers would have measured."""
    found = []
    for index, problem in enumerate(PROBLEMS):
        for scope in ("task", "kernel"):
            row = Measurement(id=f"{index}-{scope}", chip=hardware.name, problem=problem, dataflow="bf16", scope=scope,
                              time_us=1, source="one" if index % 2 else "two")
            found.append(row.model_copy(update={"time_us": predict(row, truth).predicted_us}))
    return found


def test_numbers_are_found_again(chip):
    hardware = load_hw(str(chip))
    truth = hardware.replace(hbm__bandwidth_gbps=90, launch__head_us=3.2)
    found = calibrate(rows(hardware, truth), hardware, ["hbm.bandwidth_gbps", "launch.head_us"])
    values = {item.key: item.after for item in found.constants}
    assert values["hbm.bandwidth_gbps"] == pytest.approx(90, rel=0.03)
    assert values["launch.head_us"] == pytest.approx(3.2, rel=0.03)
    assert found.before.median_error > 0.1 > 0.02 > found.fitted.median_error
    assert [fold.group for fold in found.folds] == ["two", "one"]
    assert all(fold.after.median_error < fold.before.median_error for fold in found.folds)


def test_what_no_row_depends_on_stays_and_is_said_so(chip):
    hardware = load_hw(str(chip))
    kernels = [row for row in rows(hardware, hardware.replace(hbm__bandwidth_gbps=100)) if row.scope == "kernel"]
    found = calibrate(kernels, hardware, ["launch.head_us", "hbm.bandwidth_gbps"])
    launch, memory = found.constants
    assert launch.after == launch.before == 2
    assert launch.determined == "hardly determined by these rows"
    assert memory.deviation < launch.deviation


def test_from_the_command_line(chip, tmp_path, capsys):
    hardware = load_hw(str(chip))
    text = "".join(f'[[row]]\nid = "{row.id}"\nchip = "mine"\nproblem = "{row.problem}"\ndataflow = "bf16"\n'
                   f'time_us = {row.time_us}\nscope = "{row.scope}"\nsource = "{row.source}"\n'
                   for row in rows(hardware, hardware.replace(hbm__bandwidth_gbps=90)))
    file, out = tmp_path / "rows.toml", tmp_path / "fitted.toml"
    file.write_text(text)
    assert run_program(["calibrate", str(file), "--hw", str(chip), "--constants", "hbm.bandwidth_gbps", "--out", str(out)]) == 0
    assert "each source predicted without its own rows" in capsys.readouterr().out
    written = tomllib.loads(out.read_text())
    assert written["extends"] == "mine.toml"
    assert "calibrated on rows.toml" in written["hbm"]["bandwidth_gbps"]["source"]
    assert load_hw(str(out)).chip.hbm.bandwidth_gbps == pytest.approx(90, rel=0.03)


@pytest.mark.parametrize(("names", "text"), [
    (["clock_mhz"], "is unstated, and only numbers that are assumed or inferred"), (["hbm.no"], "is no number of chip 'mine'"),
])
def test_what_cannot_be_fitted_is_refused(chip, names, text):
    with pytest.raises(InputError, match=text):
        constants_of(load_hw(str(chip)), names)


def test_too_few_rows(chip):
    with pytest.raises(InputError, match="at least 3 are needed"):
        calibrate([], load_hw(str(chip)), ["hbm.bandwidth_gbps"])
