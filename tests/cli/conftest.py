"""The command line in this process, and inputs for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from msdsim.cli.program import run_program


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run a command line in an empty folder; arguments as a list of words."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        capsys.readouterr()
        code = run_program([str(item) for item in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def activations():
    """x for gemm:m=16,k=64,n=48."""
    return np.random.default_rng(7).standard_normal((16, 64), dtype=np.float32)
