"""The chip model: one frozen tree of numbers, what each may be said by its type.

Units are in the names.  ``cycles`` are cycles of the core clock, ``bytes_per_cycle`` is per core, GB/s is 10**9 bytes
per second and chip-wide.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from msdsim import moved
from msdsim.errors import ChipError
from msdsim.hardware.energy import EnergyFigures
from msdsim.hardware.quantities import Cycles, Nanoseconds, Number, Positive, PositiveInt, Table, Whole

#: On-chip memory spaces and global memory.
SPACES = ("GM", "L1", "L0A", "L0B", "L0C", "UB", "BT", "L0A_MX", "L0B_MX")


class Cores(Table):
    """Core groups of the chip: each is one AIC (Cube) with its AIVs (Vector)."""

    aic: Annotated[PositiveInt, Field(le=1024)]
    aiv_per_aic: Annotated[PositiveInt, Field(le=16)]


class Buffers(Table):
    """Capacity of each on-chip buffer of a core, in bytes.  ``l0a_mx`` and ``l0b_mx`` hold the block scales of MX operands in
    L0A and L0B; a Cube without MX modes has none (0)."""

    l1_bytes: PositiveInt
    l0a_bytes: PositiveInt
    l0b_bytes: PositiveInt
    l0c_bytes: PositiveInt
    ub_bytes: PositiveInt
    bt_bytes: PositiveInt
    l0a_mx_bytes: Whole = Field(ge=0)
    l0b_mx_bytes: Whole = Field(ge=0)

    def capacity(self, space: str) -> int:
        """Bytes of ``space`` (one of :data:`SPACES` but GM) on one core."""
        return int(getattr(self, f"{space.lower()}_bytes"))


class Alignment(Table):
    """Smallest addressable unit of each space, in bytes: a buffer slot is rounded up to it."""

    l1_bytes: PositiveInt
    l0a_bytes: PositiveInt
    l0b_bytes: PositiveInt
    l0c_bytes: PositiveInt
    ub_bytes: PositiveInt
    bt_bytes: PositiveInt
    l0a_mx_bytes: PositiveInt
    l0b_mx_bytes: PositiveInt

    def of(self, space: str) -> int:
        """Bytes of the unit of ``space``."""
        return int(getattr(self, f"{space.lower()}_bytes"))


class Dispatch(Table):
    """The scalar unit: program-order dispatch into bounded pipe queues.

    ``matmul_setup_cycles`` is what a call of the vendor's Matmul object costs it, for kernels that are built on that object.
    """

    issue_cycles: Cycles
    flag_cycles: Cycles
    event_ids_per_pipe_pair: PositiveInt
    matmul_setup_cycles: Cycles
    queue_depth: dict[Literal["MTE1", "MTE2", "MTE3", "M", "V", "FIX"], PositiveInt]


class CrossCore(Table):
    """Signals between the AIC and the AIVs of a group, and barriers over all cores."""

    signal_latency_cycles: Cycles
    barrier_latency_cycles: Cycles
    max_outstanding: PositiveInt


class CubeRate(Table):
    """Formats one Cube instruction multiplies, and what one fractal (16 x fractal_k x 16) costs."""

    a: str
    b: str
    accumulator: str
    fractal_k: PositiveInt
    cycles_per_fractal: Positive


class Cube(Table):
    """The matrix unit: time = head + fractals * cycles_per_fractal."""

    accumulate: Literal["fp32-rne-ascending-k"]
    fractal_m: PositiveInt
    fractal_n: PositiveInt
    head_isolated_cycles: Cycles
    head_back_to_back_cycles: Cycles
    hazard_fractals: Cycles
    rates: dict[str, CubeRate]

    def rate(self, a: str, b: str) -> CubeRate | None:
        """The rate of ``a x b``, or None when this Cube cannot multiply these formats."""
        return self.rates.get(self.rate_name(a, b))

    def rate_name(self, a: str, b: str) -> str:
        """The key in ``rates`` of the rate of ``a x b``; empty when this Cube cannot multiply these formats."""
        return next((name for name, rate in self.rates.items() if (rate.a, rate.b) == (a, b)), "")

    def need_rate(self, a: str, b: str) -> CubeRate:
        """The rate of ``a x b``; ChipError where this Cube cannot multiply these formats."""
        found = self.rate(a, b)
        if found is None:
            raise ChipError(f"the Cube does not multiply {a} by {b} (it does: {', '.join(self.rates)})")
        return found


class VectorOp(Table):
    """One class of Vector instruction: cycles = max(min_cycles, slope * repeats), after ``latency`` when isolated;
    ``port_cycles`` are for vector functions (:class:`VectorFunction`)."""

    slope_cycles_per_repeat: Positive
    min_cycles: Cycles
    latency_cycles: Cycles
    port_cycles: Positive | None = None


class VectorFunction(Table):
    """What a vector function costs (:mod:`msdsim.ir.vf`): ``start_cycles`` before its first load and ``drain_cycles`` after its
    last store; a load and a store take ``load_cycles`` and ``store_cycles`` until the register, or UB, has the data.  A cycle
    has ``loads_per_cycle``, ``stores_per_cycle`` and ``ports`` for arithmetic, of which an operation takes ``port_cycles`` (1
    where it names none) a register."""

    start_cycles: Cycles
    drain_cycles: Cycles
    load_cycles: Cycles
    store_cycles: Cycles
    loads_per_cycle: Positive
    stores_per_cycle: Positive
    ports: PositiveInt


class Banks(Table):
    """The banks of UB as Vector meets them (:mod:`msdsim.hardware.units.banks`).

    Rows of ``row_bytes`` go round the ``groups``; ``interleaved`` says whether the banks of a group take turns from round to
    round, or each holds its ``rows_per_bank`` rows one after the other.  ``group_reads`` reads of a group, one write of it and
    one access of a bank fit into a cycle.  ``read_write_conflicts`` says whether reading and writing one bank in the same
    repeat costs anything, ``delays_aligned_writes`` whether writes to the very banks that are read wait for the next repeat.
    """

    row_bytes: PositiveInt
    groups: PositiveInt
    banks_per_group: PositiveInt
    rows_per_bank: PositiveInt
    interleaved: bool
    group_reads: PositiveInt
    read_write_conflicts: bool
    delays_aligned_writes: bool


class Vector(Table):
    """The vector unit: an instruction works through repeats of ``repeat_bytes`` of its widest operand; ``ops`` has
    every name of :data:`msdsim.hardware.sanity.VECTOR_OPS`.  Without ``banks`` UB serves whatever Vector asks for; without
    ``vf`` there are no vector functions."""

    repeat_bytes: PositiveInt
    ops: dict[str, VectorOp]
    banks: Banks | None = None
    vf: VectorFunction | None = None


class Nd2nz(Table):
    """A copy into L1 that re-orders rows of a matrix into fractals (ND to NZ) on its way.

    Each row is cut into requests of a power of two of bytes, between the smallest and the largest; a request holds the port for
    at least ``request_cycles`` and a whole row for at least ``row_cycles``.  ``l2_share`` is the share of the L2 read bandwidth
    that such requests of all cores together reach; ``outstanding_bytes`` is the window of such copies, where it is not the
    path's.  A row that begins inside a block of ``unaligned_block_bytes`` (where there is such a size) is asked for block by
    block, in ``unaligned_block_cycles`` each.
    """

    bytes_per_cycle: Positive
    row_cycles: Positive
    request_cycles: Positive
    smallest_request_bytes: PositiveInt
    largest_request_bytes: PositiveInt
    l2_share: Annotated[Positive, Field(le=1)]
    outstanding_bytes: PositiveInt | None = None
    unaligned_block_bytes: PositiveInt | None = None
    unaligned_block_cycles: Positive | None = None


class Path(Table):
    """A legal data path.  An isolated transfer takes ``interval + bytes / bytes_per_cycle + latency`` cycles; the next
    transfer on the pipe may start after ``interval + bytes / bytes_per_cycle``.  ``outstanding_bytes`` bounds what a
    path to or from GM keeps in flight; local paths have none.  ``minimum_cycles`` is the least time for which a transfer to
    or from GM holds its pipe.  ``nd2nz``, for GM -> L1 only, is what a copy of several rows costs (without it, what any copy
    costs).  With ``split_request_cycles``, for paths to or from GM, a burst (of a line's size, from the row's beginning)
    that crosses from one line of L2 to the next is cut in two: both parts take whole granules, and the second these cycles
    more; with ``nd2nz`` both parts take requests of their own.  A row in flight takes whole slots of ``slot_bytes`` of the
    window, however few of their bytes are wanted.

    From L0C to GM the accumulator's rows are what takes time: ``accumulator_bytes_per_cycle`` of them, and at least
    ``row_cycles`` a row, whatever the format in which they leave (and at most ``bytes_per_cycle`` of that)."""

    source: Literal["GM", "L1", "L0C", "UB"]
    destination: Literal["GM", "L1", "L0A", "L0B", "UB", "BT", "L0A_MX", "L0B_MX"]
    pipe: Literal["MTE1", "MTE2", "MTE3", "FIX"]
    interval_cycles: Cycles
    latency_cycles: Cycles
    bytes_per_cycle: Positive
    granule_bytes: PositiveInt
    outstanding_bytes: PositiveInt | None = None
    slot_bytes: PositiveInt | None = None
    accumulator_bytes_per_cycle: Positive | None = None
    row_cycles: Positive | None = None
    minimum_cycles: Cycles | None = None
    split_request_cycles: Annotated[Number, Field(ge=0, le=1000)] | None = None
    nd2nz: Nd2nz | None = None


class L2(Table):
    """Chip-wide second-level cache, write-back and write-allocate, LRU inside a set.  A line that is served to one core can be
    served to another ``same_line_cycles`` later.  A read that passes L2 by brings whole ``sector_bytes`` (without them whole
    lines)."""

    capacity_bytes: PositiveInt
    line_bytes: PositiveInt
    sector_bytes: PositiveInt | None = None
    ways: PositiveInt
    read_gbps: Positive
    write_gbps: Positive
    same_line_cycles: Cycles

    @property
    def sector(self) -> int:
        """Bytes of a sector, at most a line."""
        return min(self.sector_bytes or self.line_bytes, self.line_bytes)


class Banked(Table):
    """The memory at the level of banks, for the fidelity ``banked``: how it is organised, and its timings.

    The clock follows from the peak bandwidth: ``bytes_per_clock`` of each pseudo-channel (both edges counted).
    ``row_bytes`` is the row buffer of one bank.  ``controller_cycles`` are core cycles that a read takes beyond the banks and
    the bus.
    """

    stacks: PositiveInt
    channels_per_stack: PositiveInt
    pseudo_channels: PositiveInt
    bank_groups: PositiveInt
    banks_per_group: PositiveInt
    row_bytes: PositiveInt
    bytes_per_clock: PositiveInt
    burst_bytes: PositiveInt
    trcd_ns: Nanoseconds
    trp_ns: Nanoseconds
    tcl_ns: Nanoseconds
    tcwl_ns: Nanoseconds
    tras_ns: Nanoseconds
    trtp_ns: Nanoseconds
    twr_ns: Nanoseconds
    twtr_ns: Nanoseconds
    trrd_ns: Nanoseconds
    tfaw_ns: Nanoseconds
    trfc_ns: Nanoseconds
    trefi_ns: Nanoseconds
    tccd_short_clocks: PositiveInt
    tccd_long_clocks: PositiveInt
    write_batch_lines: Annotated[PositiveInt, Field(le=256)]
    controller_cycles: Cycles


class Hbm(Table):
    """Off-chip memory; ``bandwidth_gbps`` is the peak, ``efficiency`` the share of it that streaming reads reach, and
    ``extra_latency_cycles`` what a miss adds to a hit (both of the fidelity ``bandwidth``); ``write_back_cycles`` come on top
    where the line that makes room has been written and has to be written back first."""

    capacity_bytes: PositiveInt
    bandwidth_gbps: Positive
    efficiency: Annotated[Positive, Field(le=1)]
    extra_latency_cycles: Cycles
    write_back_cycles: Cycles = 0
    banked: Banked | None = None


class Memory(Table):
    """How the memory system is simulated: requests are arbitrated in pieces of ``chunk_bytes``."""

    chunk_bytes: PositiveInt


class Launch(Table):
    """Time of a kernel launch outside the kernel itself, reported beside the kernel's time and never inside it.

    ``head_us`` is that of a kernel on one kind of core, ``mix_us`` more where AIC and AIV start together; ``repeat_us`` is what
    is left of it for each run of a kernel on one kind of core that is launched over and over.  ``setup_us`` is the part that
    the cores' scalar units take before the first copy: what a profiler counts as time of the kernel.
    """

    head_us: Annotated[Number, Field(ge=0)]
    mix_us: Annotated[Number, Field(ge=0)] = 0
    repeat_us: Annotated[Number, Field(ge=0)] = 0
    setup_us: Annotated[Number, Field(ge=0)] = 0

    def of(self, both_kinds: bool) -> float:
        """The launch of a kernel, of one that runs on AIC and AIV if it has ``both_kinds``."""
        return self.head_us + (self.mix_us if both_kinds else 0)


class Chip(Table):
    """A whole chip as the engines see it.  :func:`msdsim.hardware.checked.checked_chip` makes one whose numbers also agree with
    each other."""

    name: str
    description: str
    arch: Literal["2201", "3510", "toy"]
    clock_mhz: Positive
    cores: Cores
    buffers: Buffers
    alignment: Alignment
    dispatch: Dispatch
    cross_core: CrossCore
    cube: Cube
    vector: Vector
    paths: dict[str, Path]
    l2: L2
    hbm: Hbm
    memory: Memory
    launch: Launch
    energy: EnergyFigures | None = None

    def path(self, source: str, destination: str) -> Path | None:
        """The path from ``source`` to ``destination`` space, or None when the chip has none."""
        return next((p for p in self.paths.values() if (p.source, p.destination) == (source, destination)), None)

    def need_path(self, source: str, destination: str) -> Path:
        """The path from ``source`` to ``destination``; ChipError where the chip has none."""
        found = self.path(source, destination)
        if found is None:
            raise ChipError(f"chip '{self.name}' has no path {source} -> {destination}; add one to its chip file")
        return found

    @property
    def aiv(self) -> int:
        """Number of AIVs on the chip."""
        return self.cores.aic * self.cores.aiv_per_aic


__getattr__ = moved.old_names(__name__)
