# ruff: noqa: E501
"""The reference page of the kernel language, written from the definitions: ``python -m msdsim.ir.reference`` prints it.

Every operation has an example, which is verified on every shipped chip: the page names those that take it.  Every mistake of the
page is made, and the message printed is the one that it meets.
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.errors import KernelError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import SPACES, Chip
from msdsim.ir import kernel as language
from msdsim.ir.declarations import notes
from msdsim.ir.kernel import Op, operations
from msdsim.ir.lets import plain
from msdsim.ir.ops import OPS
from msdsim.ir.ops.base import OPTIONAL
from msdsim.ir.parser import parse_kernel
from msdsim.ir.reference_walks import WALKS, wrong_text
from msdsim.ir.timing import Local, Sync, Transfer
from msdsim.ir.verify import verify


@dataclass(frozen=True)
class Entry:
    """What the page says of an operation beyond its definition: an example (declarations, then the operation), what the operands
    must be, and what they may be in."""

    part: str
    buffers: str
    example: str
    operands: str
    formats: str


_SAME = "all [m, n]; a source may be one row or one column of the result, which is then repeated"
_ARITHMETIC = "fp32, fp16 or int32, one format for all"


def _vector(example: str, operands: str = _SAME, formats: str = _ARITHMETIC, buffers: str = "") -> Entry:
    return Entry("aiv", buffers or "a:fp32:16x64 b:fp32:16x64 out:fp32:16x64", example, operands, formats)


ENTRIES: dict[str, Entry] = {
    "copy": Entry("aiv", "a:fp32:16x64", "copy a <- x[:16, :]", "the same rectangle on both sides; in GM one matrix of a tensor",
                  "any, the same on both sides; transpose=1 on the way from L1 to L0B; l2=bypass from or to GM"),
    "fixpipe": Entry("aic", "acc:fp32:16x64:L0C", "fixpipe y <- acc", "L0C to GM (or where the chip's FIX path leads), the same rectangle",
                     "fp32 to fp32, bf16 or fp16, rounded half to even; int32 to int32"),
    "mmad": Entry("aic", "acc:fp32:16x64:L0C a0:bf16:16x32:L0A b0:bf16:32x64:L0B", "mmad acc <- a0, b0 {accumulate=0}",
                  "out [m, n] in L0C, a [m, k] in L0A, b [k, n] in L0B", "a and b of a mode that the chip's Cube has; out of its accumulator"),
    "mmad_mx": Entry("aic", "acc:fp32:16x64:L0C a0:fp8_e4m3fn:16x64:L0A sa:e8m0:16x2:L0A_MX b0:fp8_e4m3fn:64x64:L0B sb:e8m0:2x64:L0B_MX",
                     "mmad_mx acc <- a0, sa, b0, sb", "out [m, n], a [m, k], its scales [m, k/32], b [k, n], its scales [k/32, n]",
                     "a and b fp8_e4m3fn or fp4_e2m1, scales e8m0, out fp32"),
    "block_max": _vector("block_max m <- a", "[m, ceil(n/32)] <- [m, n]", "fp32", "a:fp32:16x64 m:fp32:16x2"),
    "mx_scale": _vector("mx_scale e <- m {rule=alpha, element=fp8_e4m3fn, lowest=0}", "both the same size", "e8m0 <- fp32",
                        "m:fp32:16x2 e:e8m0:16x2"),
    "mx_step": _vector("mx_step e <- e0 {down=5}", "both the same size", "e8m0 <- e8m0", "e0:e8m0:16x2 e:e8m0:16x2"),
    "mx_div": _vector("mx_div out <- a, e", "[m, n] <- [m, n], scales [m, ceil(n/32)]", "fp32 <- fp32, e8m0",
                      "a:fp32:16x64 e:e8m0:16x2 out:fp32:16x64"),
    "mx_mul": _vector("mx_mul out <- a, e", "[m, n] <- [m, n], scales [m, ceil(n/32)]", "fp32 <- fp32, e8m0",
                      "a:fp32:16x64 e:e8m0:16x2 out:fp32:16x64"),
    "decode_e8m0": _vector("decode_e8m0 m <- e", "both the same size", "fp32 <- e8m0", "e:e8m0:16x2 m:fp32:16x2"),
    "power_of_two": _vector("power_of_two out <- a", "both the same size", "fp32", "a:fp32:16x1 out:fp32:16x1"),
    "decode_fp4": _vector("decode_fp4 h <- f", "both the same size", "fp16 <- fp4_e2m1", "f:fp4_e2m1:16x64 h:fp16:16x64"),
    "mask_causal": _vector("mask_causal out <- a {row=0, column=0, period=16, offset=0}", "both the same size", "fp32"),
    "signal": Entry("aiv", "", "signal s on MTE3", "none", "none"),
    "wait": Entry("aiv", "", "wait s on MTE2", "none", "none"),
    "hold": Entry("aiv", "", "hold {cycles=20, pipe=V}", "none", "none"),
    **{kind: _vector(f"{kind} out <- a, b") for kind in ("add", "sub", "mul", "div", "max", "min")},
    **{kind: _vector(f"{kind} out <- a") for kind in ("abs", "exp")},
    **{kind: _vector(f"{kind} out <- a {{scalar=2.0}}") for kind in ("adds", "muls", "maxs", "mins")},
    "dup": _vector("dup out {scalar=0.0}", "the result alone", "any"),
    "cast": _vector("cast h <- a {round=rint}", "both the same size",
                    "int8, int4 <-> fp16; fp16, bf16, int32 <-> fp32; fp32 <- fp32 rounds to a whole number; more where the chip has it",
                    "a:fp32:16x64 h:fp16:16x64"),
    "fold_max": _vector("fold_max lanes <- wide {accumulate=0}", "[m, 64] <- [m, n]", "fp32", "wide:fp32:16x128 lanes:fp32:16x64"),
    "fold_add": _vector("fold_add lanes <- wide {accumulate=0}", "[m, 64] <- [m, n]", "fp32", "wide:fp32:16x128 lanes:fp32:16x64"),
    "reduce_max": _vector("reduce_max one <- a", "[m, 1] <- [m, 64]", "fp32", "a:fp32:16x64 one:fp32:16x1"),
    "reduce_add": _vector("reduce_add one <- a", "[m, 1] <- [m, 64]", "fp32", "a:fp32:16x64 one:fp32:16x1"),
}

#: Mistakes: what is wrong, and the statements of an AIV part (or a whole text) that make it.
MISTAKES = [
    ("A buffer used after its block", "for i in 0 .. 2 {\nbuffer b: UB fp32[16, 64] ring 1\ncopy b <- x\n}\ncopy y <- b"),
    ("A range beyond the end", "buffer b: UB fp32[16, 64] ring 1\nfor i in 0 .. 4 {\ncopy b[:5, :] <- x[i * 5 +: 5, :]\ncopy y[:5, :] <- b[:5, :]\n}"),
    ("A read of what nothing has written", "buffer b: UB fp32[16, 64] ring 1\ncopy y <- b"),
    ("Arithmetic in a storage format", "buffer b: UB bf16[16, 64] ring 1\nbuffer c: UB bf16[16, 64] ring 1\ndup b {scalar=1.0}\n"
     "add c <- b, b\ncopy z <- c"),
    ("A signal left over", "buffer b: UB fp32[16, 64] ring 1\ncopy b <- x\ncopy y <- b\nsignal s on MTE3"),
    ("Two pipes and no order", "buffer b: UB fp32[16, 64] ring 1\ncopy b <- x\ncopy w <- b\nbuffer c: UB fp32[16, 64] ring 1\ncopy c <- w\ncopy y <- c"),
    ("A divisor that may be 0", "buffer b: UB fp32[16, 64] ring 1\ncopy b <- x\nfor i in 0 .. 2 {\ncopy y[16 // i - 8 +: 1, :] <- b[0, :]\n}"),
    ("A word misspelt", "buffer b: UB fp32[16, 64] ring 1\ncpy b <- x"),
    ("A missing attribute", "buffer b: UB fp32[16, 64] ring 1\ncopy b <- x\nmuls b <- b\ncopy y <- b"),
]


def example_kernel(kind: str) -> str:
    """A kernel that fills what the example of an operation reads, and has the operation as its last statement."""
    entry = ENTRIES[kind]
    tensors, lines = [], []
    for number, item in enumerate(entry.buffers.split()):
        name, fmt, shape, *space = item.split(":")
        rows, cols = shape.split("x")
        lines.append(f"    buffer {name}: {space[0] if space else 'UB'} {fmt}[{rows}, {cols}] ring 1")
        if f"<- {name}" not in entry.example and f", {name}" not in entry.example:
            continue
        tensors.append(f"  tensor t{number}: {fmt}[{rows}, {cols}] in")
        place = space[0] if space else "UB"
        if place in ("L0A", "L0B", "L0A_MX", "L0B_MX"):
            lines.append(f"    buffer {name}1: L1 {fmt}[{rows}, {cols}] ring 1\n    copy {name}1 <- t{number}\n    copy {name} <- {name}1")
        elif place == "L0C":
            lines.append("    buffer p1: L1 bf16[16, 64] ring 1\n    copy p1 <- p\n    buffer pa: L0A bf16[16, 64] ring 1\n"
                         "    buffer pb: L0B bf16[64, 64] ring 1\n    buffer q1: L1 bf16[64, 64] ring 1\n    copy q1 <- q\n"
                         f"    copy pa <- p1\n    copy pb <- q1\n    mmad {name} <- pa, pb")
        else:
            lines.append(f"    copy {name} <- t{number}")
    other = {"signal": ["    wait s on MTE2"], "wait": []}.get(kind, [])
    before = ["    signal s on MTE3"] if kind == "wait" else []
    out = "  tensor y: fp32[16, 64] out" if kind == "fixpipe" else ""
    head = ["kernel example {", "  cores 1 x 1", "  tensor x: fp32[16, 64] in", "  tensor p: bf16[16, 64] in", "  tensor q: bf16[64, 64] in",
            *tensors, *([out] if out else []), "  signal s: barrier", f"  {entry.part} {{"]
    body = [*lines, *before, f"    {entry.example}", *other]
    return "\n".join([*head, *body, "  }", "}", ""])


def _takes(kind: str, chip: Chip) -> Op | None:
    """The example's operation, where a chip takes it."""
    try:
        kernel = parse_kernel(example_kernel(kind))
        verify(kernel, chip)
    except KernelError:
        return None
    return next(op for op in reversed(list(operations(plain(kernel).part(ENTRIES[kind].part)))) if op.kind == kind)


