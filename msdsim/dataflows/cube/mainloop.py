"""The Cube's main loop: operands through L1 and L0, products into an accumulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msdsim.dataflows.cube.operands import CubeOperands, element_format
from msdsim.formats.mx import MX_BLOCK
from msdsim.ir import At, Expr, ExprLike, Handle, KernelBuilder, Slice, at, lift, tiles_of


@dataclass(frozen=True)
class CubeTiling:
    """Tiles of the Cube's main loop: an output tile of ``base_m`` by ``base_n``, K of a tile in L1 and in L0; and the depths of
    the rings in L1, in L0 and of the accumulator."""

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2


#: Fills an L1 tile for the K range ``start +: size``.
Loader = Callable[[Handle, Expr, Expr], None]


@dataclass(frozen=True)
class Stream:
    """An operand that passes through L1 tile by tile; MX operands bring the scales of their blocks (``start`` and ``size``
    then count blocks of 32), or have them as ``scales`` in L1."""

    load: Loader
    load_scales: Loader | None = None
    scales: Held | None = None


@dataclass(frozen=True)
class Held:
    """An operand that lies in L1 already: ``at`` gives the slice for a K range.  Scales of its blocks may still stream."""

    at: Callable[[Expr, Expr], Slice]
    load_scales: Loader | None = None
    scales: Held | None = None


def accumulate(
    kb: KernelBuilder, tile: CubeTiling, kinds: CubeOperands, acc: Slice, extent: ExprLike, a: Stream | Held, b: Stream | Held,
    before: ExprLike = 0, unit_flag: bool = False,
) -> None:
    """Emit ``acc += A B`` over ``extent`` elements of K.

    Before: one product of [rows, extent] and [extent, cols].  After::

        for k1 in 0 .. ceil(extent / l1_k)
          a1, b1 <- GM (ring l1_ring), unless they are held in L1
          for k0 in 0 .. ceil(size of k1 / l0_k)
            a0 <- a1, b0 <- b1 (ring l0_ring)
            mmad acc <- a0, b0 {accumulate = before + k1 + k0}

    ``before`` is zero where this is the first product of the sum; ``unit_flag`` says that one :func:`drain` follows,
    which may then begin before the last product is done.
    """
    rows, cols = acc.sizes
    with kb.tiles("k1", extent, tile.l1_k) as k1:
        # Weights first: they come from HBM and take longest.
        b1 = bring(kb, tile, kinds, "b", cols, b, k1)
        a1 = bring(kb, tile, kinds, "a", rows, a, k1)
        with kb.tiles("k0", k1.size, tile.l0_k) as k0:
            multiply(kb, tile, kinds, acc, k0, a1, b1, before + k1.number + k0.number, unit_flag)


def drain(kb: KernelBuilder, out: Slice, acc: Slice) -> None:
    """``out <- acc``, which begins while the last product is made, as the next sum does while this is under way."""
    kb.op("fixpipe", out, acc, unit_flag=1)


#: An operand in L1 and the scales of its blocks, if it has any.
InL1 = tuple[Held, Held | None]


def multiply(kb: KernelBuilder, tile: CubeTiling, kinds: CubeOperands, acc: Slice, k: At, a: InL1, b: InL1,
             accumulated: ExprLike, unit_flag: bool = False) -> None:
    """One step of K through L0: ``acc += A B`` over ``k`` of operands in L1; ``accumulated`` zero starts anew, and
    ``unit_flag`` says that one :func:`drain` follows."""
    (a1, a1_scales), (b1, b1_scales) = a, b
    scales = None
    if a1_scales is not None and b1_scales is not None:
        blocks = k.start // MX_BLOCK, tiles_of(k.size, MX_BLOCK)
        scales = a1_scales.at(*blocks), b1_scales.at(*blocks)
    tiles = L0Tiles(kinds, tile.base_m, tile.l0_k, tile.base_n, tile.l0_ring, unit_flag=unit_flag)
    through_l0(kb, tiles, acc, a1.at(k.start, k.size), b1.at(k.start, k.size), scales, accumulated)


def multiply_groups(kb: KernelBuilder, tile: CubeTiling, kinds: CubeOperands, group: int, depth: Expr, a: InL1, b: InL1,
                    accumulator: Callable[[], Slice], leave: Callable[[Expr, Slice], None], unit_flag: bool = False) -> None:
    """A sum of its own for each ``group`` of the ``depth`` of operands in L1::

        for j:  acc <- group j through L0;  leave(j, acc)
    """
    with kb.tiles("j", depth, group) as j:
        acc = accumulator()
        with kb.tiles("k0", j.size, tile.l0_k) as k0:
            multiply(kb, tile, kinds, acc, at(j.start + k0.start, k0.size), a, b, k0.number, unit_flag)
        leave(j.number, acc)


@dataclass(frozen=True)
class L0Tiles:
    """The tiles of a step of K in L0: [m, k] in L0A and [k, n] in L0B, in rings, under the names ``a``0 and ``b``0.

    Scales of B lie in L1 as [blocks, columns], or with ``transpose_scales`` as [columns, blocks].
    """

    kinds: CubeOperands
    m: int
    k: int
    n: int
    ring: int
    a: str = "a"
    b: str = "b"
    transpose_scales: bool = False
    unit_flag: bool = False


def through_l0(kb: KernelBuilder, tiles: L0Tiles, acc: Slice, a1: Slice, b1: Slice, scales: tuple[Slice, Slice] | None,
               accumulated: ExprLike) -> None:
    """``acc += A B`` for tiles in L1, with the ``scales`` of the blocks of both if they are MX."""
    (rows, cols), size, kinds, ring = acc.sizes, a1.sizes[-1], tiles.kinds, tiles.ring
    a0 = kb.buffer(f"{tiles.a}0", "L0A", element_format(kinds.a), (tiles.m, tiles.k), ring)[:rows, :size]
    b0 = kb.buffer(f"{tiles.b}0", "L0B", element_format(kinds.b), (tiles.k, tiles.n), ring)[:size, :cols]
    flags: dict[str, Expr | int] = {"accumulate": lift(accumulated)} | ({"unit_flag": 1} if tiles.unit_flag else {})
    kb.copy(a0, a1)
    _to_l0b(kb, b0, b1, kinds.transpose_b)
    if scales is None:
        kb.op("mmad", acc, a0, b0, **flags)
        return
    blocks, count = tiles.k // MX_BLOCK, tiles_of(size, MX_BLOCK)
    sa0 = kb.buffer(f"s{tiles.a}0", "L0A_MX", "e8m0", (tiles.m, blocks), ring)[:rows, :count]
    sb0 = kb.buffer(f"s{tiles.b}0", "L0B_MX", "e8m0", (blocks, tiles.n), ring)[:count, :cols]
    kb.copy(sa0, scales[0])
    _to_l0b(kb, sb0, scales[1], tiles.transpose_scales)
    kb.op("mmad_mx", acc, a0, sa0, b0, sb0, **flags)


def _to_l0b(kb: KernelBuilder, out: Slice, source: Slice, transpose: bool) -> None:
    if transpose:
        kb.copy(out, source, transpose=1)
    else:
        kb.copy(out, source)


def bring(kb: KernelBuilder, tile: CubeTiling, kinds: CubeOperands, name: str, along: Expr, source: Stream | Held,
          k: At) -> InL1:
    """The L1 tile of operand ``name`` (``along`` rows of A or columns of B) for a K range: loaded, unless it is held there."""
    start, size = k.start, k.size
    extent, fmt = (tile.base_m, kinds.a) if name == "a" else (tile.base_n, kinds.b)
    if isinstance(source, Held):
        held = source

        def data(at_k: Expr, count: Expr) -> Slice:
            return held.at(start + at_k, count)
    else:
        rows_first = name == "a" or kinds.transpose_b
        shape = (extent, tile.l1_k) if rows_first else (tile.l1_k, extent)
        buffer = kb.buffer(f"{name}1", "L1", element_format(fmt), shape, tile.l1_ring)
        source.load(buffer, start, size)

        def data(at_k: Expr, count: Expr) -> Slice:
            return buffer[:along, at(at_k, count)] if rows_first else buffer[at(at_k, count), :along]

    if (scales_in_l1 := source.scales) is not None:
        return Held(data), Held(lambda first, count: scales_in_l1.at(start // MX_BLOCK + first, count))
    if source.load_scales is None:
        return Held(data), None
    blocks = tile.l1_k // MX_BLOCK
    # Scales of A lie as [rows, blocks], those of B as [blocks, columns] whatever the layout of B.
    scales = kb.buffer(f"s{name}1", "L1", "e8m0", (extent, blocks) if name == "a" else (blocks, extent), tile.l1_ring)
    source.load_scales(scales, start // MX_BLOCK, tiles_of(size, MX_BLOCK))

    def of_blocks(first: Expr, count: Expr) -> Slice:
        return scales[:along, at(first, count)] if name == "a" else scales[at(first, count), :along]

    return Held(data), Held(of_blocks)
