"""Building kernels in Python: nested ``with`` blocks mirror the text form.

>>> from msdsim.ir.builder import KernelBuilder
>>> kb = KernelBuilder("copy", cores=1, aiv_per_core=1)
>>> x = kb.tensor("x", "fp32", (4, 64), "in")
>>> y = kb.tensor("y", "fp32", (4, 64), "out")
>>> with kb.part("aiv"), kb.loop("i", 0, 4) as i:
...     row = kb.buffer("row", "UB", "fp32", (1, 64), ring=2)
...     kb.copy(row[:, :], x[i : i + 1, :])
...     kb.copy(y[i : i + 1, :], row[:, :])
>>> kb.build().name
'copy'
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from numbers import Integral
from typing import Any

from msdsim.errors import KernelError
from msdsim.ir.expr import Binary, Const, Expr, ExprLike, Var, binary, lift, ragged, tiles_of
from msdsim.ir.kernel import (
    Alloc,
    AttrValue,
    Buffer,
    For,
    Kernel,
    Layout,
    Let,
    Op,
    PartName,
    Role,
    Signal,
    SignalKind,
    Slice,
    Statement,
    Tensor,
    Vf,
    When,
)
from msdsim.ir.ops import OPS
from msdsim.registry import unknown_name


class Handle:
    """A tensor or buffer that can be sliced: ``x[i, 3]`` takes single indices, ``x[a:b]`` half-open ranges and
    ``x[at(start, size)]`` a start with a size (the form to use when the size is ragged)."""

    def __init__(self, of: Tensor | Buffer) -> None:
        self.of = of

    @property
    def whole(self) -> Slice:
        """All of it."""
        return Slice(self.of, (Const(0),) * len(self.of.shape), tuple(Const(extent) for extent in self.of.shape))

    def __getitem__(self, index: Any) -> Slice:
        items = index if isinstance(index, tuple) else (index,)
        if len(items) != len(self.of.shape):
            raise KernelError(f"'{self.of.name}' has {len(self.of.shape)} dimensions, {len(items)} ranges are given; give one "
                              f"each")
        pairs = [_range(item, extent) for item, extent in zip(items, self.of.shape, strict=True)]
        return Slice(self.of, tuple(start for start, _ in pairs), tuple(size for _, size in pairs))


class At:
    """A start and a size along one dimension."""

    def __init__(self, start: ExprLike, size: ExprLike) -> None:
        self.start, self.size = _expr(start), _expr(size)


class Tile(At):
    """One of the tiles that a range is cut into: its number, and where it lies."""

    def __init__(self, number: Expr, start: ExprLike, size: ExprLike) -> None:
        super().__init__(start, size)
        self.number = number


def _expr(value: Any) -> Expr:
    """An index expression; KernelError for what is none."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Integral):
        return lift(int(value))
    raise KernelError(f"{value!r} is no index expression; give whole numbers, loop variables, or what +, -, *, //, %, minimum "
                      f"and maximum make of them")


def _slice(operand: Any, kind: str) -> Slice:
    """An operand: a slice, or a whole tensor or buffer."""
    if isinstance(operand, Handle):
        return operand.whole
    if isinstance(operand, Slice):
        return operand
    raise KernelError(f"'{kind}' got {operand!r} as an operand; give a tensor, a buffer or a slice of one")


def at(start: ExprLike, size: ExprLike) -> At:
    """``start +: size``, the range of ``size`` elements from ``start``."""
    return At(start, size)


def _range(item: Any, extent: int) -> tuple[Expr, Expr]:
    if isinstance(item, At):
        return item.start, item.size
    if isinstance(item, slice):
        if item.step is not None:
            raise KernelError(f"a range has no step, and {item.step} is given; use a loop")
        start = _expr(item.start if item.start is not None else 0)
        stop = _expr(item.stop if item.stop is not None else extent)
        return start, _difference(stop, start)
    return _expr(item), Const(1)


def _difference(stop: Expr, start: Expr) -> Expr:
    """``stop - start`` with the common case ``start + constant - start`` simplified."""
    if isinstance(stop, Binary) and stop.op == "+" and stop.left == start:
        return stop.right
    return binary("-", stop, start)


class _Body(list[Statement]):
    """Statements of a vector function, which declares nothing itself."""

    def __init__(self, outer: list[Statement]) -> None:
        super().__init__()
        self.outer = outer


