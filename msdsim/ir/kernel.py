"""The kernel IR: what a kernel is made of.  The whole grammar, one screen:

.. code-block:: text

    kernel    := 'kernel' NAME '{' ('cores' N 'x' N) tensor* signal* part* '}'
    tensor    := 'tensor' NAME ':' FORMAT '[' N (',' N)* ']' ('in' | 'out' | 'workspace' SPACE?)
    signal    := 'signal' NAME ':' ('aic_to_aiv' | 'aiv_to_aic' | 'barrier')
    part      := ('aic' | 'aiv') block              -- runs on every core group, the aiv part on every AIV of the group
    block     := '{' statement* '}'
    statement := 'buffer' NAME ':' SPACE FORMAT '[' N ',' N ']' 'ring' N ('at' N)?
               | 'for' VAR 'in' expr '..' expr ('step' N)? block
               | 'when' expr block
               | OP slice? ('<-' slice (',' slice)*)? ('{' NAME '=' value (',' NAME '=' value)* '}')?
    slice     := NAME '[' expr '+:' expr (',' expr '+:' expr)* ']'

A buffer belongs to the block that declares it: every time control enters the block it gets the next slot of its ring, and
the slot is free again when the last reader of that iteration has finished.  All dependences inside a core follow from that;
dependences between cores are written as ``signal`` and ``wait``.  ``at`` pins the first slot of a UB buffer to a byte address;
the other buffers find their places by themselves (:mod:`msdsim.ir.placement`).

A workspace may lie on chip, in the L1 of every AIC or the UB of every AIV, where the other kind of core reaches it: its first
dimension is the core (for UB the first two are the core and the AIV), and its order is written with signals like that of GM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from msdsim.formats.number import FORMATS
from msdsim.ir.expr import Const, Expr, lift, product
from msdsim.units import ceil_div, round_up

Role = Literal["in", "out", "workspace"]
SignalKind = Literal["aic_to_aiv", "aiv_to_aic", "barrier"]
PartName = Literal["aic", "aiv"]
#: Memory on chip in which AIC and AIVs of a group can share a workspace.
SHARED_SPACES = ("L1", "UB")


def row_bytes(count: int, fmt: str) -> int:
    """Bytes of ``count`` consecutive elements of ``fmt``, 4-bit elements packed two to a byte."""
    return ceil_div(count * FORMATS[fmt].bits, 8)


@dataclass(frozen=True)
class Tensor:
    """A tensor in global memory, row-major, rank >= 2, starting at a 512-byte aligned address; or a workspace that the AIC and
    the AIVs of a group share in ``space`` L1 or UB."""

    name: str
    fmt: str
    shape: tuple[int, ...]
    role: Role
    space: str = "GM"

    @property
    def strides_bytes(self) -> tuple[int, ...]:
        """Bytes between neighbours along each dimension but the last (whose elements are consecutive)."""
        strides = [row_bytes(self.shape[-1], self.fmt)]
        for extent in reversed(self.shape[1:-1]):
            strides.append(strides[-1] * extent)
        return tuple(reversed(strides))

    @property
    def size_bytes(self) -> int:
        return self.strides_bytes[0] * self.shape[0]

    @property
    def bytes_per_core(self) -> int:
        """Bytes of a workspace on chip in each core's memory."""
        return self.strides_bytes[1] if self.space == "UB" else self.strides_bytes[0]


@dataclass(frozen=True)
class Buffer:
    """An on-chip buffer: ``ring`` slots of ``shape`` (rows, columns) in one space of one core; ``address`` pins it in UB."""

    name: str
    space: str
    fmt: str
    shape: tuple[int, int]
    ring: int = 1
    address: int | None = None

    @property
    def slot_bytes(self) -> int:
        return row_bytes(self.shape[0] * self.shape[1], self.fmt)


@dataclass(frozen=True)
class Signal:
    """A counting flag between cores.  ``barrier`` joins every core of the parts that signal it."""

    name: str
    kind: SignalKind


