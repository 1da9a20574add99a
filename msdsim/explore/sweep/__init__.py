"""Sweeps: many simulations over problem, chip, dataflow and tiling parameters; parallel, resumable, one row a run.

``spec`` says which points there are, ``point`` runs one, ``store`` keeps the rows on disk, ``workers`` run points side by side.
"""

from msdsim.explore.sweep.point import Point, points, run_point
from msdsim.explore.sweep.run import run_sweep, sweep
from msdsim.explore.sweep.spec import Spec, parse_spec, read_spec

__all__ = ["Point", "Spec", "parse_spec", "points", "read_spec", "run_point", "run_sweep", "sweep"]
