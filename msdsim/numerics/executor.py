"""The executor: runs a kernel's operations on numbers, tile by tile, with each unit's exact semantics.

Every AIC and AIV runs its part in program order until it waits for a signal that has not been raised; units take turns.
The order inside a kernel that the verifier accepts does not change a bit, and a kernel that no order can finish is reported.
Buffer slots are poisoned when they are acquired, so that reading what nobody wrote shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from msdsim.errors import ArrayError, Deadlock
from msdsim.formats.number import FORMATS
from msdsim.ir.expr import Binary, Const, Expr, binary, compiled, source
from msdsim.ir.kernel import Alloc, Block, Buffer, For, Kernel, Op, Slice, Tensor, When
from msdsim.ir.lets import plain
from msdsim.ir.ops import OPS, Evaluation
from msdsim.numerics.matmul import mmad_float, mmad_int, mmad_mx

#: Called after every operation with the unit's (core, part, sub), the operation, and the regions it read and wrote.
Observer = Callable[[tuple[int, str, int], Op, list["Region"], "Region | None"], None]


@dataclass(frozen=True)
class Region:
    """A rectangle that an operation touched: tensor or buffer, ring slot (0 for tensors), starts and sizes."""

    name: str
    slot: int
    starts: tuple[int, ...]
    sizes: tuple[int, ...]


class CubeArithmetic:
    """The Cube's number rule ``fp32-rne-ascending-k``: exact int32, or fp32 with one rounding per addition, k ascending."""

    def mmad(self, a: np.ndarray, b: np.ndarray, acc: np.ndarray, fmt_a: str, fmt_b: str) -> np.ndarray:
        """``acc + a @ b``; shapes [m, k], [k, n], [m, n]."""
        if FORMATS[fmt_a].kind == "int":
            return mmad_int(a, b, acc)
        return mmad_float(a, b, acc)

    def mmad_mx(self, a: np.ndarray, a_scale: np.ndarray, b: np.ndarray, b_scale: np.ndarray,
                acc: np.ndarray) -> np.ndarray:
        """``acc + a @ b`` of MX tiles; scales [m, ceil(k/32)] and [ceil(k/32), n]."""
        return mmad_mx(a, a_scale, b, b_scale, acc)


def execute(kernel: Kernel, inputs: Mapping[str, np.ndarray], observer: Observer | None = None,
            arithmetic: Any = None) -> dict[str, np.ndarray]:
    """Run ``kernel`` on ``inputs`` (one array per tensor of role ``in``, reshaped to the tensor's shape).

    Returns every tensor of role ``out`` or ``workspace`` in storage dtype.  Deadlock when signals never come.
    """
    kernel = plain(kernel)
    memory: dict[str, np.ndarray] = {}
    for tensor in kernel.tensors:
        dtype = FORMATS[tensor.fmt].dtype
        if tensor.role != "in":
            memory[tensor.name] = _poison(np.empty(tensor.shape, dtype))
            continue
        if tensor.name not in inputs:
            raise ArrayError(f"kernel '{kernel.name}' reads tensor '{tensor.name}', which was not given; "
                             f"give an array of shape {list(tensor.shape)}")
        array = inputs[tensor.name]
        if array.dtype != dtype or array.size != np.prod(tensor.shape):
            raise ArrayError(f"tensor '{tensor.name}' is {array.dtype}{list(array.shape)}, the kernel wants "
                             f"{dtype}{list(tensor.shape)}")
        memory[tensor.name] = array.reshape(tensor.shape)
    machine = _Machine(kernel, memory, observer, arithmetic or CubeArithmetic())
    machine.run()
    return {tensor.name: memory[tensor.name] for tensor in kernel.tensors if tensor.role != "in"}


def _poison(array: np.ndarray) -> np.ndarray:
    """Fill with what a correct kernel never reads: NaN, or a pattern for integers."""
    array.view(f"u{array.dtype.itemsize}").fill(_pattern(array.dtype))
    return array


@cache
def _pattern(dtype: np.dtype) -> int:
    """Bits of the poison of a dtype."""
    item = np.empty(1, dtype)
    if dtype.kind in "iu":
        item.view(np.uint8)[...] = 0x6D
    else:
        item[...] = np.nan
    return int(item.view(f"u{dtype.itemsize}")[0])