def _chips() -> dict[str, Chip]:
    from msdsim.hardware import load_hw
    from msdsim.resources import shipped_names

    return {name: load_hw(name).chip for name in shipped_names("hwmodels")}


def operations_page() -> str:
    """Every operation: example, operands, formats, attributes, pipe, cost, meaning, and the chips that have it."""
    chips, lines = _chips(), list[str]()
    for kind, definition in OPS.items():
        entry = ENTRIES[kind]
        taken = {name: op for name, chip in chips.items() if (op := _takes(kind, chip)) is not None}
        attrs = ", ".join(f"{key} ({form}{', optional' if key in OPTIONAL else ''})" for key, form in definition.attrs.items())
        lines += [f"### `{kind}`", "", f"{_sentence(definition.description)}", "", "```text",
                  entry.example, "```", "", f"- operands: {entry.operands}", f"- formats: {entry.formats}",
                  f"- attributes: {attrs or 'none'}", f"- {_cost(kind, taken, chips)}",
                  f"- chips: {'all' if len(taken) == len(chips) else ', '.join(taken) or 'none of those shipped'}", ""]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[0].upper() if text[1].isalpha() else text[0]}{text[1:]}."


def _cost(kind: str, taken: dict[str, Op], chips: dict[str, Chip]) -> str:
    for name, op in taken.items():
        chip, definition = chips[name], OPS[kind]
        timing = definition.timing(op, chip, dict.fromkeys(("x", "y", "p", "q"), 0))
        pipe = definition.pipe(op, chip)
        if kind in ("copy", "fixpipe"):
            return f"pipe: that of the path (in the example {pipe}); cost: bytes over the path's rate, rows and requests; L2 and HBM to GM"
        if isinstance(timing, Sync):
            return "pipe: the one that is named; cost: none of its own, what it waits for"
        assert not isinstance(timing, Transfer)
        if kind == "hold":
            return "pipe: the one that is named; cost: the cycles given"
        assert isinstance(timing, Local)
        cost = timing.cost
        return (f"pipe: {pipe}; cost of the example on {name}: latency {cost.latency}, then {float(cost.cycles_per_unit):.3g} cycles "
                f"for each {' x '.join(map(str, cost.grains))} of its sizes, at least {cost.minimum}")
    return "pipe and cost: on no shipped chip"


