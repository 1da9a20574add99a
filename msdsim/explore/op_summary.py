"""Rows of measurements from a profiler's ``op_summary_*.csv`` (msprof) or ``kernel_details.csv`` (torch_npu).

Columns go by their names, of which some have two.  ``Task Duration`` is the task; ``aicore_time`` and ``aiv_time`` are means
over the cores and become components, as do the times of the pipes.  Operators of one type and shape that ran several times
are one row, with the median of each time.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from msdsim.errors import InputError
from msdsim.explore.measurements import Measurement
from msdsim.formats.mx import MX_ELEMENTS, MX_MODES
from msdsim.units import ceil_div

#: Columns by what they hold, under every name they have had.
_NAMES = {
    "op": ("Op Name", "Name"), "type": ("OP Type", "Type"), "task": ("Task Type", "Accelerator Core"),
    "duration": ("Task Duration(us)", "Duration(us)"), "blocks": ("Block Num", "Block Dim"),
    "shapes": ("Input Shapes",), "types": ("Input Data Types",), "out": ("Output Shapes",),
}
_NEEDED = ("type", "duration", "shapes", "types", "out")
#: Components by the column of their time.
_TIMES = {
    "aicore_time(us)": "aicore", "aic_mac_time(us)": "mac", "aic_mte1_time(us)": "mte1", "aic_mte2_time(us)": "mte2",
    "aic_fixpipe_time(us)": "fix", "aiv_time(us)": "aiv", "aiv_vec_time(us)": "vec", "aiv_mte2_time(us)": "aiv_mte2",
    "aiv_mte3_time(us)": "mte3",
}
_TYPES = {
    "DT_BF16": "bf16", "BF16": "bf16", "FLOAT16": "bf16", "DT_FLOAT16": "bf16", "INT8": "int8", "DT_INT8": "int8",
    "INT4": "int4", "DT_INT4": "int4", "FLOAT": "fp32", "DT_FLOAT": "fp32",
    **{before + name: fmt for before in ("", "DT_") for name, fmt in {
        "FLOAT8_E4M3FN": "fp8_e4m3fn", "FLOAT4_E2M1": "fp4_e2m1", "FLOAT8_E8M0": "e8m0"}.items()},
}

Shapes = Sequence[tuple[int, ...]]
#: The problem and the dataflow of an operator, or why there is none.
Understood = tuple[str, str] | str


def is_op_summary(path: Path) -> bool:
    """Whether a file is to be read as a profiler's table."""
    return path.suffix.lower() == ".csv"


def read_op_summary(path: Path, chip: str, cores: tuple[int, int]) -> list[Measurement]:
    """The rows of a profiler's table for ``chip``, which has ``cores`` AICs and AIVs.

    An operator that the simulator does not know is a row that says so.
    """
    where = f"profiler table '{path.name}'"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise InputError(f"{where} cannot be read: {err}") from None
    if not table:
        raise InputError(f"{where} has no rows; give an op_summary_*.csv of msprof or a kernel_details.csv of torch_npu")
    columns = {key: next((name for name in names if name in table[0]), "") for key, names in _NAMES.items()}
    missing = [_NAMES[key][0] for key in _NEEDED if not columns[key]]
    if missing:
        raise InputError(f"{where} has no column '{missing[0]}'; profile with --task-time=l1, which records shapes")
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in table:
        key = tuple(_cell(row, columns[name]) for name in ("type", "shapes", "types", "out", "blocks"))
        groups.setdefault(key, []).append(row)
    return [_row(index, rows, columns, chip, cores, path.name) for index, rows in enumerate(groups.values(), start=1)]


def _cell(row: Mapping[str, str], column: str) -> str:
    """Text of a cell without spaces, tabs and the pair of quotes that one of the exporters leaves."""
    text = (row.get(column) or "").strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _number(row: Mapping[str, str], column: str) -> float | None:
    """A time or count above 0; None for what says that there is none (0.0, N/A, nothing) and for what is no number."""
    try:
        found = float(_cell(row, column))
    except ValueError:
        return None
    return found if 0 < found < math.inf else None


def _row(index: int, rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], chip: str, cores: tuple[int, int],
         file: str) -> Measurement:
    first = rows[0]

    def middle(column: str) -> float | None:
        found = [value for row in rows if (value := _number(row, column)) is not None]
        return median(found) if found else None

    kind, name = _cell(first, columns["type"]), _cell(first, columns["op"]) or str(index)
    understood = _understand(kind, _shapes(_cell(first, columns["shapes"])), _cell(first, columns["types"]).split(";"),
                             _shapes(_cell(first, columns["out"])))
    problem, dataflow = understood if isinstance(understood, tuple) else (kind, "inexpressible")
    note = f"{len(rows)} runs" if len(rows) > 1 else ""
    if isinstance(understood, str):
        note = understood
    found = {part: value for column, part in _TIMES.items() if (value := middle(column)) is not None}
    return Measurement(
        id=f"{index}-{name}", chip=chip, problem=problem, dataflow=dataflow, time_us=middle(columns["duration"]), scope="task",
        components_us=found, source=file, note=note, set=_cores(first, columns, cores))


