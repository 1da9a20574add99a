"""Reports for people: bars that add up, names that lead to the cause, lines that fit, nothing lost in a pipe."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from msdsim.api import compare, simulate
from msdsim.report.console import bar, cell_counts, print_comparison, print_run
from msdsim.report.labels import LOOKS, megabytes, percent, us
from msdsim.report.result import Comparison, Skipped
from msdsim.report.table import TextTable
from msdsim.report.verdict import culprits, verdict
from msdsim.report.waits import stall_share, waits
from msdsim.timeline.record import CATEGORIES


def printed(show, *arguments, width=80, terminal=False):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False, markup=False)
    show(console, *arguments)
    return console.file.getvalue()


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5], [1 / 3, 1 / 3, 1 / 3], [0.001] * 3 + [0.997], [0, 0, 1]])
@pytest.mark.parametrize("width", [1, 7, 40])
def test_cells_add_up_to_the_width(shares, width):
    cells = cell_counts(shares, width)
    assert sum(cells) == width
    assert all(abs(count - share * width) < 1 for count, share in zip(cells, shares, strict=True))


def test_a_bar_shows_every_category_by_mark_and_by_colour():
    shares = dict.fromkeys(CATEGORIES, 1 / 8)
    text = bar(shares, 16)
    assert text.plain == "".join(look.mark * 2 for look in LOOKS)
    assert bar(shares, 16, plain=True).plain == "##++mmddbbssii.."
    assert len({look.mark for look in LOOKS} | {look.plain_mark for look in LOOKS}) == 16
    assert len({look.colour for look in LOOKS}) == len(LOOKS) == len(CATEGORIES)


def test_a_run_fits_80_columns_and_has_no_trailing_blanks(dequant):
    lines = printed(print_run, dequant).splitlines()
    assert lines[0] == "dequant-int8  gemm m=16 k=256 n=192  on toy"
    assert max(len(line) for line in lines) <= 80
    assert all(line == line.rstrip() for line in lines)
    text = "\n".join(lines)
    for word in ("time", "busiest", "HBM", "traffic", "tiling", "bit-exact, 3,072 elements", "fast engine", "2 AIC and 4 AIV",
                 "AIC MTE2 GM to L1", "AIV V Vector", "waits most for", "█ busy"):
        assert word in text
    assert "\x1b" not in text


def test_wider_terminals_get_longer_bars(dequant):
    narrow, wide = (printed(print_run, dequant, width=width).count("█") for width in (80, 120))
    assert wide > narrow


def test_waits_name_buffer_and_pipe_and_add_up(dequant):
    found = waits(dequant.record)
    assert found["aic.m"][0].text == "data b0 from MTE1"
    assert found["aic.m"][0].culprit == "aic.mte1"
    assert any(wait.text == "signal full from AIV" for wait in found["aic.mte2"])
    for pipe, row in dequant.stalls.items():
        for category in ("wait_data", "wait_buffer", "wait_sync", "wait_memory", "wait_issue"):
            named = sum(wait.cycles for wait in found[pipe] if wait.category == category)
            assert named == row[category], (pipe, category)


def test_every_run_explains_all_of_its_waits():
    for problem, hw in (("gemm:m=40,k=200,n=130", "toy"), ("gemm:m=33,k=512,n=700", "ascend910b1")):
        for run in compare(problem, hw).runs:
            found = waits(run.record)
            for pipe, row in run.stalls.items():
                waited = sum(value for name, value in row.items() if name.startswith("wait_"))
                assert sum(wait.cycles for wait in found[pipe]) == waited, (run.dataflow, pipe)
                assert stall_share(row, run.cycles) <= 1


def test_culprits_lead_from_the_cube_back_to_the_vector_cores(dequant):
    assert [wait.pipe for wait in culprits(dequant)] == ["aic.m", "aic.mte1", "aic.mte2"]
    assert culprits(dequant)[-1].text == "signal full from AIV"


def test_a_comparison_names_the_winner_and_why(comparison):
    lines = printed(print_comparison, comparison).splitlines()
    assert lines[0] == "gemm m=16 k=256 n=192  on toy"
    assert [line.split()[0] for line in lines[4:7]] == ["bf16", "dequant-int8", "msd-int8"]
    assert all(line.endswith("exact") for line in lines[4:7])
    assert max(len(line) for line in lines[:7]) <= 80
    sentence = lines[-1]
    assert sentence == verdict(comparison)
    assert sentence.startswith(f"{comparison.winner.dataflow} wins, ")
    assert sentence.count(".") - sentence.count("x as fast") >= 1
    assert sentence.endswith(".")


def test_the_loser_is_told_by_what_it_waits_for():
    found = compare("gemm:m=16,k=1024,n=1536", "ascend910b1", ["dequant-int8", "bf16"])
    assert "HBM" in verdict(Comparison([found.runs[1], found.runs[0]], [])) or "Cube waits" in verdict(found)


def test_verdict_on_one_run_on_none_and_on_a_tie(dequant):
    assert verdict(Comparison([], [])) == ""
    assert verdict(Comparison([dequant], [])).startswith("dequant-int8 is the only dataflow that ran; it is busiest at ")
    assert verdict(Comparison([dequant, simulate("gemm:m=16,k=256,n=192", "toy", "dequant-int8", tiling=dequant.tiling)], [])).startswith(
        "dequant-int8 and dequant-int8 tie;")


def test_skipped_dataflows_have_their_reason_on_one_line_in_a_pipe():
    reason = "because " * 30
    out = printed(print_comparison, Comparison([], [Skipped("w8a8", reason.strip())]))
    assert out == f"skipped w8a8: {reason.strip()}\n"


def test_a_table_cuts_nothing_and_wraps_only_its_last_column():
    table = TextTable(("name", "n", "text"), right=frozenset({1}))
    table.add("a" * 30, "1", "word " * 20)
    table.add("b", "22", "short")
    plain = [line.plain for line in table.lines()]
    assert plain[1] == f"  {'a' * 30}   1  {('word ' * 20).rstrip()}"
    assert plain[2] == f"  b{' ' * 29}  22  short"
    wrapped = [line.plain for line in table.lines(width=64)]
    assert max(len(line) for line in wrapped) <= 64
    assert wrapped[2].startswith(" " * 38)
    assert "".join(" ".join(wrapped).split()) == "".join(" ".join(plain).split())


def test_titles_of_several_lines_stand_at_the_bottom():
    table = TextTable(("dataflow", "HBM\nMB"), right=frozenset({1}))
    table.add("bf16", Text("5"))
    assert [line.plain for line in table.lines(indent=0)] == ["          HBM", "dataflow   MB", "bf16        5"]


@pytest.mark.parametrize(("value", "text"), [(0.004, "0.00 us"), (4.1, "4.10 us"), (71.43, "71.4 us"), (999.94, "999.9 us"),
                                             (5889.8, "5.89 ms"), (12345678, "12,345.68 ms")])
def test_times(value, text):
    assert us(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0%"), (0.0001, "<1%"), (0.5, "50%"), (0.996, "100%")])
def test_shares(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (393216, "0.393"), (2097152, "2.1"), (7541000000, "7,541")])
def test_sizes(value, text):
    assert megabytes(value) == text


def test_what_is_less_accurate_than_16_bits_may_be_fastest_but_never_wins():
    names = ["bf16", "convert-int8", "dequant-int8", "msd-int8", "w8a8"]
    found = compare("gemm:m=16,k=1024,n=1536,group=128,offset=1", "ascend950dt", names, check=True)
    by_name = {run.dataflow: run for run in found.runs}
    assert list(by_name) == names
    assert found.less_accurate(by_name["w8a8"]).startswith("its error is ")
    assert found.less_accurate(by_name["dequant-int8"])
    assert not found.less_accurate(by_name["convert-int8"])
    lossy = Comparison([replace(by_name["w8a8"], record=by_name["bf16"].record), by_name["msd-int8"], by_name["bf16"]], [])
    assert lossy.fastest.dataflow == "w8a8"
    assert lossy.winner.dataflow == "bf16"
    assert verdict(lossy).startswith("w8a8 is the fastest, but its error is ")
    assert "of those at least as accurate as bf16, bf16 wins" in verdict(lossy)


def test_without_numbers_one_pass_over_the_activations_is_known_to_lose():
    found = compare("gemm:m=16,k=256,n=192", "toy", ["bf16", "w8a8"])
    assert found.less_accurate(found.runs[1]) == "it quantizes activations in one pass"
    assert found.winner.dataflow == "bf16"


def test_the_better_baseline_is_named_and_two_percent_are_a_tie():
    found = compare("gemm:m=16,k=4096,n=4096", "ascend950dt", ["dequant-int8", "convert-int8", "msd-int8"])
    dequant, convert, msd = found.runs
    # Vector functions of the 950 make a weight BF16, scale included, in one pass.
    assert 1.02 * dequant.cycles < convert.cycles
    assert "Of its baselines, dequant-int8 is the better" in verdict(Comparison([dequant, convert, replace(msd, record=replace(
        msd.record, cycles=dequant.cycles // 2))], []))
    near = replace(convert, dataflow="msd-int8", record=replace(convert.record, cycles=round(convert.cycles * 1.019)))
    assert verdict(Comparison([convert, near], [])).startswith("convert-int8 and msd-int8 tie (2% apart);")
    assert "Of its baselines" not in verdict(Comparison([dequant, convert], []))