def _mistake(body: str) -> str:
    text = ("kernel k {\n  cores 1 x 1\n  tensor x: fp32[16, 64] in\n  tensor y: fp32[16, 64] out\n  tensor z: bf16[16, 64] workspace\n"
            "  tensor w: fp32[16, 64] workspace\n  signal s: barrier\n  aiv {\n" + body + "\n  }\n}\n")
    return _message(text)


def _message(text: str) -> str:
    """What the verifier and the order check say of a text, or the note that it runs with."""
    from msdsim.hardware import load_hw
    from msdsim.ir.lower import lower
    from msdsim.ir.order import check_order

    chip = load_hw("toy").chip
    try:
        kernel = parse_kernel(text)
        verify(kernel, chip)
        check_order(lower(kernel, chip))
    except KernelError as err:
        return str(err)
    [note] = notes(plain(kernel))
    return f"note: {note}"


def _walks() -> str:
    """The kernels written from the page, and what was met on the way."""
    lines = []
    for walk in WALKS:
        lines += [f"**[{walk.name}.kir](kernels/{walk.name}.kir)**: {walk.what}." + ("" if walk.mistakes else " No mistake was made on the way."), ""]
        for mistake in walk.mistakes:
            lines += [f"- {mistake.story}", "", "  ```text", *(f"  {line.strip()}" for line in mistake.wrong.splitlines() if line.strip(" {}")),
                      "  ```", ""] if mistake.wrong.strip(" {}\n") else [f"- {mistake.story}", ""]
            lines += [f"  > {mistake.message or _message(wrong_text(walk, mistake))}", ""]
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    grammar = (language.__doc__ or "").split(".. code-block:: text\n\n")[1].split("\n\n'#'")[0]
    grammar = "\n".join(line[4:] for line in grammar.splitlines())
    formats = "\n".join(f"| `{name}` | {fmt.bits} | {fmt.kind} |" for name, fmt in FORMATS.items())
    mistakes = "\n".join(f"**{title}**\n\n```text\n{body}\n```\n\n> {_mistake(body)}\n" for title, body in MISTAKES)
    return _PAGE.format(grammar=grammar, formats=formats, spaces=", ".join(f"`{space}`" for space in SPACES),
                        operations=operations_page(), mistakes=mistakes, walks=_walks())


