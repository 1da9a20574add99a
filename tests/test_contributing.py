"""The ways through the code that CONTRIBUTING.md describes exist."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

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
