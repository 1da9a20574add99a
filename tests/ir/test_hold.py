"""``hold``: time a pipe loses while the scalar unit works out what it shall do next."""

from __future__ import annotations

import pytest

from msdsim.engine import ENGINES, EngineOptions, load_engine
from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel
from msdsim.ir.verify import verify

TOY = load_hw("toy").chip


def held_copies(**attrs: object) -> Kernel:
    """Two rows to UB, with the second copy held back."""
    kb = KernelBuilder("held", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "fp32", (2, 128), "in")
    with kb.part("aiv"):
        tile = kb.buffer("tile", "UB", "fp32", (2, 128))
        kb.copy(tile[0, :], x[0, :])
        kb.op("hold", **attrs)
        kb.copy(tile[1, :], x[1, :])
    return kb.build()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_next_operation_of_the_pipe_comes_that_much_later(engine):
    def ends(kernel: Kernel) -> list[int]:
        record = load_engine(engine).run(lower(kernel, TOY), EngineOptions(record_timeline=True))
        assert record.timeline is not None
        return record.timeline["start"].tolist()

    first, hold, second = ends(held_copies(cycles=500, pipe="MTE2"))
    # The port is free for the next at the end of the first transfer's 10 cycles of set-up and 8 of data.
    assert (hold - first, second - hold) == (18, 500)


@pytest.mark.parametrize(("attrs", "message"), [
    ({"cycles": 0, "pipe": "V"}, "cycles=0 is no time"),
    ({"cycles": 5}, "'hold' needs pipe="),
    ({"cycles": 5, "pipe": "FIX"}, "pipe FIX is not on the AIV"),
])
def test_refusals(attrs, message):
    with pytest.raises(KernelError, match=message):
        verify(held_copies(**attrs), TOY)


def test_text_form():
    kernel = held_copies(cycles=500, pipe="MTE2")
    assert "hold {cycles=500, pipe=MTE2}" in print_kernel(kernel)
    assert parse_kernel(print_kernel(kernel)) == kernel