class KernelBuilder:
    """Collects tensors, signals and the two parts of a kernel."""

    def __init__(self, name: str, cores: int, aiv_per_core: int) -> None:
        self._name, self.cores, self.aiv_per_core = name, cores, aiv_per_core
        self._tensors: list[Tensor] = []
        self._signals: list[Signal] = []
        self._parts: dict[str, list[Statement]] = {"aic": [], "aiv": []}
        self._stack: list[list[Statement]] = []
        self.core, self.sub = Var("core"), Var("sub")
        #: This AIV's number among those of all core groups.
        self.aiv = self.core * aiv_per_core + self.sub

    def tensor(self, name: str, fmt: str, shape: tuple[int, ...], role: Role, space: str = "GM", beside: int = 1,
               layout: Layout = "nd") -> Handle:
        """Declare a tensor in GM, or a workspace that a core group shares in L1 or UB."""
        tensor = Tensor(name, fmt, shape, role, space, beside, layout)
        self._tensors.append(tensor)
        return Handle(tensor)

    def signal(self, name: str, kind: SignalKind) -> str:
        """Declare a cross-core signal and return its name."""
        self._signals.append(Signal(name, kind))
        return name

    @contextmanager
    def part(self, name: PartName) -> Iterator[None]:
        """Statements inside go to the AIC or the AIV program."""
        if name not in self._parts:
            raise unknown_name("part", name, list(self._parts))
        self._stack.append(self._parts[name])
        yield
        self._stack.pop()

    @contextmanager
    def loop(self, var: str, low: ExprLike, high: ExprLike, step: int = 1) -> Iterator[Var]:
        """``for var in low .. high step step``."""
        outer, body = self._block(f"the loop over '{var}'"), list[Statement]()
        first, end = _expr(low), _expr(high)
        self._stack.append(body)
        yield Var(var)
        self._stack.pop()
        outer.append(For(var, first, end, step, tuple(body)))

    @contextmanager
    def tiles(self, var: str, total: ExprLike, size: int) -> Iterator[Tile]:
        """Loop over the tiles of ``size`` that ``total`` is cut into; the last may be smaller."""
        with self.loop(var, 0, tiles_of(total, size)) as number:
            yield Tile(number, number * size, ragged(total, size, number))

    def each_core(self, var: str, units: ExprLike) -> AbstractContextManager[Var]:
        """Loop over the units of work of this core, when all cores take turns at them."""
        return self.loop(var, self.core, units, self.cores)

    def each_aiv(self, var: str, units: ExprLike) -> AbstractContextManager[Var]:
        """Loop over the units of work of this AIV, when all AIVs take turns at them."""
        return self.loop(var, self.aiv, units, self.cores * self.aiv_per_core)

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """``when condition``."""
        outer, body = self._block("'when'"), list[Statement]()
        if not isinstance(condition, Expr):
            raise KernelError(f"'when' got {condition!r}, which is decided while the kernel is built; compare loop variables "
                              f"with <, <=, >, >= or equals()")
        self._stack.append(body)
        yield
        self._stack.pop()
        outer.append(When(condition, tuple(body)))

    @contextmanager
    def vf(self, fused: object = True) -> Iterator[None]:
        """``vf``: operations inside are one vector function, unless ``fused`` is false or None (a chip that has none).  Buffers
        declared inside belong to the block around."""
        if not fused:
            yield
            return
        outer, body = self._block("'vf'"), _Body(self._block("'vf'"))
        self._stack.append(body)
        yield
        self._stack.pop()
        if body:
            outer.append(Vf(Const(1), tuple(body)))

    def let(self, name: str, value: ExprLike) -> Var:
        """``let name = value``: a name for an expression, good until the end of the current block."""
        self._block(f"'let {name}'").append(Let(name, _expr(value)))
        return Var(name)

    def _block(self, what: str) -> list[Statement]:
        if not self._stack:
            raise KernelError(f"{what} stands outside of a part; put it inside 'with kb.part(\"aic\")' or "
                              f"'with kb.part(\"aiv\")'")
        return self._stack[-1]

    def buffer(self, name: str, space: str, fmt: str, shape: tuple[int, int], ring: int = 1,
               address: int | None = None) -> Handle:
        """Declare a buffer of the current block; ``address`` pins it to a byte address in UB."""
        if len(shape) != 2:
            raise KernelError(f"buffer '{name}' has shape {list(shape)}; a buffer has rows and columns")
        buffer = Buffer(name, space, fmt, shape, ring, address)
        block = self._block(f"buffer '{name}'")
        (block.outer if isinstance(block, _Body) else block).append(Alloc(buffer))
        return Handle(buffer)

    def op(self, kind: str, out: Slice | Handle | None = None, *ins: Slice | Handle, **attrs: AttrValue) -> None:
        """Append an operation by name; a tensor or buffer without a slice is all of it."""
        if kind not in OPS:
            raise KernelError(str(unknown_name("operation", kind, list(OPS))))
        target = None if out is None else _slice(out, kind)
        block = self._block(f"'{kind}'")
        block.append(Op(kind, target, tuple(_slice(item, kind) for item in ins), tuple(attrs.items())))

    def copy(self, out: Slice | Handle, source: Slice | Handle, **attrs: AttrValue) -> None:
        """Append a copy."""
        self.op("copy", out, source, **attrs)

    def raise_signal(self, name: str, pipe: str) -> None:
        """Append ``signal``: raised when ``pipe`` has finished everything before it."""
        self.op("signal", name=name, pipe=pipe)

    def wait_signal(self, name: str, pipe: str) -> None:
        """Append ``wait``: ``pipe`` goes on when the signal has been raised once more."""
        self.op("wait", name=name, pipe=pipe)

    def meet(self, name: str, last: str = "MTE3") -> None:
        """Signal that ``last`` is done, then let the next load (MTE2) wait for all others who do."""
        self.raise_signal(name, last)
        self.wait_signal(name, "MTE2")

    def build(self) -> Kernel:
        """The finished kernel, every statement carrying the line it has in the kernel's text."""
        from msdsim.ir.built import built

        return built(Kernel(self._name, self.cores, self.aiv_per_core, tuple(self._tensors), tuple(self._signals),
                            tuple(self._parts["aic"]), tuple(self._parts["aiv"])))
