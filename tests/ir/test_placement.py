"""Where buffers lie in UB: pinned, side by side, and out of each other's banks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msdsim.api import build_kernel, dataflows_for, find_dataflow, simulate
from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.hardware.units.vector import vector_cost
from msdsim.ir import KernelBuilder, print_kernel
from msdsim.ir.annotate import annotated_kernel
from msdsim.ir.lower import lower
from msdsim.ir.parser import parse_kernel
from msdsim.ir.placement import buffer_phases, place
from msdsim.ir.verify import verify
from msdsim.problems import parse_problem

A2, TOY = load_hw("ascend910b1"), load_hw("toy")

ADD = """\
kernel add {{
  cores 1 x 1
  tensor x: fp32[64, 64] in
  aiv {{
    buffer a: UB fp32[64, 64] ring 1{a}
    buffer b: UB fp32[64, 64] ring 1{b}
    buffer c: UB fp32[64, 64] ring 1{c}
    copy a[0 +: 64, 0 +: 64] <- x[0 +: 64, 0 +: 64]
    copy b[0 +: 64, 0 +: 64] <- x[0 +: 64, 0 +: 64]
    for i in 0 .. 10 {{
      {op} c[0 +: 64, 0 +: 64] <- a[0 +: 64, 0 +: 64]{second}
    }}
  }}
}}
"""


def add(a: int | None = None, b: int | None = None, c: int | None = None, op: str = "add"):
    pins = {name: "" if at is None else f" at {at:#x}" for name, at in (("a", a), ("b", b), ("c", c))}
    second = ", b[0 +: 64, 0 +: 64]" if op in ("add", "mul") else ""
    return parse_kernel(ADD.format(op=op, second=second, **pins))


def check_places(kernel, chip):
    """Nothing overlaps, all is aligned and inside; returns the places."""
    places = place(kernel, chip)
    shared = [(places[t.name].address, places[t.name].address + t.bytes_per_core) for t in kernel.tensors if t.space == "UB"]
    for allocs in buffer_phases(kernel, kernel.aiv):
        taken = list(shared)
        for buffer in (alloc.buffer for alloc in allocs if alloc.buffer.space == "UB"):
            where = places[buffer.name]
            assert where.address % chip.alignment.ub_bytes == 0
            assert buffer.address in (None, where.address)
            for slot in range(buffer.ring):
                begin = where.address + slot * where.stride_bytes
                assert begin + buffer.slot_bytes <= chip.buffers.ub_bytes
                assert all(begin >= high or begin + buffer.slot_bytes <= low for low, high in taken)
                taken.append((begin, begin + buffer.slot_bytes))
    return places


# The text form


def test_an_address_in_the_text():
    kernel = add(a=0, b=0x4100, c=0x10000)
    text = print_kernel(kernel)
    assert "buffer b: UB fp32[64, 64] ring 1 at 0x4100\n" in text
    assert parse_kernel(text) == kernel
    assert print_kernel(parse_kernel(text)) == text
    assert parse_kernel(text.replace("0x4100", "16640")) == kernel


def test_an_address_from_the_builder():
    kb = KernelBuilder("k", 1, 1)
    with kb.part("aiv"):
        kb.buffer("a", "UB", "fp32", (1, 64), 2, address=0x100)
    assert "ring 2 at 0x100" in print_kernel(kb.build())


def test_a_number_may_be_hexadecimal_anywhere():
    text = print_kernel(add(op="muls")).replace("<- x", "<- x[0x0 +: 0x40, :]").replace("10 {", "0xa {")
    text = text.replace("<- a\n    }", "<- a {scalar=0x2}\n    }")
    assert "scalar=2.0" in print_kernel(parse_kernel(text))


@pytest.mark.parametrize(("kernel", "message"), [
    (add(a=0x10), r"line 5: 'buffer a.* at 0x10': address 0x10 is no multiple of 32 bytes; use 0x0 or 0x20"),
    (add(c=0x2D000), r"line 7: 'buffer c.*': it ends at 0x31000, the UB of 'ascend910b1' at 0x30000; lower the address"),
    (add(a=0, b=0x3000), r"line 6: 'buffer b.*': 0x3000 \.\. 0x7000 overlaps 'a' at 0x0 \.\. 0x4000; move one of them"),
])
def test_an_address_that_cannot_be(kernel, message):
    with pytest.raises(KernelError, match=message):
        verify(kernel, A2.chip)


def test_only_ub_has_addresses():
    text = "kernel k {\n  cores 1 x 1\n  aic {\n    buffer a: L1 fp16[16, 16] ring 1 at 0x0\n  }\n}\n"
    with pytest.raises(KernelError, match=r"'at' pins a buffer in UB, this one is in L1; leave out 'at'"):
        verify(parse_kernel(text), A2.chip)


def test_no_room_in_one_piece():
    """8 KiB are left on each side of the pinned buffer, 16 KiB in all."""
    text = """\