_PAGE = """\
# The kernel language

A kernel is a `.kir` file: what one AIC and its AIVs do, as loops over copies and operations on tiles. `msdsim run FILE.kir` times it,
`msdsim ir FILE.kir --verify` checks it, `msdsim ir PROBLEM --dataflow NAME` prints one to begin with. [writing-a-kernel.md](writing-a-kernel.md)
builds one in Python. This page is generated (`python -m msdsim.ir.reference`); its examples and messages are those of the program.

## Grammar

```text
{grammar}
```

`#` begins a comment. Expressions are made of numbers, loop variables, `core` (the group), `sub` (the AIV in its group) and names, with
`+ - * // %`, `min(a, b)`, `max(a, b)` and comparisons (1 where they hold, else 0). `//` rounds down, `%` has the divisor's sign, and a
divisor must be certain to be above 0. Values stay below 2^60; expressions and blocks may be nested 100 and 64 deep.

- `let NAME = expr` names an expression until its block ends. In the kernel itself a name is a number, and sizes may use it:
  `let rows = 4 * 16`, `tensor x: fp32[rows, 64] in`.
- `param NAME = N in [N, ...]` is such a name whose value may be chosen among these: `--tiling NAME=N` sets it, `msdsim tune FILE.kir`
  searches them (with `--reference DATAFLOW:PROBLEM` a candidate whose numbers are wrong is refused), a sweep takes `tiling.NAME`.
- `x[i, :]` is row i, `x[:n, :]` the first n rows, `x[a +: n, :]` n rows from a, `x` alone all of it.
- A range whose size comes to 0 or less is empty, and the operation on it does nothing.
- `for v in a .. b step s` runs over a, a + s, ... below b; `when c` runs its block where c is not 0.

## Formats and spaces

| format | bits | kind |
|---|---|---|
{formats}

Spaces: {spaces}. Tensors lie in GM; a workspace may also lie in the L1 of each AIC or the UB of each AIV (`workspace L1`, its first
size the number of groups; `workspace UB`, its first two the groups and the AIVs). Buffers lie on chip: UB in the part `aiv`, all others in `aic`.

## Buffers, rings and order

A buffer belongs to the block that declares it: each time control enters the block, it gets the next of its `ring` slots, and the slot is
free again when the last reader of that iteration has finished. Waits between the pipes of a core (MTE2, MTE1, M, FIX; MTE2, V, MTE3) follow
from that; none is written. With `ring 2` the load of the next iteration overlaps the work of this one.

Products and a fixpipe with `unit_flag=1` share their accumulator row of fractals by row of fractals, as the unit flags of the hardware let
them: the fixpipe starts while the last product is made, and the first product of the next sum while the fixpipe is under way, each so late
that it never catches up with the other. Either all operations on an accumulator have it or none; one fixpipe drains it, in the block
that declares it.

On a chip that has registers (the 950) `vf {{ ... }}` makes one vector function of the operations of Vector in it, which may be nothing else
(buffers are declared before it): operations over the same sizes share a loop over registers, so that what passes between them is
neither stored nor loaded again; other pipes wait for all of it. Numbers are the same with and without.

Between cores order is written: `signal s on PIPE` raises s when that pipe has finished all before it, `wait s on PIPE` holds that pipe until
s has been raised once more (by both AIVs, if they are the senders). `aic_to_aiv` and `aiv_to_aic` join the cores of a group, `barrier` joins
all that raise it. Each must be awaited as often as it is raised. What cores share in a ring of n slots begins with n raisings of a
signal that says "free", and ends with n waits for it. A core's text must be able to run in its order: what a wait waits for is raised by
what other cores do before their own waits, or stands before the wait.

Two accesses of one place in GM (or in a shared workspace), at least one a write, need an order by one pipe, by buffers, or by signals. `ir
--verify` and `run FILE.kir --check` refuse a kernel without it, whatever the times are.

The verifier's time is bounded by the text: what ranges cannot tell is tried for at most 500,000 values of loop variables, signals in loops
that differ are counted over at most 1,000,000 combinations, and the order is followed over at most 30,000 accesses and signals.

## Operations

{operations}
## Mistakes and their messages

The statements stand in the part `aiv` of a kernel with `x` (in), `y` (out), workspaces `w` and `z`, and a barrier `s`.

{mistakes}
## Five kernels written from this page

They run on every shipped chip (`msdsim run docs/kernels/gemm.kir --hw toy --check --reference bf16:gemm:m=100,k=320,n=256`). Each was written from
this page alone; below it are the mistakes made on the way, with the messages met on `toy`, the chip with the smallest buffers.

{walks}"""


if __name__ == "__main__":
    print(page(), end="")
