"""A report says the same on a terminal, on a page and in a notebook: compared word by word, whatever the report is about."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from msdsim import compare, compare_workload, load_hw, simulate, simulate_workload
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import number_lines, print_kernel
from msdsim.problems import Entry, Gemm, Workload
from msdsim.report import console, facts, html
from msdsim.report.labels import LOOKS
from msdsim.report.result import Comparison, Skipped
from msdsim.report.shown import ShownComparison
from tests.engine.test_bank_conflicts import ABS

P = "gemm:m=16,k=256,n=192"
#: Columns of the bars on a terminal, which on a page say by themselves what they are.
BAR_TITLES = ("pipe", "its", "time")
TWO = Workload("two", "", "", None, (Entry("up", 2, Gemm(m=4, k=64, n=96)), Entry("down", 1, Gemm(m=4, k=96, n=64))))


class _Seen(HTMLParser):
    """What a reader sees of a page: neither style, script nor the folded JSON."""

    def __init__(self):
        super().__init__()
        self.hidden, self.texts = 0, []

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("style", "script", "pre", "title")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script", "pre", "title")

    def handle_data(self, data):
        if not self.hidden:
            self.texts.append(data)


def seen(page):
    parser = _Seen()
    parser.feed(page)
    return " ".join(parser.texts)


def printed(show, found):
    terminal = Console(file=io.StringIO(), width=400, highlight=False, markup=False)
    show(terminal, found)
    return terminal.file.getvalue()


def words(text):
    """Words and figures without what only holds them together; the legend calls a category by its name in both."""
    marks = "".join(look.mark for look in LOOKS)
    return set(re.sub(rf"[{re.escape(marks)}:;,()]", " ", text).split())


def odd_run():
    """A run with much to say: changed chip, filled L2, tiling, another memory, numbers."""
    hardware = load_hw("ascend910b1").replace(hbm__bandwidth_gbps=900)
    return simulate("gemm:m=16,k=512,n=256", hardware, "dequant-int8", warm=True, check=True, memory="banked")


def conflicts():
    """A kernel whose Vector instructions lose cycles in UB's banks."""
    return simulate(parse_kernel(ABS), load_hw("ascend910b1").replace(cores__aic=2))


CASES = {
    "run": (lambda: simulate(P, "toy", "dequant-int8"), console.print_run, html.run_page),
    "everything": (odd_run, console.print_run, html.run_page),
    "conflicts": (conflicts, console.print_run, html.run_page),
    "workload": (lambda: simulate_workload(TWO, "ascend910b4", "bf16", check=True), console.print_workload, html.workload_page),
    "workloads": (lambda: compare_workload(TWO, "toy", ["bf16", "msd-int8"]), console.print_workload_comparison,
                  html.workload_comparison_page),
    "skipped": (lambda: ShownComparison([], [Skipped("w8a8", "because <b>")]), console.print_comparison, html.comparison_page),
}


@pytest.mark.parametrize("name", CASES)
def test_terminal_page_and_notebook_say_the_same(name):
    make, show, page = CASES[name]
    found = make()
    on_terminal = words(printed(show, found))
    # The legend says "waits:" once where the page says "wait" with every category.
    assert on_terminal ^ words(seen(found._repr_html_())) <= {"waits", "wait"}
    # A page has charts of its own beside all that.
    assert on_terminal - words(seen(page(found))) <= {"waits", *BAR_TITLES}


def test_a_comparison_says_the_same_and_its_page_also_has_every_run():
    found = compare(P, "toy", ["bf16", "dequant-int8", "mxfp8"], warm=True, check=True)
    assert found.skipped
    on_terminal = words(printed(console.print_comparison, found))
    assert on_terminal == words(seen(found._repr_html_()))
    page = words(seen(html.comparison_page(found)))
    every_run = set().union(*(words(printed(console.print_run, run)) for run in found.runs))
    assert (on_terminal | every_run) - page <= {"waits", *BAR_TITLES}


