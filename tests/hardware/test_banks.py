"""Banks of UB: cycles of a repeat, worked out by hand from the vendor's pages."""

from __future__ import annotations

from fractions import Fraction

import pytest

from msdsim.errors import ChipError
from msdsim.hardware import load_hw
from msdsim.hardware.units.banks import BankModel, Pattern, Steps, bank_model

#: A repeat of fp32: 256 B, eight rows of UB.
REPEAT = Steps(256)


def model(chip: str) -> BankModel:
    return bank_model(load_hw(chip).chip.vector.banks)


@pytest.fixture
def a2():
    return model("ascend910b1")


@pytest.fixture
def a5():
    return model("ascend950pr")


def test_banks_of_the_vendors_addresses(a2, a5):
    """0x10000 is bank 16, 0x10020 bank 17, 0x20020 bank 33, 0x10E20 bank 17 again; on the 950, 0x4100 is bank 1 of group 0."""
    assert [a2.bank(at // 32) for at in (0x10000, 0x10020, 0x20020, 0x10E20)] == [16, 17, 33, 17]
    assert [a5.bank(at // 32) for at in (0x0000, 0x4100, 0x10000, 0x20)] == [0, 8, 0, 1]


@pytest.mark.parametrize(("addresses", "cycles"), [
    pytest.param((0, 0x10100, 0x20000), 1, id="1: banks of their own"),
    pytest.param((0, 0x4000, 0x10000), 2, id="2: both sources in one bank"),
    pytest.param((0, 0x10000, 0x14100), 2, id="3: both sources in one group"),
    pytest.param((0, 0x10100, 0x4000), 1, id="4: result in the very banks of a source, so it waits a repeat"),
    pytest.param((0, 0x10100, 0x4020), 2, id="5: result one row off"),
    pytest.param((0, 0x10100, 0x10100), 1, id="6: in place"),
    pytest.param((0, 0x4000, 0x8000), 2, id="Add of 8192 x 8192 before"),
    pytest.param((0, 0x4100, 0x10000), 1, id="... and after"),
    # Eight rows of each in one group: two reads, and the write of the same rows one row on meets both.
    pytest.param((0, 0x4000, 0x8020), 3, id="all three in one bank, the result off"),
])
def test_two_sources_and_a_result(a2, addresses, cycles):
    assert a2.cycles(Pattern((REPEAT, REPEAT), REPEAT, 1, 64), addresses) == cycles


def test_a_source_of_one_row_a_repeat(a2):
    """Scenarios 7 and 8: repeat by repeat one row on meets the other source every other time, eight rows on never."""
    other = Steps(256, 256)
    assert a2.cycles(Pattern((Steps(32, 32), other), other, 64, 1), (0, 0x10100, 0x10100)) == Fraction(3, 2)
    assert a2.cycles(Pattern((Steps(32, 256), other), other, 64, 1), (0, 0x10100, 0x10100)) == 1


@pytest.mark.parametrize(("stride", "cycles"), [(16, 8), (8, 4), (4, 2), (1, 1), (145, 1), (144, 8)])
def test_writes_into_one_group(a2, stride, cycles):
    """Eight rows of one repeat, ``stride`` rows apart: 8 and 4 cycles at strides of 16 and 8; 144 and 145 are the ND2NZ sample's."""
    assert a2.cycles(Pattern((), Steps(256, 512, stride), 4, 1), (0x1FE00,)) == cycles


def test_a_narrow_result_meets_its_source_half_the_time(a2):
    """fp32 to fp16, source and result in one bank of each group.  Reads take rows 0-7, 8-15, ...; writes 0-3, 4-7, 8-11, 12-15.
    The first write lies in the banks just read, so it waits: it meets reads of 8-15 and costs nothing.  The fourth, 12-15 beside
    reads of 8-15, does."""
    pattern = Pattern((REPEAT,), Steps(128), 1, 64)
    assert a2.cycles(pattern, (0, 0x4000)) == Fraction(5, 4)
    assert a2.cycles(pattern, (0, 0x10000)) == 1


def test_a_stretch_in_other_banks_counts_for_its_length(a2):
    """A result that begins 16 repeats before the end of the source's banks: one row off, it conflicts for those 16 of 64."""
    assert a2.cycles(Pattern((REPEAT,), REPEAT, 1, 64), (0, 0x10000 - 16 * 256 + 32)) == 1 + Fraction(16, 64)


def test_a_single_repeat_in_place_does_not_wait_for_itself(a2):
    assert a2.cycles(Pattern((REPEAT,), REPEAT, 1, 1), (0, 0)) == 1


def test_rows_in_the_same_banks(a2):
    """In place, one repeat a row of 512 B: the late write always meets a read of the same banks; rows of 768 B alternate."""
    for pitch, cycles in ((512, 2), (768, 1)):
        rows = Steps(256, pitch)
        assert a2.cycles(Pattern((rows,), rows, 8, 1), (0, 0)) == cycles


@pytest.mark.parametrize(("addresses", "cycles"), [
    pytest.param((0, 0x5000, 0xA100), 2, id="case 1: both sources in one bank"),
    pytest.param((0, 0x5100, 0xA000), 1, id="case 2: two reads of a group, in different banks"),
    pytest.param((0, 0x5100, 0x0000), 1, id="case 3: in place"),
    pytest.param((0, 0x5000, 0xA000), 2, id="case 6: all in one bank"),
])
def test_two_sources_on_the_950(a5, addresses, cycles):
    assert a5.cycles(Pattern((REPEAT, REPEAT), REPEAT, 1, 64), addresses) == cycles


def test_strided_writes_on_the_950(a5):
    """Eight rows 256 B apart: one group, eight cycles (case 12)."""
    assert a5.cycles(Pattern((), Steps(256, 32, 8), 8, 1), (0x4100,)) == 8


def test_every_chip_has_the_banks_of_its_generation():
    for name in ("ascend910b1", "ascend910b2", "ascend910b3", "ascend910b4", "ascend910c-die"):
        assert model(name) is model("ascend910b1")
    assert model("ascend950dt") is model("ascend950pr")
    assert load_hw("toy").chip.vector.banks is None


def test_a_chip_can_change_its_banks():
    chip = load_hw("ascend910b1").replace(vector__banks__group_reads=2).chip
    assert bank_model(chip.vector.banks).cycles(Pattern((REPEAT, REPEAT), REPEAT, 1, 64), (0, 0x10000, 0x20100)) == 1
    with pytest.raises(ChipError, match=r"vector\.banks\.groups.*must be above 0"):
        load_hw("ascend910b1").replace(vector__banks__groups=0)
