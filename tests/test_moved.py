"""Modules that have moved answer to their old names for one release."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from msdsim.moved import MOVED, MOVED_NAMES, RENAMED, SPREAD


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_new_module_and_says_so(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"module '{old}' is '{MOVED[old]}' now"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(MOVED[old])
    assert found.__name__ == MOVED[old]


@pytest.mark.parametrize(("old", "name"), [(old, name) for old, (_, names) in MOVED_NAMES.items() for name in names])
def test_a_name_is_found_where_it_was(old, name):
    with pytest.warns(DeprecationWarning, match=f"'{name}' of '{old}' is in '{MOVED_NAMES[old][0]}' now"):
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(MOVED_NAMES[old][0]), name)


@pytest.mark.parametrize(("module", "old"), [(module, old) for module, names in RENAMED.items() for old in names])
def test_an_old_name_is_the_new_one(module, old):
    new = RENAMED[module][old]
    with pytest.warns(DeprecationWarning, match=f"'{old}' of '{module}' is '{new}' now"):
        found = getattr(importlib.import_module(module), old)
    assert found is getattr(importlib.import_module(module), new)
    with pytest.raises(AttributeError, match=f"has no attribute '{old}s'"):
        getattr(importlib.import_module(module), f"{old}s")


def test_the_warning_names_the_importing_line(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text("from msdsim.numerics import distributions\nfrom msdsim.numerics.accuracy import accuracy_study\n")
    found = subprocess.run([sys.executable, "-W", "always", str(script)], capture_output=True, text=True, check=True)
    assert f"{script}:1: DeprecationWarning: module 'msdsim.numerics.distributions' is " in found.stderr
    assert f"{script}:2: DeprecationWarning: module 'msdsim.numerics.accuracy' is " in found.stderr


@pytest.mark.parametrize(("old", "name"), [
    ("msdsim.dataflows", "choose_tiling"), ("msdsim.dataflows.base", "choose_tiling"), ("msdsim.dataflows.gemm", "ragged"),
    ("msdsim.dataflows.gemm", "Grid"), ("msdsim.dataflows.gemm", "check_cube_tiling"), ("msdsim.dataflows.gemm", "register_gemm"),
    ("msdsim.dataflows.bf16", "Bf16Tiling"), ("msdsim.dataflows.dequant", "DequantTiling"), ("msdsim.dataflows.msd", "MsdTiling"),
    ("msdsim.dataflows.mxfp8", "Mxfp8Tiling"), ("msdsim.dataflows.micro", "MicroTiling"),
    ("msdsim.explore.validate", "sensitivity"), ("msdsim.explore.validate", "parity_plot"),
])
def test_a_name_of_a_module_that_came_apart_is_found_in_one_of_its_pieces(old, name):
    module = importlib.import_module(old)
    with pytest.warns(DeprecationWarning, match=f"'{name}' of '{old}' is in 'msdsim[a-z0-9_.]*' now"):
        found = getattr(module, name)
    assert any(getattr(importlib.import_module(new), name, None) is found for new in SPREAD[old])
    assert not hasattr(module, "no_such_name")
