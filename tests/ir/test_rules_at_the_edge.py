"""Every rule at its edge: the last kernel that passes beside the first that is refused."""

from __future__ import annotations

import pytest

from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.ir.parser import parse_kernel
from msdsim.ir.verify import verify

TOY = load_hw("toy").chip


def said(text: str) -> str:
    """What the verifier says of a kernel; nothing where it passes."""
    try:
        verify(parse_kernel(text), TOY)
    except KernelError as error:
        return str(error)
    return ""


def vector(body: str, *, head: str = "cores 1 x 1", tensors: str = "") -> str:
    lines = [f"  {line}" for line in tensors.splitlines()] + ["  aiv {", "    buffer b: UB fp32[16, 64] ring 1", "    copy b <- x", "    copy y <- b",
                                                             *(f"    {line}" for line in body.splitlines()), "  }", "}"]
    return "\n".join(["kernel k {", f"  {head}", "  tensor x: fp32[16, 64] in", "  tensor y: fp32[16, 64] out", *lines, ""])


@pytest.mark.parametrize(("start", "size", "message"), [
    ("0", "16", ""), ("0", "17", "reaches 0 .. 17 along dimension 0 of size 16"), ("-1", "16", "reaches -1 .. 15 along dimension 0 of size 16"),
    ("-1", "1", "reaches -1 .. 0"), ("15", "1", ""), ("16", "1", "reaches 16 .. 17|reaches 0 .. 17"), ("core * 8", "8", ""), ("core * 9", "8", "reaches 0 .. 17"),
    ("core * 8 - 1", "8", "reaches -1 .. 15"), ("16", "0", ""), ("sub * 15", "1", ""), ("sub * 16", "1", "reaches 0 .. 17")])
def test_ranges_end_with_their_tensor(start, size, message):
    text = vector(f"copy y[{start} +: {size}, :] <- b[0 +: {size}, :]" if size != "17" else "copy y[0 +: 17, :] <- b[0 +: 17, :]", head="cores 2 x 2")
    found = said(text)
    assert any(part in found for part in message.split("|")) if message else found == ""


@pytest.mark.parametrize(("low", "high", "step", "good"), [(0, 16, 1, True), (0, 17, 1, False), (1, 16, 3, True), (0, 18, 3, True), (0, 19, 3, False), (0, 30, 15, True)])
def test_a_loop_ends_below_its_bound(low, high, step, good):
    """The last value is the last of low, low + step, ... below high: 15 for 0 .. 18 step 3, 18 for 0 .. 19."""
    found = said(vector(f"for i in {low} .. {high} step {step} {{\n  copy y[i, :] <- b[0, :]\n}}"))
    assert (found == "") is good
    assert good or "along dimension 0 of size 16" in found


@pytest.mark.parametrize(("part", "space", "good"), [("aiv", "UB", True), ("aiv", "L1", False), ("aiv", "L0A", False), ("aiv", "L0C", False), ("aiv", "BT", False),
                                                     ("aic", "UB", False), ("aic", "L1", True)])
def test_spaces_of_a_part(part, space, good):
    fmt = "fp32" if space != "L0A" else "bf16"
    # Nothing uses the buffer: only where it is declared counts.
    text = vector("").replace("  aiv {", f"  {part} {{\n    buffer t: {space} {fmt}[16, 16] ring 1\n  }}\n  aiv {{", 1) if part == "aic" else \
        vector(f"buffer t: {space} {fmt}[16, 16] ring 1")
    assert said(text) == "" if good else f"an {part.upper()} has no {space}; declare it in the other part" in said(text)


def test_a_buffer_declared_again_is_empty_again():
    """Each turn of a loop takes another slot, in which nothing is yet; what is declared outside keeps what was written."""
    inner = "for i in 0 .. 2 {\n  buffer t: UB fp32[16, 64] ring 1\n  copy t <- x\n  copy y <- t\n}"
    assert said(vector(inner)) == ""
    read_first = "for i in 0 .. 2 {\n  buffer t: UB fp32[16, 64] ring 1\n  copy y <- t\n  copy t <- x\n}"
    assert "reads buffer 't' before anything has written it" in said(vector(read_first))
    outside = "buffer t: UB fp32[16, 64] ring 1\nfor i in 0 .. 2 {\n  copy t <- x\n}\ncopy y <- t"
    assert said(vector(outside)) == ""
    twice = "buffer t: UB fp32[16, 64] ring 1\ncopy t <- x\nfor i in 0 .. 2 {\n  buffer u: UB fp32[16, 64] ring 1\n  copy y <- u\n}"
    assert "reads buffer 'u' before anything has written it" in said(vector(twice))


