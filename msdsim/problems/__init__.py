"""Problems: the shapes asked for, their inline form, and workload files.

``parse_problem`` reads whatever a user may type in the place of a problem.
"""

from msdsim.problems.model import KINDS, Attention, Gemm, GroupedGemm, Micro, Problem, problem_from_json
from msdsim.problems.parse import KernelFile, parse_inline, parse_problem
from msdsim.problems.workload import Entry, Workload

__all__ = [
    "KINDS",
    "Attention",
    "Entry",
    "Gemm",
    "GroupedGemm",
    "KernelFile",
    "Micro",
    "Problem",
    "Workload",
    "parse_inline",
    "parse_problem",
    "problem_from_json",
]
