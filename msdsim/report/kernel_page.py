"""The kernel's text on a page, line by line with what each of them cost."""

from __future__ import annotations

from collections import defaultdict
from html import escape

from msdsim.ir.printer import number_lines, print_kernel
from msdsim.report.charts import bar
from msdsim.report.lines import Line, most_waited
from msdsim.report.result import Result


def kernel_section(run: Result) -> str:
    """Every line of the kernel: time of its pipe by category, runs, bytes, L2 hit rate and what it waits for, beside its text.

    Bars are means over the cores that have the pipe, as long as the whole run.
    """
    of_line: dict[int, list[Line]] = defaultdict(list)
    for line in run.lines:
        of_line[line.profile.line].append(line)
    text = run.kernel.source or print_kernel(number_lines(run.kernel))
    rows = []
    for number, statement in enumerate(text.splitlines(), start=1):
        shown = [_cells(run, item) for item in of_line.pop(number, [])] or ["<td></td>" * (len(_TITLES) - 2)]
        for place, cells in enumerate(shown):
            first = place == 0
            rows.append(f'<tr><td class="r at">{number if first else ""}</td>{cells}'
                        f'<td class="code">{escape(statement) if first else ""}</td></tr>')
    head = "".join(f'<th class="{"r" if column in _RIGHT else ""}">{title}</th>' for column, title in enumerate(_TITLES))
    return (f'<p>Runs and bytes of all cores; time as the mean of the cores that have the pipe, as a share of '
            f'{run.cycles:,} cycles.</p><div class="scroll" tabindex="0"><table class="kernel"><thead><tr>{head}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table></div>')


_TITLES = ("line", "pipe", "time", "", "runs", "MB", "L2 hit", "waits most for", "statement")
_RIGHT = (0, 3, 4, 5, 6)


def _cells(run: Result, line: Line) -> str:
    """What a line did on one pipe, but for its number and text."""
    item = line.profile
    whole = run.stalls[item.kind]["instances"] * max(1, run.cycles)
    shares = {name: cycles / whole for name, cycles in item.cycles.items() if cycles}
    total = sum(shares.values())
    drawn = bar(shares, run.time_us, f"line {item.line}, {item.kind}") if total >= _LEAST_SHARE else ""
    share = f"{total:.1%}" if drawn else ""
    rate = "" if line.l2_hit_rate is None else f"{line.l2_hit_rate:.0%}"
    amounts = f"{line.executions:,}", f"{line.bytes / 1e6:.3g}" if line.bytes else "", rate
    return (f'<td>{item.kind}</td><td class="time">{drawn}</td><td class="r">{share}</td>'
            f'{"".join(f"""<td class="r">{amount}</td>""" for amount in amounts)}<td>{escape(most_waited(item.stalls))}</td>')


#: Below this share of the time a line's bar would be less than a pixel.
_LEAST_SHARE = 0.001
