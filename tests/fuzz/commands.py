"""Files of the other commands, changed at random: measurements, profiles, schedules, traces, dataflows, kernels with params; and
the options that say where results go.  Kinds of :mod:`tests.fuzz.inputs`."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from msdsim.problems import parse_problem
from msdsim.schedules import record_schedule, save_schedule
from tests.fuzz import mutations
from tests.fuzz.kernels import mutated

SMALL = "gemm:m=4,k=64,n=48"
_TABLE = """Device_id,Op Name,OP Type,Task Type,Task Start Time(us),Task Duration(us),Block Dim,Input Shapes,Input Data Types,Output Shapes,aicore_time(us),aic_mac_time(us),aiv_time(us)
0,mm,MatMulV3,AI_CORE,10,4.5,2,"16,64;64,48",DT_BF16;DT_BF16,"16,48",3,1,0.0
0,mm,MatMulV3,AI_CORE,20,4.0,2,"16,64;64,48",DT_BF16;DT_BF16,"16,48",3,1,0.0
0,wq,WeightQuantBatchMatmulV2,MIX_AIC,30,6,2,"16,64;64,48;2,48;2,48",FLOAT16;INT8;FLOAT16;FLOAT16,"16,48",5,1,4
0,add,Add,AI_VECTOR_CORE,40,2,4,"16,64;16,64",DT_BF16;DT_BF16,"16,64",0.0,0,2
0,q,QuantBatchMatmulV3,AI_CORE,50,3,1,"16,64;48,64",INT8;INT8,"16,48",N/A,N/A,N/A
0,all,hcom_allReduce_,COMMUNICATION,60,9,0,N/A,N/A,N/A,N/A,N/A,N/A
"""
_ROWS = """[sources]
bench = "a bench of ours"
[[row]]
id = "one"
chip = "toy"
problem = "gemm:m=16,k=64,n=96"
dataflow = "bf16"
time_us = 1.5
scope = "task"
source = "bench"
components_us = { mac = 0.5 }
[[row]]
id = "two"
chip = "toy"
problem = "gemm:m=48,k=64,n=48"
dataflow = "msd-int8"
tiling = { passes = 2 }
tflops = 0.2
scope = "kernel"
source = "bench"
set = { "hbm.bandwidth_gbps" = 64 }
ratio_to = "one"
note = "AMBIGUOUS: unclear; --set cores.aic=1"
"""
_CHIP = """extends = "toy"
hbm.bandwidth_gbps = { value = 128, kind = "assumed", source = "a guess" }
launch.head_us = { value = 2, kind = "inferred", source = "a guess" }
"""
_DATAFLOW = """from dataclasses import replace

from msdsim.dataflows.base import DATAFLOWS

DATAFLOWS.add("fuzzed-NUMBER", replace(DATAFLOWS["bf16"], name="fuzzed-NUMBER", description="bf16 under another name",
              auto=lambda problem, chip: DATAFLOWS["bf16"].tiling(base_m=16, base_n=16, l0_k=16, l1_k=16)))
"""
_KERNEL = """kernel small {
  param rows = 16 in [8, 16, 32]
  param slots = 2 in [1, 2, 3]
  cores 2 x 1
  tensor x: bf16[64, 64] in
  tensor y: bf16[64, 64] out
  aiv {
    for i in 0 .. 64 // rows {
      when i % 2 == core {
        buffer t: UB bf16[rows, 64] ring slots
        copy t <- x[i * rows +: rows, :]
        copy y[i * rows +: rows, :] <- t
      }
    }
  }
}
"""
_CONSTANTS = ("hbm.bandwidth_gbps", "launch.head_us", "hbm.bandwidth_gbps,launch.head_us", "clock_mhz", "", "hbm", "nope")


def measured(draw: random.Random, folder: Path) -> list[str]:
    """Measurements as TOML or as a profiler's table, for ``validate`` and ``calibrate``."""
    table = draw.random() < 0.5
    path = folder / ("op_summary_1.csv" if table else "rows.toml")
    text = mutations.text(_TABLE if table else _ROWS, draw)
    path.write_bytes(mutations.data(text.encode(), draw) if draw.random() < 0.1 else text.encode(errors="replace"))
    chip = folder / "mine.toml"
    chip.write_text(_CHIP, encoding="utf-8")
    if draw.random() < 0.6:
        return ["validate", str(path), "--hw", draw.choice(("toy", str(chip))), *_written(draw, folder, ("json",))]
    return ["calibrate", str(path), "--hw", str(chip), "--out", str(folder / draw.choice(("fit.toml", "fit.txt", "no/fit.toml"))),
            "--constants", draw.choice(_CONSTANTS), *draw.choice(([], [], ["--also", draw.choice(("toy", "ascend910b1", "nope"))]))]


@cache
def _recorded(kernel: bool) -> str:
    from tempfile import TemporaryDirectory

    from msdsim.ir.parser import parse_kernel

    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.json"
        save_schedule(record_schedule(parse_kernel(_KERNEL), "toy") if kernel else record_schedule(parse_problem(SMALL), "toy", "msd-int8", numbers=True), path)
        return path.read_text(encoding="utf-8")