def cube(body: str, fmt: str = "int4", k: int = 64, accumulator: str = "int32") -> str:
    return f"""kernel k {{
  cores 1 x 1
  tensor x: {fmt}[16, {k}] in
  tensor w: {fmt}[{k}, 16] in
  tensor y: {accumulator}[16, 16] out
  aic {{
    buffer a1: L1 {fmt}[16, {k}] ring 1
    buffer b1: L1 {fmt}[{k}, 16] ring 1
    buffer a0: L0A {fmt}[16, {k}] ring 1
    buffer b0: L0B {fmt}[{k}, 16] ring 1
    copy a1 <- x
    copy b1 <- w
    copy a0 <- a1
    copy b0 <- b1
    buffer acc: L0C {accumulator}[16, 16] ring 1
{body}
    fixpipe y <- acc
  }}
}}
"""


@pytest.mark.parametrize(("fmt", "k", "limit"), [("int4", 64, (2**31 - 1) // 2**6), ("int8", 64, (2**31 - 1) // 2**14)])
def test_sums_end_where_int32_does(fmt, k, limit):
    """-8 x -8 and -128 x -128 are the largest products: so many of them fit."""
    turns = limit // k
    for count, good in ((turns, True), (turns + 1, False)):
        found = said(cube(f"    for i in 0 .. {count} {{\n      mmad acc <- a0, b0 {{accumulate=i}}\n    }}", fmt, k))
        assert found == "" if good else f"a sum over K={count * k} can leave int32 (safe up to {limit}); split K" in found
    # A new sum in every turn is as long as one product.
    assert said(cube(f"    for i in 0 .. {turns + 1} {{\n      mmad acc <- a0, b0\n    }}", fmt, k)) == ""


@pytest.mark.parametrize(("accumulate", "good"), [("0", True), ("i", True), ("i + 1", False), ("1", False), ("i > 0", True), ("i < 1", True), ("i < 2", False), ("2 - i", False)])
def test_what_is_certainly_added_to_must_have_been_written(accumulate, good):
    found = said(cube(f"    for i in 0 .. 2 {{\n      mmad acc <- a0, b0 {{accumulate={accumulate}}}\n    }}"))
    assert found == "" if good else "reads buffer 'acc' before anything has written it" in found


@pytest.mark.parametrize(("start", "good"), [("0", True), ("1", False), ("i * 2", True), ("i", False), ("i * 2 + 1", False), ("j", True), ("j + j", True), ("i // 2 * 2", True), ("i % 2", False),
                                             ("(i + 1) * 4", True), ("max(0, i * 2)", True)])
def test_four_bit_elements_begin_with_a_byte(start, good):
    body = f"    mmad acc <- a0, b0\n    for i in 0 .. 4 {{\n      for j in 0 .. 8 step 2 {{\n        copy a1[:, {start} +: 32] <- x[:, 0 +: 32]\n      }}\n    }}"
    assert said(cube(body)) == "" if good else "starts in the middle of a byte" in said(cube(body))


# Signals


def pair(aic: str, aiv: str, kind: str = "aic_to_aiv", cores: str = "2 x 2") -> str:
    return f"""kernel k {{
  cores {cores}
  tensor x: fp32[16, 64] in
  tensor y: fp32[16, 64] out
  signal s: {kind}
  aic {{
{aic}
  }}
  aiv {{
    buffer b: UB fp32[16, 64] ring 1
    copy b <- x
    copy y <- b
{aiv}
  }}
}}
"""


@pytest.mark.parametrize(("raised", "awaited", "good"), [
    ("signal s on MTE2", "wait s on MTE2", True), ("signal s on MTE2\nsignal s on MTE2", "wait s on MTE2", False),
    ("for i in 0 .. 5 step 2 {\nsignal s on MTE2\n}", "for i in 0 .. 3 {\nwait s on MTE2\n}", True),  # 0, 2, 4
    ("for i in 0 .. 6 step 2 {\nsignal s on MTE2\n}", "for i in 0 .. 3 {\nwait s on MTE2\n}", True),
    ("for i in 0 .. 7 step 2 {\nsignal s on MTE2\n}", "for i in 0 .. 3 {\nwait s on MTE2\n}", False),
    ("for i in 3 .. 3 {\nsignal s on MTE2\n}\nsignal s on MTE2", "wait s on MTE2", True),
    ("for i in 0 .. 6 {\nwhen i % 2 == 0 {\nsignal s on MTE2\n}\n}", "for i in 0 .. 3 {\nwait s on MTE2\n}", True),
    ("for i in 0 .. 6 {\nwhen i % 2 == 0 {\nsignal s on MTE2\n}\n}", "for i in 0 .. 2 {\nwait s on MTE2\n}", False),
    ("for i in 0 .. core + 1 {\nsignal s on MTE2\n}", "for i in 0 .. core + 1 {\nwait s on MTE2\n}", True),
    ("for i in 0 .. core + 1 {\nsignal s on MTE2\n}", "wait s on MTE2", False),  # equal on core 0 only
    ("for i in 0 .. 3 {\nfor j in 0 .. i {\nsignal s on MTE2\n}\n}", "for i in 0 .. 3 {\nwait s on MTE2\n}", True),  # 0 + 1 + 2
    ("signal s on MTE2", "when sub == 0 {\nwait s on MTE2\n}", False),  # the other AIV does not wait
])
def test_raised_as_often_as_awaited(raised, awaited, good):
    found = said(pair(raised, awaited))
    assert found == "" if good else "signal 's' is raised" in found


@pytest.mark.parametrize(("raised", "awaited", "good"), [
    ("wait s on MTE2", "signal s on MTE3", True),  # both AIVs raise it once, the AIC waits once
    ("wait s on MTE2", "when sub == 0 {\nsignal s on MTE3\n}", False),
    ("wait s on MTE2\nwait s on MTE2", "signal s on MTE3", False)])
def test_both_aivs_raise_what_an_aic_waits_for(raised, awaited, good):
    found = said(pair(raised, awaited, "aiv_to_aic"))
    assert found == "" if good else "signal 's' is raised" in found


@pytest.mark.parametrize(("aic", "aiv", "good"), [
    ("signal s on MTE2\nwait s on MTE2", "signal s on MTE3\nwait s on MTE2", True), ("", "signal s on MTE3\nwait s on MTE2", True),
    ("wait s on MTE2", "signal s on MTE3\nwait s on MTE2", True), ("signal s on MTE2\nwait s on MTE2", "signal s on MTE3", True),
    ("signal s on MTE2\nwait s on MTE2", "signal s on MTE3\nsignal s on MTE3\nwait s on MTE2\nwait s on MTE2", False),
    ("signal s on MTE2\nwait s on MTE2", "for i in 0 .. 1 + core {\nsignal s on MTE3\nwait s on MTE2\n}", False),
    ("", "signal s on MTE3\nsignal s on MTE3\nwait s on MTE2", False), ("", "signal s on MTE3", False)])
def test_a_barrier_is_raised_and_awaited_alike_by_all_that_use_it(aic, aiv, good):
    found = said(pair(aic, aiv, "barrier"))
    assert found == "" if good else "signal 's' is raised" in found


@pytest.mark.parametrize(("pipe", "good"), [("MTE2", True), ("M", True), ("FIX", True), ("MTE1", True), ("S", False), ("V", False), ("MTE3", False)])
def test_pipes_that_an_aic_raises_on(pipe, good):
    found = said(pair(f"signal s on {pipe}", "wait s on MTE2"))
    assert found == "" if good else f"no pipe '{pipe}' on the AIC; pipes: MTE2, MTE1, M, FIX" in found


@pytest.mark.parametrize(("cores", "good"), [("2 x 2", True), ("1 x 1", True), ("1 x 2", True), ("3 x 2", False), ("2 x 3", False), ("0 x 1", False), ("1 x 0", False)])
def test_cores_of_the_chip(cores, good):
    found = said(vector("", head=f"cores {cores}"))
    assert found == "" if good else f"kernel 'k' runs on {cores} cores" in found


@pytest.mark.parametrize(("rows", "good"), [(127, True), (128, True), (129, False)])
def test_a_full_buffer_still_fits(rows, good):
    """32 KiB of UB: 4 KiB for the tile b, and rows of 224 bytes in 32-byte units."""
    found = said(vector(f"buffer t: UB fp32[{rows}, 56] ring 1"))
    assert found == "" if good else "32 more than the 32768" in found or "more than the 32768 bytes of 'toy'" in found
