"""Tables of the profiler become rows of measurements; the kernels and times here are made up."""

from __future__ import annotations

import pytest

from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.explore.op_summary import read_op_summary

HEAD = ("Device_id,Op Name,OP Type,Task Type,Task Start Time(us),Task Duration(us),{blocks},Input Shapes,Input Data Types,"
        "Output Shapes,aicore_time(us),aic_mac_time(us),aiv_time(us),aiv_vec_time(us),aiv_mte2_time(us)")
TIMES = ",1767225600000000.000\t"


def row(name, kind, task, duration, blocks, shapes, types, out, *pmu, quotes=1):
    mark = '"' * quotes
    return ",".join(["0", name, kind, task + TIMES, duration, blocks, mark + shapes + mark, types, mark + out + mark, *pmu])


ROWS = [
    ("mm", "MatMulV3", "AI_CORE", "40.5", "24", "64,4096;4096,4096", "DT_BF16;DT_BF16", "64,4096", "30", "9", "0.0", "0", "0"),
    ("mm2", "MatMulV3", "AI_CORE", "42.5", "24", "64,4096;4096,4096", "DT_BF16;DT_BF16", "64,4096", "32", "9", "0.0", "0", "0"),
    ("wq", "WeightQuantBatchMatmulV2", "MIX_AIC", "60", "24", "16,4096;4096,2048;32,2048;32,2048", "FLOAT16;INT8;FLOAT16;FLOAT16",
     "16,2048", "50", "5", "49", "30", "20"),
    ("add", "Add", "AI_VECTOR_CORE", "12", "8", "64,2048;64,2048", "DT_BF16;DT_BF16", "64,2048", "0.0", "0", "2", "1", "1"),
    ("q", "QuantBatchMatmulV3", "AI_CORE", "20", "20", "64,1024;512,1024", "INT8;INT8", "64,512", "N/A", "N/A", "N/A", "N/A", "N/A"),
    ("all", "hcom_allReduce_", "COMMUNICATION", "9", "0", "N/A", "N/A", "N/A", "N/A", "N/A", "N/A", "N/A", "N/A"),
]


@pytest.mark.parametrize("blocks", ["Block Dim", "Block Num"])
@pytest.mark.parametrize("quotes", [1, 3])
def test_a_table(tmp_path, blocks, quotes):
    path = tmp_path / "op_summary_20260101000000.csv"
    path.write_text("\n".join([HEAD.format(blocks=blocks), *(row(*item, quotes=quotes) for item in ROWS)]) + "\n")
    matmul, weights, add, quantized, other = read_op_summary(path, "ascend910b1", (24, 48))
    assert (matmul.problem, matmul.dataflow, matmul.scope) == ("gemm:m=64,k=4096,n=4096", "bf16", "task")
    # Twice the same: the medians of both.
    assert (matmul.time_us, matmul.components_us, matmul.note) == (41.5, {"aicore": 31.0, "mac": 9.0}, "2 runs")
    assert weights.problem == "gemm:m=16,k=4096,n=2048,group=128,offset=1"
    assert weights.dataflow == "dequant-int8"
    assert weights.components_us == {"aicore": 50, "mac": 5, "aiv": 49, "vec": 30, "aiv_mte2": 20}
    assert add.problem.startswith("micro:add_matrix,m=64,n=2048")
    assert add.set == {"cores.aic": 4}
    assert (quantized.problem, quantized.dataflow) == ("gemm:m=64,k=1024,n=512,trans_b=1", "w8a8")
    assert (quantized.set, quantized.components_us) == ({"cores.aic": 20}, {})
    assert other.dataflow == "inexpressible"
    assert "hcom_allReduce_" in other.note


@pytest.mark.parametrize(("types", "problem", "dataflow"), [
    ("DT_FLOAT8_E4M3FN;DT_FLOAT8_E4M3FN;DT_FLOAT8_E8M0;DT_FLOAT8_E8M0", ",x=mxfp8", "w8a8-mxfp8"),
    ("FLOAT4_E2M1;FLOAT4_E2M1;FLOAT8_E8M0;FLOAT8_E8M0", ",x=mxfp4", "w4a4-mxfp4"),
    ("DT_FLOAT8_E4M3FN;DT_FLOAT4_E2M1;DT_FLOAT8_E8M0;DT_FLOAT8_E8M0", ",x=mxfp8", "mxfp8"),
    ("DT_FLOAT8_E4M3FN;DT_FLOAT8_E4M3FN;FLOAT;FLOAT", None, "inexpressible"),
])
def test_products_of_mx_blocks(tmp_path, types, problem, dataflow):
    path = tmp_path / "op_summary.csv"
    item = row("q", "QuantBatchMatmulV4", "AI_CORE", "20", "32", "64,1024;512,1024;512,16,2;64,16,2", types, "64,512", *"12345")
    path.write_text("\n".join([HEAD.format(blocks="Block Num"), item]) + "\n")
    (found,) = read_op_summary(path, "ascend950pr", (32, 64))
    assert found.dataflow == dataflow
    if problem is None:
        assert "no dataflow multiplies fp8_e4m3fn by fp8_e4m3fn" in found.note
    else:
        assert found.problem == f"gemm:m=64,k=1024,n=512,trans_b=1{problem}"


def test_validated_from_the_command_line(tmp_path, capsys):
    path, page = tmp_path / "kernel_details.csv", tmp_path / "page.html"
    path.write_text("\n".join([HEAD.format(blocks="Block Num"), *(row(*item) for item in ROWS[:4])]) + "\n")
    assert run_program(["validate", str(path), "--hw", "ascend910b1", "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "1-mm" in out
    assert "of it aiv" in out
    text = page.read_text()
    assert text.count("data:image/png") == 2
    assert "Times of pipes" in text


@pytest.mark.parametrize(("text", "message"), [
    ("a,b\n", "has no rows"), ("OP Type,Task Duration(us)\nMatMul,3\n", "has no column 'Input Shapes'"),
])
def test_tables_that_say_too_little(tmp_path, text, message):
    path = tmp_path / "op_summary_1.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_op_summary(path, "ascend910b1", (24, 48))


def test_the_chip_has_to_be_named(tmp_path, capsys):
    path = tmp_path / "op_summary_1.csv"
    path.write_text(HEAD.format(blocks="Block Num") + "\n" + row(*ROWS[0]) + "\n")
    assert run_program(["validate", str(path)]) == 2
    assert "name it with --hw" in capsys.readouterr().err


@pytest.mark.parametrize(("duration", "blocks", "us", "groups"), [
    ("40.5", "12", 40.5, {"cores.aic": 12}), ("40.5", "24", 40.5, {}), ("40.5", "inf", 40.5, {}), ("40.5", "nan", 40.5, {}),
    ("40.5", "-1", 40.5, {}), ("0", "12", None, {"cores.aic": 12}), ("-3", "12", None, {"cores.aic": 12}), ("inf", "12", None, {"cores.aic": 12}),
    ("N/A", "", None, {})])
def test_cells_that_hold_no_time_and_no_count(tmp_path, duration, blocks, us, groups):
    path = tmp_path / "kernel_details.csv"
    cells = ("mm", "MatMulV3", "AI_CORE", duration, blocks, "64,4096;4096,4096", "DT_BF16;DT_BF16", "64,4096", "inf", "nan", "0.0", "-1", "2")
    path.write_text(HEAD.format(blocks="Block Num") + "\n" + row(*cells) + "\n")
    found, = read_op_summary(path, "ascend910b1", (24, 48))
    assert (found.time_us, found.set, found.components_us) == (us, groups, {"aiv_mte2": 2.0})
