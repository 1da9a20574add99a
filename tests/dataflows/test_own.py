"""Dataflows of users: from a file anywhere, and from a package with the entry-point group; mistakes in them are one sentence."""

from __future__ import annotations

import json
import sys

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.dataflows.base import DATAFLOWS
from msdsim.dataflows.lookup import dataflows_for
from msdsim.dataflows.own import load_installed
from msdsim.errors import InputError

P = "gemm:m=4,k=64,n=48"
MINE = """\
from dataclasses import replace

from msdsim.dataflows.base import DATAFLOWS

for name in ({names}):
    DATAFLOWS.add(name, replace(DATAFLOWS["bf16"], name=name, description="bf16 under another name",
                                auto=lambda problem, chip: DATAFLOWS["bf16"].tiling(base_m=16, base_n=16, l0_k=16, l1_k=16)))
"""


@pytest.fixture(autouse=True)
def _registry_stays():
    before = dict(DATAFLOWS)
    yield
    for name in [name for name in DATAFLOWS if name not in before]:
        del DATAFLOWS._entries[name]
    load_installed.cache_clear()


@pytest.fixture
def mine(tmp_path):
    def write(*names, text=MINE):
        file = tmp_path / "mine.py"
        file.write_text(text.format(names="".join(f"{name!r}, " for name in names)), encoding="utf-8")
        return str(file)

    return write


