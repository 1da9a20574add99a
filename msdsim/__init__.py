"""msdsim: cycle-level simulation of quantized matmul and attention on NPUs with decoupled Cube and Vector units."""

from __future__ import annotations

__version__ = "0.1.0"
