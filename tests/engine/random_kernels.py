"""Random kernels and random chips: everything the lowering accepts and the engines can run.

Slices stay inside their tensors by construction (starts are taken modulo what is left beside the size, or sizes are cut by
``min``), so addresses are always legal; values are never looked at, so buffers may be read before they are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from msdsim.formats.number import FORMATS
from msdsim.hardware import Chip, Hardware, load_hw
from msdsim.hardware.hardware import leaves
from msdsim.ir import KernelBuilder, at, print_kernel
from msdsim.ir.builder import At, Handle
from msdsim.ir.expr import Const, Expr, maximum, minimum, tiles_of
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.program import Program

Draw = Callable[[Any], Any]

def _with_functions(hardware: Hardware) -> Hardware:
    """A chip that has vector functions as the 950PR has them."""
    vector = hardware.chip.vector.model_copy(update={"vf": load_hw("ascend950pr").chip.vector.vf})
    return replace(hardware, chip=hardware.chip.model_copy(update={"vector": vector}))


#: The toy chip, one whose copies into L1 turn rows into fractals, and one that has vector functions.
_BASES = (load_hw("toy"), load_hw("ascend910b1").replace(cores__aic=2), _with_functions(load_hw("toy")))
_GM_FORMATS = ("bf16", "fp16", "fp32", "int8", "int32", "int4")
_BINARY = ("add", "sub", "mul", "div", "max", "min")
_UNARY = ("abs", "exp")
_SCALAR = ("adds", "muls", "maxs", "mins")
_CASTS = (("int8", "fp16"), ("fp16", "fp32"), ("fp32", "bf16"), ("bf16", "fp32"), ("int32", "fp32"), ("fp32", "fp32"))
_SIGNAL_PIPES = {"aic": ("MTE2", "MTE1", "M", "FIX"), "aiv": ("MTE2", "V", "MTE3")}


@st.composite
def chips(draw: Draw) -> Hardware:
    """A small chip with some of its numbers changed, to extremes among others."""
    base = draw(st.sampled_from(_BASES))
    changes: dict[str, object] = {"dispatch.event_ids_per_pipe_pair": 10**6}
    line = draw(st.sampled_from([512, 512, 64, 96, 32]))
    chunk = line * draw(st.sampled_from([1, 2, 3, 8]))
    ways = draw(st.sampled_from([1, 2, 16]))
    changes |= {"l2.line_bytes": line, "l2.sector_bytes": draw(st.sampled_from([line, 32])),
                "memory.chunk_bytes": chunk, "l2.ways": ways,
                "l2.capacity_bytes": line * ways * draw(st.sampled_from([1, 2, 7, 64, 4096]))}
    for path in base.chip.paths:
        if base.chip.paths[path].nd2nz is not None:
            changes[f"paths.{path}.nd2nz.outstanding_bytes"] = chunk * draw(st.sampled_from([1, 5]))
            changes[f"paths.{path}.nd2nz.unaligned_block_bytes"] = draw(st.sampled_from([8, 32, 48]))
            changes[f"paths.{path}.nd2nz.unaligned_block_cycles"] = draw(st.sampled_from([0.7, 5]))
        if "gm" in path:
            changes[f"paths.{path}.minimum_cycles"] = draw(st.sampled_from([0, 0, 50]))
            changes[f"paths.{path}.granule_bytes"] = draw(st.sampled_from([1, 32]))
            changes[f"paths.{path}.split_request_cycles"] = draw(st.sampled_from([0, 0.7, 5]))
            changes[f"paths.{path}.slot_bytes"] = draw(st.sampled_from([1, 64, 512, 1000]))
            changes[f"paths.{path}.outstanding_bytes"] = chunk * draw(st.sampled_from([1, 2, 16])) + draw(st.sampled_from([0, 7]))
    keys = {
        "dispatch.issue_cycles": (0, 1, 3),
        "dispatch.flag_cycles": (0, 1, 5),
        "cross_core.signal_latency_cycles": (0, 20, 1000),
        "cross_core.barrier_latency_cycles": (0, 50),
        "cube.hazard_fractals": (0, 10, 1000),
        "cube.head_isolated_cycles": (0, 10, 100000),
        "cube.head_back_to_back_cycles": (0, 2),
        "cube.rates.bf16.cycles_per_fractal": (1, 0.3, 7),
        "hbm.extra_latency_cycles": (0, 100, 10**7),
        "hbm.write_back_cycles": (0, 70),
        "hbm.bandwidth_gbps": (128, 3, 777.7),
        "hbm.efficiency": (1, 0.93),
        "l2.read_gbps": (256, 1000, 13),
        "l2.write_gbps": (256, 33.3),
        "l2.same_line_cycles": (0, 4, 700),
        "clock_mhz": (1000, 1850),
    }
    for pipe in base.chip.dispatch.queue_depth:
        keys[f"dispatch.queue_depth.{pipe}"] = (32, 1, 2, 100)
    for path in base.chip.paths:
        keys[f"paths.{path}.bytes_per_cycle"] = (64, 0.7, 1000, 126)
        keys[f"paths.{path}.interval_cycles"] = (10, 0, 1)
        keys[f"paths.{path}.latency_cycles"] = (90, 0, 3000)
        if base.chip.paths[path].nd2nz is not None:
            keys[f"paths.{path}.nd2nz.bytes_per_cycle"] = (50, 0.7)
            keys[f"paths.{path}.nd2nz.row_cycles"] = (1.5, 40)
            keys[f"paths.{path}.nd2nz.largest_request_bytes"] = (32, 100, 512)
            keys[f"paths.{path}.nd2nz.l2_share"] = (1, 0.3)
    for op in ("add", "exp", "cast", "fold_add"):
        keys[f"vector.ops.{op}.slope_cycles_per_repeat"] = (2, 0.5, 3.3)
        keys[f"vector.ops.{op}.latency_cycles"] = (10, 0, 99999)
    for key in draw(st.lists(st.sampled_from(sorted(keys)), unique=True, max_size=12)):
        changes[key] = draw(st.sampled_from(keys[key]))
    return base.replace(**changes)


@st.composite
def kernels(draw: Draw, chip: Chip, balanced: bool = True) -> Kernel:
    """A kernel for ``chip``.  Signals of a balanced kernel come as pairs at the same place of both parts, so that it ends;
    otherwise they stand anywhere and the kernel may deadlock."""
    cores, aivs = draw(st.integers(1, chip.cores.aic)), draw(st.integers(1, chip.cores.aiv_per_aic))
    kb = KernelBuilder("random", cores, aivs)
    writer = _Writer(draw, kb, chip, balanced)
    writer.tensors()
    writer.signals()
    if draw(st.booleans()) or balanced:
        with kb.part("aic"):
            writer.part("aic")
    with kb.part("aiv"):
        writer.part("aiv")
    return kb.build()


@dataclass(frozen=True, repr=False)
class Case:
    """A kernel with a chip to run it on; shown as its text and the numbers that were changed."""

    kernel: Kernel
    hardware: Hardware

    def program(self, addresses: dict[str, int] | None = None) -> Program:
        return lower(self.kernel, self.hardware.chip, addresses)

    def __repr__(self) -> str:
        numbers = leaves(self.hardware.chip.model_dump())
        changed = {key: numbers[key] for key, item in self.hardware.provenance.items() if item.kind == "override"}
        return f"{print_kernel(self.kernel)}{changed}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


@st.composite
def cases(draw: Draw, balanced: bool = True) -> Case:
    """A kernel with a chip to run it on."""
    hardware = draw(chips())
    return Case(draw(kernels(hardware.chip, balanced)), hardware)


@st.composite
def long_loops(draw: Draw) -> Case:
    """A kernel of long loops that mostly stay inside a core, whose iterations may be skipped."""
    hardware = draw(chips())
    kb = KernelBuilder("long", draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    writer = _Writer(draw, kb, hardware.chip, balanced=True)
    writer.tensors()
    writer.channels, writer.exchanges = [], []
    name = draw(st.sampled_from(["aic", "aiv"]))
    with kb.part(name):
        writer.long_part(name)
    return Case(kb.build(), hardware)


class _Writer:
    """Writes one kernel."""

    inside_only = False

    def __init__(self, draw: Draw, kb: KernelBuilder, chip: Chip, balanced: bool) -> None:
        self.draw, self.kb, self.chip, self.balanced = draw, kb, chip, balanced
        self.gm: list[Handle] = []
        self.shape: list[tuple[str, ...]] = []
        self.fresh = 0
        self.name = "aic"
        self.variables: list[Expr] = []
        self.buffers: list[Handle] = []

    def pick(self, items: Any) -> Any:
        return self.draw(st.sampled_from(list(items)))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def name_of(self, what: str) -> str:
        self.fresh += 1
        return f"{what}{self.fresh}"

    # Declarations

    def tensors(self) -> None:
        for fmt in [*self.draw(st.lists(st.sampled_from(_GM_FORMATS), min_size=1, max_size=3)), "bf16", "fp32"]:
            cols = self.number(1, 40) * (2 if fmt == "int4" else 1) * self.pick([1, 1, 16])
            leading = tuple(self.number(1, 3) for _ in range(self.number(0, 2)))
            role = self.pick(["in", "out", "workspace"])
            layout = self.draw(st.sampled_from(["nd", "nz"])) if role == "in" else "nd"
            self.gm.append(self.kb.tensor(self.name_of("t"), fmt, (*leading, self.number(1, 40), cols), role, layout=layout))

    def signals(self) -> None:
        """Names with the pipes that raise and await them in each part."""
        self.channels: list[tuple[str, str, dict[str, str]]] = []
        for kind in self.draw(st.lists(st.sampled_from(["aic_to_aiv", "aiv_to_aic", "barrier"]), max_size=3)):
            pipes = {f"{part} {verb}": self.pick(_SIGNAL_PIPES[part]) for part in _SIGNAL_PIPES for verb in ("signal", "wait")}
            self.channels.append((self.kb.signal(self.name_of("s"), kind), kind, pipes))
        # Where a balanced kernel has its exchanges: the same for both parts.
        self.exchanges = [self.pick(self.channels) for _ in range(self.number(0, 4))] if self.channels else []
        self.exchange_trips = self.number(1, 4)

    def part(self, name: str) -> None:
        self.name, self.variables, self.buffers = name, [self.kb.core], []
        if name == "aiv":
            self.variables.append(self.kb.sub)
        self.block(3)
        if self.balanced and self.exchanges:
            with self.kb.loop(self.name_of("x"), 0, self.exchange_trips) as trip:
                self.variables.append(trip)
                for channel in self.exchanges:
                    self.exchange(channel)
                    if self.draw(st.booleans()):
                        self.block(1)
            self.variables.pop()
            self.block(1)

    def long_part(self, name: str) -> None:
        self.name, self.variables, self.buffers = name, [self.kb.core] + ([self.kb.sub] if name == "aiv" else []), []
        self.block(0)
        for _ in range(self.number(1, 2)):
            self.inside_only = self.number(0, 9) > 0
            high = self.number(30, 150) + self.pick([0, 0, self.small()])
            with self.kb.loop(self.name_of("n"), 0, high, self.pick([1, 1, 2])) as var:
                self.variables.append(var)
                self.block(self.pick([0, 0, 1]))
                self.variables.pop()
            self.inside_only = False
            self.block(0)

    def exchange(self, channel: tuple[str, str, dict[str, str]]) -> None:
        signal, kind, pipes = channel
        sender, receiver = {"aic_to_aiv": ("aic", "aiv"), "aiv_to_aic": ("aiv", "aic")}.get(kind, (self.name, self.name))
        if self.name == sender:
            self.kb.raise_signal(signal, pipes[f"{self.name} signal"])
        if self.name == receiver:
            self.kb.wait_signal(signal, pipes[f"{self.name} wait"])

    # Blocks

    def block(self, depth: int) -> None:
        inherited = len(self.buffers)
        if self.name == "aic" and not inherited:
            # What a product needs, so that most kernels have some.
            for space, fmt in (("L1", "bf16"), ("L0A", "bf16"), ("L0B", "bf16"), ("L0C", "fp32")):
                self.buffers.append(self.kb.buffer(self.name_of("b"), space, fmt, (40, 80), self.pick([1, 2])))
        for _ in range(self.number(1, 3)):
            self.buffers.append(self.buffer())
        for _ in range(self.number(2, 5)):
            kind = self.pick(["op", "op", "op", "loop", "when", "sync"])
            if kind == "loop" and depth > 0:
                self.loop(depth)
            elif kind == "when" and depth > 0:
                with self.kb.when(self.condition()):
                    self.block(depth - 1)
            elif kind == "sync" and not self.balanced and self.channels:
                self.exchange(self.pick(self.channels))
            else:
                self.operation()
        del self.buffers[inherited:]

    def loop(self, depth: int) -> None:
        low: Expr | int = self.pick([0, 0, 1, self.kb.core, self.small()])
        high: Expr | int = self.pick([self.number(0, 6), 3, self.small() + 2, tiles_of(self.small() + 5, 2)])
        with self.kb.loop(self.name_of("i"), low, high, self.pick([1, 1, 2, 3])) as var:
            self.variables.append(var)
            self.block(depth - 1)
            self.variables.pop()

    def small(self) -> Expr:
        """An expression of small values."""
        var = self.pick(self.variables)
        return self.pick([var, var % 3, minimum(var, 2), maximum(1, var - 1), (var + self.pick(self.variables)) % 4, var * 2 // 3,
                          minimum(7, 100 - var), var // 16])

    def condition(self) -> Expr:
        a, c = self.small(), self.number(0, 2)
        return self.pick([a.equals(c), a > c, a < c, a >= c, a <= c, a % 2, Const(c)])

    # Operands

    def buffer(self) -> Handle:
        space = self.pick(["UB"] if self.name == "aiv" else ["L1", "L0A", "L0B", "L0C", "BT"])
        fmt = self.pick({"L0C": ("fp32", "int32"), "BT": ("fp32",), "L0A": ("bf16", "int8"), "L0B": ("bf16", "int8")}.get(
            space, _GM_FORMATS))
        shape = (self.number(1, 40), 2 * self.number(1, 40))
        return self.kb.buffer(self.name_of("b"), space, fmt, shape, self.pick([1, 1, 2, 3]))

    def span(self, extent: int, even: bool = False) -> At:
        """A range inside ``extent``; sizes may be ragged and may be zero."""
        step = 2 if even else 1
        size = self.number(1, max(1, extent // step)) * step
        index = self.small() * self.pick([1, 3, size])
        match self.pick(["all", "fixed", "ragged", "empty"]):
            case "all":
                return at(0, extent)
            case "fixed":
                return at(index * step % (extent - size + 1) // step * step, size)
            case "ragged":
                start = index * step % extent // step * step
                return at(start, minimum(size, extent - start))
        return at(0, maximum(0, minimum(size, index - 1) // step * step))

    def matching(self, item: At, extent: int) -> At:
        """The start of a buffer's slice for a size that fits."""
        return at(0, minimum(item.size, extent))

    def rectangle(self, handle: Handle, size: tuple[At, At] | None = None) -> Any:
        """A slice of a handle: one matrix, of the given sizes as far as they fit."""
        *leading, rows, cols = handle.of.shape
        even = FORMATS[handle.of.fmt].bits == 4
        starts = [self.small() % extent for extent in leading]
        if size is None:
            return handle[(*starts, self.span(rows), self.span(cols, even))]
        return handle[(*starts, self.matching(size[0], rows), self.matching(size[1], cols))]

    def like(self, slice_: Any) -> tuple[At, At]:
        return at(0, slice_.sizes[-2]), at(0, slice_.sizes[-1])

    # Operations

    def operation(self) -> None:
        """Some operation on what is in scope, if there is a legal one."""
        makers = [self.local, self.cube, self.sums] if self.name == "aic" else [self.vector, self.function]
        if not self.inside_only:
            makers += [self.load, self.store]
        self.pick(makers)()

    def of_space(self, *spaces: str) -> list[Handle]:
        return [buffer for buffer in self.buffers if buffer.of.space in spaces]  # type: ignore[union-attr]

    def load(self) -> None:
        targets = self.of_space("L1", "L0A", "L0B", "UB")
        if targets:
            source = self.rectangle(self.pick(self.gm))
            self.kb.copy(self.pick(targets)[at(0, source.sizes[-2]), at(0, source.sizes[-1])], source, **self.way())

    def store(self) -> None:
        sources = self.of_space("L1", "L0C", "UB")
        if sources:
            source, out = self.pick(sources), self.rectangle(self.pick(self.gm))
            kind = "fixpipe" if source.of.space == "L0C" else "copy"
            self.kb.op(kind, out, source[at(0, out.sizes[-2]), at(0, out.sizes[-1])], **self.way())

    def way(self) -> dict[str, Any]:
        """The hint of a copy from or to GM."""
        return self.pick([{}, {}, {"l2": "bypass"}])

    def local(self) -> None:
        targets, sources = self.of_space("L0A", "L0B", "BT"), self.of_space("L1")
        if self.draw(st.booleans()):
            targets, sources = self.of_space("L1"), self.of_space("L0C")
        if targets and sources:
            source, target = self.rectangle(self.pick(sources)), self.pick(targets)
            sizes = self.like(source)
            if source.space == "L0C":
                self.kb.op("fixpipe", target[sizes], source)
            elif target.of.space == "L0B" and self.draw(st.booleans()):
                self.kb.copy(target[sizes[::-1]], source, transpose=1)
            else:
                self.kb.copy(target[sizes], source)

    def cube(self) -> None:
        for a in self.of_space("L0A"):
            pairs = [b for b in self.of_space("L0B") if b.of.fmt == a.of.fmt]
            if pairs and self.of_space("L0C"):
                m, k, n = self.span(40), self.span(80), self.span(80)
                accumulate = self.pick([0, 1, self.small()])
                self.kb.op("mmad", self.pick(self.of_space("L0C"))[at(0, m.size), at(0, n.size)], a[at(0, m.size), at(0, k.size)],
                           self.pick(pairs)[at(0, k.size), at(0, n.size)], accumulate=accumulate)
                return
        self.local()

    def sums(self) -> None:
        """Sums in an accumulator whose blocks have unit flags, each of one or two products that are repeated, and drained."""
        pairs = [(a, b) for a in self.of_space("L0A") for b in self.of_space("L0B") if a.of.fmt == b.of.fmt]
        if not pairs or self.inside_only:
            return
        fmt = "fp32" if pairs[0][0].of.fmt == "bf16" else "int32"
        with self.kb.loop(self.name_of("i"), 0, self.pick([self.number(1, 5), self.small()])) as turn:
            self.variables.append(turn)
            acc = self.kb.buffer(self.name_of("b"), "L0C", fmt, (80, 80), self.pick([1, 1, 2]))
            rows, cols = self.pick([1, 16, 40, 40]), self.pick([1, 16, 80])
            for trips in self.pick([[1], [3, 1], [1, 2], [4]]):
                with self.kb.loop(self.name_of("k"), 0, self.pick([trips, minimum(turn, trips)])) as k:
                    a, b = self.pick(pairs[:1])
                    depth = self.span(80)
                    self.kb.op("mmad", acc[at(0, rows), at(0, cols)], a[at(0, rows), at(0, depth.size)],
                               b[at(0, depth.size), at(0, cols)], accumulate=k, unit_flag=1)
            outs = [item for item in self.gm if item.of.fmt == fmt] + self.of_space("L1")
            out = self.rectangle(self.pick([item for item in outs if item.of.fmt == fmt] or self.gm))
            self.kb.op("fixpipe", out, acc[self.like(out)], unit_flag=1)
            self.variables.pop()

    def function(self) -> None:
        """A vector function, where the chip has them."""
        with self.kb.vf(self.chip.vector.vf):
            for _ in range(self.number(1, 5)):
                self.vector()

    def vector(self) -> None:
        out = self.rectangle(self.pick(self.buffers))
        sizes = self.like(out)

        def source() -> Any:
            other = self.pick(self.buffers)
            return other[sizes] if self.draw(st.booleans()) else other[at(0, 1), sizes[1]]

        match self.pick(["binary", "unary", "scalar", "cast", "dup", "fold", "reduce"]):
            case "binary":
                self.kb.op(self.pick(_BINARY), out, source(), source())
            case "unary":
                self.kb.op(self.pick(_UNARY), out, source())
            case "scalar":
                self.kb.op(self.pick(_SCALAR), out, source(), scalar=2.0)
            case "cast":
                self.kb.op("cast", out, source())
            case "dup":
                self.kb.op("dup", out, scalar=0.0)
            case "fold":
                self.kb.op(self.pick(["fold_max", "fold_add"]), out, source(), accumulate=self.pick([0, self.small()]))
            case _:
                self.kb.op(self.pick(["reduce_max", "reduce_add"]), out, source())