class _Machine:
    def __init__(self, kernel: Kernel, memory: dict[str, np.ndarray], observer: Observer | None, arithmetic: Any) -> None:
        self.kernel, self.memory, self.observer, self.arithmetic = kernel, memory, observer, arithmetic
        self.kinds = {signal.name: signal.kind for signal in kernel.signals}
        self.plans: dict[int, _Plan] = {}
        self.functions: dict[int, tuple[Expr, Callable[[Mapping[Any, Any]], Any]]] = {}
        self.events = 0
        self.units = [(core, part, sub) for core in range(kernel.cores)
                      for part, subs in (("aic", 1), ("aiv", kernel.aiv_per_core)) for sub in range(subs)]
        # Tokens raised for a unit, per signal and sender inside the group; arrivals per unit for barriers.
        self.tokens: dict[tuple[tuple[int, str, int], str], list[int]] = {}
        self.arrived: dict[str, dict[tuple[int, str, int], int]] = {signal.name: {} for signal in kernel.signals}
        self.passed: dict[tuple[tuple[int, str, int], str], int] = {}
        self.participants = {
            signal.name: [unit for unit in self.units if _signals(kernel.part(unit[1]), signal.name)]
            for signal in kernel.signals
        }

    def run(self) -> None:
        # Infinities and what follows from them are numbers like others; the result says how many there are.
        with np.errstate(all="ignore"):
            self._take_turns()

    def _take_turns(self) -> None:
        # The AIVs of a group usually produce first; the order changes nothing but the number of turns.
        live = {unit: _Unit(self, unit).run() for unit in sorted(self.units, key=lambda unit: (unit[0], unit[1] == "aic"))}
        while live:
            before = (len(live), self.events)
            for unit in list(live):
                if next(live[unit], "done") == "done":
                    del live[unit]
            if live and before == (len(live), self.events):
                names = ", ".join(f"core {core} {part}{sub if part == 'aiv' else ''}" for core, part, sub in list(live)[:4])
                raise Deadlock(f"the kernel '{self.kernel.name}' cannot finish: {names} wait for signals nobody raises")

    def raise_signal(self, unit: tuple[int, str, int], name: str) -> None:
        core, _, sub = unit
        kind = self.kinds[name]
        self.events += 1
        if kind == "aic_to_aiv":
            for aiv in range(self.kernel.aiv_per_core):
                self._count((core, "aiv", aiv), name, 0, 1)
        elif kind == "aiv_to_aic":
            self._count((core, "aic", 0), name, sub, self.kernel.aiv_per_core)
        else:
            self.arrived[name][unit] = self.arrived[name].get(unit, 0) + 1

    def _count(self, unit: tuple[int, str, int], name: str, sender: int, senders: int) -> None:
        self.tokens.setdefault((unit, name), [0] * senders)[sender] += 1

    def try_wait(self, unit: tuple[int, str, int], name: str) -> bool:
        """Consume one raising of the signal if it is there."""
        if not self._raised(unit, name):
            return False
        self.events += 1
        return True

    def _raised(self, unit: tuple[int, str, int], name: str) -> bool:
        if self.kinds[name] == "barrier":
            turn = self.passed.get((unit, name), 0)
            if any(self.arrived[name].get(other, 0) <= turn for other in self.participants[name]):
                return False
            self.passed[unit, name] = turn + 1
            return True
        counts = self.tokens.get((unit, name))
        if not counts or min(counts) < 1:
            return False
        counts[:] = [count - 1 for count in counts]
        return True


def _signals(block: Block, name: str) -> bool:
    return any(
        (statement.kind == "signal" and statement.attr("name") == name) if isinstance(statement, Op)
        else isinstance(statement, For | When) and _signals(statement.body, name)
        for statement in block
    )


class _Plan:
    """What an operation needs at run time, compiled once.

    ``views`` gives the slices of the arrays of its operands, output first, and ``numbers`` their starts and sizes, for who
    observes.
    """

    def __init__(self, op: Op) -> None:
        assert op.out is not None
        self.operands = (op.out, *op.ins)
        self.definition = OPS[op.kind]
        self.numbers = compiled(_tuple(source(expr) for item in self.operands for expr in (*item.starts, *item.sizes)))
        self.views = compiled(_tuple(f"env[{number}][{_index(item)}]" for number, item in enumerate(self.operands)))
        # Tensors are the same arrays in all units; buffers are asked of the unit.
        self.buffers = [(number, item.of.name) for number, item in enumerate(self.operands) if isinstance(item.of, Buffer)]
        self.tensors = [(number, item.of.name) for number, item in enumerate(self.operands) if isinstance(item.of, Tensor)]


def _tuple(texts: Iterable[str]) -> str:
    return "(" + ", ".join(texts) + ",)"


