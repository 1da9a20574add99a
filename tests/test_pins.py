"""The tools that judge a change have one version each, which what the package asks for allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PINS = dict(line.split("==") for line in (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8").split("\n")
            if line and not line.startswith("#"))
TOOLS = ("ruff", "mypy", "import-linter", "pytest", "pytest-xdist", "hypothesis", "nbmake", "hatchling")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_pinned_where_the_package_allows_it(tool):
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["test"]
    requirement = next(item for item in map(Requirement, wanted) if item.name == tool)
    assert PINS[tool] in requirement.specifier


def test_ci_uses_the_pins():
    assert re.search(r"pip install .*-c \.ci/constraints\.txt -e '\.\[test,docs\]'", (ROOT / ".ci/run").read_text(encoding="utf-8"))
