"""The wheel, installed into an empty environment in an empty folder, finds its chips and workloads by name and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
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
    paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
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
