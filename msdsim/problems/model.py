"""The problems: a matmul, a grouped matmul or an attention, as frozen data that checks itself."""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from msdsim.errors import ProblemError

#: Largest size along one axis: a row index must fit the 32-bit registers of the machines described here.
MAX_SIZE = 2**31 - 1
#: Between the rows of one group and the next in the inline form: no comma, and nothing that a shell reads.
ROWS_SEPARATOR = "+"
_DIGITS = re.compile(r"[0-9]{1,99}")


def _size(value: Any) -> int:
    whole = isinstance(value, numbers.Integral) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool):
        raise PydanticCustomError("rule", "is not a whole number; give one of at least 1")
    size = int(value)
    if size < 1:
        raise PydanticCustomError("rule", "is below 1; give a whole number of at least 1")
    if size > MAX_SIZE:
        raise PydanticCustomError("rule", "is above {limit}; give a smaller one", {"limit": MAX_SIZE})
    return size


def _flag(value: Any) -> bool:
    if isinstance(value, numbers.Integral) and value in (0, 1):
        return bool(value)
    raise PydanticCustomError("rule", "is not a switch; give 1 or 0")


def _rows(value: Any) -> tuple[int, ...]:
    """Rows of every group: a list of whole numbers, or text such as ``5+0+33+16``."""
    if isinstance(value, str):
        parts: list[Any] = [int(part) if _DIGITS.fullmatch(part) else part for part in value.split(ROWS_SEPARATOR)]
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        parts = [value]
    elif isinstance(value, Iterable) and not isinstance(value, bytes | dict):
        parts = list(value)
    else:
        parts = [value]
    found = []
    for number, part in enumerate(parts, start=1):
        whole = isinstance(part, numbers.Integral) or (isinstance(part, float) and part.is_integer())
        if not whole or isinstance(part, bool) or not 0 <= part <= MAX_SIZE:
            raise PydanticCustomError(
                "rule", "has {part} for group {number}, which is no whole number from 0 to {limit}; give one for each group, "
                "such as 5+0+33+16", {"part": repr(part), "number": number, "limit": MAX_SIZE})
        found.append(int(part))
    if not 1 <= sum(found) <= MAX_SIZE:
        raise PydanticCustomError(
            "rule", "has {total} rows in all; give from 1 to {limit}", {"total": sum(found), "limit": MAX_SIZE})
    return tuple(found)


Size = Annotated[int, BeforeValidator(_size)]
Rows = Annotated[tuple[int, ...], BeforeValidator(_rows)]
Flag = Annotated[bool, BeforeValidator(_flag)]
#: Formats in which activations are given, and in which results are written.
Activations = Literal["bf16", "int8", "mxfp8", "mxfp4"]
Output = Literal["bf16", "fp32"]
#: How weights lie in GM: row by row, or in the Cube's fractals (16 rows of 32 B, a column of them after the other).
Layout = Literal["nd", "nz"]


class Shape(BaseModel):
    """Common ground of the problems.  Wrong values raise :class:`ProblemError`, one sentence that lists the keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            raise ProblemError(f"{self.kind_name()}: {_explain(type(self), err)} ({keys_text(type(self))})") from None

    @classmethod
    def kind_name(cls) -> str:
        """The name in front of the inline form, for example ``gemm``."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def keys_text(cls) -> str:
        """``keys: m, k, n; optional: group, offset, ...``: the ending of every error about a problem."""
        needed = [key for key in keys(cls) if cls.model_fields[key].is_required()]
        optional = [key for key in keys(cls) if key not in needed]
        return f"keys: {', '.join(needed)}; optional: {', '.join(optional)}"

    def to_json(self) -> dict[str, Any]:
        """The problem as the JSON of a run has it: the kind, the sizes, and the options not at their default."""
        values = {key: getattr(self, key) for key in self._set_keys()}
        return {"kind": self.kind, **{key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}}

    def _set_keys(self) -> list[str]:
        fields = type(self).model_fields
        return [k for k in keys(type(self)) if fields[k].is_required() or getattr(self, k) != fields[k].default]

    def __str__(self) -> str:
        values = {key: getattr(self, key) for key in self._set_keys()}
        return f"{self.kind}:" + ",".join(f"{key}={_inline(value)}" for key, value in values.items())


