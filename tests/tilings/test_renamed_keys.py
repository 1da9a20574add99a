"""Keys of tilings that have other names now: the old ones are read for one release, with a note, everywhere a tiling goes."""

from __future__ import annotations

import json
import warnings

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.dataflows.base import RenamedKey
from msdsim.errors import TilingError
from msdsim.explore.sweep.run import run_sweep

RENAMED = [("bf16", "gemm:m=40,k=256,n=64", "band", "swizzle", 2), ("bf16", "gemm:m=4,k=256,n=64", "split_k", "k_parts", 2),
           ("dequant-int8", "gemm:m=40,k=64,n=64", "band", "swizzle", 2), ("msd-int8", "gemm:m=4,k=256,n=64", "split_k", "decompose_k", 128),
           ("msd-int8", "gemm:m=4,k=64,n=64", "split_m", "decompose_m", 1)]


@pytest.mark.parametrize(("dataflow", "problem", "old", "new", "value"), RENAMED)
def test_the_old_name_means_the_new_one(dataflow, problem, old, new, value):
    with pytest.warns(RenamedKey, match=f"tiling key '{old}' is '{new}' now; the old name goes with the next release"):
        found = msdsim.simulate(problem, "toy", dataflow, tiling={old: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = msdsim.simulate(problem, "toy", dataflow, tiling={new: value})
    assert found.tiling == again.tiling
    assert found.tiling[new] == value
    assert found.cycles == again.cycles
    with pytest.raises(TilingError, match=f"tiling key '{old}' is '{new}' now, and both are given"):
        msdsim.simulate(problem, "toy", dataflow, tiling={old: value, new: value})


def test_commands_say_it_in_a_note(capsys):
    assert run_program(["run", "gemm:m=4,k=256,n=64", "--hw", "toy", "--tiling", "split_k=2", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["tiling"]["k_parts"] == 2
    assert err == "note: tiling key 'split_k' is 'k_parts' now; the old name goes with the next release\n"


def test_sweeps_take_the_old_name():
    with pytest.warns(RenamedKey):
        [row] = run_sweep({"problem": "gemm:m=4,k=256,n=64", "hw": "toy", "parameters": {"tiling.split_k": [2]}})
    assert row["tiling.k_parts"] == 2


def test_goldens_of_the_old_name_are_the_same_schedules(tmp_path, capsys):
    golden = tmp_path / "golden.json"
    assert run_program(["schedule", "record", "gemm:m=40,k=256,n=64", "--hw", "toy", "--tiling", "swizzle=2", "--out", str(golden)]) == 0
    text = golden.read_text(encoding="utf-8")
    golden.write_text(text.replace('"swizzle"', '"band"').replace('"k_parts"', '"split_k"'), encoding="utf-8")
    capsys.readouterr()
    assert run_program(["schedule", "verify", str(golden)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ok  ")
    assert err == ""
