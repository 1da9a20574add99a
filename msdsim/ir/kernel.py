"""The kernel IR: what a kernel is made of.  The whole grammar, one screen:

.. code-block:: text

    kernel    := 'kernel' NAME '{' (let | param)* ('cores' extent 'x' extent) (tensor | signal)* part* '}'
    let       := 'let' NAME '=' expr
    param     := 'param' NAME '=' N 'in' '[' N (',' N)* ']'
    tensor    := 'tensor' NAME ':' FORMAT '[' extent (',' extent)* ']' ('in' | 'out' | 'workspace' SPACE?)
                 ('beside' N | 'nz')?
    signal    := 'signal' NAME ':' ('aic_to_aiv' | 'aiv_to_aic' | 'barrier')
    part      := ('aic' | 'aiv') block              -- runs on every core group, the aiv part on every AIV of the group
    block     := '{' statement* '}'
    statement := let
               | 'buffer' NAME ':' SPACE FORMAT '[' extent ',' extent ']' 'ring' extent ('at' extent)?
               | 'for' VAR 'in' expr '..' expr ('step' extent)? block
               | 'when' expr block
               | 'vf' block
               | ('signal' | 'wait') NAME 'on' PIPE
               | OP slice? ('<-' slice (',' slice)*)? ('{' NAME '=' value (',' NAME '=' value)* '}')?
    slice     := NAME ('[' range (',' range)* ']')?         -- the name alone: all of it
    range     := ':' | ':' expr | expr | expr '+:' expr     -- all; the first n; one index; start and size
    extent    := expr                                       -- of numbers and the kernel's own lets and params

'#' begins a comment.  ``let`` names an expression for the rest of its block (in the kernel itself a number, which sizes may
use too); naming changes nothing of what a kernel does.

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
from typing import Any, Literal, TypeAlias

from msdsim.formats.number import FORMATS
from msdsim.hardware.units.mte import FRACTAL_ROW_BYTES, FRACTAL_ROWS
from msdsim.ir.expr import Const, Expr, lift, product
from msdsim.ir.extent import Extent as Extent
from msdsim.ir.extent import whole
from msdsim.ir.shown import Shown, nothing
from msdsim.ir.shown import copied as copied
from msdsim.units import ceil_div, round_up

Role = Literal["in", "out", "workspace"]
Layout = Literal["nd", "nz"]
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
    the AIVs of a group share in ``space`` L1 or UB.

    With ``beside``, of a tensor of rank 3 in GM, so many consecutive matrices lie side by side: first row 0 of each, then row 1
    of each (the heads of a KV cache, whose tokens are stored one after the other).  With the layout ``nz`` every matrix of an
    input in GM lies in fractals of 16 rows of 32 bytes, all those of its first 32 bytes of columns, then of the next.  Indices
    stay as they are.
    """

    name: str
    fmt: str
    shape: tuple[int, ...]
    role: Role
    space: str = "GM"
    beside: int = 1
    layout: Layout = "nd"
    line: int = field(default=0, compare=False)

    @property
    def strides_bytes(self) -> tuple[int, ...]:
        """Bytes between neighbours along each dimension but the last (whose elements are consecutive)."""
        strides = [FRACTAL_ROW_BYTES if self.layout == "nz" else row_bytes(self.shape[-1], self.fmt)]
        for place, extent in enumerate(reversed(self.shape[1:-1])):
            whole = self._matrix_bytes if self.layout == "nz" and place == 0 else strides[-1] * extent
            strides.append(whole)
        return tuple(reversed(strides))

    @property
    def _matrix_bytes(self) -> int:
        """Bytes of a matrix in whole fractals."""
        return ceil_div(self.shape[-1], self.fractal_columns) * self.column_bytes

    @property
    def fractal_columns(self) -> int:
        """Columns of a fractal, of the layout ``nz``."""
        return FRACTAL_ROW_BYTES * 8 // FORMATS[self.fmt].bits

    @property
    def column_bytes(self) -> int:
        """Bytes of a column of fractals, of the layout ``nz``."""
        return round_up(self.shape[-2], FRACTAL_ROWS) * FRACTAL_ROW_BYTES

    @property
    def row_stride_bytes(self) -> int:
        """Bytes from one row of a matrix to the next."""
        return self.strides_bytes[-1] * self.beside

    @property
    def size_bytes(self) -> int:
        if self.layout == "nz" and len(self.shape) == 2:
            return self._matrix_bytes
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
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Slice:
    """A rectangle of a tensor or buffer: per dimension a start and a size."""

    of: Tensor | Buffer
    starts: tuple[Expr, ...]
    sizes: tuple[Expr, ...]

    def __str__(self) -> str:
        dims = [_range_text(*dim) for dim in zip(self.starts, self.sizes, self.of.shape, strict=False)]
        return self.of.name if all(dim == ":" for dim in dims) else f"{self.of.name}[{', '.join(dims)}]"

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
        found: Expr | None = self.__dict__.get("_rows")
        if found is None:
            found = self.__dict__["_rows"] = product(*self.sizes[:-1])
        return found

    @property
    def cols(self) -> Expr:
        return self.sizes[-1]

    @property
    def full_width(self) -> bool:
        """True when every row is whole, so that consecutive rows are contiguous."""
        start, size = self.starts[-1], self.sizes[-1]
        return (isinstance(start, Const) and start.value == 0 and isinstance(size, Const) and size.value == self.of.shape[-1])