def test_a_file_in_the_place_of_a_name(mine, tmp_path, capsys):
    file = mine("file_one")
    found = msdsim.simulate(P, "toy", file)
    assert (found.tiling["base_n"], found.cycles) == (16, msdsim.simulate(P, "toy", "bf16", tiling=found.tiling).cycles)
    assert run_program(["compare", P, "--hw", "toy", "--dataflow", f"bf16,{file}", "--check", "--json", "-"]) == 0
    assert [run["dataflow"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["bf16", "file_one"]
    assert run_program(["tune", P, "--hw", "toy", "--dataflow", file, "--budget", "3", "--quiet"]) == 0
    golden = str(tmp_path / "golden.json")
    assert run_program(["schedule", "record", P, "--hw", "toy", "--dataflow", file, "--out", golden, "--quiet"]) == 0
    assert json.loads((tmp_path / "golden.json").read_text())["dataflow"] == "mine.py"
    assert run_program(["schedule", "verify", golden, "--quiet"]) == 0


def test_one_name_for_two_kinds_of_problems(mine):
    file = mine(text="""\
from dataclasses import replace

from msdsim.dataflows.base import DATAFLOWS

for kind in ("gemm", "grouped_gemm"):
    key = "bf16" if kind == "gemm" else f"{{kind}}:bf16"
    DATAFLOWS.add(key.replace("bf16", "file_of_two"), replace(DATAFLOWS[key], name="file_of_two",
                  auto=lambda problem, chip: DATAFLOWS["bf16"].tiling(base_m=16, base_n=16, l0_k=16, l1_k=16)))
""")
    for problem in (P, "grouped_gemm:groups=2,m=4,k=64,n=48"):
        assert msdsim.simulate(problem, "toy", file).dataflow == "file_of_two"


def test_one_of_several_in_a_file(mine):
    file = mine("several_a", "several_b")
    assert msdsim.simulate(P, "toy", f"{file}:several_b").dataflow == "several_b"
    with pytest.raises(InputError, match=r"registers several gemm dataflows \(several_a, several_b\); name one: .*mine.py:several_a"):
        msdsim.simulate(P, "toy", file)
    with pytest.raises(InputError, match=r"unknown gemm dataflow of '.*mine.py' 'several_c'; did you mean"):
        msdsim.simulate(P, "toy", f"{file}:several_c")
    with pytest.raises(InputError, match=r"registers no attention dataflow .it registers: several_a for gemm, several_b for gemm"):
        msdsim.simulate("attention:batch=1,heads=4,kv_heads=4,head_dim=64,q=1,kv=64", "toy", file)


@pytest.mark.parametrize(("text", "message"), [
    ("x = 1\nimport no_such_module\n", "dataflow file 'mine.py', line 2: ModuleNotFoundError: No module named 'no_such_module'"),
    ("x = (\n", "dataflow file 'mine.py', line 1: SyntaxError"),
    ("x = 1\n", "registers no gemm dataflow (it registers: none)"),
    ("from msdsim.dataflows.base import DATAFLOWS\nDATAFLOWS.add('bf16', DATAFLOWS['bf16'])\n", "line 2: ValueError: dataflow 'bf16' is registered twice"),
])
def test_mistakes_in_a_file(mine, text, message, capsys):
    assert run_program(["run", P, "--hw", "toy", "--dataflow", mine(text=text)]) == 2
    assert message in capsys.readouterr().err


def test_a_dataflow_without_a_choice_of_tiling(mine, capsys):
    file = mine("no_choice", text=MINE.partition(",\n      ")[0] + "))\n")
    assert run_program(["run", P, "--hw", "toy", "--dataflow", file]) == 2
    assert "dataflow 'no_choice' does not say how its tiling is chosen: give it 'auto', or give all keys (base_m, " in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys):
    assert run_program(["run", P, "--dataflow", "nowhere.py"]) == 2
    assert "dataflow file 'nowhere.py' does not exist" in capsys.readouterr().err


@pytest.fixture
def package(tmp_path, monkeypatch):
    """What pip leaves of an installed package: its modules, and metadata with its entry points."""
    def install(text, point="little = little_dataflows_for_a_test"):
        (tmp_path / "little_dataflows_for_a_test.py").write_text(text, encoding="utf-8")
        info = tmp_path / "little_dataflows-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: little-dataflows\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[msdsim.dataflows]\n{point}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "little_dataflows_for_a_test", raising=False)
        load_installed.cache_clear()

    return install


def test_an_installed_package(package, capsys):
    package(MINE.format(names="'little',"))
    assert "little" in dataflows_for("gemm")
    assert msdsim.simulate(P, "toy", "little", check=True).numerics.bit_exact
    assert run_program(["list", "dataflows"]) == 0
    assert "bf16 under another name" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "point", "message"), [
    ("1 / 0\n", "little = little_dataflows_for_a_test", "entry point 'little' of group msdsim.dataflows (little_dataflows_for_a_test): ZeroDivisionError"),
    ("", "little = little_dataflows_for_a_test:missing", "entry point 'little' of group msdsim.dataflows (little_dataflows_for_a_test:missing): AttributeError"),
])
def test_a_package_that_cannot_be_imported_is_named(package, text, point, message, capsys):
    package(text, point)
    assert run_program(["run", P, "--hw", "toy"]) == 2
    assert message in capsys.readouterr().err


def test_what_fails_inside_a_users_dataflow_is_told_with_its_line(mine, capsys, monkeypatch):
    """Building and choosing run the user's code: an error there is no error of msdsim."""
    monkeypatch.delenv("MSDSIM_TRACEBACK", raising=False)
    file = mine("file_breaks", text=MINE.replace("base_m=16", "base_m=problem.rows"))
    assert run_program(["run", P, "--hw", "toy", "--dataflow", file]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: dataflow file 'mine.py', line 7: AttributeError: 'Gemm' object has no attribute 'rows'")
    assert told.count("\n") == 1


@pytest.mark.parametrize("value", ["[16]", "'16'", "16.0", "None", "True"])
def test_tilings_are_whole_numbers(mine, capsys, value):
    file = mine(f"file_of_{abs(hash(value))}", text=MINE.replace("base_m=16", f"base_m={value}"))
    assert run_program(["run", P, "--hw", "toy", "--dataflow", file]) == 2
    assert capsys.readouterr().err == f"error: tiling base_m={value.strip(chr(39))} is no whole number; give one of at least 1\n"
