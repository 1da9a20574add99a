"""MSD against the better of its dequantizing baselines, and against 16-bit weights: the table of docs/when-msd-wins.md.

    python benchmarks/msd_against_baselines.py [--rows 1,16,64,128,512] [--groups none,128,32] [--chips a,b] [--write]
    python benchmarks/msd_against_baselines.py --attention [--chips a,b] [--write]

For every chip, shape, grouping of the weights and number of rows it simulates ``bf16``, ``dequant-*``, ``convert-*`` and
``msd-*`` of the formats that the chip's Cube takes, and prints the time of MSD over that of the fastest of ``dequant``,
``convert`` and ``convert-fp16`` (and, after the comma, over ``bf16``): below 1 MSD is faster; ``c`` marks where ``convert`` is
the best baseline, ``h`` where ``convert-fp16`` is.
``--write`` puts the tables between the markers of docs/when-msd-wins.md.  Chips that give the same numbers share a row.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import msdsim
from msdsim.api import find_dataflow
from msdsim.dataflows.lookup import dataflows_for
from msdsim.errors import MsdsimError
from msdsim.problems import parse_problem

CHIPS = ("ascend910b1", "ascend910b2", "ascend910b3", "ascend910b4", "ascend910c-die", "ascend950pr", "ascend950dt")
SHAPES = {"4096 x 4096": "gemm:m={m},k=4096,n=4096", "7168 x 4096": "gemm:m={m},k=7168,n=4096",
          "8192 x 12288": "gemm:m={m},k=8192,n=12288", "8 experts of 7168 x 2048": "grouped_gemm:groups=8,m={m},k=7168,n=2048"}
ATTENTION = {"8 sequences of 4096": "attention:batch=8,heads=32,kv_heads=8,head_dim=128,q=1,kv=4096",
             "1 of 32768": "attention:batch=1,heads=32,kv_heads=8,head_dim=128,q=1,kv=32768",
             "MLA, 32 of 4096": "attention:batch=32,heads=128,kv_heads=1,head_dim=576,v_dim=512,q=1,kv=4096,shared_kv=1,"
                                "scale_dim=192",
             "prefill of 2048": "attention:batch=1,heads=32,kv_heads=8,head_dim=128,q=2048,kv=2048,causal=1"}
FORMATS = {"INT8": "int8", "INT4": "int4", "MXFP4": "mxfp4"}
PAGE = Path(__file__).parents[1] / "docs" / "when-msd-wins.md"
BEGIN, END = "<!-- table: benchmarks/msd_against_baselines.py{} -->", "<!-- end of table -->"


def cycles(problem: str, chip: str, dataflow: str) -> int | None:
    """Cycles, or None where the chip or the problem rules the dataflow out."""
    shape, hardware = parse_problem(problem), msdsim.load_hw(chip)
    if find_dataflow(shape, dataflow).refuses(shape, hardware.chip) is not None:
        return None
    try:
        return msdsim.simulate(shape, hardware, dataflow).cycles
    except MsdsimError:
        return None


def cell(problem: str, chip: str, fmt: str, base: int | None) -> str:
    """``0.71c, 0.65``."""
    msd = cycles(problem, chip, f"msd-{fmt}")
    marks = {f"dequant-{fmt}": "", f"convert-{fmt}": "c", f"convert-fp16-{fmt}": "h"}
    known = [name for name in marks if name in dataflows_for(parse_problem(problem).kind)]
    times = {name: value for name in known if (value := cycles(problem, chip, name)) is not None}
    if msd is None or not times:
        return ""
    best = min(times, key=lambda name: times[name])
    return f"{msd / times[best]:.2f}{marks[best]}" + (f", {msd / base:.2f}" if base else "")


def table(chips: list[str], shape: str, group: str, rows: list[int]) -> list[str]:
    """Lines of one shape and grouping; chips with the same cells share a line."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    extra = "" if group == "none" else f",group={group}"
    for chip in chips:
        bases = {m: cycles(SHAPES[shape].format(m=m), chip, "bf16") for m in rows}
        for label, fmt in FORMATS.items():
            if fmt == "mxfp4" and extra:
                continue
            cells = tuple(cell(SHAPES[shape].format(m=m) + extra, chip, fmt, bases[m]) for m in rows)
            if any(cells):
                found.setdefault((label, cells), []).append(chip.removeprefix("ascend"))
    lines = [f"**K x N = {shape}, " + ("one scale per channel**" if group == "none" else f"groups of {group}**"), "",
             "| chip | weights | " + " | ".join(f"m = {m}" if m == rows[0] else str(m) for m in rows) + " |",
             "|---" * (2 + len(rows)) + "|"]
    lines += [f"| {', '.join(names)} | {label} | " + " | ".join(cells) + " |" for (label, cells), names in found.items()]
    return [*lines, ""]


def attention_table(chips: list[str]) -> list[str]:
    """A line for every chip, format and kind of scales; chips with the same cells share a line."""
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for chip in chips:
        bases = {shape: cycles(shape, chip, "bf16") for shape in ATTENTION.values()}
        for label, fmt in FORMATS.items():
            for scales in ("channel", "token") if fmt != "mxfp4" else ():
                cells = tuple(cell(f"{shape},scales={scales}", chip, fmt, base) for shape, base in bases.items())
                if any(cells):
                    found.setdefault((label, scales, cells), []).append(chip.removeprefix("ascend"))
    return ["| chip | cache | scales per | " + " | ".join(ATTENTION) + " |", "|---" * (3 + len(ATTENTION)) + "|",
            *[f"| {', '.join(names)} | {label} | {scales} | " + " | ".join(cells) + " |"
              for (label, scales, cells), names in found.items()]]


def write(lines: list[str], option: str) -> None:
    """Between the markers of the page."""
    text, begin = PAGE.read_text(encoding="utf-8"), BEGIN.format(option)
    before, rest = text.split(begin)
    PAGE.write_text("\n".join([before + begin, "", *lines]).rstrip() + "\n" + END + rest.partition(END)[2], encoding="utf-8")


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,16,64,128,512")
    parser.add_argument("--groups", default="none,128,32")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="K x N as the tables name them")
    parser.add_argument("--chips", default=",".join(CHIPS))
    parser.add_argument("--attention", action="store_true", help="of attention instead")
    parser.add_argument("--write", action="store_true", help="into docs/when-msd-wins.md, between its markers")
    given = parser.parse_args()
    started, lines = time.process_time(), []
    if given.attention:
        lines = attention_table(given.chips.split(","))
        print("\n".join(lines))
    for shape in () if given.attention else given.shapes.split(","):
        for group in given.groups.split(","):
            part = table(given.chips.split(","), shape, group, [int(m) for m in given.rows.split(",")])
            print("\n".join(part), flush=True)
            lines += part
    print(f"{time.process_time() - started:.0f} s of CPU")
    if given.write:
        write(lines, " --attention" if given.attention else "")


if __name__ == "__main__":
    main()
