"""Files appear whole or not at all."""

from __future__ import annotations

import json

import pytest

from msdsim.errors import InputError
from msdsim.report.files import finite, replacing, require_writable, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_the_ending(tmp_path):
    with replacing(tmp_path / "a.npz") as temporary:
        assert temporary.suffix == ".npz"
        assert temporary.parent == tmp_path
        temporary.write_text("x", encoding="utf-8")


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text(encoding="utf-8") == "new"


def test_a_device_is_written_to_and_not_replaced():
    write_text("/dev/null", "x")
    require_writable("/dev/null", "--json")
    with open("/dev/null", encoding="utf-8") as device:
        assert device.read() == ""


def test_what_cannot_be_written_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no/a' cannot be written: No such file or directory$"):
        write_text(tmp_path / "no" / "a", "x")


def test_json_has_no_words_for_infinity():
    document = finite({"a": float("inf"), "b": [float("nan"), 1.5, 2], "c": ("x", True)})
    assert json.dumps(document, allow_nan=False) == '{"a": null, "b": [null, 1.5, 2], "c": ["x", true]}'
