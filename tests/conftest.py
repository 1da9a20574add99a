"""Shared fixtures and the settings of property tests."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
    # The tests start many processes: without a place for compiled modules each of them would compile all of msdsim again.
    # Those of this run find them in a folder of its own, which goes away with it.
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = tempfile.mkdtemp(prefix="msdsim-tests-")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)

# Before numpy is imported: on a busy machine several BLAS threads slow small matrices down many times over.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

# Deterministic examples everywhere: a failure seen once is seen again.
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("MSDSIM_HYPOTHESIS", "default"))


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run a command line in an empty folder: exit code, what it printed, and its errors."""
    from msdsim.cli.program import run_program

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        return run_program(list(map(str, arguments))), *capsys.readouterr()

    return run


def pytest_collection_modifyitems(items):
    """``test_tiny.py`` runs first: when it fails, nothing else needs to be read."""
    items.sort(key=lambda item: item.path.name != "test_tiny.py")
