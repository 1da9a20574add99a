"""Five kernels as text: a change of a dataflow is read in their diff.

Tilings are fixed, so that a better choice of them changes nothing here.  To refresh the files after a change that is meant::

    python -m tests.dataflows.test_kernel_texts
"""

from __future__ import annotations

from pathlib import Path

import pytest

from msdsim.api import build_kernel, find_dataflow
from msdsim.hardware import load_hw
from msdsim.ir import kernel_hash
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel
from msdsim.problems import parse_problem

FOLDER = Path(__file__).parent / "kernels"
#: Problem, chip, dataflow and every key of the tiling, by the name of the file.
KERNELS = {
    "bf16": ("gemm:m=40,k=1000,n=768", "ascend910b1", "bf16", {
        "base_m": 32, "base_n": 128, "l1_k": 512, "l0_k": 128, "l1_ring": 2, "l0_ring": 2, "l0c_ring": 2, "swizzle": 1, "k_parts": 1, "a_resident": 0}),
    "dequant-int8": ("gemm:m=40,k=1000,n=768,group=100", "ascend910b1", "dequant-int8", {
        "base_m": 32, "base_n": 128, "l1_k": 128, "l0_k": 128, "slot_k": 400, "slots": 4, "vector_k": 50, "l1_ring": 2, "l0_ring": 2, "l0c_ring": 2, "ub_ring": 2, "direct": 0, "swizzle": 1, "k_parts": 1}),
    "msd-int8": ("gemm:m=40,k=1000,n=768,offset=1", "ascend910b1", "msd-int8", {
        "base_m": 32, "base_n": 128, "l1_k": 512, "l0_k": 256, "decompose_m": 1, "decompose_k": 1024, "merge_m": 8, "passes": 2, "slots": 2, "prefetch": 1, "l1_ring": 2, "l0_ring": 2, "l0c_ring": 2, "ub_ring": 2, "swizzle": 1, "direct": 0, "stepwise": 0, "preload": 1, "k_parts": 1, "a_resident": 0}),
    "mxfp8": ("grouped_gemm:groups=2,m=20,k=512,n=256", "ascend950pr", "mxfp8", {
        "base_m": 16, "base_n": 128, "l1_k": 256, "l0_k": 256, "slot_k": 256, "slots": 2, "vector_k": 32, "l1_ring": 2, "l0_ring": 2, "l0c_ring": 2, "ub_ring": 2, "direct": 1, "swizzle": 1, "k_parts": 1, "decompose_m": 1, "decompose_k": 512}),
    "attention-bf16": ("attention:batch=2,heads=8,kv_heads=2,head_dim=128,q=1,kv=1000", "ascend910b1", "bf16", {
        "rows": 4, "kv_tile": 256, "kv_splits": 1, "l1_kv": 128, "qk_n": 128, "qk_k": 64, "pv_k": 64, "vec_m": 2, "pv_n": 128, "out_m": 2, "l1_k": 128, "l1_v": 64, "preload": 2, "l1_ring": 3, "l0_ring": 2, "s_ring": 2, "o_ring": 2, "ub_ring": 2, "q_ring": 2, "l2_ahead": 0, "direct": 0, "interleave": 0, "p_ring": 1}),
}


def text_of(name: str) -> str:
    problem, hw, dataflow, tiling = KERNELS[name]
    shape = parse_problem(problem)
    return print_kernel(build_kernel(find_dataflow(shape, dataflow), shape, load_hw(hw), tiling)[0])


@pytest.mark.parametrize("name", KERNELS)
def test_the_text_is_that_of_the_file(name):
    stored = (FOLDER / f"{name}.kir").read_text(encoding="utf-8")
    assert text_of(name) == stored, "if the change is meant: python -m tests.dataflows.test_kernel_texts"
    assert print_kernel(parse_kernel(stored)) == stored


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_read_back_is_the_one_that_was_built(name):
    """The hash knows no spelling: that of the text, read again, is that of the kernel nobody has printed."""
    problem, hw, dataflow, tiling = KERNELS[name]
    shape = parse_problem(problem)
    kernel = build_kernel(find_dataflow(shape, dataflow), shape, load_hw(hw), tiling)[0]
    unread = kernel_hash(kernel)
    assert kernel_hash(parse_kernel(print_kernel(kernel))) == unread
    assert kernel_hash(kernel) == unread


if __name__ == "__main__":
    for each in KERNELS:
        (FOLDER / f"{each}.kir").write_text(text_of(each), encoding="utf-8")
