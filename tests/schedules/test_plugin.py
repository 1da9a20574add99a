"""The pytest plugin, as a project outside of this one uses it."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

import pytest

import msdsim.schedules.report  # noqa: F401 - see imported()
from msdsim.cli.program import run_program
from msdsim.problems import Gemm
from msdsim.schedules import record_schedule
from tests.schedules.layer import LAYER

pytest_plugins = ["pytester"]
FIVE_LINES = """\
import pytest

@pytest.mark.parametrize("m", [1, 4])
def test_decode(golden_schedule, m):
    golden_schedule(f"gemm:m={m},k=64,n=48", hw="toy", dataflow="msd-int8")
"""


# Where the wheel is installed its entry point brings the plugin; a source tree that was put on the path has none.
LOADED = [] if any(item.name == "msdsim" for item in entry_points(group="pytest11")) else ["-p", "msdsim.pytest_plugin"]


@pytest.fixture(scope="module")
def imported():
    """pytester forgets the modules that a run inside this process has imported, and numpy cannot be imported twice."""
    record_schedule(Gemm(m=1, k=64, n=48), "toy")


@pytest.fixture
def project(imported, pytester):
    """Runs pytest in a folder of its own; exit code and output."""
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_mine.py").write_text(FIVE_LINES, encoding="utf-8")

    def run(*arguments):
        done = pytester.runpytest_inprocess("-p", "no:cacheprovider", *LOADED, *arguments)
        return done.ret, done.stdout.str() + done.stderr.str()

    return run


def change(file, **values):
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(document | values), encoding="utf-8")


def test_recorded_held_and_updated(project, pytester):
    folder = pytester.path / "tests" / "golden_schedules"
    code, out = project()
    assert code == 1
    assert "there is no golden schedule tests/golden_schedules/test_mine.test_decode-1.json yet" in out
    assert not folder.exists()
    code, out = project("--msdsim-update")
    assert code == 0, out
    assert "recorded tests/golden_schedules/test_mine.test_decode-4.json" in out
    files = sorted(file.name for file in folder.iterdir())
    assert files == ["test_mine.test_decode-1.json", "test_mine.test_decode-4.json"]
    assert run_program(["schedule", "verify", str(folder), "--quiet"]) == 0
    file = folder / files[1]
    cycles = json.loads(file.read_text(encoding="utf-8"))["cycles"]
    change(file, cycles=cycles - 10)
    code, out = project()
    assert code == 1
    assert f"\n{cycles - 10:,} -> {cycles:,} cycles (+" in out
    assert f"FAILED tests/test_mine.py::test_decode[4] - Failed: {cycles - 10:,} -> {cycles:,} cycles" in out
    assert "1 passed" in out
    assert project("--msdsim-update")[0] == 0
    assert json.loads(file.read_text(encoding="utf-8"))["cycles"] == cycles


@pytest.mark.slow
def test_side_by_side(project, pytester):
    """In two processes, as pytest-xdist runs them: every test writes a file of its own, and the summary lists all."""
    code, out = project("--msdsim-update", "-n", "2")
    assert code == 0, out
    assert [f"recorded tests/golden_schedules/test_mine.test_decode-{m}.json" in out for m in (1, 4)] == [True, True]
    assert project("-n", "2")[0] == 0


def test_a_kernel_is_found_before_there_is_a_folder_of_schedules(project, pytester, capsys):
    """Its file is named from the schedule's, in a folder that the first recording makes."""
    assert run_program(["ir", "gemm:m=4,k=64,n=48", "--hw", "toy"]) == 0
    (pytester.path / "mine.kir").write_text(capsys.readouterr().out, encoding="utf-8")
    (pytester.path / "tests" / "test_mine.py").write_text(
        'def test_kernel(golden_schedule):\n    golden_schedule("../mine.kir", hw="toy")\n', encoding="utf-8")
    code, out = project("--msdsim-update")
    assert code == 0, out
    assert project()[0] == 0


