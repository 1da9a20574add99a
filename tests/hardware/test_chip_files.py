"""Chip files with mistakes: one line each, with the file, the key and what is wanted."""

from __future__ import annotations

import pytest

from msdsim.errors import ChipError, InputError, UnknownNameError
from msdsim.hardware import load_hw
from msdsim.resources import data_dir

TOY = (data_dir("hwmodels") / "toy.toml").read_text(encoding="utf-8")
FORMATS = "bf16, fp16, fp32, fp8_e4m3fn, fp8_e5m2, fp4_e2m1, int8, int4, int32, mxfp8, mxfp4"
OPS = ("add, sub, mul, div, max, min, adds, muls, maxs, mins, abs, exp, cast, dup, copy, select, fold_max, fold_add, "
       "reduce_max, reduce_add")
CHIPS = "ascend910b1, ascend910b2, ascend910b3, ascend910b4, ascend910c-die, ascend950dt, ascend950pr, toy"


def load_text(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_hw(str(path))


def edited(old, new):
    assert old in TOY
    return TOY.replace(old, new)


def on_toy(text):
    return f'extends = "toy"\n{text}'


FILE = "chip file 'mine.toml'"
MISTAKES = {
    "missing": (edited("clock_mhz = {", "# {"), f"{FILE}: key 'clock_mhz' is missing"),
    "misspelt": (
        edited("aiv_per_aic", "aiv_per_aicc"),
        f"{FILE}: key 'cores.aiv_per_aicc' is not known; did you mean 'cores.aiv_per_aic'?",
    ),
    "misspelt table": (on_toy("[hmb]\nefficiency = 1"), f"{FILE}: key 'hmb' is not known; did you mean 'hbm'?"),
    "nothing like it": (
        on_toy("[cores]\nzebra = 1"),
        f"{FILE}: key 'cores.zebra' is not known (known here: aic, aiv_per_aic)",
    ),
    "misspelt deep": (
        on_toy("[paths.gm_l1]\nlatncy_cycles = 3"),
        f"{FILE}: key 'paths.gm_l1.latncy_cycles' is not known; did you mean 'paths.gm_l1.latency_cycles'?",
    ),
    "misspelt pipe": (
        edited("MTE3 = {", "MTE9 = {"),
        f"{FILE}: key 'dispatch.queue_depth.MTE9' is not known; did you mean 'dispatch.queue_depth.MTE3'?",
    ),
    "missing pipe": (edited("FIX = {", "# {"), f"{FILE}: key 'dispatch.queue_depth.FIX' is missing"),
    "misspelt operation": (
        edited("[vector.ops.muls]", "[vector.ops.mulls]"),
        f"{FILE}: key 'vector.ops.mulls' is not a Vector operation (known: {OPS}); key 'vector.ops.muls' is missing",
    ),
    "half a range": (
        on_toy('[energy.mac_pj]\nbf16 = { value = 1, low = 0.5, kind = "assumed" }'),
        f"{FILE}, key 'energy.mac_pj.bf16': a range has both low and high beside its value",
    ),
    "zero": (on_toy("clock_mhz = 0"), f"{FILE}: key 'clock_mhz' = 0 must be above 0"),
    "negative": (on_toy("[cores]\naic = -2"), f"{FILE}: key 'cores.aic' = -2 must be above 0"),
    "negative cycles": (
        on_toy("[dispatch]\nflag_cycles = -1"),
        f"{FILE}: key 'dispatch.flag_cycles' = -1 must be at least 0",
    ),
    "fraction": (on_toy("[cores]\naic = 2.5"), f"{FILE}: key 'cores.aic' = 2.5 must be a whole number"),
    "too many": (on_toy("[cores]\naic = 2000"), f"{FILE}: key 'cores.aic' = 2000 must be at most 1024"),
    "share above one": (on_toy("[hbm]\nefficiency = 1.01"), f"{FILE}: key 'hbm.efficiency' = 1.01 must be at most 1"),
    "text": (on_toy('clock_mhz = "1000"'), f"{FILE}: key 'clock_mhz' = '1000' must be a number"),
    "truth value": (on_toy("[cores]\naic = true"), f"{FILE}: key 'cores.aic' = true must be a number"),
    "infinite": (on_toy("clock_mhz = inf"), f"{FILE}: key 'clock_mhz' = inf must be finite"),
    "not a number": (on_toy("clock_mhz = nan"), f"{FILE}: key 'clock_mhz' = nan must be finite"),
    "number for text": (on_toy("description = 3"), f"{FILE}: key 'description' = 3 must be text"),
    "number for table": (on_toy("l2 = 3"), f"{FILE}: key 'l2' = 3 must be a table"),
    "table for number": (on_toy("[clock_mhz]\nfast = 1"), f"{FILE}: key 'clock_mhz' = a table must be a number"),
    "unknown arch": (on_toy('arch = "910"'), f"{FILE}: key 'arch' = '910' must be '2201', '3510' or 'toy'"),
    "unknown kind": (
        on_toy('clock_mhz = { value = 1, kind = "guess" }'),
        f"{FILE}, key 'clock_mhz': kind 'guess' is not one of measured, vendor, paper, simulator, inferred, assumed",
    ),
    "unknown field": (
        on_toy('clock_mhz = { value = 1, sauce = "x" }'),
        f"{FILE}, key 'clock_mhz': unknown field 'sauce' (a figure has value, kind and source)",
    ),
    "figure without value": (
        on_toy('clock_mhz = { kind = "vendor", source = "x" }'),
        f"{FILE}, key 'clock_mhz': a figure with a kind needs a value",
    ),
    "bad sources": (on_toy("[sources]\nini = 3"), f"{FILE}: key 'sources' must be a table of texts"),
    "extends itself": ('extends = "mine.toml"', f"{FILE} extends itself; remove an 'extends' line"),
    "extends a number": ("extends = 3", f"{FILE}: key 'extends' = 3 must be the name or the path of a chip file"),
    "second path": (
        edited('source = "L0C"\ndestination = "L1"\npipe = "FIX"', 'source = "L1"\ndestination = "L0A"\npipe = "MTE1"'),
        f"{FILE}: key 'paths.l1_l0a' is a second path L1 -> L0A (the first is 'paths.l0c_l1'); remove one",
    ),
    "wrong pipe": (
        on_toy('[paths.ub_gm]\npipe = "MTE2"'),
        f"{FILE}: key 'paths.ub_gm.pipe' = 'MTE2' does not drive UB -> GM; it is MTE3",
    ),
    "no such path": (
        on_toy('[paths.l0c_l1]\ndestination = "L0A"'),
        f"{FILE}: key 'paths.l0c_l1': no pipe moves data L0C -> L0A; remove the path",
    ),
    "no window": (
        edited("interval_cycles = { value = 10, kind = \"assumed\", source = \"toy chip\" }\n"
               "latency_cycles = { value = 90, kind = \"assumed\", source = \"toy chip\" }\n"
               "bytes_per_cycle = { value = 64, kind = \"assumed\", source = \"toy chip\" }\n"
               "granule_bytes = { value = 32, kind = \"assumed\", source = \"toy chip\" }\n"
               "outstanding_bytes = { value = 16384, kind = \"assumed\", source = \"toy chip\" }\n"
               "split_request_cycles = { value = 2, kind = \"assumed\", source = \"toy chip\" }\n\n"
               "[paths.gm_l0a]",
               "interval_cycles = 1\nlatency_cycles = 1\nbytes_per_cycle = 1\ngranule_bytes = 1\n[paths.gm_l0a]"),
        f"{FILE}: key 'paths.gm_l1.outstanding_bytes' is missing: a path to or from GM needs it",
    ),
    "window inside a core": (
        on_toy("[paths.l1_l0a]\noutstanding_bytes = 4096"),
        f"{FILE}: key 'paths.l1_l0a.outstanding_bytes' = 4096 has no meaning for a path inside a core; remove it",
    ),
    "small window": (
        on_toy("[paths.gm_l1]\noutstanding_bytes = 512"),
        f"{FILE}: key 'paths.gm_l1.outstanding_bytes' = 512 is below memory.chunk_bytes 1024; "
        "raise it or lower the chunk",
    ),
    "odd granule": (
        on_toy("[paths.gm_l1]\ngranule_bytes = 96"),
        f"{FILE}: key 'paths.gm_l1.granule_bytes' = 96 does not divide memory.chunk_bytes 1024",
    ),
    "part of a set": (
        on_toy("[l2]\nways = 3"),
        f"{FILE}: key 'l2.capacity_bytes' = 1048576 is not a whole number of sets of 3 x 512 bytes; "
        "the closest is 1047552",
    ),
    "part of a line": (
        on_toy("[memory]\nchunk_bytes = 800"),  # a multiple of the granule of 32, not of the line of 512
        f"{FILE}: key 'memory.chunk_bytes' = 800 is not a multiple of l2.line_bytes 512",
    ),
    "unknown format": (
        on_toy('[cube.rates.bf16]\na = "bf17"'),
        f"{FILE}: key 'cube.rates.bf16.a' = 'bf17' is not a format (known: {FORMATS})",
    ),
    "wrong accumulator": (
        on_toy('[cube.rates.int8]\naccumulator = "fp32"'),
        f"{FILE}: key 'cube.rates.int8.accumulator' = 'fp32' must be 'int32' for int8 x int8",
    ),
    "mixed": (
        on_toy('[cube.rates.int8]\nb = "bf16"'),
        f"{FILE}: key 'cube.rates.int8' multiplies int8 by bf16; integers go with integers only",
    ),
    "second rate": (
        on_toy('[cube.rates.again]\na = "int8"\nb = "int8"\naccumulator = "int32"\n'
               'fractal_k = 32\ncycles_per_fractal = 1'),
        f"{FILE}: key 'cube.rates.again' gives int8 x int8 a second rate (the first is 'cube.rates.int8'); remove one",
    ),
    "too exact": (
        on_toy("[l2]\nread_gbps = 256.000000001"),
        f"{FILE}: key 'l2.read_gbps' is the exact rate 256000000001/1000000000 (after division by clock_mhz), "
        "and neither term may be above 10000000; give fewer digits",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path, case):
    text, message = MISTAKES[case]
    with pytest.raises(ChipError) as caught:
        load_text(tmp_path, text)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_invalid_toml_says_where(tmp_path):
    with pytest.raises(ChipError) as caught:
        load_text(tmp_path, "[l2\nways = 3")
    assert str(caught.value).startswith("chip file 'mine.toml' is not valid TOML: ")
    assert "line 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_are_invalid_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ChipError, match=r"^chip file 'mine.toml' is not valid TOML: 'utf-8' codec"):
        load_hw(str(path))


def test_several_mistakes_come_together_and_the_line_stays_short(tmp_path):
    with pytest.raises(ChipError) as caught:
        load_text(tmp_path, on_toy("clock_mhz = 0\n[cores]\naic = 0\naivs = 2"))
    assert str(caught.value) == (
        "chip file 'mine.toml': key 'cores.aivs' is not known (known here: aic, aiv_per_aic); "
        "key 'clock_mhz' = 0 must be above 0; key 'cores.aic' = 0 must be above 0"
    )
    with pytest.raises(ChipError) as caught:
        load_text(tmp_path, "")
    assert str(caught.value) == (
        "chip file 'mine.toml': key 'description' is missing; key 'arch' is missing; key 'clock_mhz' is missing; "
        "key 'cores' is missing; and 11 more"
    )


def test_rules_between_numbers_come_together(tmp_path):
    with pytest.raises(ChipError) as caught:
        load_text(tmp_path, on_toy('[l2]\nways = 3\n[paths.ub_gm]\npipe = "FIX"'))
    assert str(caught.value) == (
        "chip file 'mine.toml': key 'paths.ub_gm.pipe' = 'FIX' does not drive UB -> GM; it is MTE3; "
        "key 'l2.capacity_bytes' = 1048576 is not a whole number of sets of 3 x 512 bytes; the closest is 1047552"
    )


def test_unknown_chip_lists_the_known_ones():
    with pytest.raises(UnknownNameError) as caught:
        load_hw("ascend910b7")
    assert str(caught.value) == f"unknown chip 'ascend910b7'; did you mean 'ascend910b4'? (known: {CHIPS})"
    assert caught.value.exit_code == 2


def test_missing_file_lists_the_shipped_names():
    with pytest.raises(InputError) as caught:
        load_hw("no/such.toml")
    assert str(caught.value) == (
        f"chip file 'no/such.toml' does not exist; give a path to a .toml file or a shipped name ({CHIPS})"
    )


def test_extends_of_an_unknown_chip_names_the_file(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        load_text(tmp_path, 'extends = "toyy"')
    assert str(caught.value) == (
        f"chip file 'mine.toml', key 'extends': unknown chip 'toyy'; did you mean 'toy'? (known: {CHIPS})"
    )


def test_extends_in_a_circle(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    with pytest.raises(ChipError) as caught:
        load_hw(str(tmp_path / "a.toml"))
    assert str(caught.value) == "chip file 'a.toml' extends itself; remove an 'extends' line"


def test_extends_takes_what_is_not_given_and_a_file_beside(tmp_path):
    figure = '{ value = 64, kind = "paper", source = "a page" }'
    (tmp_path / "base.toml").write_text(on_toy(f"[hbm]\nbandwidth_gbps = {figure}"))
    found = load_text(tmp_path, 'extends = "base.toml"\n[l2]\nread_gbps = 512')
    toy = load_hw("toy")
    assert found.name == "mine"
    assert (found.chip.hbm.bandwidth_gbps, found.chip.l2.read_gbps) == (64, 512)
    assert found.provenance["hbm.bandwidth_gbps"].kind == "paper"
    assert found.provenance["l2.read_gbps"].kind == "unstated"
    assert found.provenance["clock_mhz"] == toy.provenance["clock_mhz"]
    assert found.chip.cube == toy.chip.cube


def test_sources_are_looked_up_or_taken_as_text(tmp_path):
    found = load_text(tmp_path, on_toy(
        'clock_mhz = { value = 1, kind = "vendor", source = "ini" }\n'
        '[cores]\naic = { value = 1, kind = "assumed", source = "a guess" }\n[sources]\nini = "the ini file"'
    ))
    assert found.provenance["clock_mhz"].source == "the ini file"
    assert found.provenance["cores.aic"].source == "a guess"


def test_whole_numbers_written_with_a_point_are_whole(tmp_path):
    found = load_text(tmp_path, on_toy("clock_mhz = 1500.0\n[cores]\naic = 4.0")).chip
    assert (found.clock_mhz, found.cores.aic) == (1500, 4)
    assert isinstance(found.clock_mhz, int)
    assert isinstance(found.cores.aic, int)
