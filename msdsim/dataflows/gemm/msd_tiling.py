"""The parameters of an MSD kernel, and what they must satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msdsim.dataflows.base import require_path, require_positive, require_slots
from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.limits import check_cube_tiling
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape
from msdsim.dataflows.gemm.register import GemmTiling
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip


@dataclass(frozen=True, kw_only=True)
class MsdTiling(GemmTiling):
    """Tiles of a GEMM over stacked rows, of ``passes`` components; ``decompose_m x decompose_k`` tile of the split, ``merge_m``
    rows of the merge, ``slots`` of the ring of products, ``prefetch`` weight tiles fetched into L2 beside the first.

    ``direct`` 1 puts the ring into UB: the Cube's results go there straight from L0C.  0 puts it into GM, where a slot holds
    all groups of scales of an L1 tile.

    ``stepwise`` 1 splits, multiplies and merges the groups of one L1 tile at a time, all cores meeting after the split;
    ``preload`` 1 then splits two steps ahead of the merge, so that Vector and Cube overlap.  0 splits all of K first.

    ``a_resident`` 1 keeps the components of the only tile of rows in L1 for all tiles of columns of a core.

    Where ``k_parts`` cores share the K of a tile, the merge waits for all of them and adds up their exact sums first.
    """

    RENAMED: ClassVar = {**GemmTiling.RENAMED, "split_m": "decompose_m", "split_k": "decompose_k"}

    decompose_m: int
    decompose_k: int
    merge_m: int
    passes: int = 2
    slots: int = 2
    prefetch: int = 1
    ub_ring: int = 2
    direct: int = 0
    stepwise: int = 0
    preload: int = 1
    a_resident: int = 0


def check_tiling(problem: GemmShape, chip: Chip, tile: MsdTiling, scheme: Scheme) -> None:
    """TilingError for what cannot be built; buffers in UB the verifier checks."""
    require_positive(tile, "prefetch", "direct", "stepwise", "preload", "a_resident")
    _check_pipeline(problem, chip, tile)
    held = _held_bytes(problem, tile, scheme) if tile.a_resident else None
    check_cube_tiling(chip, tile, CubeOperands(*scheme.cube), held_a_bytes=held, group=problem.group)
    if not scheme.free_passes and tile.passes != scheme.passes:
        raise TilingError(f"tiling passes={tile.passes}: '{scheme.name}' has {scheme.passes}; leave it out")
    if tile.base_m % tile.passes:
        raise TilingError(f"tiling base_m={tile.base_m} does not hold {tile.passes} stacked components; "
                          f"give a multiple of {tile.passes}")
    require_slots(tile, "slots", chip)


def _check_pipeline(problem: GemmShape, chip: Chip, tile: MsdTiling) -> None:
    """What the ways to run it ask for."""
    if tile.k_parts > 1 and (problem.group is not None or tile.direct):
        raise TilingError(f"tiling k_parts={tile.k_parts} adds up sums through GM: it needs direct=0, and one scale per "
                          f"channel or MX blocks")
    if tile.stepwise and (problem.group is None or problem.group > tile.l1_k or tile.direct):
        raise TilingError(f"tiling stepwise={tile.stepwise} takes groups of scales an L1 tile at a time through GM: it needs a "
                          f"group= of at most l1_k={tile.l1_k} and direct=0")
    if tile.stepwise and problem.x != "bf16":
        raise TilingError(f"tiling stepwise={tile.stepwise} splits activations step by step, and x={problem.x} is given; "
                          f"give stepwise=0")
    require_path(tile, "direct", chip, "L0C", "UB")


def _held_bytes(problem: GemmShape, tile: MsdTiling, scheme: Scheme) -> int:
    """Bytes of L1 in which all K of A stays; TilingError where A is more than one tile of rows."""
    whole = problem.m <= tile.base_m // tile.passes and not Experts(problem).several
    if problem.group is not None or scheme.mx or tile.k_parts > 1 or not whole:
        raise TilingError(f"tiling a_resident={tile.a_resident} holds one tile of integer components in L1: it needs "
                          f"{problem.m} rows in a tile (base_m), one scale per channel, k_parts=1 and no experts")
    return tile.base_m * problem.k * FORMATS[scheme.component].bits // 8
