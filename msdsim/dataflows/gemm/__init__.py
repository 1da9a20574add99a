"""The dataflows of GEMMs, plain and grouped."""

from msdsim.moved import spread_names

__getattr__ = spread_names(__name__)
