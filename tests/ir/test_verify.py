"""Every rule of the verifier, with the text it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from msdsim.errors import KernelError
from msdsim.hardware import load_hw, override
from msdsim.ir import KernelBuilder, at
from msdsim.ir.expr import Var
from msdsim.ir.kernel import Kernel
from msdsim.ir.verify import verify
from tests.ir.kernels import copy_kernel, exchange_kernel, matmul_kernel, scale_kernel

TOY = load_hw("toy").chip
A5 = load_hw("ascend950pr").chip


def aiv(body, tensors=(("x", "fp32", (8, 64), "in"), ("y", "fp32", (8, 64), "out")), cores=1, signals=()) -> Kernel:
    """A kernel whose AIV part ``body(kb, *tensors)`` fills in."""
    kb = KernelBuilder("k", cores, 1)
    handles = [kb.tensor(*spec) for spec in tensors]
    for signal in signals:
        kb.signal(*signal)
    with kb.part("aiv"):
        body(kb, *handles)
    return kb.build()


def aic(body, tensors=(("x", "bf16", (16, 64), "in"), ("y", "bf16", (16, 64), "out"))) -> Kernel:
    kb = KernelBuilder("k", 1, 1)
    handles = [kb.tensor(*spec) for spec in tensors]
    with kb.part("aic"):
        body(kb, *handles)
    return kb.build()


def refused(kernel: Kernel, match: str, chip=TOY) -> None:
    with pytest.raises(KernelError, match=match) as caught:
        verify(kernel, chip)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kernel", [copy_kernel(), scale_kernel(), matmul_kernel(), exchange_kernel()], ids=lambda k: k.name)
def test_good_kernels_pass(kernel):
    verify(kernel, TOY)


def test_capacity_counts_all_slots():
    def body(kb, x, y):
        tile = kb.buffer("tile", "UB", "fp32", (8, 1024), 2)
        kb.op("dup", tile[:, :], scalar=0.0)

    refused(aiv(body), r"needs 65536 bytes of UB on each AIV \(tile 65536\), 32768 more than the 32768 bytes of 'toy'")


def test_reads_past_the_end_of_a_tensor():
    def body(kb, x, y):
        tile = kb.buffer("tile", "UB", "fp32", (1, 64))
        with kb.loop("i", 0, 9) as i:
            kb.copy(tile[:, :], x[at(i, 1), :])

    refused(aiv(body), r"line 8: 'copy tile.*reaches 0 \.\. 9 along dimension 0 of size 8; shrink the range")


def test_ragged_ranges_are_followed_where_bounds_alone_cannot():
    """The second AIV has no rows at all, which only the loop's own bounds show."""
    kb = KernelBuilder("ragged", 1, 2)
    x, y = kb.tensor("x", "fp32", (3, 64), "in"), kb.tensor("y", "fp32", (3, 64), "out")
    mine = 3 - kb.sub * 3
    with kb.part("aiv"), kb.loop("i", 0, mine) as i:
        tile = kb.buffer("tile", "UB", "fp32", (1, 64))
        kb.copy(tile[:, :], x[at(kb.sub * 3 + i, 1), :])
        kb.copy(y[at(kb.sub * 3 + i, 1), :], tile[:, :])
    verify(kb.build(), TOY)


def test_uninitialised_read():
    def body(kb, x, y):
        tile = kb.buffer("tile", "UB", "fp32", (1, 64))
        kb.copy(y[at(0, 1), :], tile[:, :])

    refused(aiv(body), "reads buffer 'tile' before anything has written it; fill it first")


def test_a_new_slot_is_uninitialised_again():
    def body(kb, x, y):
        with kb.loop("i", 0, 2) as i:
            tile = kb.buffer("tile", "UB", "fp32", (1, 64), 2)
            kb.copy(y[at(i, 1), :], tile[:, :])
            kb.copy(tile[:, :], x[at(i, 1), :])

    refused(aiv(body), "before anything has written it")


def test_illegal_path_names_the_legal_ones():
    kb = KernelBuilder("k", 1, 1)
    x = kb.tensor("x", "bf16", (16, 16), "in")
    with kb.part("aic"):
        tile = kb.buffer("tile", "L0A", "bf16", (16, 16))
        kb.copy(tile[:, :], x[:, :])
    verify(kb.build(), load_hw("ascend910b1").chip)
    refused(kb.build(), "chip 'ascend950pr' has no path GM->L0A; its paths are .*GM->L1", A5)