def _range_text(start: Expr, size: Expr, extent: int) -> str:
    """The shortest way to write a range of a dimension of size ``extent``."""
    if start == Const(0) and size == whole(extent):
        return ":"
    if size == Const(1):
        return str(start)
    return f":{size}" if start == Const(0) else f"{start} +: {size}"


AttrValue: TypeAlias = "int | float | str | Expr"


@dataclass(frozen=True)
class Op(Shown):
    """One operation: ``kind`` names its definition in :data:`msdsim.ir.ops.OPS`."""

    kind: str
    out: Slice | None = None
    ins: tuple[Slice, ...] = ()
    attrs: tuple[tuple[str, AttrValue], ...] = ()
    line: int = field(default_factory=int, compare=False)
    #: The operation as the kernel's text has it, where names have been put in since.
    written: Op | None = field(default_factory=nothing, compare=False, repr=False)

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
        if self.written is not None:
            return str(self.written)
        if self.kind in SIGNALLING and [key for key, _ in self.attrs] == ["name", "pipe"]:
            return f"{self.kind} {self.attrs[0][1]} on {self.attrs[1][1]}"
        text = self.kind
        if self.out is not None:
            text += f" {self.out}"
        if self.ins:
            text += " <- " + ", ".join(str(item) for item in self.ins)
        if self.attrs:
            text += " {" + ", ".join(f"{key}={attr_text(value)}" for key, value in self.attrs) + "}"
        return text


#: Operations that are written ``signal NAME on PIPE``.
SIGNALLING = ("signal", "wait")


def attr_text(value: AttrValue) -> str:
    """An attribute's value as the text form has it."""
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Alloc(Shown):
    """Declaration of a buffer in the block that owns it."""

    buffer: Buffer
    line: int = field(default_factory=int, compare=False)


@dataclass(frozen=True)
class Let(Shown):
    """``let name = value``: a name for an expression, good until the end of its block.

    With ``choices`` it is ``param name = value in [...]``: a number of the kernel that may take other values.
    """

    name: str
    value: Expr
    line: int = field(default_factory=int, compare=False)
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class For(Shown):
    """``for var in low .. high step s``: the half-open range, kept as a loop and never unrolled."""

    var: str
    low: Expr
    high: Expr
    step: int
    body: Block
    line: int = field(default_factory=int, compare=False)


@dataclass(frozen=True)
class When(Shown):
    """``when condition``: the body runs if the expression is not zero."""

    condition: Expr
    body: Block
    line: int = field(default_factory=int, compare=False)


@dataclass(frozen=True)
class Vf(When):
    """``vf``: operations of Vector that are one vector function; the block always runs.  What passes between operations over
    the same sizes stays in registers (:mod:`msdsim.ir.vf` says what it costs)."""


Statement: TypeAlias = Alloc | Let | For | When | Op
Block: TypeAlias = tuple[Statement, ...]


@dataclass(frozen=True)
class Comment:
    """A comment of the kernel's text: on a line of its own before line ``line`` of the printed text without comments (counted
    from 0), or behind that line."""

    line: int
    text: str
    behind: bool


@dataclass(frozen=True)
class Kernel:
    """A whole kernel: ``cores`` groups of one AIC (running ``aic``) and ``aiv_per_core`` AIVs (running ``aiv``).

    ``lets`` are the named numbers of the kernel itself, params among them.  The parts of a built kernel are made readable when
    they are looked at.
    """

    name: str
    cores: int
    aiv_per_core: int
    tensors: tuple[Tensor, ...]
    signals: tuple[Signal, ...]
    aic: Block
    aiv: Block
    lets: tuple[Let, ...] = ()
    comments: tuple[Comment, ...] = field(default=(), compare=False)
    #: Line of 'cores' in its text.
    line: int = field(default=0, compare=False)
    #: The text it was read from.
    source: str = field(default="", compare=False, repr=False)

    @property
    def params(self) -> dict[str, int]:
        """The numbers that may be chosen, with their values."""
        return {let.name: let.value.value for let in self.lets if let.choices and isinstance(let.value, Const)}

    def __getattr__(self, name: str) -> Any:
        source = self.__dict__.get("_source")
        if source is None or name not in ("aic", "aiv"):
            raise AttributeError(f"'Kernel' has no '{name}'")
        self.__dict__.update({"aic": source.readable.aic, "aiv": source.readable.aiv})
        return self.__dict__[name]

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
    return any(signal.name == statement.attr("name", "") and signal.kind == "barrier" for signal in kernel.signals)


def walk(block: Block) -> Iterator[Statement]:
    """Every statement of a block and of the blocks inside it, in program order."""
    for statement in block:
        yield statement
        if isinstance(statement, For | When):
            yield from walk(statement.body)


def operations(block: Block) -> Iterator[Op]:
    """Every operation of a block, in program order."""
    return (item for item in walk(block) if isinstance(item, Op))
