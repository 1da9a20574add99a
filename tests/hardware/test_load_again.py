"""A chip that is loaded again is not parsed again, unless one of its files has changed."""

from __future__ import annotations

from msdsim.hardware import load_hw


def test_the_same_text_is_the_same_chip():
    assert load_hw("ascend910b1") is load_hw("ascend910b1")


def test_a_file_that_changes_is_read_again(tmp_path):
    parent, child = tmp_path / "parent.toml", tmp_path / "child.toml"
    parent.write_text('extends = "toy"\nclock_mhz = 1100\n')
    child.write_text('extends = "parent.toml"\n')
    assert load_hw(str(child)).chip.clock_mhz == 1100
    parent.write_text('extends = "toy"\nclock_mhz = 1200\n')
    assert load_hw(str(child)).chip.clock_mhz == 1200
    child.write_text('extends = "parent.toml"\nclock_mhz = 1300\n')
    assert load_hw(str(child)).chip.clock_mhz == 1300
