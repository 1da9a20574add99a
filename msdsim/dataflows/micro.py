"""``micro``: microbenchmarks, one operation at a time or over and over, as kernels like any other.

They carry the published measurements of single instructions and of whole-chip copies into the simulator, where
:mod:`msdsim.explore.micro` and :mod:`msdsim.explore.validate` hold them against what was published.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.dataflows.cube.operands import MX_ELEMENTS
from msdsim.formats.mx import MX_BLOCK
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import Handle, KernelBuilder, at
from msdsim.ir.expr import Const, Expr, ceil_div, maximum, minimum
from msdsim.ir.kernel import Kernel, Slice
from msdsim.ir.ops.copies import BYPASS
from msdsim.problems.model import Micro
from msdsim.units import ceil_div as ceil_int
from msdsim.units import round_up

#: Copies move elements of this format; only their bytes matter.
FMT, FMT_BYTES = "fp16", 2
#: Columns of one repeat of fp32, and of a 32-byte block of fp16.
LANES, BLOCK = 64, 16
_SCALARS = ("adds", "muls", "maxs", "mins", "dup")
_BINARY = ("add", "sub", "mul", "div", "max", "min")
_UNARY = ("abs", "exp", "cast")
INSTRUCTIONS = (*_BINARY, *_SCALARS, *_UNARY, "fold_max", "fold_add", "reduce_max", "reduce_add")


@dataclass(frozen=True)
class MicroTiling:
    """A microbenchmark's sizes are its problem: there is nothing to tile."""


def build(problem: Micro, chip: Chip, _: MicroTiling) -> Kernel:
    """The kernel of a microbenchmark."""
    if problem.op == "read_matrix":
        return _read_matrix(problem, chip)
    if problem.op in ("duplicate_matrix", "add_matrix"):
        return _through_ub(problem, chip, 2 if problem.op == "add_matrix" else 1)
    if problem.op == "matmul":
        return _matmul(problem, chip)
    if problem.op == "msd_groups":
        return _msd_groups(problem, chip)
    kb = KernelBuilder(f"micro_{problem.op}", 1, chip.cores.aiv_per_aic)
    if problem.op == "vector":
        _vector(kb, problem, chip)
    elif problem.op == "mmad":
        _mmad(kb, problem)
    else:
        _COPIES[problem.op](kb, problem, chip)
    return kb.build()


# Copies on one core


def _shape(problem: Micro) -> tuple[int, int]:
    """Rows and columns of one transfer."""
    return problem.rows, problem.bytes // FMT_BYTES // problem.rows


def _gm(kb: KernelBuilder, problem: Micro, name: str, fmt: str, shape: tuple[int, int]) -> Callable[[Expr], Slice]:
    """A tensor for the transfers and the place of transfer ``i`` in it: always the same when warm, else a fresh one.

    Several rows are taken from a matrix twice as wide, so that they do not lie one behind the other.
    """
    rows, cols = shape
    blocks = 1 if problem.warm else problem.count
    tensor = kb.tensor(name, fmt, (blocks * rows, cols if rows == 1 else 2 * cols), "in" if name == "x" else "out")

    def place(i: Expr) -> Slice:
        return tensor[at((Const(0) if problem.warm else i) * rows, rows), at(0, cols)]

    return place