def _inline(value: Any) -> str:
    if isinstance(value, tuple):
        return ROWS_SEPARATOR.join(map(str, value))
    return str(int(value) if isinstance(value, bool) else value)


class Gemm(Shape):
    """y [m, n] = x [m, k] @ w [k, n], with w quantized.

    ``group`` is the weight group size along k (None: one scale per channel; a last group may be shorter), ``offset``
    gives the weights an offset beside the scale, ``trans_b`` stores w as [n, k].  ``x`` is what the activations come as: BF16,
    or what somebody quantized before, INT8 with one scale per row, MXFP8 or MXFP4 with one for 32 along k; ``out`` is the
    format of y.  ``layout`` is how w lies in GM: row by row, as checkpoints have it (``nd``), or in fractals of 16 rows of 32
    bytes, one column of them after the other (``nz``); arrays have their axes in the order above in either case.
    """

    kind: Literal["gemm"] = "gemm"
    m: Size
    k: Size
    n: Size
    group: Size | None = None
    offset: Flag = False
    trans_b: Flag = False
    x: Activations = "bf16"
    out: Output = "bf16"
    layout: Layout = "nd"


class GroupedGemm(Shape):
    """``groups`` independent matmuls of ``m`` rows, each with its own weights: the experts of a mixture of experts.

    ``rows`` instead of ``m`` gives every group its own number of rows, possibly 0; x [sum of rows, k] and y [sum of rows, n]
    then hold the rows of one group after those of the other, ``groups`` is the length of ``rows``, and ``m`` the rows of the
    largest group.  The other keys are those of :class:`Gemm`, for every group.
    """

    kind: Literal["grouped_gemm"] = "grouped_gemm"
    groups: Size
    m: Size
    rows: Rows | None = None
    k: Size
    n: Size
    group: Size | None = None
    offset: Flag = False
    trans_b: Flag = False
    x: Activations = "bf16"
    out: Output = "bf16"
    layout: Layout = "nd"

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """With ``rows`` the other two follow from it."""
        if not isinstance(values, dict) or values.get("rows") is None:
            return values
        rows = _rows_of(values["rows"])
        if rows is None:
            # Let the field say what is wrong with it.
            return {"groups": 1, "m": 1} | values
        groups, m = values.get("groups", len(rows)), values.get("m", max(rows))
        if m != max(rows):
            raise PydanticCustomError(
                "rule", "m = {m} does not agree with rows, whose largest is {largest}; leave out m, or give every group the "
                "same rows by groups and m", {"m": repr(m), "largest": max(rows)})
        if groups != len(rows):
            raise PydanticCustomError(
                "rule", "groups = {groups} does not agree with rows, which has {count} numbers; leave out groups or give one "
                "number for each group", {"groups": repr(groups), "count": len(rows)})
        return values | {"groups": len(rows), "m": max(rows), "rows": rows}

    @classmethod
    def keys_text(cls) -> str:
        return "keys: groups and m, or rows; k, n; optional: group, offset, trans_b, x, out, layout"

    def _set_keys(self) -> list[str]:
        return [key for key in super()._set_keys() if self.rows is None or key != "m"]

    @property
    def total_rows(self) -> int:
        """Rows of all groups together."""
        return self.groups * self.m if self.rows is None else sum(self.rows)

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.rows is None else text.replace(f"groups={self.groups},", "", 1)


def _rows_of(value: Any) -> tuple[int, ...] | None:
    try:
        return _rows(value)
    except PydanticCustomError:
        return None