def _cores(row: Mapping[str, str], columns: Mapping[str, str], cores: tuple[int, int]) -> dict[str, float | str]:
    """The chip's number of core groups where a kernel ran on fewer."""
    blocks, (aic, aiv) = _number(row, columns["blocks"]), cores
    if not blocks:
        return {}
    groups = ceil_div(int(blocks) * aic, aiv) if "VECTOR" in _cell(row, columns["task"]).upper() else int(blocks)
    return {"cores.aic": groups} if groups < aic else {}


def _shapes(text: str) -> list[tuple[int, ...]]:
    """``16,8192;8192,12288;`` as tuples; what is no list of sizes is an empty one."""
    found = []
    for part in text.split(";"):
        try:
            found.append(tuple(int(size) for size in part.split(",") if size.strip()))
        except ValueError:
            found.append(())
    return found


def _understand(kind: str, shapes: Shapes, types: Sequence[str], out: Shapes) -> Understood:
    formats = [_TYPES.get(item.strip(), item.strip()) for item in types]
    for beginning, read in _READERS.items():
        if kind.startswith(beginning):
            return read(shapes, formats, out)
    return f"operators of type '{kind}' are not understood ({', '.join(_READERS)} are)"


def _matrices(shapes: Shapes, out: Shapes) -> tuple[int, int, int, bool] | None:
    """m, k, n of a product and whether the weights are [n, k], as far as the shapes tell."""
    if len(shapes) < 2 or len(shapes[0]) != 2 or len(shapes[1]) != 2 or not out or len(out[0]) != 2:
        return None
    (m, k), (rows, cols), (out_m, n) = shapes[0], shapes[1], out[0]
    if out_m != m or (k, n) not in ((rows, cols), (cols, rows)):
        return None
    return m, k, n, (rows, cols) != (k, n)


#: Dataflows by what they multiply.
_PRODUCTS: dict[tuple[str, ...], str] = {
    ("bf16", "bf16"): "bf16", ("int8", "int8"): "w8a8", ("mxfp8", "mxfp8"): "w8a8-mxfp8", ("mxfp4", "mxfp4"): "w4a4-mxfp4",
    ("mxfp8", "mxfp4"): "mxfp8"}
_NO_MATRICES = "its shapes are not those of one product of two matrices"


def _matmul(shapes: Shapes, formats: Sequence[str], out: Shapes) -> Understood:
    found = _matrices(shapes, out)
    if found is None:
        return _NO_MATRICES
    # FP8 with FP32 scales for rows and channels is another kernel than MX.
    pair = [MX_MODES.get(fmt, fmt) if "e8m0" in formats[2:] else fmt for fmt in formats[:2]]
    dataflow = _PRODUCTS.get(tuple(pair))
    if dataflow is None:
        return f"no dataflow multiplies {' by '.join(pair)}"
    m, k, n, transposed = found
    given = f",x={pair[0]}" if pair[0] in MX_ELEMENTS else ""
    return f"gemm:m={m},k={k},n={n}" + (",trans_b=1" if transposed else "") + given, dataflow


def _weight_only(shapes: Shapes, formats: Sequence[str], out: Shapes) -> Understood:
    found = _matrices(shapes, out)
    if found is None:
        return _NO_MATRICES
    if len(formats) < 2 or formats[0] != "bf16" or formats[1] not in ("int8", "int4"):
        return f"no dataflow dequantizes {' by '.join(formats[:2])}"
    m, k, n, transposed = found
    text = f"gemm:m={m},k={k},n={n}"
    scales = shapes[2] if len(shapes) > 2 else ()
    groups = max(scales[0], 1) if len(scales) == 2 and n in scales else 1
    if len(scales) == 2 and scales[0] == n:
        groups = scales[1]
    if groups > 1:
        text += f",group={ceil_div(k, groups)}"
    if len(shapes) > 3 and shapes[3]:
        text += ",offset=1"
    return text + (",trans_b=1" if transposed else ""), f"dequant-{formats[1]}"


def _sum(shapes: Shapes, formats: Sequence[str], out: Shapes) -> Understood:
    if len(shapes) < 2 or shapes[0] != shapes[1] or len(shapes[0]) < 2 or formats[0] != "bf16":
        return "only sums of two equal matrices of 16 bits are understood"
    rows = 1
    for size in shapes[0][:-1]:
        rows *= size
    return f"micro:add_matrix,m={rows},n={shapes[0][-1]},base_m=1,base_n={min(shapes[0][-1], 8192)}", "micro"


#: How to read an operator, by how its type begins.
_READERS: dict[str, Callable[[Any, Any, Any], Understood]] = {
    "MatMul": _matmul, "QuantBatchMatmul": _matmul, "WeightQuantBatchMatmul": _weight_only, "Add": _sum,
}