def test_formats_the_cube_lacks():
    def body(kb, x, w):
        a0, b0 = kb.buffer("a0", "L0A", "int4", (16, 64)), kb.buffer("b0", "L0B", "int4", (64, 16))
        a1, b1 = kb.buffer("a1", "L1", "int4", (16, 64)), kb.buffer("b1", "L1", "int4", (64, 16))
        acc = kb.buffer("acc", "L0C", "int32", (16, 16))
        kb.copy(a1[:, :], x[:, :])
        kb.copy(b1[:, :], w[:, :])
        kb.copy(a0[:, :], a1[:, :])
        kb.copy(b0[:, :], b1[:, :])
        kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])

    kernel = aic(body, (("x", "int4", (16, 64), "in"), ("w", "int4", (64, 16), "in")))
    verify(kernel, TOY)
    refused(kernel, "the Cube of 'ascend950pr' cannot multiply int4 x int4; it multiplies bf16 x bf16", A5)


def test_wrong_accumulator():
    def body(kb, x, y):
        a0, b0 = kb.buffer("a0", "L0A", "bf16", (16, 16)), kb.buffer("b0", "L0B", "bf16", (16, 16))
        a1 = kb.buffer("a1", "L1", "bf16", (16, 64))
        acc = kb.buffer("acc", "L0C", "int32", (16, 16))
        kb.copy(a1[:, :], x[:, :])
        kb.copy(a0[:, :], a1[:, at(0, 16)])
        kb.copy(b0[:, :], a1[:, at(0, 16)])
        kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])

    refused(aic(body), "bf16 x bf16 accumulates in fp32, not int32")


