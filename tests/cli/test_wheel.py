"""The wheel, installed into an empty environment in an empty folder, finds its chips and workloads by name and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from msdsim.resources import shipped_names

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments, **options):
    done = subprocess.run([str(item) for item in arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Python of an environment that has the wheel, and otherwise only what this one has (but not its msdsim)."""
    folder = tmp_path_factory.mktemp("wheel")
    command(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    [wheel] = folder.glob("msdsim-*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    command(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    packages = Path(command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    paths = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "others.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    return python


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """An empty folder, and an environment that leads to no source tree."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {"cwd": tmp_path_factory.mktemp("empty"), "env": environment}


def test_the_wheel_is_what_runs(installed, clean):
    where = command(installed, "-c", "import msdsim; print(msdsim.__file__)", **clean)
    assert Path(where.strip()).is_relative_to(installed.parents[1])


@pytest.mark.parametrize(("what", "kind"), [("hw", "hwmodels"), ("workloads", "workloads")])
def test_data_is_found_by_name(installed, clean, what, kind):
    out = command(installed.with_name("msdsim"), "list", what, **clean)
    assert [line.split()[0] for line in out.splitlines()[1:]] == shipped_names(kind)


def test_a_run_and_a_check(installed, clean):
    out = command(installed.with_name("msdsim"), "run", "gemm:m=4,k=64,n=48", "--hw", "ascend910b1", "--dataflow", "msd-int8", "--check",
                  "--json", "-", **clean)
    assert json.loads(out)["numerics"]["bit_exact"]


MINE = """\
def test_decode(golden_schedule):
    golden_schedule("gemm:m=16,k=1024,n=1536", hw="ascend910b1", dataflow="msd-int8", max_slowdown="2%")

def test_kernel(golden_schedule):
    golden_schedule("my.kir", hw="toy", tolerance=0.02)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_pytest_plugin(installed, clean, tmp_path, workers):
    """A project outside of the source tree needs the wheel and five lines."""
    (tmp_path / "test_mine.py").write_text(MINE, encoding="utf-8")
    kernel = command(installed.with_name("msdsim"), "ir", "gemm:m=4,k=64,n=48", "--hw", "toy", **clean)
    (tmp_path / "my.kir").write_text(kernel, encoding="utf-8")
    there = clean | {"cwd": tmp_path}
    pytest_here = (installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers)
    out = command(*pytest_here, "--msdsim-update", **there)
    assert "2 passed" in out
    assert len(list((tmp_path / "golden_schedules").iterdir())) == 2
    assert "2 passed" in command(*pytest_here, **there)
    (tmp_path / "my.kir").write_text(kernel.replace("ring 2", "ring 1"), encoding="utf-8")
    failed = subprocess.run([*map(str, pytest_here)], capture_output=True, text=True, check=False, **there)
    assert failed.returncode == 1
    assert "1 failed, 1 passed" in failed.stdout
    assert " cycles (+" in failed.stdout


PACKAGE = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "little-dataflows"
version = "1.0"

[project.entry-points."msdsim.dataflows"]
little = "little_dataflows.half"
""",
    "little_dataflows/__init__.py": "",
    "little_dataflows/half.py": """\
from dataclasses import replace

from msdsim.dataflows.base import DATAFLOWS

BF16 = DATAFLOWS["bf16"]
DATAFLOWS.add("little", replace(BF16, name="little", description="bf16 under another name",
                                auto=lambda problem, chip: BF16.tiling(base_m=16, base_n=16, l0_k=16, l1_k=16)))
""",
}


@pytest.mark.slow
def test_a_package_of_dataflows(installed, clean, tmp_path):
    """A package that declares the entry-point group is there once it is installed, in commands and in Python."""
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    command(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path / "w", tmp_path)
    [wheel] = (tmp_path / "w").glob("*.whl")
    command(sys.executable, "-m", "pip", "--python", installed, "install", "--quiet", "--no-deps", "--no-index", wheel)
    try:
        program = installed.with_name("msdsim")
        assert "bf16 under another name" in command(program, "list", "dataflows", **clean)
        out = command(program, "compare", "gemm:m=4,k=64,n=48", "--hw", "toy", "--dataflow", "bf16,little", "--check", "--json", "-", **clean)
        first, second = json.loads(out)["runs"]
        assert [first["dataflow"], second["dataflow"]] == ["bf16", "little"]
        assert second["numerics"]["bit_exact"]
    finally:
        command(sys.executable, "-m", "pip", "--python", installed, "uninstall", "--quiet", "--yes", "little-dataflows")
