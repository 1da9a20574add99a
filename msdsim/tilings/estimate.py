"""The one estimate of a kernel's time that ranks tilings, for a whole table of candidates at once.

A dataflow states what the busiest core does between two meetings of all cores: its instructions by pipe, with what each costs
and how often it comes, and the buffers that are handed on from pipe to pipe.  A phase then takes as long as the slowest of

* a pipe: the sum of its instructions; HBM and L2: all bytes of the chip over their rates;
* a ring: its stages one after the other, over its depth, since a slot comes back only when all of them are through with it;

and beside it most of the rest of the way of one piece of data through all units, from its load to the last result
(:data:`SHOWING`).  Pipes and memories that are about equally slow delay each other a little (:data:`OVERLAP`).
"""

from __future__ import annotations

import numpy as np

from msdsim.tilings.costs import Costs
from msdsim.tilings.space import Column, Values

#: Exponent of the mean in which the units of a phase are put together: two that are equally slow take 12% longer than one.
OVERLAP = 6.0
#: Share of the way that shows beside the slowest unit: its stages wait for each other, but loads of several kinds set out
#: together.  Of 0.4 to 1 what ranks 4,800 tilings of 40 random problems best.
SHOWING = 0.7


class Phase:
    """What happens between two meetings of all cores, for every candidate."""

    def __init__(self, costs: Costs, count: int) -> None:
        self.costs, self.count = costs, count
        #: Cycles that each pipe of the busiest core is held.
        self.pipes: dict[str, Values] = {}
        #: Those of the way that are its own.
        self.single: dict[str, Values] = {}
        #: Cycles of all uses of a buffer, and of one.
        self.rings: list[tuple[Values, Values]] = []
        self.hbm_bytes: Values = 0.0
        self.l2_read_bytes: Values = 0.0
        self.l2_write_bytes: Values = 0.0
        #: Cycles of the way of one piece of data.
        self.way: Values = 0.0
        #: Instructions of the busiest core.
        self.instructions: Values = 0.0
        self.where: Values = True

    def pipe(self, name: str, cycles: Values, times: Values = 1, own: Values | None = None) -> None:
        """``times`` instructions on a pipe (``M``, ``AIV.V``) that hold it for ``cycles`` each; ``own`` is its part of the way,
        one of them unless more of them make a piece of data."""
        self.pipes[name] = self.pipes.get(name, 0.0) + cycles * times
        self.single[name] = np.maximum(self.single.get(name, 0.0), cycles if own is None else own)
        self.instructions = self.instructions + times

    def ring(self, cycles: Values, depth: Values, times: Values) -> None:
        """A buffer of ``depth`` slots that is used ``times`` times, ``cycles`` from one use of a slot to the next."""
        self.rings.append((cycles * times / depth, cycles))

    def once(self, cycles: Values) -> None:
        """A stage of the way that every piece of data goes through, an instruction or a latency."""
        self.way = self.way + cycles

    def only(self, where: Column) -> None:
        """The phase is only there for some candidates."""
        self.where = where

    def cycles(self) -> Column:
        """The phase's time."""
        def beside(total: Values, single: Values) -> Values:
            """With what is of the way beside the unit's own part of it."""
            return total + SHOWING * np.maximum(0.0, self.way - single)

        load = np.maximum(self.single.get("MTE2", 0.0), self.single.get("AIV.MTE2", 0.0))
        memory = (self.hbm_bytes / self.costs.hbm_rate, self.l2_read_bytes / self.costs.l2_read,
                  self.l2_write_bytes / self.costs.l2_write)
        units = [*(beside(total, self.single[name]) for name, total in self.pipes.items()),
                 *(beside(total, load) for total in memory)]
        slowest: Values = 1.0
        for unit in units:
            slowest = np.maximum(slowest, unit)
        together = slowest * sum((unit / slowest) ** OVERLAP for unit in units) ** (1 / OVERLAP)
        ring: Values = 1.0
        for total, single in self.rings:
            ring = np.maximum(ring, beside(total, single))
        # A ring is made of stages that are among the pipes: where it holds them up a little, they are not held up twice.
        most = np.maximum(together, ring)
        together = most * (1 + (np.minimum(together, ring) / most) ** (2 * OVERLAP)) ** (1 / (2 * OVERLAP))
        return np.broadcast_to(np.where(self.where, together, 0.0), (self.count,))
