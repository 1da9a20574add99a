"""The shipped workloads from the public configs of their models, and the page about them.

``python benchmarks/workloads.py files`` writes workloads/*.toml, ``python benchmarks/workloads.py page`` simulates them (about
ten minutes on one core) and writes docs/workloads.md with its pictures.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msdsim.api import simulate_workload
from msdsim.explore.import_model import model_of, step_text
from msdsim.models.step import ModelStep
from msdsim.problems import Workload, parse_problem
from msdsim.report.shown import ShownWorkloadResult

ROOT = Path(__file__).resolve().parent.parent
MODELS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "benchmarks" / "published_models.toml").read_text(encoding="utf-8"))


def text_of(name: str, batch: int | None = None, kv: int | None = None, devices: int = 1) -> str:
    """The workload file of a published model; its own batch and cache where none are given."""
    entry = MODELS[name]
    model = model_of(entry["config"], entry["source"])
    return step_text(model, entry["model"], ModelStep(batch or entry["batch"], 1, kv or entry["kv"], devices))


def write_files() -> None:
    """The shipped workloads as the import makes them."""
    for name in MODELS:
        (ROOT / "workloads" / f"{name}.toml").write_text(text_of(name), encoding="utf-8")


# ---- the page

#: Devices that share each model so that it fits: 910B1 has 64 GiB, 950PR 128 GiB.
DEVICES = {"llama3-8b-decode": 1, "qwen3-14b-decode": 1, "gpt-oss-120b-decode": 4, "qwen3-235b-a22b-decode": 8,
           "deepseek-v3-decode": 16, "openpangu-718b-decode": 32}
MIXES = {"bf16": "bf16", "w8a8": "gemm=w8a8,attention=bf16", "dequant-int8": "gemm=dequant-int8,attention=bf16",
         "msd-int8": "gemm=msd-int8,attention=bf16", "best": "gemm=best:dequant-int8,attention=bf16"}
CHIP = "ascend910b1"
BATCHES, CONTEXTS = (1, 4, 16, 64, 256), (1024, 4096, 16384, 65536)
SWEPT = ("qwen3-14b-decode", "openpangu-718b-decode")


def run(name: str, mix: str, batch: int | None = None, kv: int | None = None) -> ShownWorkloadResult:
    """One step on one of the devices that share the model."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.toml"
        path.write_text(text_of(name, batch, kv, DEVICES[name]), encoding="utf-8")
        workload = parse_problem(str(path))
    assert isinstance(workload, Workload)
    return simulate_workload(workload, CHIP, mix)


def milliseconds(found: ShownWorkloadResult) -> float:
    """Time of a step with its launches."""
    head = found.runs[0].result.hardware.chip.launch.head_us
    return (found.time_us + head * sum(item.count for item in found.runs)) / 1e3


def table_of_models() -> Iterator[str]:
    """A row for each model: time per token by dataflow, and what attention takes of it."""
    yield f"| model | devices | weights, 10^9 | active | {' | '.join(MIXES)} | attention |"
    yield f"|---|---|---|---|{'---|' * (len(MIXES) + 1)}"
    for name, entry in MODELS.items():
        decoder = model_of(entry["config"], entry["source"]).decoder
        found = {mix: run(name, text) for mix, text in MIXES.items()}
        first = found["w8a8"]
        share = sum(item.count * item.result.time_us for item in first.runs if "attention" in item.name) / first.time_us
        times = " | ".join(f"{milliseconds(item):.2f}" for item in found.values())
        print(name, times, flush=True)
        yield (f"| {entry['model']} | {DEVICES[name]} | {decoder.total / 1e9:.1f} | {decoder.active / 1e9:.1f} | {times} | "
               f"{share:.0%} |")


def sweep() -> dict[tuple[str, str, str, int], float]:
    """Milliseconds by model, dataflow and batch or context."""
    found = {}
    for name in SWEPT:
        for mix, text in MIXES.items():
            if mix in ("dequant-int8", "best"):
                continue
            for batch in BATCHES:
                found[name, mix, "batch", batch] = milliseconds(run(name, text, batch=batch))
            for kv in CONTEXTS:
                found[name, mix, "context", kv] = milliseconds(run(name, text, batch=16, kv=kv))
            print(name, mix, flush=True)
    return found


def draw(found: dict[tuple[str, str, str, int], float]) -> None:
    """Tokens a second against batch and context, one row of panels for each model."""
    from matplotlib.figure import Figure

    colours = {"bf16": "#444444", "w8a8": "#D55E00", "msd-int8": "#0072B2"}
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels = figure.subplots(len(SWEPT), 2)
    for row, name in zip(panels, SWEPT, strict=True):
        for axes, (by, values) in zip(row, (("batch", BATCHES), ("context", CONTEXTS)), strict=True):
            for mix, colour in colours.items():
                sequences = [value if by == "batch" else 16 for value in values]
                rates = [count / found[name, mix, by, value] * 1e3 for count, value in zip(sequences, values, strict=True)]
                axes.plot(range(len(values)), rates, marker="o", markersize=4, color=colour, label=mix)
            axes.set_xticks(range(len(values)), [f"{value:,}" for value in values])
            axes.set_yscale("log" if by == "batch" else "linear")
            axes.set_ylim(bottom=None if by == "batch" else 0)
            what = "sequences, 4,096 tokens each" if by == "batch" else "tokens in the cache, 16 sequences"
            axes.set_xlabel(what, fontsize=9)
            axes.set_ylabel("tokens a second", fontsize=9)
            axes.grid(color="#DDDDDD", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{MODELS[name]['model']}, one of {DEVICES[name]} devices" if DEVICES[name] > 1 else
                           f"{MODELS[name]['model']}", fontsize=10)
    panels[0][0].legend(fontsize=8, frameon=False)
    figure.savefig(ROOT / "docs" / "images" / "workloads.png", dpi=110)


def write_page() -> None:
    """docs/workloads.md and its picture, between the sentences that are written by hand."""
    page = ROOT / "docs" / "workloads.md"
    text = page.read_text(encoding="utf-8")
    rows = "\n".join(table_of_models())
    start, end = "<!-- table: benchmarks/workloads.py -->\n", "<!-- end of table -->"
    page.write_text(text[:text.index(start) + len(start)] + rows + "\n" + text[text.index(end):], encoding="utf-8")
    draw(sweep())


if __name__ == "__main__":
    {"files": write_files, "page": write_page}[sys.argv[1] if len(sys.argv) > 1 else "files"]()