kernel k {
  cores 1 x 1
  aiv {
    buffer pinned: UB fp32[64, 64] ring 1 at 0x2000
    buffer free: UB fp32[48, 64] ring 1
  }
}
"""
    with pytest.raises(KernelError, match=r"line 5: 'buffer free.*': between the pinned buffers no 12288 bytes of UB are left"):
        verify(parse_kernel(text), TOY.chip)
    check_places(parse_kernel(text.replace("48", "32")), TOY.chip)


# The allocator


def test_without_banks_one_follows_the_other():
    kb = KernelBuilder("k", 1, 1)
    with kb.part("aiv"):
        for name, cols, ring in (("a", 3, 2), ("b", 64, 1), ("c", 8, 1)):
            kb.buffer(name, "UB", "fp32", (1, cols), ring)
    places = check_places(kb.build(), TOY.chip)
    assert [(places[name].address, places[name].stride_bytes) for name in "abc"] == [(0, 32), (0x40, 256), (0x140, 32)]


def test_sources_are_kept_half_a_round_apart():
    """Side by side they would begin at the same phase: the vendor's remedy is 256 B of padding."""
    places = check_places(add(), A2.chip)
    assert (places["b"].address - places["a"].address) % 512 == 256
    assert lower(add(), A2.chip).aiv.instructions()[-1].timing.without_conflicts is None


def test_a_full_ub_is_placed_without_padding():
    """Three buffers that fill UB to the last byte leave no room to move them apart, yet they are placed."""
    text = print_kernel(add()).replace("[64, 64]", "[256, 64]").replace("+: 64, 0", "+: 256, 0")
    kernel = parse_kernel(text)
    verify(kernel, A2.chip)
    places = check_places(kernel, A2.chip)
    assert sorted(where.address for where in places.values()) == [0, 0x10000, 0x20000]


def test_phases_use_the_same_memory():
    text = """\
kernel k {
  cores 1 x 1
  signal all: barrier
  aiv {
    buffer a: UB fp32[64, 64] ring 1 at 0x0
    signal {name=all, pipe=MTE3}
    wait {name=all, pipe=MTE2}
    buffer b: UB fp32[64, 64] ring 1 at 0x0
  }
}
"""
    kernel = parse_kernel(text)
    verify(kernel, A2.chip)
    assert {where.address for where in check_places(kernel, A2.chip).values()} == {0}


SHAPES = st.tuples(st.integers(1, 40), st.sampled_from([1, 3, 8, 64, 100, 500]), st.integers(1, 3))


