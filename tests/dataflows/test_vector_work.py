"""The stated Vector work of a method against the kernels: every instruction on every element, counted as it is executed."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest

from msdsim.api import build_kernel, find_dataflow
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import SCHEMES
from msdsim.hardware import load_hw
from msdsim.ir.vector_work import of_activations, of_products, of_weights
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.executor import execute
from msdsim.problems import parse_problem

M, K, N = 6, 256, 96
#: Instructions on a few numbers per row or block, which the statement leaves out.
SMALL = {"reduce_max", "reduce_add", "maxs", "dup", "decode_e8m0"}


def counted(problem, hardware, dataflow):
    """Elements by instruction and widest operand."""
    # Parts of K are added up beside what is stated.
    kernel, tiles = build_kernel(find_dataflow(problem, dataflow), problem, hardware, {"k_parts": 1})
    found = Counter()

    def observe(unit, op, reads, write):
        if unit[1] != "aiv" or op.kind in {"copy", "fixpipe", *SMALL}:
            return
        elements = max(prod(region.sizes) for region in (*reads, write))
        if elements > write.sizes[0] or op.kind.startswith("fold"):
            bits = max(FORMATS[item.fmt].bits for item in (op.out, *op.ins))
            found[op.kind, bits] += elements

    operands = contract_for("gemm", dataflow).operands(problem, None, 0)
    execute(kernel, operands, observer=observe)
    return found, tiles


def stated(problem, chip, scheme):
    group = scheme.group(problem.group)
    groups = 1 if group is None else problem.k // group
    work = ((of_weights(scheme, chip, problem.offset), K * N), (of_activations(scheme, scheme.passes, problem.offset), M * K),
            (of_products(scheme, scheme.passes, groups, problem.offset), M * N))
    expected = Counter()
    for ops, elements in work:
        for op in ops:
            expected[op] += elements
    return expected


@pytest.mark.parametrize("extra", ["", ",offset=1", ",group=64", ",group=64,offset=1"])
@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if not scheme.mx_weights and name != "bf16"])
def test_every_instruction_is_stated(name, extra):
    hardware, problem = load_hw("ascend910b1"), parse_problem(f"gemm:m={M},k={K},n={N}{extra}")
    found, tiles = counted(problem, hardware, name)
    assert getattr(tiles, "decompose_k", K) >= K, "rows of several tiles are swept twice"
    assert found == stated(problem, hardware.chip, SCHEMES[name])


def test_a_wrong_statement_is_noticed():
    hardware, problem = load_hw("ascend910b1"), parse_problem(f"gemm:m={M},k={K},n={N}")
    assert counted(problem, hardware, "msd-int8")[0] != stated(problem, hardware.chip, SCHEMES["w8a8"])


@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.mx_weights])
def test_mx_conversions_are_stated(name):
    """What MX operations are made of is not visible in a kernel; conversions are, and there may be more of them."""
    hardware, problem, scheme = load_hw("ascend950pr"), parse_problem(f"gemm:m={M},k={K},n={N}"), SCHEMES[name]
    found, _ = counted(problem, hardware, name)
    expected = stated(problem, hardware.chip, scheme)
    if not scheme.mx:
        assert found == expected
    assert all(found[op] >= count for op, count in expected.items() if op[0] in ("cast", "add"))
