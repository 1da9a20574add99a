"""The pages on kernels: generated ones are up to date, printed programs run, and messages are those that are met."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import msdsim
from msdsim.errors import KernelError, MsdsimError
from msdsim.formats.number import FORMATS
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder, print_kernel
from msdsim.ir.lower import lower
from msdsim.ir.ops import OPS
from msdsim.ir.order import check_order
from msdsim.ir.parser import parse_kernel
from msdsim.ir.reference import ENTRIES, example_kernel, page
from msdsim.ir.verify import verify

DOCS = Path(__file__).parents[2] / "docs"
TOY = load_hw("toy").chip
WRITING = (DOCS / "writing-a-kernel.md").read_text(encoding="utf-8")
PROGRAM = re.search(r"```python\n(.*?)```", WRITING, re.DOTALL)[1]


def built(program: str = PROGRAM):
    names: dict = {}
    exec(program, names)
    return names["kernel"]


def test_the_page_of_the_language_is_up_to_date():
    """``python -m msdsim.ir.reference > docs/kernel-language.md`` writes it."""
    assert (DOCS / "kernel-language.md").read_text(encoding="utf-8") == page()


def test_every_operation_has_an_entry():
    assert set(ENTRIES) == set(OPS)


@pytest.mark.parametrize("kind", list(OPS))
def test_every_example_is_taken_by_a_chip(kind):
    kernel = parse_kernel(example_kernel(kind))
    taken = []
    for name in ("ascend910b1", "ascend950pr"):
        try:
            verify(kernel, load_hw(name).chip)
            taken.append(name)
        except KernelError:
            continue
    assert taken


def test_the_printed_program_is_right_and_short():
    kernel = built()
    assert len(PROGRAM.splitlines()) <= 80
    verify(kernel, TOY)
    assert check_order(lower(kernel, TOY)).complete
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 1024)).astype(np.float32).astype(FORMATS["bf16"].dtype)
    w, scale = rng.integers(-127, 128, (1024, 1024), np.int8), rng.uniform(0.5, 2, (1, 1024)).astype(np.float32)
    y = msdsim.simulate(kernel, "toy", inputs={"x": x, "w": w, "scale": scale}).arrays["y"]
    expected = x.astype(np.float64) @ (w * scale.astype(np.float64))
    assert np.abs(y - expected).max() < 0.01 * np.abs(expected).max()
    assert parse_kernel(print_kernel(kernel)) == kernel


def test_printed_messages_are_those_that_are_met():
    messages = re.findall(r"```text\n(.*?)\n```", WRITING, re.DOTALL)
    race = built(PROGRAM.replace('raise_signal(full, "MTE3")', 'raise_signal(full, "MTE2")'))
    with pytest.raises(KernelError) as caught:
        check_order(lower(race, TOY))
    assert str(caught.value) == messages[0]
    left = built(re.sub(r"    with kb.loop\(\"i\", 0, DEPTH\): +# the last.*?\n.*?\n", "", PROGRAM))
    with pytest.raises(KernelError) as caught:
        verify(left, TOY)
    assert str(caught.value) == messages[1]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda kb, x, t: kb.copy(t, 3), "'copy' got 3 as an operand; give a tensor, a buffer or a slice of one"),
        (lambda kb, x, t: kb.op("cpy", t, x), "unknown operation 'cpy'; did you mean 'copy'"),
        (lambda kb, x, t: kb.copy(t, x[0]), "'x' has 2 dimensions, 1 ranges are given"),
        (lambda kb, x, t: kb.copy(t, x["a", :]), "'a' is no index expression"),
        (lambda kb, x, t: kb.copy(t, x[0:8:2, :]), "a range has no step, and 2 is given"),
        (lambda kb, x, t: kb.buffer("u", "UB", "fp32", (4,)), r"buffer 'u' has shape \[4\]; a buffer has rows and columns"),
        (lambda kb, x, t: kb.when(3 > 2).__enter__(), "'when' got True, which is decided while the kernel is built"),
        (lambda kb, x, t: kb.loop("i", 0, 1.5).__enter__(), "1.5 is no index expression"),
        (lambda kb, x, t: kb.part("cube").__enter__(), "unknown part 'cube'"),
    ],
)
def test_builder_mistakes_end_in_sentences(mistake, message):
    kb = KernelBuilder("k", 1, 1)
    x = kb.tensor("x", "fp32", (8, 64), "in")
    with kb.part("aiv"):
        t = kb.buffer("t", "UB", "fp32", (8, 64))
        with pytest.raises(MsdsimError, match=message):
            mistake(kb, x, t)


def test_outside_of_a_part():
    kb = KernelBuilder("k", 1, 1)
    x = kb.tensor("x", "fp32", (8, 64), "in")
    for mistake in (lambda: kb.copy(x, x), lambda: kb.buffer("t", "UB", "fp32", (8, 64)), lambda: kb.let("n", 3),
                    lambda: kb.loop("i", 0, 2).__enter__()):
        with pytest.raises(KernelError, match=r"outside of a part; put it inside 'with kb.part\(\"aic\"\)'"):
            mistake()
