"""What the Cube can do: whether a tiling fits, and what a chip or a problem rules out."""

from __future__ import annotations

from msdsim.dataflows.base import require_fits, require_multiple
from msdsim.dataflows.cube.mainloop import CubeTiling
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape, element_bits
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import SCHEMES, Scheme
from msdsim.hardware.chip import Chip


def check_cube_tiling(chip: Chip, tile: CubeTiling, kinds: CubeOperands, held_a_bytes: int | None = None,
                      held_b_bytes: int | None = None, group: int | None = None,
                      scale_k: int | None = None) -> None:
    """The tiling fits L0A, L0B, L0C and L1 and is made of whole fractals; TilingError says what does not.

    Where every ``group`` of K has a product of its own, an L1 tile holds whole groups of it, or part of one.  Scales of MX
    blocks come for ``scale_k`` of K at a time (None: with their L1 tile).  ``held_a_bytes`` and ``held_b_bytes`` are what an
    operand takes that is held in L1 rather than streamed through it.
    """
    rate = chip.cube.rate(kinds.a, kinds.b)
    assert rate is not None
    bits_a, bits_b = element_bits(kinds.a), element_bits(kinds.b)
    require_multiple(tile, "base_m", chip.cube.fractal_m, "the Cube works in fractals of 16 rows")
    require_multiple(tile, "base_n", chip.cube.fractal_n, "the Cube works in fractals of 16 columns")
    require_multiple(tile, "l0_k", rate.fractal_k, f"a {kinds.a} fractal is {rate.fractal_k} deep")
    if group is not None and group <= tile.l1_k:
        require_multiple(tile, "l1_k", group, f"an L1 tile holds whole groups of {group}, or part of one")
    else:
        require_multiple(tile, "l1_k", tile.l0_k, "an L1 tile is cut into whole L0 tiles")
    require_fits(chip, "L0A", {"a0": tile.l0_ring * tile.base_m * tile.l0_k * bits_a // 8})
    require_fits(chip, "L0B", {"b0": tile.l0_ring * tile.l0_k * tile.base_n * bits_b // 8})
    require_fits(chip, "L0C", {"acc": tile.l0c_ring * tile.base_m * tile.base_n * 4})
    scales = tile.l1_ring * (scale_k or tile.l1_k) // MX_BLOCK if kinds.mx else 0
    a1 = tile.l1_ring * tile.base_m * tile.l1_k * bits_a // 8 + scales * tile.base_m
    b1 = tile.l1_ring * tile.l1_k * tile.base_n * bits_b // 8 + scales * tile.base_n
    require_fits(chip, "L1", {"a1": a1 if held_a_bytes is None else held_a_bytes,
                              "b1": b1 if held_b_bytes is None else held_b_bytes})


def refuse_rate(chip: Chip, formats: tuple[str, str]) -> str | None:
    """Why the chip's Cube cannot multiply these formats, or None."""
    if chip.cube.rate(*formats) is None:
        modes = ", ".join(f"{r.a} x {r.b}" for r in chip.cube.rates.values())
        return f"the Cube of '{chip.name}' cannot multiply {formats[0]} x {formats[1]} (it multiplies {modes})"
    return None


def refuse_activations(problem: GemmShape, scheme: Scheme) -> str | None:
    """Why a method cannot take activations in the format in which they are given, or None."""
    if problem.x == "bf16":
        return None
    if not scheme.takes(problem.x):
        takes = [other.name for other in SCHEMES.values() if other.takes(problem.x)]
        does = "multiplies" if scheme.decomposition is None else "quantizes" if scheme.spec.passes == 1 else "splits"
        return f"'{scheme.name}' {does} BF16 activations, and x={problem.x} is given; use {' or '.join(takes)}"
    if element_bits(problem.x) < 8 and problem.k % 2:
        return f"x={problem.x} lies two to a byte along k, and k={problem.k} is odd; pad it to {problem.k + 1}"
    if problem.offset:
        return f"offsets need sums of rows of x, which x={problem.x} does not come with; leave out offset=1 or x={problem.x}"
    return None


def refuse_weights(problem: GemmShape, chip: Chip, scheme: Scheme) -> str | None:
    """Why a chip cannot multiply the weights of a method as the problem has them, or None."""
    return refuse_rate(chip, scheme.cube) or refuse_packed(problem, scheme.weights) or (
        refuse_scales(problem, scheme.name) if scheme.mx_weights else None)


def refuse_packed(problem: GemmShape, fmt: str) -> str | None:
    """Why weights of a 4-bit format cannot be stored with these sizes, or None: two of them share a byte along a row."""
    axis, size = ("k", problem.k) if problem.trans_b else ("n", problem.n)
    if FORMATS[fmt].bits < 8 and size % 2:
        return f"{fmt} weights lie two to a byte along {axis}, and {axis}={size} is odd; pad it to {size + 1}"
    if FORMATS[fmt].bits < 8 and problem.trans_b and problem.group is not None and problem.group % 2:
        return f"groups of {problem.group} start in the middle of a byte of packed {fmt}; use an even group"
    return None


def refuse_scales(problem: GemmShape, name: str) -> str | None:
    """Why a dataflow whose weights have blocks of 32 and no offset cannot run a problem with groups or offsets, or None."""
    if problem.group is not None or problem.offset:
        return f"'{name}' weights have MX blocks of 32 along k and no offset; leave out group and offset"
    return None
