# ruff: noqa: E501
"""Five kernels of docs/kernels that were written from the reference page alone: the mistakes made on the way, each as the edit that
makes it again, and the messages met."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Where the kernels lie in a source tree; an installed package does not have them.
FOLDER = Path(__file__).parents[2] / "docs" / "kernels"


@dataclass(frozen=True)
class Mistake:
    """What was written in the place of ``right``, and what came of it; ``message`` is given where only executing the numbers finds
    it, with the edits of the problem that show it."""

    story: str
    right: str
    wrong: str
    message: str = ""


@dataclass(frozen=True)
class Walk:
    """One kernel: what it computes, the reference that holds it (none: compared with numpy), and the mistakes."""

    name: str
    what: str
    reference: str = ""
    mistakes: tuple[Mistake, ...] = ()


_RAGGED = """\
        copy a0[:rows, :depth] <- a1[:rows, :depth]
        buffer b0: L0B bf16[bk, bn] ring 2
        copy b0[:depth, :] <- b1[:depth, :]
        mmad acc[:rows, :] <- a0[:rows, :depth], b0[:depth, :]"""
_WHOLE = """\
        copy a0 <- a1
        buffer b0: L0B bf16[bk, bn] ring 2
        copy b0 <- b1
        mmad acc <- a0, b0"""

WALKS = (
    Walk("copy", "`y = x`, blocks of rows over four AIVs, double buffered"),
    Walk("vector_chain", "`y = exp(-|x|) gain`, load, five operations and store overlapped, a ragged last block"),
    Walk("gemm", "`y = x w`, ragged rows, three params", "bf16:gemm:m=100,k=320,n=256", (
        Mistake("Tiles of 64 x 64, two of them in the ring of L0B, on a chip with 8 KiB of it:", "param bk = 32 in [16, 32, 64]",
                "param bk = 64 in [16, 32, 64]"),
        Mistake("`accumulate` left out, which runs, with a note (and `--check --reference` says `25579 of 25600 elements differ`):",
                " {accumulate=s}", ""),
        Mistake("Whole tiles moved to L0 and multiplied, though L1 holds a part of them at a ragged end of K (`k = 310`). What nobody has "
                "written is NaN in the numbers, and `--check --reference` finds it:", _RAGGED, _WHOLE,
                "gemm: y: 25600 of 25600 elements differ; first at [0, 0]: expected -2.0625 (-33 * 2^-4, 0xc004), got nan (0x7fc0)"),
    )),
    Walk("dequant_gemm", "`y = x (w scale)`, int8 weights made bf16 by the AIVs and handed over through a ring in GM",
         "dequant-int8:gemm:m=16,k=256,n=256", (
        Mistake("int8 cast to fp32 in one step:", "        cast c <- q\n        cast f <- c", "        cast f <- q"),
        Mistake("The ring's slots not taken back at the end:", "    for i in 0 .. slots {\n      wait free on MTE3\n    }\n  }\n}\n", "  }\n}\n"),
    )),
    Walk("attention_step", "`y = softmax(q k^T / 8) v` of one decoding step, a KV head a core group, scores and shares through GM", "", (
        Mistake("Tiles of K and V of 32 rows: both products' buffers lie side by side in L0B, though the second begins when the first has "
                "ended:", "buffer k0: L0B bf16[16, 64] ring 2", "buffer k0: L0B bf16[32, 64] ring 2"),
        Mistake("Rows reduced as they are:", "fold_max lanes <- a\n    reduce_max top <- lanes", "reduce_max top <- a"),
    )),
)


def kernel_text(name: str) -> str:
    """The text of one of them."""
    return (FOLDER / f"{name}.kir").read_text(encoding="utf-8")


def wrong_text(walk: Walk, mistake: Mistake) -> str:
    """The text with a mistake made again."""
    text = kernel_text(walk.name)
    assert mistake.right in text, (walk.name, mistake.right)
    return text.replace(mistake.right, mistake.wrong)