class Attention(Shape):
    """softmax(Q K^T / sqrt(scale_dim)) V with a quantized KV cache.

    Q is [batch, heads, q, head_dim]; K is [batch, kv_heads, kv, head_dim], V [batch, kv_heads, kv, v_dim], and so is the
    output [batch, heads, q, v_dim].  ``scales`` says whether K and V have one scale per channel or per token (kv).
    ``causal`` aligns the last query row with the last KV row.  ``shared_kv`` stores one cache: V is the first v_dim channels of
    K, with K's scales.  ``v_dim`` and ``scale_dim`` are head_dim where they are left out.  ``kv_layout`` is how the cache lies
    in GM: ``bsnd``, all heads of a token side by side as in the pages of serving stacks, or ``bnsd``, all tokens of a head;
    arrays have their axes in the order above in either case.  With ``page`` the cache lies in pages of so many tokens, each of
    which is asked for by itself; where the pages lie is not part of the problem, they are taken to follow each other.

    Multi-head latent attention: ``heads=128,kv_heads=1,head_dim=576,v_dim=512,shared_kv=1,scale_dim=192`` in the absorbed
    form of a decode step (the softmax has the scale of the heads as they were trained, 128 + 64 channels), and
    ``heads=128,kv_heads=128,head_dim=192,v_dim=128`` in a prefill.
    """

    kind: Literal["attention"] = "attention"
    batch: Size
    heads: Size
    kv_heads: Size
    head_dim: Size
    q: Size
    kv: Size
    scales: Literal["channel", "token"] = "channel"
    causal: Flag = False
    v_dim: Size | None = None
    shared_kv: Flag = False
    scale_dim: Size | None = None
    kv_layout: Literal["bsnd", "bnsd"] = "bsnd"
    page: Size | None = None

    @property
    def value_dim(self) -> int:
        """Channels of V and of the output."""
        return self.head_dim if self.v_dim is None else self.v_dim

    @property
    def softmax_dim(self) -> int:
        """The logits are divided by its square root."""
        return self.head_dim if self.scale_dim is None else self.scale_dim

    @model_validator(mode="after")
    def _consistent(self) -> Attention:
        if self.heads % self.kv_heads:
            raise PydanticCustomError(
                "rule", "heads = {heads} is not a multiple of kv_heads = {kv_heads}; every KV head serves equally many "
                "query heads, give for example kv_heads = {fits}",
                {"heads": self.heads, "kv_heads": self.kv_heads, "fits": _divisor_below(self.heads, self.kv_heads)},
            )
        if self.causal and self.q > self.kv:
            raise PydanticCustomError(
                "rule", "q = {q} is above kv = {kv} with causal = 1; raise kv to at least {q} or leave out causal",
                {"q": self.q, "kv": self.kv},
            )
        if self.shared_kv and self.value_dim > self.head_dim:
            raise PydanticCustomError(
                "rule", "v_dim = {v_dim} is above head_dim = {head_dim} with shared_kv = 1; V is the first v_dim channels of "
                "K, give at most {head_dim}", {"v_dim": self.value_dim, "head_dim": self.head_dim},
            )
        return self


MicroOp = Literal[
    "copy_gm_ub", "copy_ub_gm", "copy_gm_l1", "copy_l1_gm", "copy_gm_l0a", "copy_gm_l0b", "copy_l0c_gm", "copy_l0c_l1",
    "copy_l1_l0a", "copy_l1_l0b", "copy_l1_bt", "mmad", "vector", "read_matrix", "duplicate_matrix",
    "add_matrix", "matmul", "msd_groups",
]


