"""Lowering: from buffers and blocks to instructions and flags.

Dependences follow from buffer use.  Within a block, a reader waits for the last writer on another pipe (``data``) and a
writer for the readers on other pipes (``buffer``).  A slot is acquired by the first accessor of an iteration and released
by the last ones.  A buffer that outer code owns and several pipes of a loop touch carries the same order from one iteration
to the next, primed before the loop and drained after it, exactly as it is written by hand with set_flag and wait_flag.
Every wait is matched by an earlier post in program order, so a core alone cannot deadlock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import count

from msdsim.errors import KernelError
from msdsim.hardware.chip import Chip
from msdsim.ir.dependences import (
    Access,
    BufferOrder,
    Edge,
    Flags,
    Item,
    Scope,
    flags_of,
    outer_access,
    pipes_of,
    uses_of,
    without_implied,
)
from msdsim.ir.expr import Const, Expr, binary
from msdsim.ir.kernel import Alloc, Block, Buffer, For, Kernel, Op, PartName, Vf, When, ends_phase
from msdsim.ir.lets import plain
from msdsim.ir.ops import OPS
from msdsim.ir.pipe_hazards import Function, PipeHazards
from msdsim.ir.placement import Placement, placed
from msdsim.ir.program import Instr, Loop, Node, Part, Program, Semaphore, UnitFlag, WaitCause, walk_nodes
from msdsim.ir.timing import Sync, Timing
from msdsim.ir.unit_flags import has_unit_flag, strip
from msdsim.ir.vf import fused, reads_in
from msdsim.naming import PIPES


def lower(kernel: Kernel, chip: Chip, addresses: Mapping[str, int] | None = None,
          placement: Placement | None = None) -> Program:
    """The kernel as instructions and flags for ``chip``; KernelError where it needs more event ids than there are.

    ``addresses`` says where the tensors lie in GM (None: the kernel alone, one tensor after the other); ``placement`` is the
    kernel's in UB, for who has it already.
    """
    addresses = kernel.addresses() if addresses is None else addresses
    kernel = plain(kernel)
    if placement is None and chip.vector.banks is not None:
        placement = placed(kernel, chip)
    costs = placement.costs if placement is not None else {}
    return Program(kernel, chip, _PartLowering(kernel, chip, "aic", addresses, {}).run(),
                   _PartLowering(kernel, chip, "aiv", addresses, costs).run(), addresses)


def lowered_alike(one: Chip, other: Chip) -> bool:
    """Whether a kernel has the same places, instructions and flags on both chips: they differ at most in HBM, L2 and signals
    between cores, of which lowering asks only how much there is to address and how long a line is."""
    left = ("name", "hbm", "l2", "cross_core")
    return one is other or (one.hbm.capacity_bytes == other.hbm.capacity_bytes and one.l2.line_bytes == other.l2.line_bytes
            and all(getattr(one, name) == getattr(other, name) for name in type(one).model_fields if name not in left))


class _PartLowering:
    def __init__(self, kernel: Kernel, chip: Chip, name: PartName, addresses: Mapping[str, int],
                 costs: Mapping[int, Timing]) -> None:
        self.kernel, self.chip, self.name, self.addresses, self.costs = kernel, chip, name, addresses, costs
        self.operations = count()
        self.signals = {signal.name: index for index, signal in enumerate(kernel.signals)}
        self.semaphores: list[Semaphore] = []
        self.fresh = 0
        self.functions: dict[int, Function] = {}
        #: Pipes with operations that may have to wait for their own pipe to drain.
        self.hazardous: set[str] = set()
        self.reads = reads_in(kernel.part(name))

    def run(self) -> Part:
        scope = self._scope(self.kernel.part(self.name), None)
        self._dependences(scope)
        self._fences(scope)
        self._gather_flags()
        hazards = PipeHazards(self.chip, self.functions)
        for pipe in PIPES[self.name.upper()]:
            if pipe in self.hazardous:
                hazards.settle(scope, pipe, set())
        body = self._emit(scope)
        part = Part(self.name, body, tuple(self.semaphores), PIPES[self.name.upper()])
        for index, instr in enumerate(part.instructions()):
            instr.index = index
        self._check_event_ids(body)
        return part

    # Reading the block structure

    def _scope(self, block: Block, loop: tuple[str, Expr, Expr, int] | None) -> Scope:
        scope = Scope(loop, [], [])
        for statement in block:
            if isinstance(statement, Alloc):
                scope.buffers.append(statement.buffer)
            elif isinstance(statement, Op):
                if statement.kind == "fixpipe" and has_unit_flag(statement):
                    # The sum is complete.
                    mark = Instr(-1, "M", None, Sync(), Const(0))
                    scope.items.append(Item(mark, {statement.ins[0].of.name: {"M": (True, False)}}))
                scope.items.append(self._leaf(statement))
            elif isinstance(statement, Vf):
                scope.items += self._vf(statement)
            else:
                assert isinstance(statement, For | When), "names are put in before"
                if isinstance(statement, For):
                    bounds = (statement.var, statement.low, statement.high, statement.step)
                else:
                    self.fresh += 1
                    bounds = (f"when${self.fresh}", Const(0), binary("!=", statement.condition, 0), 1)
                inner = self._scope(statement.body, bounds)
                inner.repeats = isinstance(statement, For)
                scope.items.append(Item(inner, outer_access(inner)))
        return scope

    def _leaf(self, op: Op) -> Item:
        definition = OPS[op.kind]
        pipe = definition.pipe(op, self.chip)
        if definition.hazard is not None:
            self.hazardous.add(pipe)
        access: dict[str, Access] = defaultdict(dict)
        touched = [(item, True, False) for item in op.ins]
        if op.out is not None:
            touched.append((op.out, definition.accumulates, True))
        for item, reads, writes in touched:
            if isinstance(item.of, Buffer):
                r, w = access[item.of.name].get(pipe, (False, False))
                access[item.of.name][pipe] = (r or reads, w or writes)
        signal = (op.kind, self.signals[str(op.attr("name"))]) if op.kind in ("signal", "wait") else None
        instr = Instr(-1, pipe, op, self._timing(op), Const(0), signal=signal)
        return Item(instr, dict(access))

    def _vf(self, statement: Vf) -> list[Item]:
        """The operations of a vector function, one after the other."""
        body = [op for op in statement.body if isinstance(op, Op)]
        function, written, items = Function(), set[str](), list[Item]()
        for op, piece in zip(body, fused(body, self.chip, self.reads), strict=True):
            item = self._leaf(op)
            instr = item.node
            assert isinstance(instr, Instr)
            instr.timing, instr.barrier = piece.timing, Const(int(piece.waits))
            self.functions[id(instr)] = function
            function.instrs.append(instr)
            function.reads |= {operand.of.name for operand in op.ins} - written
            written |= {op.out.of.name} if op.out is not None else set()
            items.append(item)
        return items

    def _gather_flags(self) -> None:
        """A vector function waits for all that it needs, and other pipes for all of it."""
        for function in dict.fromkeys(self.functions.values()):
            first, *rest = function.instrs
            for instr in rest:
                first.waits += [number for number in instr.waits if number not in first.waits]
                instr.waits = []
            for instr in function.instrs[:-1]:
                function.instrs[-1].posts += [number for number in instr.posts if number not in function.instrs[-1].posts]
                instr.posts = []

    def _timing(self, op: Op) -> Timing:
        """What the operation costs, with the bank conflicts of its operands where they lie; called in the order of the part."""
        known = self.costs.get(next(self.operations))
        return OPS[op.kind].timing(op, self.chip, self.addresses) if known is None else known

    # Flags between pipes

    def _dependences(self, scope: Scope) -> None:
        for buffer in scope.buffers:
            if self._unit_flags(scope, buffer):
                continue
            order = BufferOrder(scope, buffer.name, buffer.ring)
            scope.edges += order.inside()
            if scope.loop is not None:
                scope.edges += order.reuse(buffer.ring)
            self._carried(scope, buffer.name)
        for item in scope.items:
            if isinstance(item.node, Scope):
                self._dependences(item.node)
        for edge in without_implied(scope.edges):
            self._flag(scope, edge)

    def _unit_flags(self, scope: Scope, buffer: Buffer) -> bool:
        """Order the products and the fixpipe of an accumulator by the flags of its blocks, if they have them."""
        uses = list(uses_of(scope, buffer.name)) if buffer.space == "L0C" else []
        if not uses or uses[-1].op is None or not has_unit_flag(uses[-1].op):
            return False
        complete = self.semaphore("M", "FIX", buffer.name, "data", 0, buffer.ring, unit_flag=True)
        drained = self.semaphore("FIX", "M", buffer.name, "buffer", buffer.ring, buffer.ring, unit_flag=True)
        for instr in uses:
            takes, posts = (drained, complete) if instr.pipe == "M" else (complete, drained)
            instr.unit = UnitFlag(takes, posts, strip(instr.timing, self.chip), instr.op is None or instr.pipe == "FIX")
        return True

    def _carried(self, scope: Scope, buffer: str) -> None:
        """Order across the iterations of loops inside ``scope`` for a buffer that outlives them."""
        for item in scope.items:
            access = item.access.get(buffer)
            if not isinstance(item.node, Scope) or access is None:
                continue
            if len(access) > 1 and any(writes for _, writes in access.values()):
                order = BufferOrder(item.node, buffer, 1)
                item.node.edges += order.inside()
                for edge in order.reuse(0):
                    number = self._flag(item.node, edge)
                    flags_of(item.before, edge.source).posts.append(number)
                    flags_of(item.after, edge.target).waits.append(number)
            self._carried(item.node, buffer)

    def _flag(self, scope: Scope, edge: Edge) -> int:
        """Turn an edge into a semaphore: posted after one statement of ``scope``, waited for before another."""
        number = self.semaphore(edge.source, edge.target, edge.buffer, edge.cause, edge.initial, edge.capacity)
        post, wait = scope.items[edge.at], scope.items[edge.to]
        if isinstance(post.node, Instr):
            post.node.posts.append(number)
        else:
            flags_of(post.after, edge.source).posts.append(number)
        if isinstance(wait.node, Instr):
            wait.node.waits.append(number)
        else:
            flags_of(wait.before, edge.target).waits.append(number)
        return number

    def _fences(self, scope: Scope) -> None:
        """Phases share on-chip memory, so no pipe enters a phase before the others have left the one before.

        A phase ends at a wait for a barrier among the part's own statements.
        """
        for index, item in enumerate(scope.items):
            node = item.node
            if not isinstance(node, Instr) or node.op is None or not ends_phase(self.kernel, node.op):
                continue
            before = {pipe for earlier in scope.items[:index] for pipe in pipes_of(earlier.node)}
            after = {pipe for later in scope.items[index:] for pipe in pipes_of(later.node)}
            for source in sorted(before):
                for target in sorted(after - {source}):
                    number = self.semaphore(source, target, PHASE, "buffer", 0, 1)
                    flags_of(item.before, source).posts.append(number)
                    flags_of(item.after, target).waits.append(number)

    def semaphore(self, source: str, target: str, buffer: str, cause: WaitCause, initial: int, capacity: int,
                  unit_flag: bool = False) -> int:
        self.semaphores.append(Semaphore(source, target, buffer, cause, initial, capacity, unit_flag))
        return len(self.semaphores) - 1

    # Writing the instructions

    def _emit(self, scope: Scope) -> list[Node]:
        body: list[Node] = []
        for item in scope.items:
            body += self._syncs(item.before)
            if isinstance(item.node, Scope):
                assert item.node.loop is not None
                var, low, high, step = item.node.loop
                body.append(Loop(var, low, high, step, self._emit(item.node)))
            else:
                body.append(item.node)
            body += self._syncs(item.after)
        return body

    def _syncs(self, flags: dict[str, Flags]) -> list[Node]:
        order = PIPES[self.name.upper()]
        return [Instr(-1, pipe, None, Sync(), Const(0), flags[pipe].waits, flags[pipe].posts)
                for pipe in sorted(flags, key=order.index)]

    def _check_event_ids(self, body: list[Node]) -> None:
        """Statements of the part's own block run one after the other, so they can share ids; those inside cannot."""
        limit = self.chip.dispatch.event_ids_per_pipe_pair
        for node in body:
            used: dict[tuple[str, str], set[int]] = defaultdict(set)
            for instr in walk_nodes([node]):
                for number in instr.waits:
                    semaphore = self.semaphores[number]
                    used[semaphore.source, semaphore.target].add(number)
            for (source, target), numbers in used.items():
                needed = sum(self.semaphores[number].capacity for number in numbers)
                if needed > limit:
                    rings = ", ".join(sorted({self.semaphores[number].buffer for number in numbers}))
                    line = next((instr.op.line for instr in walk_nodes([node]) if instr.op is not None), 0)
                    raise KernelError(
                        f"{f'line {line}: ' if line else ''}{self.name} needs {needed} event ids from {source} to {target}, "
                        f"chip '{self.chip.name}' has {limit} "
                        f"per pipe pair; lower the ring depth of the buffers {rings} or use fewer of them"
                    )


#: Stands for all buffers of a phase where a semaphore names what it protects.
PHASE = "(phase)"