@dataclass(frozen=True)
class Slice:
    """A rectangle of a tensor or buffer: per dimension a start and a size."""

    of: Tensor | Buffer
    starts: tuple[Expr, ...]
    sizes: tuple[Expr, ...]

    def __str__(self) -> str:
        dims = ", ".join(f"{start} +: {size}" for start, size in zip(self.starts, self.sizes, strict=True))
        return f"{self.of.name}[{dims}]"

    @property
    def space(self) -> str:
        return self.of.space

    @property
    def fmt(self) -> str:
        return self.of.fmt

    @property
    def bits(self) -> int:
        return FORMATS[self.of.fmt].bits

    @property
    def rows(self) -> Expr:
        """Number of rows: the product of all sizes but the last."""
        return product(*self.sizes[:-1])

    @property
    def cols(self) -> Expr:
        return self.sizes[-1]

    @property
    def full_width(self) -> bool:
        """True when every row is whole, so that consecutive rows are contiguous."""
        return self.starts[-1] == Const(0) and self.cols == Const(self.of.shape[-1])


AttrValue: TypeAlias = "int | float | str | Expr"


@dataclass(frozen=True)
class Op:
    """One operation: ``kind`` names its definition in :data:`msdsim.ir.ops.OPS`."""

    kind: str
    out: Slice | None = None
    ins: tuple[Slice, ...] = ()
    attrs: tuple[tuple[str, AttrValue], ...] = ()
    line: int = field(default=0, compare=False)

    def attr(self, name: str, default: AttrValue | None = None) -> AttrValue:
        """Value of an attribute, or ``default`` where it is absent."""
        for key, value in self.attrs:
            if key == name:
                return value
        if default is None:
            raise KeyError(name)
        return default

    def attr_expr(self, name: str, default: int) -> Expr:
        """An attribute that is an index expression."""
        value = self.attr(name, default)
        assert isinstance(value, int | Expr)
        return lift(value)

    def __str__(self) -> str:
        text = self.kind
        if self.out is not None:
            text += f" {self.out}"
        if self.ins:
            text += " <- " + ", ".join(str(item) for item in self.ins)
        if self.attrs:
            text += " {" + ", ".join(f"{key}={_attr_text(value)}" for key, value in self.attrs) + "}"
        return text


def _attr_text(value: AttrValue) -> str:
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Alloc:
    """Declaration of a buffer in the block that owns it."""

    buffer: Buffer
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class For:
    """``for var in low .. high step s``: the half-open range, kept as a loop and never unrolled."""

    var: str
    low: Expr
    high: Expr
    step: int
    body: Block
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class When:
    """``when condition``: the body runs if the expression is not zero."""

    condition: Expr
    body: Block
    line: int = field(default=0, compare=False)


Statement: TypeAlias = Alloc | For | When | Op
Block: TypeAlias = tuple[Statement, ...]


@dataclass(frozen=True)
class Kernel:
    """A whole kernel: ``cores`` groups of one AIC (running ``aic``) and ``aiv_per_core`` AIVs (running ``aiv``)."""

    name: str
    cores: int
    aiv_per_core: int
    tensors: tuple[Tensor, ...]
    signals: tuple[Signal, ...]
    aic: Block
    aiv: Block

    def part(self, name: str) -> Block:
        """The block of ``aic`` or ``aiv``."""
        return self.aic if name == "aic" else self.aiv

    def addresses(self, alignment: int = 512) -> Mapping[str, int]:
        """Byte address of every tensor in GM: in order of declaration, each aligned.  Those on chip come last: their numbers
        mean nothing but keep the table complete."""
        found, at = {}, 0
        for tensor in sorted(self.tensors, key=lambda tensor: tensor.space != "GM"):
            found[tensor.name] = at
            at += round_up(tensor.size_bytes, alignment)
        return found


def ends_phase(kernel: Kernel, statement: Statement) -> bool:
    """Whether a statement is a wait for a barrier."""
    if not isinstance(statement, Op) or statement.kind != "wait":
        return False
    return any(signal.name == statement.attr("name") and signal.kind == "barrier" for signal in kernel.signals)


def walk(block: Block) -> Iterator[Statement]:
    """Every statement of a block and of the blocks inside it, in program order."""
    for statement in block:
        yield statement
        if isinstance(statement, For | When):
            yield from walk(statement.body)


def operations(block: Block) -> Iterator[Op]:
    """Every operation of a block, in program order."""
    return (item for item in walk(block) if isinstance(item, Op))
