"""How weights lie in GM: the same numbers, other addresses, and what rows cost that fractals do not."""

from __future__ import annotations

import numpy as np
import pytest

import msdsim
from msdsim.errors import KernelError, MsdsimError
from msdsim.ir.builder import KernelBuilder, at
from msdsim.ir.expr import evaluate
from msdsim.ir.lower import lower
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel
from msdsim.ir.timing import Transfer

WAYS = [("gemm:m=20,k=200,n=90", "toy"), ("gemm:m=20,k=200,n=90,trans_b=1", "toy"),
        ("grouped_gemm:rows=5+0+11,k=70,n=96", "toy")]


@pytest.mark.parametrize(("problem", "hw"), WAYS)
@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "dequant-int4", "msd-int8", "a8w4"])
def test_numbers_do_not_depend_on_it(problem, hw, dataflow):
    found = {layout: msdsim.simulate(f"{problem},layout={layout}", hw, dataflow, check=True, keep=("y",)) for layout in ("nd", "nz")}
    assert all(run.numerics.good for run in found.values())
    assert np.array_equal(found["nd"].arrays["y"], found["nz"].arrays["y"])
    assert found["nd"].to_json()["tiling"].keys() == found["nz"].to_json()["tiling"].keys()


@pytest.mark.parametrize("memory", ["bandwidth", "banked"])
@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int4", "msd-int8"])
def test_engines_agree(dataflow, memory):
    problem = "gemm:m=20,k=700,n=90,layout=nz"
    runs = [msdsim.simulate(problem, "ascend910b1", dataflow, engine=engine, memory=memory) for engine in ("fast", "reference")]
    assert runs[0].cycles == runs[1].cycles
    assert runs[0].traffic == runs[1].traffic


def test_addresses_by_hand():
    """INT8: 32 columns a fractal; 10 rows are padded to 16, so that a column of fractals has 512 B and matrix 1 begins at 1,536."""
    kb = KernelBuilder("stored", 1, 1)
    w = kb.tensor("w", "int8", (2, 10, 90), "in", layout="nz")
    with kb.part("aiv"), kb.loop("e", 0, 2) as e, kb.loop("c", 0, 3) as c:
        kb.copy(kb.buffer("tile", "UB", "int8", (4, 30))[:, :], w[e, at(5, 4), at(c * 30, 30)])
    text = print_kernel(kb.build())
    assert "tensor w: int8[2, 10, 90] in nz" in text
    kernel = parse_kernel(text)
    assert kernel.tensors[0].size_bytes == 2 * 3 * 512
    timing = next(i.timing for i in lower(kernel, msdsim.load_hw("toy").chip).aiv.instructions() if isinstance(i.timing, Transfer))
    assert timing.stride_bytes == 512
    # Columns 0 to 29 lie in one column of fractals, 30 to 59 in two, 60 to 89 in two.
    for c, (offset, pieces) in enumerate([(0, 1), (30, 2), (512 + 28, 2)]):
        env = {"e": 1, "c": c}
        assert (evaluate(timing.offset, env), evaluate(timing.rows, env)) == (1536 + 5 * 32 + offset, pieces)
        assert evaluate(timing.row_bytes, env) == 4 * 32


@pytest.mark.parametrize("declared", ["int8[2, 10, 90] out nz", "int8[10, 90] workspace nz", "int8[2, 10, 90] in beside 2 nz"])
def test_only_inputs_are_stored_so(declared):
    with pytest.raises(KernelError, match="'nz' is how weights are stored"):
        parse_kernel(f"kernel k {{\n  cores 1 x 1\n  tensor w: {declared}\n}}\n")


def test_another_layout_is_refused():
    with pytest.raises(MsdsimError, match="layout = 'zz'"):
        msdsim.simulate("gemm:m=1,k=64,n=32,layout=zz", "toy", "bf16")


@pytest.mark.parametrize(("base_n", "layout", "measured"), [(256, "nd", 238.8), (256, "nz", 181.4), (320, "nz", 139.6)])
def test_rows_and_fractals_as_published(base_n, layout, measured):
    """hicann/catlass, 11_matmul_optimization: 20 AIC, 24 or 20 tiles of columns.  Row-major with 320 columns, 252.4 us, is a quarter
    too fast: its rows of 640 B cross lines of L2."""
    found = msdsim.simulate(f"gemm:m=20,k=16384,n=6144,layout={layout}", "ascend910b3", "bf16",
                            tiling={"base_m": 32, "base_n": base_n, "l1_k": 256, "l0_k": 32, "k_parts": 1})
    assert found.time_us == pytest.approx(measured, rel=0.15)