def test_conditions_are_said():
    texts = {fact.name: fact.text for fact in facts.run_facts(odd_run())}
    assert texts["L2"] == "an earlier run of the kernel has filled it"
    assert texts["memory"] == "simulated at the fidelity 'banked'"
    assert "UB banks: 939 cycles lost to conflicts, summed over the AIVs" in [
        f"{fact.name}: {fact.text}" for fact in facts.run_facts(conflicts())]
    assert "with hbm.bandwidth_gbps=900" in seen(html.run_page(odd_run()))
    assert "L2" not in {fact.name for fact in facts.run_facts(simulate(P, "toy"))}
    warm = facts.comparison_report(compare(P, "toy", ["bf16"], warm=True))
    assert [fact.text for fact in warm.facts] == ["an earlier run of the kernel has filled it"]
    workload = facts.workload_report(simulate_workload(TWO, "toy", "bf16"))
    assert "every operator finds in it what those before it have left" in [fact.text for fact in workload.facts]


def test_a_workload_of_one_operator_has_its_total():
    report = facts.workload_report(simulate_workload(replace(TWO, entries=TWO.entries[:1]), "toy", "bf16"))
    assert "in 2 kernels" in next(fact.text for fact in report.facts if fact.name == "total")


def test_shares_of_a_pipe_add_up_to_one(dequant):
    for row in facts.pipe_times(dequant).rows:
        assert sum(row.shares.values()) == pytest.approx(1)
        assert row.busy == facts.percent(dequant.stalls[row.kind]["busy"] / dequant.stalls[row.kind]["instances"]
                                         / dequant.cycles)


def test_data_know_none_of_their_renderings(dequant):
    assert not any(hasattr(Comparison, name) for name in ("plot", "to_perfetto", "_repr_html_"))
    assert repr(ShownComparison([dequant], [])) == f"<Comparison {dequant}>"
    assert repr(dequant) == f"<Result {dequant}>"


class _Rows(HTMLParser):
    """The rows of the table of lines: cells as texts, and widths of the pieces of the bar."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside, self.cell = [], False, False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "table":
            self.inside = given.get("class") == "kernel"
        if not self.inside:
            return
        if tag == "tr":
            self.rows.append(([], {}))
        self.cell = tag == "td" or (self.cell and tag in ("div", "span"))
        if tag == "td":
            self.rows[-1][0].append("")
        if tag == "span":
            self.rows[-1][1][given["data-part"]] = float(given["style"].removeprefix("width:").removesuffix("%"))

    def handle_data(self, data):
        if self.inside and self.cell:
            self.rows[-1][0][-1] += data


def test_the_lines_of_a_page_are_the_kernels_text_and_add_up_to_the_pipes():
    """Beside the text of every line what it cost; over all lines, the busy time of a pipe is the pipe's."""
    run = simulate(P, hw="toy", dataflow="msd-int8")
    parser = _Rows()
    parser.feed(html.run_page(run))
    rows = [row for row in parser.rows if row[0]]
    kernel = print_kernel(number_lines(run.kernel)).splitlines()
    assert [cells[-1] for cells, _ in rows if cells[0]] == kernel
    lines = {(line.profile.line, line.profile.kind): line for line in run.lines}
    told = {(int(cells[0]), cells[1]): cells for cells, _ in rows if cells[0] and cells[1]}
    assert set(told) <= set(lines)
    for key, cells in told.items():
        assert cells[4] == f"{lines[key].executions:,}"
    assert any(cells[5] for cells in told.values())
    pipes = {cells[1] for cells in told.values()}
    assert pipes == {pipe for pipe in run.stalls if not pipe.endswith(".s")}, "the scalar unit issues all lines and owns none"
    for pipe in pipes:
        row = run.stalls[pipe]
        busy = sum(parts.get("busy", 0.0) for cells, parts in rows if cells[1] == pipe)
        assert busy == pytest.approx(100 * row["busy"] / (row["instances"] * run.cycles), abs=0.4)


def test_a_hand_written_kernel_stands_on_its_page_as_it_was_written():
    text = ABS + "\n# the end, as its author put it\n"
    parser = _Rows()
    parser.feed(html.run_page(simulate(parse_kernel(text), hw="ascend950pr")))
    assert [cells[-1] for cells, _ in parser.rows if cells and cells[0]] == text.splitlines()