class Micro(Shape):
    """A microbenchmark: ``op`` done ``count`` times, one after the other or, with ``isolated``, each alone.

    Copies move ``bytes`` as ``rows`` equal rows (of a matrix twice as wide, where there are several); GM is ``warm``
    (in L2) or not. ``mmad`` multiplies [m, k] by [k, n]; ``vector`` runs instruction ``instr`` on ``repeats``
    repeats. ``read_matrix`` reads an [m, n] matrix on all AIVs (``into`` = ub) or AICs (``into`` = l1) in tiles of
    [base_m, base_n], ``rounds`` times in each of ``slices`` column slices; each core its rows or, ``shared``, all of
    them, in the same order or, with ``stagger``, beginning with its own. With ``bypass`` copies between GM and UB or L1
    pass L2 by where they miss. ``duplicate_matrix`` and ``add_matrix`` take an [m, n] matrix, or two and their sum,
    through the UB of all AIVs and back to GM. ``matmul`` is a GEMM whose cores own fixed blocks of [single_m, single_n]: L0
    tiles [base_m, base_k] and [base_k, base_n], L1 tiles ``step_ka`` and ``step_kb`` of them deep, M in ``passes`` parts, the
    result in ``out`` (of integers always int32), drained beside the next products with ``unit_flag``; scales of MX blocks
    come for all of K at once, ``scale_ring`` tiles of them. ``msd_groups`` is the sample kernel of the decomposition that
    synchronises all cores for every K group: INT4 components of one row, ``passes`` of them; ``preload`` splits the
    next group while the Cube is busy.
    """

    kind: Literal["micro"] = "micro"
    op: MicroOp
    fmt: Literal["fp16", "bf16", "int8", "int4", "fp8_e4m3fn", "fp32", "mxfp8", "mxfp4"] = "fp16"
    count: Size = 16
    isolated: Flag = False
    warm: Flag = True
    bytes: Size = 4096
    rows: Size = 1
    m: Size = 16
    k: Size = 16
    n: Size = 16
    instr: str = "add"
    repeats: Size = 64
    into: Literal["ub", "l1"] = "ub"
    rounds: Size = 1
    slices: Size = 1
    shared: Flag = False
    stagger: Flag = False
    bypass: Flag = False
    base_m: Size = 128
    base_n: Size = 256
    base_k: Size = 64
    single_m: Size | None = None
    single_n: Size | None = None
    step_ka: Size = 1
    step_kb: Size = 1
    passes: Size = 1
    group: Size = 128
    preload: Flag = False
    l1_ring: Size = 2
    l0_ring: Size = 2
    trans_b: Flag = False
    unit_flag: Flag = False
    scale_ring: Size = 1
    out: Literal["bf16", "fp32"] = "bf16"

    def __str__(self) -> str:
        return super().__str__().replace("op=", "", 1)


Problem = Gemm | GroupedGemm | Attention | Micro

#: Problem classes by the name in front of the inline form.
KINDS: dict[str, type[Shape]] = {cls.kind_name(): cls for cls in (Gemm, GroupedGemm, Attention, Micro)}

_ADAPTER: TypeAdapter[Problem] = TypeAdapter(Annotated[Problem, Field(discriminator="kind")])


def problem_from_json(data: dict[str, Any]) -> Problem:
    """Inverse of :meth:`Shape.to_json`; ProblemError for anything that is not a problem."""
    if not isinstance(data, dict) or data.get("kind") not in KINDS:
        raise ProblemError(f"a problem needs a 'kind' ({', '.join(KINDS)})")
    return _ADAPTER.validate_python(data)


def keys(cls: type[Shape]) -> list[str]:
    """Keys of the inline form in their order."""
    return [key for key in cls.model_fields if key != "kind"]


def keys_text(cls: type[Shape]) -> str:
    """The ending of every error about a problem of class ``cls``: its keys."""
    return cls.keys_text()


def closest(name: str, known: list[str]) -> str:
    """``; did you mean 'x'?``, or nothing when no known name is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _explain(cls: type[Shape], err: ValidationError) -> str:
    """The first mistake in a sentence; unknown keys come before missing ones, since a slip makes both."""
    errors = err.errors()
    unknown = [str(item["loc"][0]) for item in errors if item["type"] == "extra_forbidden"]
    if unknown:
        return f"unknown key {unknown[0]!r}{closest(unknown[0], keys(cls))}"
    missing = [f"'{item['loc'][0]}'" for item in errors if item["type"] == "missing"]
    if missing:
        return f"key {missing[0]} is missing" if len(missing) == 1 else f"keys {', '.join(missing)} are missing"
    first = errors[0]
    if not first["loc"]:
        return first["msg"]
    text = first["msg"] if first["type"] == "rule" else f"must be {first.get('ctx', {}).get('expected', first['msg'])}"
    return f"{first['loc'][0]} = {first['input']!r} {text}"


def _divisor_below(number: int, limit: int) -> int:
    """Largest divisor of ``number`` that is at most ``limit``."""
    low = (d for d in range(1, min(limit, int(number**0.5) + 1) + 1) if number % d == 0)
    both = [d for pair in ((d, number // d) for d in low) for d in pair if d <= limit]
    return max(both)
