"""Files that are written with a user's names are read back with the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdsim.problems.parse import parse_inline
from msdsim.problems.workload import load_workload, workload_toml
from msdsim.tilings_file import OperatorTiling, Tilings, read_tilings_file

NAMES = ["q\U0001f600", 'a "b" \\ c', "tab\tline\nend\r\x00\x1f", "del\x7f", "é\u2028漢"]


@pytest.mark.parametrize("name", NAMES)
def test_tilings_keep_every_name(name: str, tmp_path: Path) -> None:
    tilings = Tilings(name, name, "bf16", (OperatorTiling(name, "gemm:m=1,k=32,n=32", "bf16", {"base_m": 16}),))
    file = tmp_path / "t.toml"
    file.write_bytes(tilings.to_toml().encode())
    found = read_tilings_file(file)
    assert (found.workload, found.hw, found.ops) == (name, name, tilings.ops)


def test_names_of_no_encoding_are_written_as_question_marks(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_bytes(Tilings("\udcff", "toy", "bf16", (OperatorTiling("q", "p", "bf16", {}),)).to_toml().encode())
    assert read_tilings_file(file).workload == "?"


def test_workloads_keep_names_beyond_the_basic_plane(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text('description = "\U0001f600"\nsource = "s"\nbatch = 1\n[[op]]\nname = "q\U0001f600\\u007F"\ncount = 1\n'
                    'problem = "gemm:m=1,k=32,n=32"\n', encoding="utf-8")
    again = tmp_path / "again.toml"
    again.write_text(workload_toml(load_workload(str(file), parse_inline)), encoding="utf-8")
    found = load_workload(str(again), parse_inline)
    assert (found.description, found.entries[0].name) == ("\U0001f600", "q\U0001f600\x7f")
