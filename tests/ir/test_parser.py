"""Print and parse are inverses of each other, for every dataflow's kernels and for text that is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given

from msdsim.dataflows import DATAFLOWS
from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.ir import print_kernel
from msdsim.ir.parser import parse_kernel, read_kernel
from msdsim.problems import parse_problem
from msdsim.tilings import automatic_tiling
from tests.ir.kernels import copy_kernel, exchange_kernel, matmul_kernel, scale_kernel
from tests.ir.test_expr import expressions

SMALL = [copy_kernel(), scale_kernel(), matmul_kernel(), exchange_kernel()]


def dataflow_kernels():
    for entry in DATAFLOWS.values():
        if entry.kind != "gemm":
            continue
        for shape in ("gemm:m=7,k=333,n=517", "gemm:m=300,k=1024,n=512,offset=1"):
            problem = parse_problem(shape)
            for chip in ("toy", "ascend910b1", "ascend950pr"):
                hardware = load_hw(chip)
                if entry.refuses(problem, hardware.chip) is None:
                    yield pytest.param(entry, problem, hardware, id=f"{entry.name}-{shape}-{chip}")


@pytest.mark.parametrize("kernel", SMALL, ids=lambda k: k.name)
def test_inverse(kernel):
    text = print_kernel(kernel)
    assert parse_kernel(text) == kernel
    assert print_kernel(parse_kernel(text)) == text


@pytest.mark.parametrize(("entry", "problem", "hardware"), list(dataflow_kernels()))
def test_inverse_for_dataflows(entry, problem, hardware):
    kernel = entry.build(problem, hardware.chip, automatic_tiling(entry, problem, hardware.chip))
    text = print_kernel(kernel)
    assert parse_kernel(text) == kernel
    assert print_kernel(parse_kernel(text)) == text
    assert max(map(len, text.splitlines())) <= 140


@given(expressions(4))
def test_expressions(expr):
    kernel = f"kernel k {{\n cores 1 x 1\n aiv {{\n when {expr} {{\n }}\n }}\n}}\n"
    assert parse_kernel(kernel).aiv[0].condition == expr


def test_comments_and_line_numbers():
    text = print_kernel(copy_kernel()).replace("aiv {", "# the only part\n  aiv {  # starts here")
    kernel = parse_kernel(text)
    assert kernel == copy_kernel()
    assert kernel.aiv[0].line == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kernel copy {", "kernal copy {", "line 1: expected 'kernel', found 'kernal'"),
        ("cores 1 x 1", "cores 1 by 1", "line 2: expected 'x', found 'by'"),
        ("fp32[8, 64] in", "fp32[8, 64] input", "line 3: expected one of in, out, workspace, found 'input'"),
        ("ring 2", "ring two", "line 7: expected a whole number, found 'two'"),
        ("copy tile", "frobnicate tile", "line 8: expected a statement: buffer, let, for, when or an operation, found 'frobnicate'; 'msdsim ir --ops'"),
        ("copy tile", "load tile", "found 'load'; did you mean 'copy'?"),
        ("copy tile", "coppy tile", "found 'coppy'; did you mean 'copy'?"),
        ("<- x[", "<- z[", "line 8: expected a declared tensor or buffer (declared: x, y, tile), found 'z'"),
        ("x[i, :", "x[i : 1", "line 8: expected ']', found ':'"),
        ("x[i, :", "x[i", "line 8: 'x' has 2 dimensions, 1 ranges are given; give one each"),
        ("x[i, :", "x[i // 0, :", "line 8: 'i // 0' divides by zero; a divisor must be above 0"),
        ("x[i, :", "x[1234567890123456789, :", "line 8: the number 123456789012... has 19 digits; at most 18 are read"),
        ("x[i, :", f"x[{'(' * 101}i, :", "line 8: the expression is nested too deeply, more than 100 terms"),
        ("x[i, :", f"x[{' + '.join(['i'] * 102)}, :", "line 8: the expression is nested too deeply, more than 100 terms"),
        ("      copy tile", "when i < 2 {" * 63 + "copy tile", "line 8: blocks are nested too deeply, more than 64 inside each other"),
        ("ring 2", "ring depth", "line 7: expected a whole number, found 'depth'"),
        ("ring 2", "ring (i + 1)", "line 7: a size cannot depend on 'i'"),
        ("copy y", "buffer tile: UB fp32[1, 64] ring 1\ncopy y", "line 9: 'tile' is declared a second time; the first one is in line 7"),
        ("cores 1 x 1", "cores 1 x 1;", "line 2: unexpected character ';'; a statement ends with its line"),
        ("    for i", "  aiv {\n", "line 6: 'aiv' begins here, but the part 'aiv' of line 5 is still open"),
        ("for i in", "for i = ", "line 6: expected 'in', found '='"),
        ("    }\n  }\n}", "    }\n", "line 12: the text ends inside the part 'aiv' of line 5, which is still open; close it with '}'"),
        ("    }\n  }\n}", "  }\n}\n", "the '}' in line 10, which closes the block 'for i' of line 6, is indented otherwise"),
        ("cores", "~cores", "line 2: unexpected character '~'"),
    ],
)
def test_mistakes(old, new, message):
    text = print_kernel(copy_kernel())
    assert old in text
    with pytest.raises(KernelError) as caught:
        parse_kernel(text.replace(old, new, 1))
    assert message in str(caught.value)


def test_files(tmp_path):
    path = tmp_path / "copy.kir"
    path.write_text(print_kernel(copy_kernel()))
    assert read_kernel(path) == copy_kernel()
    path.write_text("kernel 3")
    with pytest.raises(KernelError, match=r"kernel file 'copy.kir', line 1: expected the kernel's name, found '3'"):
        read_kernel(path)
    with pytest.raises(KernelError, match="cannot be read: FileNotFoundError"):
        read_kernel(tmp_path / "none.kir")


@pytest.mark.parametrize("text", ["", "\n \n", "# only a comment\n"])
def test_files_without_a_kernel(text):
    with pytest.raises(KernelError, match="expected 'kernel', found 'end of file'"):
        parse_kernel(text)
