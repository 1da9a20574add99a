"""``micro``: microbenchmarks, one operation at a time or over and over, as kernels like any other.

They carry the published measurements of single instructions and of whole-chip copies into the simulator, where
:mod:`msdsim.explore.micro` and :mod:`msdsim.explore.validate` hold them against what was published.
"""

from msdsim.moved import spread_names

__getattr__ = spread_names(__name__)
