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
from msdsim.ir.reference_walks import WALKS, wrong_text
from msdsim.ir.verify import verify
from msdsim.resources import shipped_names

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


BF16 = FORMATS["bf16"].dtype


def _given(name):
    """Inputs of an example kernel without a reference, and what it must compute of them, in float64."""
    rng = np.random.default_rng(0)
    if name == "copy":
        x = rng.standard_normal((256, 128)).astype(np.float32)
        return {"x": x}, x
    if name == "vector_chain":
        x, gain = rng.standard_normal((200, 128)).astype(np.float16), rng.standard_normal((1, 128)).astype(np.float32)
        return {"x": x, "gain": gain}, np.exp(-np.abs(x.astype(np.float64))) * gain
    q, k, v = (rng.standard_normal((2, rows, 64)).astype(np.float32).astype(BF16) for rows in (16, 256, 256))
    shares = np.exp(q.astype(np.float64) @ k.astype(np.float64).swapaxes(1, 2) / 8)
    return {"q": q, "k": k, "v": v}, shares / shares.sum(-1, keepdims=True) @ v.astype(np.float64)


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_kernels_written_from_the_page(walk):
    file = str(DOCS / "kernels" / f"{walk.name}.kir")
    if walk.reference:
        assert msdsim.simulate(file, "toy", check=True, reference=walk.reference).numerics.bit_exact
    else:
        inputs, expected = _given(walk.name)
        found = msdsim.simulate(file, "toy", check=True, inputs=inputs)
        assert np.abs(found.arrays["y"] - expected).max() <= (0 if walk.name == "copy" else 0.004)
    for chip in shipped_names("hwmodels"):
        assert msdsim.simulate(file, chip, check=True).cycles > 0
    assert walk.name in (DOCS / "kernels" / f"{walk.name}.kir").read_text(encoding="utf-8")


@pytest.mark.parametrize(("walk", "mistake"), [(walk, item) for walk in WALKS for item in walk.mistakes if item.message],
                         ids=lambda item: getattr(item, "name", None))
def test_mistakes_that_only_the_numbers_show(walk, mistake):
    text = wrong_text(walk, mistake).replace("let k = 320", "let k = 310")
    numbers = msdsim.simulate(parse_kernel(text), "toy", check=True, reference=walk.reference.replace("k=320", "k=310")).numerics
    assert f"{walk.name}: {numbers.first_mismatch}" == mistake.message


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