def _event(core: str, pipe: str, start: float, length: float) -> dict[str, object]:
    return {"ph": "X", "pid": core, "tid": pipe, "name": "MMAD", "ts": start, "dur": length, "args": {}}


_TRACE = json.dumps({"traceEvents": [
    {"ph": "M", "name": "process_name", "pid": 60, "tid": 0, "args": {"name": "MTE2"}},
    _event("core0.cubecore0", "MTE2", 1.0, 3.0), _event("core0.cubecore0", "CUBE", 6.0, 2.0), _event("core0.veccore1", "VECTOR", 2.0, 4.0)]})


def schedule(draw: random.Random, folder: Path) -> list[str]:
    """Recorded schedules and measured traces, for ``schedule verify`` and ``diff``."""
    good, path, trace = folder / "good.json", folder / "s.json", folder / "trace.json"
    text = _recorded(draw.random() < 0.3)
    good.write_text(text, encoding="utf-8")
    of_trace = draw.random() < 0.4
    path.write_text(text if of_trace else mutations.json_text(text, draw), encoding="utf-8", errors="replace")
    trace.write_text(mutations.json_text(_TRACE, draw) if of_trace else _TRACE, encoding="utf-8", errors="replace")
    limits = draw.choice(([], [], ["--tolerance", draw.choice(("1%", "0", "-1", "nan", "x"))], ["--max-slowdown", "5%"], ["--cycles-only"]))
    if of_trace:
        return ["schedule", "diff", str(path), "--profile", str(trace), *_written(draw, folder, ("json",))]
    if draw.random() < 0.5:
        return ["schedule", "verify", str(draw.choice((path, folder))), *limits, *draw.choice(([], ["--update"]))]
    return ["schedule", "diff", *draw.choice(((str(good), str(path)), (str(path), str(good)))), *limits]


def dataflow(draw: random.Random, folder: Path) -> list[str]:
    """A dataflow of a user's file."""
    path = folder / draw.choice(("mine.py", "gemm.py", "ü x.py"))
    path.write_text(mutations.text(_DATAFLOW, draw).replace("NUMBER", str(draw.randrange(1 << 40))), encoding="utf-8")
    name = str(path) + draw.choice(("",) * 5 + (":nope", ":", ".py"))
    return ["run", SMALL, "--hw", "toy", "--dataflow", name, *draw.choice(([], ["--check"], ["--tiling", "base_m=16"]))]


def kernel(draw: random.Random, folder: Path) -> list[str]:
    """Kernels with params: run, compared, tuned, printed."""
    path = folder / "k.kir"
    path.write_text(draw.choice((_KERNEL, mutations.text(_KERNEL, draw), mutated(_KERNEL, draw))), encoding="utf-8", errors="replace")
    params = [] if draw.random() < 0.5 else ["--tiling", mutations.text("rows=8,slots=3", draw).replace("\x00", "")]
    return draw.choice((
        ["run", str(path), "--hw", "toy", *params], ["run", str(path), "--hw", "toy", *params, "--check"],
        ["ir", str(path), "--hw", "toy", *draw.choice(([], ["--verify"]))], ["explain", str(path), "--hw", "toy", *params, "--json", "-"],
        ["tune", str(path), "--hw", "toy", "--budget", "4"],
        ["compare", SMALL, "--hw", "toy", "--dataflow", "bf16", "--kernel", draw.choice(("", "bf16:", "nope:", "w8a8:")) + str(path), *params[:0]]))


def _written(draw: random.Random, folder: Path, kinds: tuple[str, ...] = ("json", "plot", "html", "trace")) -> list[str]:
    """Options for results, to places that there are and are not."""
    found = []
    for kind in draw.sample(kinds, draw.randrange(len(kinds) + 1)):
        ending = draw.choice({"json": (".json", "", ".txt"), "plot": (".png", ".svg", ".pdf", ".PNG", ".jpg", ""), "html": (".html", ""),
                              "trace": (".pftrace", ".json", ".perfetto-trace", ".xyz")}[kind])
        place = draw.choice((folder, folder, folder, folder / "no", Path("/proc"), folder / ("n" * 300), folder / "in.npz"))
        found += [f"--{kind}", str(place / f"out{ending}")]
    return found


def outputs(draw: random.Random, folder: Path) -> list[str]:
    """Results into files of every ending and place, with traces cut to windows and cores."""
    (folder / "in.npz").write_bytes(b"a file, no folder")
    window = draw.choice(([], ["--trace-window", draw.choice(("0:1", "1:0", ":", "nan:inf", "-1:2", "1e9:2e9", "x", "0.1:"))],
                          ["--trace-cores", draw.choice(("0", "0-1", "5", "1-0", "", "0,0", "a", "0-999999999999"))], ["--trace-flows"]))
    command = draw.choice((["run", SMALL, "--dataflow", "msd-int8"], ["compare", SMALL, "--dataflow", "bf16,msd-int8"], ["explain", SMALL]))
    return [*command, "--hw", "toy", *(_written(draw, folder) if command[0] != "explain" else _written(draw, folder, ("json", "plot", "html"))),
            *(window if command[0] != "explain" else [])]
