"""The order check: races are refused with both lines, whatever the times are, and every kernel of the dataflows passes."""

from __future__ import annotations

import re

import pytest

from msdsim.api import dataflows_for, find_dataflow, simulate
from msdsim.errors import Deadlock, KernelError
from msdsim.hardware import load_hw
from msdsim.ir import order as order_module
from msdsim.ir import print_kernel
from msdsim.ir.lower import lower
from msdsim.ir.order import check_order
from msdsim.ir.parser import parse_kernel
from msdsim.ir.verify import verify
from msdsim.problems import parse_problem
from msdsim.tilings import choose_tiling
from tests.ir.kernels import copy_kernel, exchange_kernel, matmul_kernel

TOY = load_hw("toy")
#: A ring of 4 slots between AIVs and AIC, used three times over.
DEQUANT = ("gemm:m=16,k=1024,n=1536", "dequant-int8")
#: A barrier between phases, and a ring of results between AIC and AIVs.
MSD = ("gemm:m=16,k=512,n=1536", "msd-int8")


def text_of(problem: str, dataflow: str, chip=TOY) -> str:
    shape = parse_problem(problem)
    entry = find_dataflow(shape, dataflow)
    return print_kernel(entry.build(shape, chip.chip, choose_tiling(entry, shape, chip.chip, None)))


def checked(text: str, chip=TOY):
    kernel = parse_kernel(text)
    verify(kernel, chip.chip)
    return check_order(lower(kernel, chip.chip))


@pytest.mark.parametrize("kernel", [copy_kernel(), copy_kernel(cores=2), matmul_kernel(), exchange_kernel()], ids=lambda k: k.name)
def test_small_kernels_are_ordered(kernel):
    assert check_order(lower(kernel, TOY.chip)).complete


@pytest.mark.parametrize("chip", ["toy", "ascend910b1", "ascend950pr"])
@pytest.mark.parametrize("problem", ["gemm:m=16,k=1024,n=768", "gemm:m=70,k=333,n=517", "grouped_gemm:groups=3,m=5,k=256,n=192",
                                     "attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=1,kv=300"])
def test_dataflows_are_ordered(problem, chip):
    shape, hardware = parse_problem(problem), load_hw(chip)
    for name in dataflows_for(shape.kind):
        if find_dataflow(shape, name).refuses(shape, hardware.chip) is None:
            assert checked(text_of(problem, name, hardware), hardware).complete


def test_a_race_names_both_lines_and_pipes():
    """The ring's slots are announced by the pipe that loads, not by the one that stores: in time on this chip, and wrong."""
    text = text_of(*DEQUANT).replace("signal full on MTE3", "signal full on MTE2")
    lines = text.splitlines()
    with pytest.raises(KernelError) as caught:
        checked(text)
    found = re.match(r"line (\d+): '(copy b1.*)' on core 0 AIC MTE2 reads a part of 'ring' that line (\d+), '(copy ring.*)' on core 0 "
                     r"AIV\[0\] MTE3, writes \(at nt=0, .*\), and nothing orders the two; raise a signal", str(caught.value))
    assert found
    assert lines[int(found[1]) - 1].strip() == found[2]
    assert lines[int(found[3]) - 1].strip() == found[4]


PLANTED = [
    # A dropped pair: nobody says that a slot is full, or free again.
    (DEQUANT, r"\n *(signal|wait) full on \w+", ""),
    (DEQUANT, r"\n *(signal|wait) empty on \w+", ""),
    (MSD, r"\n *(signal|wait) (product) on \w+", ""),
    (MSD, r"\n *(signal|wait) (merged) on \w+", ""),
    # The wrong pipe.
    (DEQUANT, "signal full on MTE3", "signal full on V"),
    (DEQUANT, "wait full on MTE2", "wait full on MTE1"),
    (DEQUANT, "wait full on MTE2", "wait full on FIX"),
    (MSD, "signal product on FIX", "signal product on M"),
    (MSD, "wait product on MTE2", "wait product on V"),
    (MSD, "signal split_done on MTE3", "signal split_done on MTE2"),
    (MSD, "signal split_done on MTE3", "signal split_done on V"),
    # A ring one slot shorter than its signals allow, or one more slot handed out.
    (DEQUANT, r"ring\[core, c", "ring[core, c % 3"),
    (DEQUANT, "for s in 0 .. 4", "for s in 0 .. 5"),
    (MSD, r"// 2 % 2", "// 2 % 1"),
    (MSD, r"for s in 0 \.\. 2", "for s in 0 .. 3"),
    # Released too early, awaited too late.
    (MSD, r"(\n *wait product on MTE2)((?:\n.*)+?)(\n *signal merged on MTE2)", r"\3\1\2"),
    (DEQUANT, r"(\n *wait full on MTE2)((?:\n.*)+?)(?=\n *signal empty)", r"\2\1"),
    (DEQUANT, r"(\n *wait empty on MTE3)((?:\n.*)+?)(\n *signal full on MTE3)", r"\2\1\3"),
    (MSD, r"(\n *fixpipe c.*)(\n *signal product on FIX)", r"\2\1"),
    (MSD, r"(\n *wait merged on FIX)(\n *fixpipe c.*)", r"\2\1"),
    # A block before what it needs.
    (MSD, r"(\n    signal split_done on MTE3)(\n    wait split_done on MTE2)", r"\2\1"),
]


