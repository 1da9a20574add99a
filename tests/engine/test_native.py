"""The engine compiled ahead: made from this source, never used when it is not, and tick for tick what numba compiles."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

import msdsim
import msdsim.engine.fast as fast
from msdsim.engine.fast import l2_layout, layout, native

from .comparison import assert_equal

SOURCE = Path(fast.__file__).parent
LIBRARY = native.library_path()
needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="no library for this platform")
#: What compiled source may take from outside of it: what ``native`` hashes, and values that it only puts into arrays.
OUTSIDE = {"SET_SKEW", "BANK_SKEW", "DIGITS", "BankedTimings", "Counters", "record", "source_hash", "Block", "Words"}


@needs_library
def test_the_library_is_made_from_this_source():
    assert native.load() is not None, "run `python -m msdsim.engine.fast.native.build` and commit what it makes"


def test_the_hash_covers_all_that_is_compiled():
    named = {Path(name).stem for name in native.SOURCES} | {"layout", "at", "on", "has"}
    for name in native.SOURCES:
        for node in ast.walk(ast.parse((SOURCE / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("msdsim"):
                module = (node.module or "").rsplit(".", 1)[-1]
                assert module in named or all(item.name in OUTSIDE | named for item in node.names), (name, ast.unparse(node))


@pytest.fixture
def other_library(tmp_path, monkeypatch):
    """A place for a library beside the real one, and nothing remembered of the latter."""
    path = tmp_path / "engine.so"
    monkeypatch.setattr(native, "library_path", lambda: path)
    native.load.cache_clear()
    yield path
    native.load.cache_clear()


@needs_library
def test_a_library_of_other_source_is_not_used(other_library, monkeypatch):
    shutil.copy(LIBRARY, other_library)
    assert native.load() is not None
    native.load.cache_clear()
    monkeypatch.setattr(native, "source_hash", lambda: "0" * 64)
    assert native.load() is None


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(200)])
def test_what_is_no_library_is_not_used(other_library, content: bytes):
    assert native.load() is None
    other_library.write_bytes(content)
    native.load.cache_clear()
    assert native.load() is None


@needs_library
@pytest.mark.slow
def test_numba_compiles_the_same_machine(monkeypatch):
    """The bandwidth model and the banked one, L2 with room and without, with and without a timeline."""
    def records() -> list[object]:
        return [msdsim.simulate(f"gemm:m=32,k=1024,n={n}", hardware, dataflow, memory=memory, timeline=timeline).record
                for hardware in (msdsim.load_hw("ascend910b1"), msdsim.load_hw("ascend910b1").replace(l2__capacity_bytes=2**20))
                for n, dataflow, timeline in ((512, "bf16", False), (1000, "msd-int8", True))
                for memory in ("bandwidth", "banked")]

    assert native.load() is not None
    ahead = records()
    monkeypatch.setattr(native, "load", lambda: None)
    for record, expected in zip(records(), ahead, strict=True):
        assert_equal(expected, record)


def test_every_word_of_the_arrays_is_described():
    text = layout.describe()
    for name in ("P_FREE", "X_AT", "G_STATUS", "I_COST", "K_UNITS", "T_UNCHARGED", "PC_TURN", "OW_LINES"):
        assert re.search(rf"^ +\d+ {name} +\S", text, re.MULTILINE), name
    used = {name for file in native.SOURCES for name in re.findall(r"\bat\.([A-Z]+_[A-Z0-9_]+)\b", (SOURCE / file).read_text())}
    assert all(hasattr(layout, name) for name in used)
    used = {name for file in native.SOURCES for name in re.findall(r"\bon\.([A-Z]+_[A-Z0-9_]+)\b", (SOURCE / file).read_text())}
    assert used
    assert all(hasattr(l2_layout, name) for name in used)
