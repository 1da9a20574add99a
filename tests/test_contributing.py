"""The ways through the code that CONTRIBUTING.md describes exist."""

from __future__ import annotations

import importlib
import re
import sys
from functools import reduce
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

from msdsim.cli.program import run_program

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PLACES = re.findall(r"`(msdsim[a-z0-9_.]*):([A-Za-z0-9_.]+)`", TEXT)
PATHS = re.findall(r"`((?:msdsim|hwmodels|docs)/[a-z0-9_/.]*)`", TEXT)


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_a_step_is_where_the_text_says(module, name):
    assert reduce(getattr, name.split("."), importlib.import_module(module)) is not None


def test_paths_exist():
    assert len(PLACES) > 20
    assert [path for path in PATHS if not (ROOT / path).exists()] == []


def walked(title):
    """Functions of a walk in their order: of a contract, which is a protocol, that of any file of references."""
    section = TEXT[TEXT.index(title) :].partition("\n###")[0]
    for module, name in re.findall(r"`(msdsim[a-z0-9_.]*):([A-Za-z0-9_.]+)`", section):
        found = reduce(getattr, name.split("."), importlib.import_module(module))
        if name.startswith("Contract."):
            yield "numerics/references/", found.__name__
        elif isinstance(found, FunctionType):
            found = getattr(found, "__wrapped__", found)
            yield found.__code__.co_filename, found.__name__


@pytest.mark.parametrize(("title", "options"), [
    ("### A shape, from the command line to the page", ["--html", "page.html"]),
    ("### A tile of activations, from npz to y", ["--inputs", "in.npz", "--outputs", "out.npz", "--check"]),
])
def test_a_run_goes_the_way_that_the_text_says(title, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("in.npz", x=np.ones((16, 64), np.float32))
    steps, seen = list(walked(title)), []

    def see(frame, event, _):
        if event == "call":
            seen.extend(step for step in steps if step[1] == frame.f_code.co_name and step[0] in frame.f_code.co_filename)

    sys.setprofile(see)
    try:
        code = run_program(["run", "gemm:m=16,k=64,n=48", "--hw", "toy", "--quiet", *options])
    finally:
        sys.setprofile(None)
    assert code == 0
    assert list(dict.fromkeys(seen)) == steps