def _index(item: Slice) -> str:
    return ", ".join(f"{source(start)} : {source(_end(start, size))}"
                     for start, size in zip(item.starts, item.sizes, strict=True))


def _end(start: Expr, size: Expr) -> Expr:
    """Where a range ends; one of a size below 0 is empty, and must not count from the other end."""
    end = binary("+", start, size)
    return binary("max", end, 0) if _subtracts(size) else end


def _subtracts(expr: Expr) -> bool:
    if isinstance(expr, Const):
        return expr.value < 0
    return isinstance(expr, Binary) and (expr.op == "-" or _subtracts(expr.left) or _subtracts(expr.right))


class _Unit:
    """One AIC or AIV running its part."""

    def __init__(self, machine: _Machine, unit: tuple[int, str, int]) -> None:
        self.machine, self.unit = machine, unit
        self.env: dict[Any, Any] = {"core": unit[0], "sub": unit[2]}
        #: Slots of every ring, each with a view of its bits and those of its poison.
        self.slots: dict[str, list[tuple[np.ndarray, np.ndarray, int]]] = {}
        self.turn: dict[str, int] = {}
        #: The slot of each buffer that is in use.
        self.current: dict[str, np.ndarray] = {}

    def run(self) -> Generator[None, None, None]:
        """Yields whenever it waits for a signal that has not been raised."""
        yield from self._block(self.machine.kernel.part(self.unit[1]))

    def _block(self, block: Block) -> Generator[None, None, None]:
        for statement in block:
            if isinstance(statement, Op):
                if statement.kind == "wait":
                    while not self.machine.try_wait(self.unit, str(statement.attr("name"))):
                        yield
                elif statement.kind == "signal":
                    self.machine.raise_signal(self.unit, str(statement.attr("name")))
                elif statement.out is not None:
                    self._operate(statement)
            elif isinstance(statement, Alloc):
                self._acquire(statement.buffer)
            elif isinstance(statement, For):
                for value in range(self._value(statement.low), self._value(statement.high), statement.step):
                    self.env[statement.var] = value
                    yield from self._block(statement.body)
            elif isinstance(statement, When) and self._value(statement.condition):
                yield from self._block(statement.body)

    def _acquire(self, buffer: Buffer) -> None:
        name = buffer.name
        if name not in self.slots:
            dtype = FORMATS[buffer.fmt].dtype
            arrays = [np.empty(buffer.shape, dtype) for _ in range(buffer.ring)]
            self.slots[name] = [(array, array.view(f"u{dtype.itemsize}"), _pattern(dtype)) for array in arrays]
            self.turn[name] = -1
        self.turn[name] = turn = (self.turn[name] + 1) % buffer.ring
        self.current[name], bits, poison = self.slots[name][turn]
        bits.fill(poison)

    def _value(self, expr: Expr) -> int:
        if isinstance(expr, Const):
            return expr.value
        # By identity, as hashing a tree costs more than what it says; the machine keeps the trees alive.
        known = self.machine.functions.get(id(expr))
        if known is None:
            known = self.machine.functions[id(expr)] = expr, compiled(source(expr))
        return int(known[1](self.env))

    def _operate(self, op: Op) -> None:
        plan = self.machine.plans.get(id(op))
        if plan is None:
            plan = self.machine.plans[id(op)] = _Plan(op)
        env, memory, current = self.env, self.machine.memory, self.current
        # Beside the variables, the arrays by number of the operand.
        for number, name in plan.tensors:
            env[number] = memory[name]
        for number, name in plan.buffers:
            env[number] = current[name]
        out, *ins = plan.views(env)
        if out is None or out.size:
            plan.definition.execute(op, Evaluation(ins, out, self._value, self.machine.arithmetic))
        if self.machine.observer is not None:
            self._observe(op, plan)

    def _observe(self, op: Op, plan: _Plan) -> None:
        """Tell who looks on what an operation read and wrote."""
        assert self.machine.observer is not None
        numbers, at = plan.numbers(self.env), 0
        regions = []
        for item in plan.operands:
            rank = len(item.starts)
            regions.append(Region(item.of.name, self.turn.get(item.of.name, 0), numbers[at : at + rank],
                                  numbers[at + rank : at + 2 * rank]))
            at += 2 * rank
        read = regions[1:] + (regions[:1] if plan.definition.accumulates and self._accumulates(op) else [])
        self.machine.observer(self.unit, op, read, regions[0])

    def _accumulates(self, op: Op) -> bool:
        return bool(self._value(op.attr_expr("accumulate", 0)))