@given(st.lists(SHAPES, min_size=1, max_size=8), st.integers(0, 2), st.data())
def test_whatever_fits_side_by_side_is_placed(shapes, share, data):
    """Buffers of random sizes with additions among them, in a UB that has just room for them, or ``share`` KiB more."""
    kb = KernelBuilder("k", 1, 1)
    with kb.part("aiv"):
        buffers = [kb.buffer(f"b{index}", "UB", "fp32", (rows, cols), ring) for index, (rows, cols, ring) in enumerate(shapes)]
        for buffer in buffers:
            kb.op("dup", buffer[:, :], scalar=1.0)
        alike = [buffer for buffer in buffers if buffer.of.shape == buffers[0].of.shape]
        pick = st.sampled_from(alike)
        for _ in range(3):
            kb.op("add", data.draw(pick)[:, :], data.draw(pick)[:, :], data.draw(pick)[:, :])
    kernel = kb.build()
    size = sum(ring * -(-rows * cols * 4 // 32) * 32 for rows, cols, ring in shapes)
    chip = A2.replace(buffers__ub_bytes=size + share * 1024).chip
    verify(kernel, chip)
    check_places(kernel, chip)


RINGS = """\
kernel rings {
  cores 1 x 1
  tensor x: fp32[64, 64] in
  aiv {
    OUTSIDE
    for i in 0 .. 4 {
      buffer a: UB fp32[65, 64] ring 2 at 0x0
      INSIDE
      buffer c: UB fp32[64, 64] ring 1 at 0x20000
      copy a[0 +: 64, 0 +: 64] <- x[0 +: 64, 0 +: 64]
      copy b[0 +: 64, 0 +: 64] <- x[0 +: 64, 0 +: 64]
      add c[0 +: 64, 0 +: 64] <- a[0 +: 64, 0 +: 64], b[0 +: 64, 0 +: 64]
    }
  }
}
"""


@pytest.mark.parametrize(("inside", "conflicts"), [(True, False), (False, True)])
def test_rings_of_one_block_turn_together(inside, conflicts):
    """Slots of 65 rows of 256 B change their phase.  In one block the two rings change it together; apart they may meet."""
    buffer = "buffer b: UB fp32[65, 64] ring 2 at 0x10100"
    kernel = parse_kernel(RINGS.replace("INSIDE", buffer if inside else "").replace("OUTSIDE", "" if inside else buffer))
    chip = A2.chip
    verify(kernel, chip)
    adds = [instr for instr in lower(kernel, chip).aiv.instructions() if instr.op is not None and instr.op.kind == "add"]
    assert [instr.timing.without_conflicts is not None for instr in adds] == [conflicts]


SMALL = {"gemm": "gemm:m=40,k=1024,n=768", "grouped_gemm": "grouped_gemm:groups=2,m=16,k=256,n=256",
         "attention": "attention:batch=1,heads=8,kv_heads=2,head_dim=128,q=2,kv=512"}


@pytest.mark.parametrize("chip", ["ascend910b1", "ascend950pr", "toy"])
@pytest.mark.parametrize("kind", SMALL)
def test_buffers_of_every_dataflow_have_a_place(chip, kind):
    hardware, problem = load_hw(chip), parse_problem(SMALL[kind])
    for name in dataflows_for(kind):
        dataflow = find_dataflow(problem, name)
        if dataflow.refuses(problem, hardware.chip) is None:
            kernel, _ = build_kernel(dataflow, problem, hardware)
            assert check_places(kernel, hardware.chip) == place(kernel, hardware.chip)


@pytest.mark.parametrize("dataflow", ["dequant-int8", "dequant-int4", "msd-int8", "msd-int4", "w8a8", "a8w4"])
def test_the_main_job_has_no_conflicts(dataflow):
    assert simulate("gemm:m=16,k=8192,n=12288", A2, dataflow).ub_conflict_cycles == 0


# Costs


@given(st.sampled_from(["add", "mul", "muls", "adds", "abs", "exp", "cast"]), st.integers(1, 128), st.integers(0, 7))
def test_banks_of_their_own_cost_what_the_table_says(op, rows, pad):
    """Each operand in another bank of the groups, the sources half a round apart, wherever they begin in it."""
    kb = KernelBuilder("k", 1, 1)
    with kb.part("aiv"):
        shape, pad = (rows, 64), pad * 512
        a = kb.buffer("a", "UB", "fp32", shape, address=pad)
        b = kb.buffer("b", "UB", "fp32", shape, address=0x10100 + pad)
        c = kb.buffer("c", "UB", "fp32", shape, address=0x20000 + pad)
        sources = (a[:, :], b[:, :]) if op in ("add", "mul") else (a[:, :],)
        kb.op(op, c[:, :], *sources, **({"scalar": 2.0} if op in ("muls", "adds") else {}))
    timing = lower(kb.build(), A2.chip).aiv.instructions()[-1].timing
    assert timing.cost == vector_cost(A2.chip, op, 32, contiguous=True)
    assert timing.without_conflicts is None


def test_conflicts_in_the_printed_kernel():
    """A product with a scalar takes a cycle a repeat; one row off in a bank that is read, two."""
    text = annotated_kernel(add(a=0, c=0x4020, op="abs"), A2.chip)
    assert "buffer a: UB fp32[64, 64] ring 1 at 0x0  # at 0x0\n" in text
    assert "abs c <- a  # bank conflicts: 2 cycles per repeat instead of 1\n" in text
    assert parse_kernel(text) == add(a=0, c=0x4020, op="abs")
    assert "conflicts" not in annotated_kernel(add(op="abs"), A2.chip)
    # A chip without banks has addresses all the same.
    assert annotated_kernel(add(), TOY.replace(buffers__ub_bytes=65536).chip).count("# at 0x") == 3