LIMITS = """\
from msdsim.ir.parser import parse_kernel

P = "gemm:m=4,k=64,n=48"

def test_slower(golden_schedule):
    golden_schedule(P, hw="toy", max_slowdown="2%", name="one")

def test_too_slow(golden_schedule):
    golden_schedule(P, hw="toy", max_slowdown=0.0001, name="one")

def test_tolerance_takes_no_other_problem(golden_schedule):
    golden_schedule("gemm:m=4,k=64,n=32", hw="toy", tolerance=9, name="one")

def test_kernels(golden_schedule):
    golden_schedule("../mine.kir", hw="toy")
    golden_schedule(parse_kernel(open("mine.kir").read()), hw="toy")

def test_mistake(golden_schedule):
    golden_schedule("gemm:m=4,k=64", hw="toy")
"""


def test_limits_kernels_and_mistakes(project, pytester, capsys):
    tmp_path = pytester.path
    assert run_program(["ir", "gemm:m=4,k=64,n=48", "--hw", "toy"]) == 0
    (tmp_path / "mine.kir").write_text(capsys.readouterr().out, encoding="utf-8")
    tests = tmp_path / "tests" / "test_mine.py"
    tests.write_text(LIMITS, encoding="utf-8")
    project("--msdsim-update", "-k", "slower or kernels")
    folder = tmp_path / "tests" / "golden_schedules"
    assert sorted(file.name for file in folder.iterdir()) == ["one.json", "test_mine.test_kernels.2.json", "test_mine.test_kernels.json"]
    assert json.loads((folder / "test_mine.test_kernels.json").read_text(encoding="utf-8"))["problem"]["file"] == "../../mine.kir"
    cycles = json.loads((folder / "one.json").read_text(encoding="utf-8"))["cycles"]
    change(folder / "one.json", cycles=cycles - 1)
    (tmp_path / "mine.kir").write_text((tmp_path / "mine.kir").read_text(encoding="utf-8").replace("ring 2", "ring 1"), encoding="utf-8")
    code, out = project()
    assert code == 1
    assert "4 failed, 1 passed" in out
    assert "FAILED tests/test_mine.py::test_tolerance_takes_no_other_problem" in out
    assert "-      buffer" in out
    assert "limits: most slowdown 0.01%" in out
    assert "FAILED tests/test_mine.py::test_mistake - Failed: gemm: key 'n' is missing" in out


WORKLOAD = """\
def test_layer(golden_schedule):
    golden_schedule("../layer.toml", hw="toy", max_slowdown="2%")

def test_numbers_of_a_kernel(golden_schedule):
    golden_schedule("../mine.kir", hw="toy", reference="bf16:gemm:m=4,k=64,n=48")
"""


def test_workloads_and_numbers_of_kernels(project, pytester, capsys):
    assert run_program(["ir", "gemm:m=4,k=64,n=48", "--hw", "toy"]) == 0
    (pytester.path / "mine.kir").write_text(capsys.readouterr().out, encoding="utf-8")
    (pytester.path / "layer.toml").write_text(LAYER, encoding="utf-8")
    (pytester.path / "tests" / "test_mine.py").write_text(WORKLOAD, encoding="utf-8")
    code, out = project("--msdsim-update")
    assert code == 0, out
    folder = pytester.path / "tests" / "golden_schedules"
    layer = json.loads((folder / "test_mine.test_layer.json").read_text(encoding="utf-8"))
    assert (layer["schema"], layer["dataflow"], [entry["name"] for entry in layer["entries"]]) == \
        ("msdsim.workload_schedule/1", "msd-int8", ["up", "down"])
    numbers = json.loads((folder / "test_mine.test_numbers_of_a_kernel.json").read_text(encoding="utf-8"))["numbers"]
    assert numbers["reference"] == "bf16:gemm:m=4,k=64,n=48"
    assert project()[0] == 0
    # The file of the workload is what counts in a test: another count is another request.
    (pytester.path / "layer.toml").write_text(LAYER.replace("count = 3", "count = 2", 1), encoding="utf-8")
    code, out = project()
    assert code == 1
    assert "operator up count=3 problem=gemm:m=4,k=64,n=48 -> count=2 problem=gemm:m=4,k=64,n=48" in out