@pytest.mark.parametrize(("k", "good"), [(131_071, True), (131_072, False)])
def test_int32_limit_is_exact(k, good):
    def body(kb, x, w):
        acc = kb.buffer("acc", "L0C", "int32", (16, 16))
        with kb.loop("k0", 0, -(-k // 256)) as k0:
            size = kb.core + 256 if k % 256 == 0 else _last(256, k, k0)
            a1, b1 = kb.buffer("a1", "L1", "int8", (16, 256), 2), kb.buffer("b1", "L1", "int8", (256, 16), 2)
            a0, b0 = kb.buffer("a0", "L0A", "int8", (16, 256)), kb.buffer("b0", "L0B", "int8", (256, 16))
            kb.copy(a1[:, at(0, size)], x[:, at(k0 * 256, size)])
            kb.copy(b1[at(0, size), :], w[at(k0 * 256, size), :])
            kb.copy(a0[:, at(0, size)], a1[:, at(0, size)])
            kb.copy(b0[at(0, size), :], b1[at(0, size), :])
            kb.op("mmad", acc[:, :], a0[:, at(0, size)], b0[at(0, size), :], accumulate=k0)

    kernel = aic(body, (("x", "int8", (16, k), "in"), ("w", "int8", (k, 16), "in")))
    if good:
        verify(kernel, TOY)
    else:
        refused(kernel, rf"a sum over K={k} can leave int32 \(safe up to 131071\); split K")


def _last(tile, total, index):
    from msdsim.ir.expr import minimum

    return minimum(tile, total - index * tile)


def test_signal_directions_and_balance():
    def body(kb, x, y):
        t = kb.buffer("t", "UB", "fp32", (8, 64))
        kb.copy(t[:, :], x[:, :])
        kb.copy(y[:, :], t[:, :])
        kb.raise_signal("go", "MTE3")

    refused(aiv(body, signals=[("go", "aic_to_aiv")]), "signal 'go' goes from aic to aiv; turn it round")
    refused(aiv(body, signals=[("go", "aiv_to_aic")]), "signal 'go' is raised 1 times and waited for never on core 0")
    refused(aiv(body, signals=[("stop", "aiv_to_aic")]), "unknown signal 'go'; signals: stop")


@pytest.mark.parametrize(("space", "core", "sub", "said"), [
    ("UB", 0, 0, None), ("UB", 1, 0, "lies in UB of other cores; start it at core, sub"), ("UB", 0, 1, "lies in UB of other cores"),
    ("L1", 0, 0, None), ("L1", 0, 1, None), ("L1", 1, 0, "lies in L1 of other cores; start it at core$")])
def test_workspaces_on_chip_are_those_of_the_own_group(space, core, sub, said):
    """UB is the AIV's own, L1 that of its group; the ranges stay inside of the tensor either way."""
    kb = KernelBuilder("own", cores=2, aiv_per_core=2)
    shared = kb.tensor("shared", "fp32", (2, 2, 8, 64), "workspace", space)
    y = kb.tensor("y", "fp32", (2, 2, 8, 64), "out")
    with kb.part("aiv"):
        tile = kb.buffer("tile", "UB", "fp32", (8, 64))
        kb.op("dup", tile[:, :], scalar=1.0)
        place = kb.core if not core else 1 - kb.core, kb.sub if not sub else 1 - kb.sub
        if space == "UB":
            kb.op("muls", shared[(*place, at(0, 8), at(0, 64))], tile[:, :], scalar=1.0)
        else:
            kb.copy(shared[(*place, at(0, 8), at(0, 64))], tile[:, :])
        kb.copy(y[kb.core, kb.sub, :, :], tile[:, :])
    kernel = kb.build()
    if said is None:
        verify(kernel, A5)
    else:
        refused(kernel, said, A5)


def test_surplus_signals_are_refused():
    kernel = exchange_kernel()
    loop = kernel.aic[-1]
    shorter = replace(loop, high=loop.high - 1)
    refused(replace(kernel, aic=(*kernel.aic[:-1], shorter)), "raised 4 times and waited for 3 times on core 0")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (lambda kb, x, y: kb.op("dup", kb.buffer("t", "UB", "fp32", (1, 8))[:, :], fill=1.0), "'dup' has no attribute 'fill'"),
        (lambda kb, x, y: kb.op("abs", kb.buffer("t", "UB", "fp32", (1, 8))[:, :]), "'abs' takes 1 inputs and an output"),
        (lambda kb, x, y: kb.buffer("t", "L1", "fp32", (1, 8)), "an AIV has no L1"),
        (lambda kb, x, y: kb.buffer("t", "L9", "fp32", (1, 8)), "unknown space 'L9'; on-chip spaces: L1, L0A"),
        (lambda kb, x, y: kb.buffer("t", "UB", "fp33", (1, 8)), "unknown format 'fp33'"),
        (lambda kb, x, y: (kb.buffer("t", "UB", "fp32", (1, 8)), kb.buffer("t", "UB", "fp32", (1, 8))), "'t' is declared twice"),
        (lambda kb, x, y: kb.op("dup", kb.buffer("t", "UB", "fp32", (1, 8))[at(Var("q"), 1), :], scalar=0.0),
         "'q' reads 'q', which is no loop variable here; variables here: core, sub"),
        (lambda kb, x, y: kb.op("cast", kb.buffer("t", "UB", "int8", (8, 64))[:, :], _filled(kb)), "cannot convert fp32 to int8"),
        (lambda kb, x, y: kb.op("add", kb.buffer("t", "UB", "bf16", (8, 64))[:, :], _filled(kb), _again(kb)),
         "Vector has no arithmetic in bf16"),
        (lambda kb, x, y: kb.copy(kb.buffer("t", "UB", "fp32", (4, 64))[:, :], x[:, :]), r"shape \[4, 64\] differs from \[8, 64\]"),
    ],
)
def test_statements(body, match):
    refused(aiv(body), match)


def _filled(kb):
    tile = kb.buffer("filled", "UB", "fp32", (8, 64))
    kb.op("dup", tile[:, :], scalar=0.0)
    return tile[:, :]


def _again(kb):
    tile = kb.buffer("again", "UB", "fp32", (8, 64))
    kb.op("dup", tile[:, :], scalar=0.0)
    return tile[:, :]


def test_the_kernel_must_fit_the_chip():
    refused(copy_kernel(cores=3), r"runs on 3 x 1 cores, 'toy' has 2 x 2; lower 'cores'")
    small = override(load_hw("toy"), {"hbm.capacity_bytes": 4096}).chip
    refused(copy_kernel(rows=64), "needs 32768 bytes of GM, 'toy' has 4096", small)


def test_pipes_of_the_other_part():
    def body(kb, x, y):
        kb.wait_signal("s", "FIX")

    refused(aiv(body, signals=[("s", "aic_to_aiv")]), "no pipe 'FIX' on the AIV; pipes: MTE2, V, MTE3")


def test_an_unknown_operation_is_refused_where_it_is_written():
    kb = KernelBuilder("unknown", cores=1, aiv_per_core=1)
    with kb.part("aiv"), pytest.raises(KernelError, match=r"unknown operation 'frobnicate' \(known: copy, fixpipe, mmad"):
        kb.op("frobnicate")
