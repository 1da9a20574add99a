"""Rules that tie numbers of a chip to each other; all of them are checked and all findings are reported at once.

What a single number may be (positive, whole, at most ...) is said by its type in :mod:`msdsim.hardware.chip`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from msdsim.naming import PIPES
from msdsim.units import bytes_per_tick, exact

if TYPE_CHECKING:
    from msdsim.hardware.chip import Chip

#: Names a Cube rate may use.  ``mxfp8`` and ``mxfp4`` are a format together with its E8M0 block scales.
CUBE_FORMATS = ("bf16", "fp16", "fp32", "fp8_e4m3fn", "fp8_e5m2", "fp4_e2m1", "int8", "int4", "int32", "mxfp8", "mxfp4")

#: Classes of Vector instruction a chip gives a cost for.  ``fold_*`` combine columns with columns (VMAX, VADD),
#: ``reduce_*`` are the final reductions inside a register (VCMAX, VCADD).
VECTOR_OPS = (
    "add", "sub", "mul", "div", "max", "min", "adds", "muls", "maxs", "mins", "abs", "exp", "cast", "dup", "copy",
    "select", "fold_max", "fold_add", "reduce_max", "reduce_add",
)  # fmt: skip

#: Data paths that some pipe can drive: the pipe belongs to the side that reads.
PATH_PIPES = {
    ("GM", "L1"): "MTE2", ("GM", "L0A"): "MTE2", ("GM", "L0B"): "MTE2", ("GM", "UB"): "MTE2",
    ("L1", "L0A"): "MTE1", ("L1", "L0B"): "MTE1", ("L1", "BT"): "MTE1", ("L1", "UB"): "MTE1", ("L1", "GM"): "MTE1",
    ("L1", "L0A_MX"): "MTE1", ("L1", "L0B_MX"): "MTE1",
    ("UB", "GM"): "MTE3", ("UB", "L1"): "MTE3",
    ("L0C", "GM"): "FIX", ("L0C", "L1"): "FIX", ("L0C", "UB"): "FIX",
}  # fmt: skip

#: The engines count time in 64 bits in units of one cycle over a rate's numerator; ten million leaves room for nearly
#: 10**12 cycles (eight minutes of the chip's time).
LARGEST_TERM = 10**7


def findings(chip: Chip) -> list[str]:
    """Every rule the chip breaks, one clause each, naming the dotted key, the value and the remedy."""
    rules = (_queues, _cube, _vector, _paths, _memory, _banked, _rates, _energy)
    return [text for rule in rules for text in rule(chip)]


def _queues(chip: Chip) -> Iterator[str]:
    for pipe in sorted({pipe for pipes in PIPES.values() for pipe in pipes} - {"S"} - set(chip.dispatch.queue_depth)):
        yield f"key 'dispatch.queue_depth.{pipe}' is missing"


def _cube(chip: Chip) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for name, rate in chip.cube.rates.items():
        key = f"cube.rates.{name}"
        for field, value in (("a", rate.a), ("b", rate.b), ("accumulator", rate.accumulator)):
            if value not in CUBE_FORMATS:
                yield f"key '{key}.{field}' = '{value}' is not a format (known: {', '.join(CUBE_FORMATS)})"
        wanted = "int32" if rate.a.startswith("int") else "fp32"
        if rate.accumulator in CUBE_FORMATS and rate.accumulator != wanted:
            yield f"key '{key}.accumulator' = '{rate.accumulator}' must be '{wanted}' for {rate.a} x {rate.b}"
        if rate.a.startswith("int") != rate.b.startswith("int"):
            yield f"key '{key}' multiplies {rate.a} by {rate.b}; integers go with integers only"
        first = seen.setdefault((rate.a, rate.b), name)
        if first != name:
            yield f"key '{key}' gives {rate.a} x {rate.b} a second rate (the first is 'cube.rates.{first}'); remove one"


def _vector(chip: Chip) -> Iterator[str]:
    for name in chip.vector.ops:
        if name not in VECTOR_OPS:
            yield f"key 'vector.ops.{name}' is not a Vector operation (known: {', '.join(VECTOR_OPS)})"
    for name in VECTOR_OPS:
        if name not in chip.vector.ops:
            yield f"key 'vector.ops.{name}' is missing"


def _paths(chip: Chip) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    chunk = chip.memory.chunk_bytes
    for name, path in chip.paths.items():
        key, ends = f"paths.{name}", (path.source, path.destination)
        first = seen.setdefault(ends, name)
        if first != name:
            yield (f"key '{key}' is a second path {path.source} -> {path.destination} (the first is 'paths.{first}'); "
                   f"remove one")
        pipe = PATH_PIPES.get(ends)
        if pipe is None:
            yield f"key '{key}': no pipe moves data {path.source} -> {path.destination}; remove the path"
        elif path.pipe != pipe:
            yield f"key '{key}.pipe' = '{path.pipe}' does not drive {path.source} -> {path.destination}; it is {pipe}"
        window = path.outstanding_bytes
        if "GM" not in ends:
            if window is not None:
                yield f"key '{key}.outstanding_bytes' = {window} has no meaning for a path inside a core; remove it"
            continue
        if window is None:
            yield f"key '{key}.outstanding_bytes' is missing: a path to or from GM needs it"
        elif window < chunk:
            yield (f"key '{key}.outstanding_bytes' = {window} is below memory.chunk_bytes {chunk}; raise it or lower "
                   f"the chunk")
        if path.nd2nz is not None and (path.nd2nz.outstanding_bytes or chunk) < chunk:
            yield (f"key '{key}.nd2nz.outstanding_bytes' = {path.nd2nz.outstanding_bytes} is below memory.chunk_bytes "
                   f"{chunk}; raise it or lower the chunk")
        if path.nd2nz is not None and (path.nd2nz.unaligned_block_bytes is None) != (path.nd2nz.unaligned_block_cycles is None):
            yield (f"key '{key}.nd2nz' has one of 'unaligned_block_bytes' and 'unaligned_block_cycles' without the other; give "
                   f"both or none")
        if path.accumulator_bytes_per_cycle is not None and ends != ("L0C", "GM"):
            yield f"key '{key}.accumulator_bytes_per_cycle' has no meaning but for L0C -> GM; remove it"
        if chunk % path.granule_bytes:
            yield f"key '{key}.granule_bytes' = {path.granule_bytes} does not divide memory.chunk_bytes {chunk}"


def _memory(chip: Chip) -> Iterator[str]:
    l2 = chip.l2
    one_set = l2.line_bytes * l2.ways
    if l2.capacity_bytes % one_set:
        whole = max(l2.capacity_bytes // one_set, 1) * one_set
        yield (f"key 'l2.capacity_bytes' = {l2.capacity_bytes} is not a whole number of sets of {l2.ways} x "
               f"{l2.line_bytes} bytes; the closest is {whole}")
    if l2.line_bytes % l2.sector:
        yield f"key 'l2.sector_bytes' = {l2.sector_bytes} does not divide l2.line_bytes {l2.line_bytes}"
    if chip.memory.chunk_bytes % l2.line_bytes:
        yield f"key 'memory.chunk_bytes' = {chip.memory.chunk_bytes} is not a multiple of l2.line_bytes {l2.line_bytes}"


def _banked(chip: Chip) -> Iterator[str]:
    """Between two refreshes a row must be opened and closed, or nothing is ever read."""
    b = chip.hbm.banked
    if b is None:
        return
    clock_ns = b.stacks * b.channels_per_stack * b.pseudo_channels * b.bytes_per_clock / chip.hbm.bandwidth_gbps
    least = b.trfc_ns + b.tras_ns + b.trp_ns + 2 * clock_ns
    if b.trefi_ns <= least:
        yield (f"key 'hbm.banked.trefi_ns' = {b.trefi_ns:g} leaves no time between refreshes; it must be above trfc_ns + "
               f"tras_ns + trp_ns and two clocks, {least:g}")


def _energy(chip: Chip) -> Iterator[str]:
    for name in chip.energy.mac_pj if chip.energy is not None else ():
        if name not in chip.cube.rates:
            yield f"key 'energy.mac_pj.{name}' is no rate of the Cube (it has: {', '.join(chip.cube.rates)})"


def rates(chip: Chip) -> dict[str, Fraction]:
    """Every rate of the chip as the engines use it, by dotted key: bytes per cycle, or cycles per unit of work."""
    clock, hbm = chip.clock_mhz, chip.hbm
    found = {
        "l2.read_gbps": bytes_per_tick(chip.l2.read_gbps, clock),
        "l2.write_gbps": bytes_per_tick(chip.l2.write_gbps, clock),
        "hbm.bandwidth_gbps": bytes_per_tick(hbm.bandwidth_gbps, clock) * exact(hbm.efficiency),
    }
    for name, path in chip.paths.items():
        found[f"paths.{name}.bytes_per_cycle"] = exact(path.bytes_per_cycle)
        if path.accumulator_bytes_per_cycle is not None:
            found[f"paths.{name}.accumulator_bytes_per_cycle"] = exact(path.accumulator_bytes_per_cycle)
    for name, rate in chip.cube.rates.items():
        found[f"cube.rates.{name}.cycles_per_fractal"] = exact(rate.cycles_per_fractal)
    for name, op in chip.vector.ops.items():
        found[f"vector.ops.{name}.slope_cycles_per_repeat"] = exact(op.slope_cycles_per_repeat)
    return found


def _rates(chip: Chip) -> Iterator[str]:
    for key, rate in rates(chip).items():
        if max(rate.numerator, rate.denominator) > LARGEST_TERM:
            how = " (after division by clock_mhz)" if key.endswith("_gbps") else ""
            yield (f"key '{key}' is the exact rate {rate.numerator}/{rate.denominator}{how}, and neither term may be "
                   f"above {LARGEST_TERM}; give fewer digits")
