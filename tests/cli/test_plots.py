"""Every command that promises a picture writes one."""

from __future__ import annotations

from pathlib import Path

import pytest

P = "gemm:m=4,k=64,n=48"
COMMANDS = {
    "tune": ("tune", P, "--hw", "toy", "--budget", "3"), "accuracy": ("accuracy", "gemm:m=2,k=32,n=16", "--input", "normal"),
    "explain": ("explain", P, "--hw", "toy"), "micro": ("micro", "--hw", "ascend950pr"), "run": ("run", P, "--hw", "toy"),
    "compare": ("compare", P, "--hw", "toy", "--dataflow", "bf16,msd-int8", "--check"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_picture_with_its_text_as_text(cli, name):
    done = cli(*COMMANDS[name], "--plot", "a.svg", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert "<text" in Path("a.svg").read_text()
