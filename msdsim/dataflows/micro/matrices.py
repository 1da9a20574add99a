"""All cores read a matrix, or take one or two through UB to another."""

from __future__ import annotations

from contextlib import nullcontext

from msdsim.dataflows.micro.transfers import way
from msdsim.hardware.chip import Chip
from msdsim.ir import Const, Expr, Kernel, KernelBuilder, at, minimum, share_of, tiles_of
from msdsim.problems.model import Micro
from msdsim.units import ceil_div


def read_matrix(problem: Micro, chip: Chip) -> Kernel:
    """Rows are dealt to the cores in equal blocks; a core walks its tiles along the columns, then down the rows.

    With ``shared`` every core walks all blocks, in the same order or, with ``stagger``, each beginning with its own.
    """
    aivs = chip.cores.aiv_per_aic
    kb = KernelBuilder("micro_read_matrix", chip.cores.aic, aivs)
    x = kb.tensor("x", problem.fmt, (problem.m, problem.n), "in")
    on_aiv = problem.into == "ub"
    unit: Expr = kb.core * aivs + kb.sub if on_aiv else kb.core
    units = chip.aiv if on_aiv else chip.cores.aic
    rows, columns = ceil_div(problem.m, units), ceil_div(problem.n, problem.slices)
    with (kb.part("aiv" if on_aiv else "aic"), kb.loop("s", 0, problem.slices) as s, kb.loop("r", 0, problem.rounds),
          kb.loop("b", 0, units) if problem.shared else nullcontext(unit) as turn):
        block = (turn + unit) % units if problem.shared and problem.stagger else turn
        mine = share_of(problem.m, rows, block)
        with kb.loop("mt", 0, tiles_of(mine, problem.base_m)) as mt, kb.loop("nt", 0, ceil_div(columns, problem.base_n)) as nt:
            height = minimum(problem.base_m, mine - mt * problem.base_m)
            width = minimum(problem.base_n, share_of(problem.n, columns, s) - nt * problem.base_n)
            if columns % problem.base_n == 0 and problem.n % columns == 0:
                width = Const(problem.base_n)
            if rows % problem.base_m == 0 and problem.m % rows == 0:
                height = Const(problem.base_m)
            tile = kb.buffer("tile", "UB" if on_aiv else "L1", problem.fmt, (problem.base_m, problem.base_n))
            kb.copy(tile[:height, :width],
                    x[at(block * rows + mt * problem.base_m, height), at(s * columns + nt * problem.base_n, width)],
                    **way(problem))
    return kb.build()


def through_ub(problem: Micro, chip: Chip, sources: int) -> Kernel:
    """One matrix, or the sum of two: rows dealt to the AIVs in equal blocks, tiles double-buffered."""
    aivs, fmt = chip.cores.aiv_per_aic, problem.fmt
    kb = KernelBuilder(f"micro_{problem.op}", chip.cores.aic, aivs)
    inputs = [kb.tensor(f"x{number}", fmt, (problem.m, problem.n), "in") for number in range(sources)]
    y = kb.tensor("y", fmt, (problem.m, problem.n), "out")
    shape, rows = (problem.base_m, problem.base_n), ceil_div(problem.m, chip.aiv)
    with kb.part("aiv"):
        mine = share_of(problem.m, rows, kb.aiv)
        with (kb.loop("mt", 0, tiles_of(mine, problem.base_m)) as mt,
              kb.loop("nt", 0, ceil_div(problem.n, problem.base_n)) as nt):
            height = minimum(problem.base_m, mine - mt * problem.base_m)
            width = share_of(problem.n, problem.base_n, nt) if problem.n % problem.base_n else Const(problem.base_n)
            place = at(kb.aiv * rows + mt * problem.base_m, height), at(nt * problem.base_n, width)
            tiles = [kb.buffer(f"tile{number}", "UB", fmt, shape, 2)[:height, :width] for number in range(sources)]
            for tile, tensor in zip(tiles, inputs, strict=True):
                kb.copy(tile, tensor[place], **way(problem))
            out = tiles[0]
            if sources > 1:
                out = kb.buffer("sum", "UB", fmt, shape, 2)[:height, :width]
                kb.op("add", out, *tiles)
            kb.copy(y[place], out, **way(problem))
    return kb.build()