@pytest.mark.parametrize(("base", "old", "new"), PLANTED)
def test_planted_races_are_found(base, old, new):
    """Every one is refused: by the order check, or because raisings and waits no longer match."""
    text = text_of(*base)
    planted = re.sub(old, new, text)
    assert planted != text
    if "signal" in old and new == "":
        for name in {"full", "empty", "product", "merged"} & set(re.findall(r"\w+", old)):
            planted = re.sub(rf"\n *signal {name}: \w+", "", planted)
    with pytest.raises(KernelError, match=r"nothing orders the two|cannot finish|is raised .* and waited for"):
        checked(planted)


def test_program_order_of_a_pipe_and_data_between_pipes_count():
    """Waiting on the pipe that loads is enough where everything stored comes from what is loaded after it."""
    assert checked(text_of(*DEQUANT).replace("wait empty on MTE3", "wait empty on MTE2")).complete


def test_cores_that_overlap():
    """Neighbours write the same rows of y."""
    text = print_kernel(copy_kernel(rows=16, cores=2, step=2)).replace("copy y[i * 2 +: 2", "copy y[min(i * 2, 14 - i) +: 2")
    with pytest.raises(KernelError, match=r"on core 1 AIV\[0\] MTE3 writes a part of 'y' that .* core 0 AIV\[0\] MTE3, writes"):
        checked(text.replace("14 - i", "i"))


def test_a_workspace_of_one_core_needs_an_order_too():
    text = """\
kernel k {
  cores 1 x 1
  tensor x: fp32[16, 64] in
  tensor w: fp32[16, 64] workspace
  tensor y: fp32[16, 64] out
  signal s: barrier
  aiv {
    for i in 0 .. 16 {
      buffer a: UB fp32[1, 64] ring 2
      copy a <- x[i, :]
      copy w[i, :] <- a
    }
    signal s on MTE3
    wait s on MTE2
    for j in 0 .. 16 {
      buffer b: UB fp32[1, 64] ring 2
      copy b <- w[15 - j, :]
      copy y[j, :] <- b
    }
  }
}
"""
    assert checked(text).complete
    without = text.replace("    signal s on MTE3\n    wait s on MTE2\n", "").replace("  signal s: barrier\n", "")
    with pytest.raises(KernelError, match=r"line 14: 'copy b <- w\[15 - j, :\]' .* AIV\[0\] MTE2 reads a part of 'w' that line 10"):
        checked(without)


def test_long_loops_are_looked_at_where_it_matters():
    """A billion rows cost what a few cost, and a race at the very end is still found."""
    text = print_kernel(copy_kernel(rows=500_000_000))
    assert check_order(lower(parse_kernel(text), TOY.chip)).events < 20
    last = text.replace("copy y[i, :]", "copy y[i - i // 499999999, :]")
    assert check_order(lower(parse_kernel(last), TOY.chip)).complete
    two = print_kernel(copy_kernel(rows=300_000_000, cores=2)).replace("copy y[i, :]", "copy y[i - i // 299999999, :]")
    with pytest.raises(KernelError, match="nothing orders"):
        check_order(lower(parse_kernel(two), TOY.chip))


def test_the_end_of_what_is_looked_at_is_said(monkeypatch):
    monkeypatch.setattr(order_module, "MOST_EVENTS", 50)
    found = checked(text_of(*DEQUANT))
    assert not found.complete
    assert found.events >= 50


def test_a_wait_before_its_own_raising_cannot_finish():
    text = text_of(*MSD)
    turned = re.sub(r"(\n    signal split_done on MTE3)(\n    wait split_done on MTE2)", r"\2\1", text)
    with pytest.raises(KernelError, match=r"line \d+: the kernel cannot finish in the order of its text: core 0 .* waits here"):
        checked(turned)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_running_it_is_a_deadlock(engine):
    """The engines' pipes could run ahead of the text; the numbers, and a chip whose waits hold the scalar unit, cannot."""
    turned = re.sub(r"(\n    signal split_done on MTE3)(\n    wait split_done on MTE2)", r"\2\1", text_of(*MSD))
    with pytest.raises(Deadlock, match="cannot finish in the order of its text"):
        simulate(parse_kernel(turned), TOY, engine=engine)
    assert simulate(parse_kernel(text_of(*MSD)), TOY, engine=engine).cycles > 0


@pytest.mark.parametrize(("dataflow", "chip", "direct"), [("bf16", "ascend910b1", 0), ("msd-int8", "toy", 0), ("msd-int4", "toy", 0),
                                                         ("convert-int8", "ascend950pr", 1)])
def test_an_aiv_without_rows_of_a_row_tile_has_read_what_came_before(dataflow, chip, direct):
    """The last of the row tiles has 6 rows of 16, all of them the first AIV's; the other still has O of the tile before to read."""
    shape, hardware = parse_problem("attention:batch=1,heads=2,kv_heads=1,head_dim=32,q=70,kv=300"), load_hw(chip)
    entry = find_dataflow(shape, dataflow)
    given = {"rows": 16, "kv_tile": 64, "direct": direct}
    text = print_kernel(entry.build(shape, hardware.chip, choose_tiling(entry, shape, hardware.chip, given)))
    assert checked(text, hardware).complete
    if chip == "toy":
        unsaid = re.sub(r"\n *(signal|wait) partial_read\b.*", "", text)
        with pytest.raises(KernelError, match=r"'fixpipe o.*' on core 0 AIC FIX writes a part of 'o' that .* nothing orders the two"):
            checked(unsaid, hardware)