def _copy_gm_ub(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
    shape = _shape(problem)
    place = _gm(kb, problem, "x", FMT, shape)
    with kb.part("aiv"), kb.when((kb.core + kb.sub).equals(0)), kb.loop("i", 0, problem.count) as i:
        tile = kb.buffer("tile", "UB", FMT, shape)
        kb.copy(tile[:, :], place(i), **_way(problem))
        if problem.isolated:
            # A reader on another pipe makes the next transfer wait for this one.
            kb.op("muls", tile[0, at(0, BLOCK)], tile[0, at(0, BLOCK)], scalar=1.0)


def _copy_ub_gm(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
    shape = _shape(problem)
    place = _gm(kb, problem, "y", FMT, shape)
    with kb.part("aiv"), kb.when((kb.core + kb.sub).equals(0)):
        tile = kb.buffer("tile", "UB", FMT, shape)
        kb.op("dup", tile[:, :], scalar=0.0)
        with kb.loop("i", 0, problem.count) as i:
            kb.copy(place(i), tile[:, :], **_way(problem))
            if problem.isolated:
                kb.op("dup", tile[0, at(0, BLOCK)], scalar=0.0)


def _copy_gm_l1(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
    shape = _shape(problem)
    place = _gm(kb, problem, "x", FMT, shape)
    with kb.part("aic"), kb.loop("i", 0, problem.count) as i:
        tile = kb.buffer("tile", "L1", FMT, shape)
        kb.copy(tile[:, :], place(i), **_way(problem))
        if problem.isolated:
            probe = kb.buffer("probe", "L0A", FMT, (1, BLOCK))
            kb.copy(probe[:, :], tile[0, at(0, BLOCK)])


def _to_l0(space: str) -> Callable[[KernelBuilder, Micro, Chip], None]:
    def copy(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
        """Straight into L0; alone means that a product reads each tile before the next one comes."""
        columns = problem.bytes // FMT_BYTES // 16
        blocks = 1 if problem.warm else problem.count
        x, one = kb.tensor("x", FMT, (16 * blocks, columns), "in"), kb.tensor("one", FMT, (16, 16), "in")
        with kb.part("aic"):
            other = kb.buffer("other", "L0B" if space == "L0A" else "L0A", FMT, (16, 16))
            acc = kb.buffer("acc", "L0C", "fp32", (16, 16))
            kb.copy(other[:, :], one[:, :])
            with kb.loop("i", 0, problem.count) as i:
                tile = kb.buffer("tile", space, FMT, (16, columns))
                kb.copy(tile[:, :], x[at((Const(0) if problem.warm else i) * 16, 16), :])
                if problem.isolated:
                    corner = tile[:, at(0, 16)]
                    pair = (corner, other[:, :]) if space == "L0A" else (other[:, :], corner)
                    kb.op("mmad", acc[:, :], *pair)
    return copy


def _copy_l1_gm(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
    shape = _shape(problem)
    x = kb.tensor("x", FMT, shape, "in")
    place = _gm(kb, problem, "y", FMT, shape)
    with kb.part("aic"):
        tile = kb.buffer("tile", "L1", FMT, shape)
        kb.copy(tile[:, :], x[:, :])
        with kb.loop("i", 0, problem.count) as i:
            kb.copy(place(i), tile[:, :], **_way(problem))


def _from_l1(space: str) -> Callable[[KernelBuilder, Micro, Chip], None]:
    def copy(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
        columns = problem.bytes // FMT_BYTES // 16
        shape = {"L0A": (16, columns), "L0B": (columns, 16), "BT": (1, problem.bytes // FMT_BYTES)}[space]
        x = kb.tensor("x", FMT, (1, problem.bytes // FMT_BYTES), "in")
        with kb.part("aic"):
            tile = kb.buffer("tile", "L1", FMT, shape)
            kb.copy(tile[0, at(0, shape[1])], x[0, at(0, shape[1])])
            with kb.loop("i", 0, 1 if problem.isolated else problem.count):
                target = kb.buffer("target", space, FMT, shape)
                kb.copy(target[:, :], tile[:, :])
    return copy


def _operands(kb: KernelBuilder, problem: Micro, m: int, k: int, n: int) -> tuple[Handle, Handle]:
    """Filled tiles of L0A and L0B, for a part's own block."""
    fmt = problem.fmt
    x, w = kb.tensor("x", fmt, (1, m * k), "in"), kb.tensor("w", fmt, (1, k * n), "in")
    a1, b1 = kb.buffer("a1", "L1", fmt, (m, k)), kb.buffer("b1", "L1", fmt, (k, n))
    a0, b0 = kb.buffer("a0", "L0A", fmt, (m, k)), kb.buffer("b0", "L0B", fmt, (k, n))
    kb.copy(a1[0, at(0, k)], x[0, at(0, k)])
    kb.copy(b1[0, at(0, n)], w[0, at(0, n)])
    kb.copy(a0[:, :], a1[:, :])
    kb.copy(b0[:, :], b1[:, :])
    return a0, b0


def _drain(destination: str) -> Callable[[KernelBuilder, Micro, Chip], None]:
    def copy(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
        """Accumulators of fp32 to GM as they are, or to L1 as fp16: ``bytes`` are what arrives."""
        columns = problem.bytes // (4 if destination == "GM" else FMT_BYTES) // 16
        blocks = 1 if problem.warm else problem.count
        y = kb.tensor("y", "fp32", (blocks * 16, columns), "out") if destination == "GM" else None
        with kb.part("aic"):
            a0, b0 = _operands(kb, problem, 16, 16, columns)
            acc = kb.buffer("acc", "L0C", "fp32", (16, columns))
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])
            with kb.loop("i", 0, problem.count) as i:
                if y is not None:
                    kb.op("fixpipe", y[at((Const(0) if problem.warm else i) * 16, 16), :], acc[:, :])
                else:
                    tile = kb.buffer("tile", "L1", FMT, (16, columns))
                    kb.op("fixpipe", tile[:, :], acc[:, :])
                if problem.isolated:
                    kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])
    return copy


_COPIES: dict[str, Callable[[KernelBuilder, Micro, Chip], None]] = {
    "copy_gm_ub": _copy_gm_ub, "copy_ub_gm": _copy_ub_gm, "copy_gm_l1": _copy_gm_l1, "copy_gm_l0a": _to_l0("L0A"),
    "copy_gm_l0b": _to_l0("L0B"), "copy_l1_gm": _copy_l1_gm, "copy_l1_l0a": _from_l1("L0A"), "copy_l1_l0b": _from_l1("L0B"),
    "copy_l1_bt": _from_l1("BT"), "copy_l0c_gm": _drain("GM"), "copy_l0c_l1": _drain("L1"),
}

# One instruction of Cube and Vector


def _mmad(kb: KernelBuilder, problem: Micro) -> None:
    """Products into the same accumulator, each starting a new sum; alone, a single one."""
    with kb.part("aic"):
        a0, b0 = _operands(kb, problem, problem.m, problem.k, problem.n)
        acc = kb.buffer("acc", "L0C", "int32" if problem.fmt.startswith("int") else "fp32", (problem.m, problem.n))
        with kb.loop("i", 0, 1 if problem.isolated else problem.count):
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])


def _vector(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
    """An instruction on fp32 operands that were filled before; alone, a single one."""
    name, shape = problem.instr, (problem.repeats, LANES)
    x = kb.tensor("x", "fp32", shape, "in")
    with kb.part("aiv"), kb.when((kb.core + kb.sub).equals(0)):
        first, second = _side_by_side(problem, chip)
        a, b = kb.buffer("a", "UB", "fp32", shape, address=first), kb.buffer("b", "UB", "fp32", shape, address=second)
        # Filled by MTE2: what Vector itself wrote it would wait for each time.
        kb.copy(a[:, :], x[:, :])
        kb.copy(b[:, :], x[:, :])
        out = kb.buffer("out", "UB", "bf16" if name == "cast" else "fp32", (problem.repeats, 1) if "reduce" in name else shape)
        with kb.loop("i", 0, 1 if problem.isolated else problem.count):
            inputs = {"dup": ()}.get(name, (a[:, :], b[:, :]) if name in _BINARY else (a[:, :],))
            if name in _SCALARS:
                kb.op(name, out[:, :], *inputs, scalar=1.0)
            else:
                kb.op(name, out[:, :], *inputs)


def _side_by_side(problem: Micro, chip: Chip) -> tuple[int | None, int | None]:
    """Where both sources lie: one behind the other, as a simple allocator places them and msKPP's table has it, so that on an
    A2 they share their bank groups; elsewhere wherever they are placed."""
    banks = chip.vector.banks
    if banks is None or banks.interleaved:
        return None, None
    return 0, round_up(problem.repeats * LANES * 4, banks.row_bytes * banks.groups)


# All cores


def _share(total: int, size: int, index: Expr) -> Expr:
    """Size of part ``index`` of ``total`` cut into parts of ``size``: none beyond the end."""
    return minimum(size, maximum(0, total - index * size))


def _read_matrix(problem: Micro, chip: Chip) -> Kernel:
    """Rows are dealt to the cores in equal blocks; a core walks its tiles along the columns, then down the rows.

    With ``shared`` every core walks all blocks, in the same order or, with ``stagger``, each beginning with its own.
    """
    aivs = chip.cores.aiv_per_aic
    kb = KernelBuilder("micro_read_matrix", chip.cores.aic, aivs)
    x = kb.tensor("x", problem.fmt, (problem.m, problem.n), "in")
    on_aiv = problem.into == "ub"
    unit: Expr = kb.core * aivs + kb.sub if on_aiv else kb.core
    units = chip.aiv if on_aiv else chip.cores.aic
    rows, columns = ceil_int(problem.m, units), ceil_int(problem.n, problem.slices)
    with (kb.part("aiv" if on_aiv else "aic"), kb.loop("s", 0, problem.slices) as s, kb.loop("r", 0, problem.rounds),
          kb.loop("b", 0, units) if problem.shared else nullcontext(unit) as turn):
        block = (turn + unit) % units if problem.shared and problem.stagger else turn
        mine = _share(problem.m, rows, block)
        with kb.loop("mt", 0, ceil_div(mine, problem.base_m)) as mt, kb.loop("nt", 0, ceil_int(columns, problem.base_n)) as nt:
            height = minimum(problem.base_m, mine - mt * problem.base_m)
            width = minimum(problem.base_n, _share(problem.n, columns, s) - nt * problem.base_n)
            if columns % problem.base_n == 0 and problem.n % columns == 0:
                width = Const(problem.base_n)
            if rows % problem.base_m == 0 and problem.m % rows == 0:
                height = Const(problem.base_m)
            tile = kb.buffer("tile", "UB" if on_aiv else "L1", problem.fmt, (problem.base_m, problem.base_n))
            kb.copy(tile[at(0, height), at(0, width)],
                    x[at(block * rows + mt * problem.base_m, height), at(s * columns + nt * problem.base_n, width)],
                    **_way(problem))
    return kb.build()


def _through_ub(problem: Micro, chip: Chip, sources: int) -> Kernel:
    """One matrix, or the sum of two: rows dealt to the AIVs in equal blocks, tiles double-buffered."""
    aivs, fmt = chip.cores.aiv_per_aic, problem.fmt
    kb = KernelBuilder(f"micro_{problem.op}", chip.cores.aic, aivs)
    inputs = [kb.tensor(f"x{number}", fmt, (problem.m, problem.n), "in") for number in range(sources)]
    y = kb.tensor("y", fmt, (problem.m, problem.n), "out")
    shape, rows = (problem.base_m, problem.base_n), ceil_int(problem.m, chip.aiv)
    with kb.part("aiv"):
        first = (kb.core * aivs + kb.sub) * rows
        mine = minimum(rows, maximum(0, problem.m - first))
        with (kb.loop("mt", 0, ceil_div(mine, problem.base_m)) as mt,
              kb.loop("nt", 0, ceil_int(problem.n, problem.base_n)) as nt):
            height = minimum(problem.base_m, mine - mt * problem.base_m)
            width = _share(problem.n, problem.base_n, nt) if problem.n % problem.base_n else Const(problem.base_n)
            place = at(first + mt * problem.base_m, height), at(nt * problem.base_n, width)
            tiles = [kb.buffer(f"tile{number}", "UB", fmt, shape, 2)[at(0, height), at(0, width)] for number in range(sources)]
            for tile, tensor in zip(tiles, inputs, strict=True):
                kb.copy(tile, tensor[place], **_way(problem))
            out = tiles[0]
            if sources > 1:
                out = kb.buffer("sum", "UB", fmt, shape, 2)[at(0, height), at(0, width)]
                kb.op("add", out, *tiles)
            kb.copy(y[place], out, **_way(problem))
    return kb.build()


def _way(problem: Micro) -> dict[str, str]:
    """The hint of a copy from or to GM."""
    return {"l2": BYPASS} if problem.bypass else {}


def _matmul(problem: Micro, chip: Chip) -> Kernel:
    """A GEMM with the fixed core blocks and the two-level K tiles of the vendor's Matmul template.

    Core ``c`` owns block ``c % blocks of M`` by ``c // blocks of M``; its tiles go down M first.  The operand with the deeper
    L1 tile is loaded in the outer K loop, the other one in the inner.
    """
    p, fmt = problem, MX_ELEMENTS.get(problem.fmt, problem.fmt)
    mx = p.fmt in MX_ELEMENTS
    cores, accumulator = chip.cores.aic, "int32" if p.fmt.startswith("int") else "fp32"
    part_m = ceil_int(p.m, p.passes)
    single_m, single_n = p.single_m or part_m, p.single_n or p.n
    blocks_m = ceil_int(part_m, single_m)
    kb = KernelBuilder("micro_matmul", cores, chip.cores.aiv_per_aic)
    x = kb.tensor("x", fmt, (p.m, p.k), "in")
    w = kb.tensor("w", fmt, (p.n, p.k) if p.trans_b else (p.k, p.n), "in")
    blocks = ceil_int(p.k, MX_BLOCK)
    scales = [kb.tensor(name, "e8m0", (size, blocks), "in") for name, size in (("sx", p.m), ("sw", p.n))] if mx else []
    y = kb.tensor("y", "int32" if accumulator == "int32" else p.out, (p.m, p.n), "out")
    mi, ni = kb.core % blocks_m, kb.core // blocks_m
    step_outer, step_inner = max(p.step_ka, p.step_kb), min(p.step_ka, p.step_kb)
    outer_k, inner_k = step_outer * p.base_k, step_inner * p.base_k

    with kb.part("aic"), kb.loop("p", 0, p.passes) as turn:
        in_part = _share(p.m, part_m, turn)
        my_m = minimum(single_m, maximum(0, in_part - mi * single_m))
        my_n = _share(p.n, single_n, ni)
        with kb.loop("nt", 0, ceil_div(my_n, p.base_n)) as nt, kb.loop("mt", 0, ceil_div(my_m, p.base_m)) as mt:
            rows, cols = minimum(p.base_m, my_m - mt * p.base_m), minimum(p.base_n, my_n - nt * p.base_n)
            top, left = turn * part_m + mi * single_m + mt * p.base_m, ni * single_n + nt * p.base_n
            acc = kb.buffer("acc", "L0C", accumulator, (p.base_m, p.base_n))
            # Block scales of a tile's rows and columns come at once, for all of K.
            held = []
            for tensor, name, size, count, first in zip(scales, ("sa1", "sb1"), (p.base_m, p.base_n), (rows, cols), (top, left),
                                                        strict=False):
                held.append(kb.buffer(name, "L1", "e8m0", (size, blocks)))
                kb.copy(held[-1][at(0, count), :], tensor[at(first, count), :])

            def load_a(name: str, start: Expr, depth: int, size: Expr, rows: Expr = rows, top: Expr = top) -> Handle:
                a1 = kb.buffer(name, "L1", fmt, (p.base_m, depth), p.l1_ring)
                kb.copy(a1[at(0, rows), at(0, size)], x[at(top, rows), at(start, size)])
                return a1

            def load_b(name: str, start: Expr, depth: int, size: Expr, cols: Expr = cols, left: Expr = left) -> Handle:
                if p.trans_b:
                    b1 = kb.buffer(name, "L1", fmt, (p.base_n, depth), p.l1_ring)
                    kb.copy(b1[at(0, cols), at(0, size)], w[at(left, cols), at(start, size)])
                else:
                    b1 = kb.buffer(name, "L1", fmt, (depth, p.base_n), p.l1_ring)
                    kb.copy(b1[at(0, size), at(0, cols)], w[at(start, size), at(left, cols)])
                return b1

            with kb.loop("ko", 0, ceil_int(p.k, outer_k)) as ko:
                size_o = _share(p.k, outer_k, ko) if p.k % outer_k else Const(outer_k)
                deep_a = p.step_ka >= p.step_kb
                outer = (load_a if deep_a else load_b)("outer", ko * outer_k, outer_k, size_o)
                with kb.loop("ki", 0, ceil_div(size_o, inner_k)) as ki:
                    size_i = minimum(inner_k, size_o - ki * inner_k) if p.k % inner_k else Const(inner_k)
                    inner = (load_b if deep_a else load_a)("inner", ko * outer_k + ki * inner_k, inner_k, size_i)
                    with kb.loop("k0", 0, ceil_div(size_i, p.base_k)) as k0:
                        size0 = minimum(p.base_k, size_i - k0 * p.base_k) if p.k % p.base_k else Const(p.base_k)
                        in_outer, in_inner = at(ki * inner_k + k0 * p.base_k, size0), at(k0 * p.base_k, size0)
                        a1, at_a = (outer, in_outer) if deep_a else (inner, in_inner)
                        b1, at_b = (inner, in_inner) if deep_a else (outer, in_outer)
                        a0 = kb.buffer("a0", "L0A", fmt, (p.base_m, p.base_k), p.l0_ring)
                        b0 = kb.buffer("b0", "L0B", fmt, (p.base_k, p.base_n), p.l0_ring)
                        kb.copy(a0[at(0, rows), at(0, size0)], a1[at(0, rows), at_a])
                        if p.trans_b:
                            kb.copy(b0[at(0, size0), at(0, cols)], b1[at(0, cols), at_b], transpose=1)
                        else:
                            kb.copy(b0[at(0, size0), at(0, cols)], b1[at_b, at(0, cols)])
                        whole, done = acc[at(0, rows), at(0, cols)], ko + ki + k0
                        a, b = a0[at(0, rows), at(0, size0)], b0[at(0, size0), at(0, cols)]
                        if mx:
                            deep = p.base_k // MX_BLOCK
                            here = at((ko * outer_k + ki * inner_k + k0 * p.base_k) // MX_BLOCK, ceil_div(size0, MX_BLOCK))
                            sa0 = kb.buffer("sa0", "L0A_MX", "e8m0", (p.base_m, deep), p.l0_ring)
                            sb0 = kb.buffer("sb0", "L0B_MX", "e8m0", (deep, p.base_n), p.l0_ring)
                            sa, sb = sa0[at(0, rows), at(0, here.size)], sb0[at(0, here.size), at(0, cols)]
                            kb.copy(sa, held[0][at(0, rows), here])
                            kb.copy(sb, held[1][at(0, cols), here], transpose=1)
                            kb.op("mmad_mx", whole, a, sa, b, sb, accumulate=done)
                        else:
                            kb.op("mmad", whole, a, b, accumulate=done)
            kb.op("fixpipe", y[at(top, rows), at(left, cols)], acc[at(0, rows), at(0, cols)])
    return kb.build()


def _msd_groups(problem: Micro, chip: Chip) -> Kernel:
    """One row times INT4 weights with scales for each K group, all cores in step: split on one AIV, products on every
    AIC by a call of the Matmul object, merge on every AIV, one after the other; with ``preload`` side by side, the split one
    group ahead, the merge one behind."""
    p, cores, aivs = problem, chip.cores.aic, chip.cores.aiv_per_aic
    groups, cols, share = p.k // p.group, ceil_int(p.n, cores), ceil_int(p.n, cores * aivs)
    kb = KernelBuilder("micro_msd_groups", cores, aivs)
    x, w = kb.tensor("x", "bf16", (1, p.k), "in"), kb.tensor("w", "int4", (p.k, p.n), "in")
    scale = kb.tensor("scale", "fp32", (groups, p.n), "in")
    parts = kb.tensor("parts", "int4", (3, p.passes, p.group), "workspace")
    sums = kb.tensor("sums", "int32", (2, p.passes, p.n), "workspace")
    y = kb.tensor("y", "bf16", (1, p.n), "out")
    kb.signal("step", "barrier")

    def product(g: Expr) -> None:
        a1, b1 = kb.buffer("a1", "L1", "int4", (16, p.group), 2), kb.buffer("b1", "L1", "int4", (p.group, cols), 2)
        a0, b0 = kb.buffer("a0", "L0A", "int4", (16, p.group), 2), kb.buffer("b0", "L0B", "int4", (p.group, cols), 2)
        acc = kb.buffer("acc", "L0C", "int32", (16, cols), 2)
        rows = at(0, p.passes)
        kb.copy(b1[:, :], w[at(g * p.group, p.group), at(kb.core * cols, cols)])
        kb.copy(a1[rows, :], parts[g % 3, :, :])
        kb.copy(a0[rows, :], a1[rows, :])
        # The sample's own copies bring the tiles into L1; then it calls the vendor's Matmul object.
        kb.op("hold", cycles=chip.dispatch.matmul_setup_cycles, pipe="MTE1")
        kb.copy(b0[:, :], b1[:, :])
        kb.op("mmad", acc[rows, :], a0[rows, :], b0[:, :])
        kb.op("fixpipe", sums[g % 2, :, at(kb.core * cols, cols)], acc[rows, :])

    def split(g: Expr) -> None:
        with kb.when((kb.core + kb.sub).equals(0)):
            raw, t = kb.buffer("raw", "UB", "bf16", (1, p.group)), kb.buffer("t", "UB", "fp32", (1, p.group))
            u, lanes = kb.buffer("u", "UB", "fp32", (1, p.group)), kb.buffer("lanes", "UB", "fp32", (1, LANES))
            top, half = kb.buffer("top", "UB", "fp32", (1, 1)), kb.buffer("half", "UB", "fp16", (1, p.group))
            digit = kb.buffer("digit", "UB", "int4", (1, p.group))
            kb.copy(raw[:, :], x[:, at(g * p.group, p.group)])
            kb.op("cast", t[:, :], raw[:, :])
            kb.op("abs", u[:, :], t[:, :])
            kb.op("fold_max", lanes[:, :], u[:, :])
            kb.op("reduce_max", top[:, :], lanes[:, :])
            kb.op("div", t[:, :], t[:, :], top[:, :])
            for number in range(p.passes):
                kb.op("muls", t[:, :], t[:, :], scalar=7.49 if number == 0 else 14.98)
                kb.op("cast", u[:, :], t[:, :], round="round")
                kb.op("cast", half[:, :], u[:, :])
                kb.op("cast", digit[:, :], half[:, :])
                kb.copy(parts[g % 3, number, :], digit[0, :])
                kb.op("sub", t[:, :], t[:, :], u[:, :])

    def merge(g: Expr) -> None:
        mine = at((kb.core * aivs + kb.sub) * share, share)
        c, f = kb.buffer("c", "UB", "int32", (p.passes, share)), kb.buffer("f", "UB", "fp32", (p.passes, share))
        s = kb.buffer("s", "UB", "fp32", (1, share))
        kb.copy(c[:, :], sums[g % 2, :, mine])
        kb.copy(s[:, :], scale[g, mine])
        kb.op("cast", f[:, :], c[:, :])
        for number in range(p.passes):
            kb.op("muls", f[number, :], f[number, :], scalar=1.0 / 7.49 / 14.98**number)
        for number in range(1, p.passes):
            kb.op("add", f[0, :], f[0, :], f[number, :])
        kb.op("mul", f[0, :], f[0, :], s[:, :])
        kb.op("add", total[:, :], total[:, :], f[0, :])

    def in_step(body: Callable[[Expr], None], stage: int, i: Expr) -> None:
        """Work of a stage on the group it has reached at step ``i``, if there is one."""
        with kb.when((i >= stage) * (i < groups + stage)):
            body(i - stage)

    # Every core waits for all others at the end of a step, or, without preload, of each of its three stages.
    stages = 3
    steps = groups + stages - 1 if p.preload else stages * groups
    with kb.part("aic"), kb.loop("i", 0, steps) as i:
        if p.preload:
            in_step(product, 1, i)
        else:
            with kb.when((i % stages).equals(1)):
                product(i // stages)
        kb.raise_signal("step", "FIX")
        kb.wait_signal("step", "MTE2")
    with kb.part("aiv"):
        total, out = kb.buffer("total", "UB", "fp32", (1, share)), kb.buffer("out", "UB", "bf16", (1, share))
        kb.op("dup", total[:, :], scalar=0.0)
        with kb.loop("i", 0, steps) as i:
            if p.preload:
                in_step(split, 0, i)
                in_step(merge, 2, i)
            else:
                with kb.when((i % stages).equals(0)):
                    split(i // stages)
                with kb.when((i % stages).equals(2)):
                    merge(i // stages)
            kb.raise_signal("step", "MTE3")
            kb.wait_signal("step", "MTE2")
        kb.op("cast", out[:, :], total[:, :])
        kb.copy(y[0, at((kb.core * aivs + kb.sub) * share, share)], out[0, :])
    return kb.build()


def refuses(problem: Micro, chip: Chip) -> str | None:
    """Why a microbenchmark cannot run on a chip, or None."""
    if problem.op.startswith("copy_"):
        source, destination = problem.op.upper().split("_")[1:]
        if chip.path(source, destination) is None:
            return f"it has no path {source}->{destination}"
        if problem.bytes % (2 * problem.rows * FMT_BYTES * BLOCK):
            return f"bytes={problem.bytes} is not a multiple of {2 * FMT_BYTES * BLOCK} for each of {problem.rows} rows"
    if problem.op == "vector" and problem.instr not in INSTRUCTIONS:
        return f"instr={problem.instr} is not one of {', '.join(INSTRUCTIONS)}"
    if problem.fmt in MX_ELEMENTS and (problem.op != "matmul" or problem.k % MX_BLOCK or problem.base_k % MX_BLOCK):
        return f"fmt={problem.fmt} is for matmul with k and base_k in whole blocks of {MX_BLOCK}"
    if problem.op in ("mmad", "matmul") and chip.cube.rate(problem.fmt, problem.fmt) is None:
        return f"its Cube cannot multiply {problem.fmt} x {problem.fmt}"
    if problem.op == "matmul":
        deep, shallow = max(problem.step_ka, problem.step_kb), min(problem.step_ka, problem.step_kb)
        if deep % shallow:
            return f"step_ka={problem.step_ka} and step_kb={problem.step_kb} do not divide one another"
        single_m = problem.single_m or problem.m
        parts = ceil_int(ceil_int(problem.m, problem.passes), single_m) * ceil_int(problem.n, problem.single_n or problem.n)
        if parts > chip.cores.aic:
            return f"{parts} blocks of single_m x single_n need more than its {chip.cores.aic} cores"
    return None


DATAFLOWS.add("micro", Dataflow(
    name="micro", kind="micro", contract="micro",
    description="microbenchmarks of single instructions, copies and fixed GEMM kernels",
    tiling=MicroTiling, refuses=refuses, auto=lambda problem, chip: MicroTiling(), build=build,
))
