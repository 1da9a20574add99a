"""The worked example of docs/adding-a-dataflow.md, run as it stands on the page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-dataflow.md"
CHECK = """
import msdsim
from msdsim.analysis.hazards import HazardCheck
from msdsim.api import find_dataflow
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.executor import execute
from msdsim.problems import parse_problem

for shape in ("gemm:m=40,k=200,n=330", "gemm:m=1,k=1,n=1", "grouped_gemm:rows=5+0+40,k=70,n=130,trans_b=1"):
    for chip in ("toy", "ascend910b1", "ascend950pr"):
        plain = msdsim.simulate(shape, chip, "plain", check=True, timeline=True)
        assert plain.numerics.bit_exact, plain.numerics.first_mismatch
        operands = contract_for(parse_problem(shape).kind, "bf16").operands(parse_problem(shape), None, 0)
        execute(plain.kernel, operands, observer=HazardCheck(plain.record).observe)
problem = "gemm:m=64,k=512,n=512"
assert msdsim.simulate(problem, "ascend910b1", "bf16").time_us < msdsim.simulate(problem, "ascend910b1", "plain").time_us
given = parse_problem("gemm:m=1,k=8,n=8,x=int8")
print(find_dataflow(given, "plain").refuses(given, msdsim.load_hw("toy").chip))
"""


def test_the_example_on_the_page_is_a_dataflow():
    """In a process of its own, so that the registry of this one stays as it is."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", code + CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "'bf16' multiplies BF16 activations, and x=int8 is given; use w8a8\n"
