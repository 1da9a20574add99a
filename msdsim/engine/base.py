"""The engines' one interface, and the facade that finds them by name and imports them only when used."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from msdsim.errors import KernelError
from msdsim.hardware.chip import Chip
from msdsim.ir.program import Program
from msdsim.registry import Registry
from msdsim.timeline.l2_state import L2State
from msdsim.timeline.record import RunRecord


@dataclass(frozen=True)
class EngineOptions:
    """How to run: ``record_timeline`` keeps every instruction, ``memory`` is the fidelity of the memory system."""

    record_timeline: bool = False
    memory: str = "bandwidth"
    skip: bool = True


class Engine(Protocol):
    """Advances time over a lowered kernel until all of its instructions are done."""

    def run(self, program: Program, options: EngineOptions, l2: L2State | None = None) -> RunRecord:
        """Simulate; Deadlock when the kernel cannot finish.

        ``l2`` is what is in L2 at the beginning (None: nothing); the record then has what is in it at the end.
        """
        ...


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine lives and what it is for."""

    module: str
    description: str


ENGINES: Registry[EngineEntry] = Registry("engine")
ENGINES.add("fast", EngineEntry("msdsim.engine.fast", "compiled, the default"))
ENGINES.add("reference", EngineEntry("msdsim.engine.reference", "SimPy processes, written to be read and extended"))
MEMORY_MODELS = ("bandwidth", "banked")


def empty_l2(chip: Chip) -> L2State:
    """The L2 of a chip with nothing in it."""
    from msdsim.engine.memory import l2_geometry

    return L2State.empty(*l2_geometry(chip))


def load_engine(name: str) -> Engine:
    """The engine called ``name``; UnknownNameError lists the known ones."""
    engine: Engine = import_module(ENGINES[name].module).create()
    return engine


def check_signals(program: Program) -> None:
    """A signal is raised, and waited for, on one pipe of a part: tokens have one order only then."""
    for part in program.parts:
        used: dict[tuple[str, int], set[str]] = defaultdict(set)
        for instr in part.instructions():
            if instr.signal is not None:
                used[instr.signal].add(instr.pipe)
        for number, signal in enumerate(program.kernel.signals):
            for what, verb in (("signal", "raises"), ("wait", "waits for")):
                pipes = sorted(used[what, number])
                if len(pipes) > 1:
                    raise KernelError(f"{part.name} {verb} signal '{signal.name}' on pipes {' and '.join(pipes)}; "
                                      f"use one pipe, or one signal a pipe")
