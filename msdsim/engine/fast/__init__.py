"""The compiled engine, the default: the machine of the reference engine, tick for tick, at machine speed.

``expressions``, ``tables`` and ``builder`` put the program into arrays, in which ``layout`` and ``l2_layout`` name every
position; ``machine``, ``memory`` (with ``banked``) and ``cache`` are compiled by numba and run on them; ``compiled`` keeps the
machine code between runs.
``repetition`` knows which loops come back to an earlier state, ``skip`` does not simulate them again.
"""

from __future__ import annotations

from msdsim.engine.fast.engine import FastEngine, create, is_compiled, warm_up

__all__ = ["FastEngine", "create", "is_compiled", "warm_up"]
