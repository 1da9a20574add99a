"""The compiled engine, the default: the machine of the reference engine, tick for tick, at machine speed.

``expressions`` and ``tables`` put the program into arrays, ``machine`` and ``memory`` are compiled by numba and run on them,
``compiled`` keeps the machine code between runs.  ``layout`` names every position in the arrays.
"""

from __future__ import annotations

from msdsim.engine.fast.engine import FastEngine, create, is_compiled, warm_up

__all__ = ["FastEngine", "create", "is_compiled", "warm_up"]
