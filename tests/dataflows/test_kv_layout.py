"""How the KV cache lies in GM: the same numbers, other addresses, and what short rows far apart cost."""

from __future__ import annotations

import numpy as np
import pytest

import msdsim
from msdsim.errors import InputError
from msdsim.ir.builder import KernelBuilder, at
from msdsim.ir.lower import lower
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel
from msdsim.ir.timing import Transfer

PROBLEM = "attention:batch=2,heads=4,kv_heads=2,head_dim=32,q=3,kv=150"


@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "msd-int8"])
def test_numbers_do_not_depend_on_it(dataflow):
    found = {layout: msdsim.simulate(f"{PROBLEM},kv_layout={layout}", "ascend910b1", dataflow, check=True, keep=("y",))
             for layout in ("bsnd", "bnsd")}
    assert all(run.numerics.good for run in found.values())
    assert np.array_equal(found["bsnd"].arrays["y"], found["bnsd"].arrays["y"])
    assert found["bsnd"].traffic == pytest.approx(found["bnsd"].traffic, rel=0.2)


@pytest.mark.parametrize("memory", ["bandwidth", "banked"])
@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "msd-int4"])
def test_engines_agree(dataflow, memory):
    runs = [msdsim.simulate(PROBLEM, "ascend910b1", dataflow, engine=engine, memory=memory) for engine in ("fast", "reference")]
    assert runs[0].cycles == runs[1].cycles
    assert runs[0].traffic == runs[1].traffic


def cache_kernel():
    kb = KernelBuilder("cache", 1, 1)
    k = kb.tensor("k", "int8", (6, 10, 32), "in", beside=3)
    with kb.part("aiv"), kb.loop("h", 0, 6) as h:
        kb.copy(kb.buffer("tile", "UB", "int8", (4, 32))[:, :], k[h, at(5, 4), :])
    return kb.build()


def test_addresses_by_hand():
    """Head h of token t of a sequence is row (h // 3) * 30 + t * 3 + h % 3 of 32 bytes."""
    kernel = parse_kernel(print_kernel(cache_kernel()))
    assert "[6, 10, 32] in beside 3" in print_kernel(kernel)
    instr = next(i for i in lower(kernel, msdsim.load_hw("toy").chip).aiv.instructions() if isinstance(i.timing, Transfer))
    assert instr.timing.stride_bytes == 3 * 32
    from msdsim.ir.expr import evaluate

    assert [evaluate(instr.timing.offset, {"h": h}) // 32 for h in range(6)] == [15, 16, 17, 45, 46, 47]


def test_heads_side_by_side_are_slower_on_the_a2():
    """Rows of 256 B keep half a line each in flight: three paged kernels reach 0.91 to 1.08 TB/s of a 910B2's 1.6."""
    problem = "attention:batch=1,heads=32,kv_heads=8,head_dim=128,q=1,kv=32768"
    # Every head in parts enough for all cores, and no more.
    paged, plain = (msdsim.simulate(f"{problem},kv_layout={layout}", "ascend910b2", "bf16", tiling={"l2_ahead": 0, "kv_splits": 9})
                    for layout in ("bsnd", "bnsd"))
    rate = 2 * 8 * 32768 * 256 / paged.time_us / 1e6
    assert 0.85 < rate < 1.15
    assert paged.cycles > 1.2 * plain.cycles


def test_no_other_layout():
    with pytest.raises(InputError, match="kv_layout"):
        msdsim.simulate(PROBLEM + ",kv_layout=nz")


@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "dequant-int4", "msd-int8"])
@pytest.mark.parametrize("page", [12, 64, 512])
def test_pages_change_no_number(dataflow, page):
    """Pages that do not divide a tile, some that do, and one that holds everything."""
    whole = msdsim.simulate(PROBLEM, "toy", dataflow, check=True, keep=("y",))
    paged = msdsim.simulate(f"{PROBLEM},page={page}", "toy", dataflow, check=True, keep=("y",), tiling=whole.tiling)
    assert paged.numerics.good
    assert np.array_equal(paged.arrays["y"], whole.arrays["y"])
    assert paged.traffic == whole.traffic
    assert paged.record.instructions >= whole.record.instructions + (page == 12)
    assert 0.98 * whole.cycles <= paged.cycles <= 1.5 * whole.cycles


@pytest.mark.parametrize("memory", ["bandwidth", "banked"])
def test_engines_agree_on_pages(memory):
    problem = f"{PROBLEM},page=48"
    runs = [msdsim.simulate(problem, "ascend910b1", "dequant-int8", engine=name, memory=memory) for name in ("fast", "reference")]
    assert runs[0].cycles == runs[1].cycles


def test_a_copy_for_each_page():
    """Nine tokens in pages of three: K and V of the one tile come in three copies each, where there was one."""
    problem = "attention:batch=1,heads=1,kv_heads=1,head_dim=32,q=1,kv=9"
    plain = msdsim.simulate(problem, "toy", "bf16", tiling={"l2_ahead": 0})
    paged = msdsim.simulate(f"{problem},page=3", "toy", "bf16", tiling=plain.tiling)
    assert paged.record.instructions == plain.record.instructions + 2 * (3 - 1)
