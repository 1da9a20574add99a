"""Shipped data files: found by name, and clear words when something about them is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdsim.errors import ChipError, InputError, ProblemError
from msdsim.hardware import load_hw
from msdsim.problems import parse_problem
from msdsim.resources import data_dir, find_file, shipped_names


def test_names_are_sorted_files_of_the_folder():
    names = shipped_names("hwmodels")
    assert names == sorted(names)
    assert find_file("hwmodels", "chip", "toy") == data_dir("hwmodels") / "toy.toml"


def test_an_installation_without_data_says_so():
    with pytest.raises(InputError) as caught:
        data_dir("nosuchdata")
    assert str(caught.value) == "this installation of msdsim has no nosuchdata; reinstall it"


@pytest.mark.parametrize(
    ("load", "error", "message"),
    [
        (load_hw, ChipError, "chip file 'mine.toml' cannot be read: Permission denied"),
        (parse_problem, ProblemError, "workload file 'mine.toml' cannot be read: Permission denied"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, monkeypatch, load, error, message):
    path = tmp_path / "mine.toml"
    path.touch()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(error) as caught:
        load(str(path))
    assert str(caught.value) == message
