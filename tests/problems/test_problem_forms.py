"""Problems: the inline form in and out, the JSON form, and every mistake as one line that lists the keys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msdsim.errors import InputError, ProblemError, UnknownNameError
from msdsim.problems import Attention, Gemm, GroupedGemm, KernelFile, Workload, parse_problem, problem_from_json

GEMM_KEYS = "(keys: m, k, n; optional: group, offset, trans_b, x, out, layout)"
GROUPED_KEYS = "(keys: groups and m, or rows; k, n; optional: group, offset, trans_b, x, out, layout)"
ATTENTION_KEYS = ("(keys: batch, heads, kv_heads, head_dim, q, kv; optional: scales, causal, v_dim, shared_kv, "
                  "scale_dim, kv_layout, page)")
WORKLOADS = "deepseek-v3-decode, gpt-oss-120b-decode, llama3-8b-decode, openpangu-718b-decode, qwen3-14b-decode, qwen3-235b-a22b-decode"

SIZES = st.integers(1, 2**31 - 1)
OPTIONS = {"group": st.none() | SIZES, "offset": st.booleans(), "trans_b": st.booleans()}
GEMMS = st.builds(Gemm, m=SIZES, k=SIZES, n=SIZES, **OPTIONS)
GROUPED = st.builds(GroupedGemm, groups=SIZES, m=SIZES, k=SIZES, n=SIZES, **OPTIONS)
#: Rows of every group, not all zero.
ROWS = st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any)
UNEVEN = st.builds(lambda **values: GroupedGemm(**values), rows=ROWS, k=SIZES, n=SIZES, **OPTIONS)
SCALES = st.sampled_from(["channel", "token"])


@st.composite
def attentions(draw):
    kv_heads, q = draw(st.integers(1, 1000)), draw(st.integers(1, 10**6))
    causal, shared, head_dim = draw(st.booleans()), draw(st.booleans()), draw(SIZES)
    return Attention(
        batch=draw(SIZES), heads=kv_heads * draw(st.integers(1, 1000)), kv_heads=kv_heads, head_dim=head_dim, q=q,
        kv=draw(st.integers(q if causal else 1, 2**31 - 1)), scales=draw(SCALES), causal=causal, shared_kv=shared,
        v_dim=draw(st.none() | st.integers(1, head_dim if shared else 2**31 - 1)), scale_dim=draw(st.none() | SIZES),
    )  # fmt: skip


@given(GEMMS | GROUPED | UNEVEN | attentions())
def test_inline_and_json_forms_are_inverses(problem):
    assert parse_problem(str(problem)) == problem
    assert problem_from_json(problem.to_json()) == problem
    assert hash(parse_problem(str(problem))) == hash(problem)


@pytest.mark.parametrize(
    ("text", "json"),
    [
        ("gemm:m=16,k=8192,n=12288", {"kind": "gemm", "m": 16, "k": 8192, "n": 12288}),
        ("gemm:m=1,k=8192,n=12288,group=128,offset=1,trans_b=1",
         {"kind": "gemm", "m": 1, "k": 8192, "n": 12288, "group": 128, "offset": True, "trans_b": True}),
        ("grouped_gemm:groups=8,m=16,k=7168,n=2048",
         {"kind": "grouped_gemm", "groups": 8, "m": 16, "k": 7168, "n": 2048}),
        ("grouped_gemm:rows=5+0+33+16,k=7168,n=2048,offset=1",
         {"kind": "grouped_gemm", "groups": 4, "rows": [5, 0, 33, 16], "k": 7168, "n": 2048, "offset": True}),
        ("attention:batch=8,heads=32,kv_heads=8,head_dim=128,q=1,kv=4096",
         {"kind": "attention", "batch": 8, "heads": 32, "kv_heads": 8, "head_dim": 128, "q": 1, "kv": 4096}),
        ("attention:batch=8,heads=32,kv_heads=8,head_dim=128,q=1,kv=4096,scales=token,causal=1",
         {"kind": "attention", "batch": 8, "heads": 32, "kv_heads": 8, "head_dim": 128, "q": 1, "kv": 4096,
          "scales": "token", "causal": True}),
        ("attention:batch=32,heads=128,kv_heads=1,head_dim=576,q=1,kv=4096,v_dim=512,shared_kv=1,scale_dim=192",
         {"kind": "attention", "batch": 32, "heads": 128, "kv_heads": 1, "head_dim": 576, "q": 1, "kv": 4096,
          "v_dim": 512, "shared_kv": True, "scale_dim": 192}),
    ],
)
def test_forms_of_the_interface(text, json):
    problem = parse_problem(text)
    assert problem.to_json() == json
    assert str(problem) == text


def test_what_is_not_set_is_left_out():
    text = "attention:kv=4096,q=1, head_dim=128,kv_heads=8,heads=32,batch=8,scales=channel,causal=0"
    assert str(parse_problem(text)) == "attention:batch=8,heads=32,kv_heads=8,head_dim=128,q=1,kv=4096"
    assert parse_problem("gemm:m=1,k=2,n=3,offset=0") == Gemm(m=1, k=2, n=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gemm:m=0,k=1,n=1", f"gemm: m = 0 is below 1; give a whole number of at least 1 {GEMM_KEYS}"),
        ("gemm:m=1,k=-7,n=1", f"gemm: k = -7 is below 1; give a whole number of at least 1 {GEMM_KEYS}"),
        ("gemm:m=1,k=1,n=1,group=0", f"gemm: group = 0 is below 1; give a whole number of at least 1 {GEMM_KEYS}"),
        ("gemm:m=1,k=1,n=2147483648", f"gemm: n = 2147483648 is above 2147483647; give a smaller one {GEMM_KEYS}"),
        ("gemm:m=abc,k=1,n=1", f"gemm: m = 'abc' is not a whole number; give one of at least 1 {GEMM_KEYS}"),
        ("gemm:m=1.5,k=1,n=1", f"gemm: m = '1.5' is not a whole number; give one of at least 1 {GEMM_KEYS}"),
        ("gemm:m=,k=1,n=1", f"gemm: m = '' is not a whole number; give one of at least 1 {GEMM_KEYS}"),
        ("gemm:m=1_0,k=1,n=1", f"gemm: m = '1_0' is not a whole number; give one of at least 1 {GEMM_KEYS}"),
        ("gemm:m,k=1,n=1", f"gemm: 'm' has no value; write KEY=VALUE {GEMM_KEYS}"),
        ("gemm:m=1,k=1", f"gemm: key 'n' is missing {GEMM_KEYS}"),
        ("gemm", f"gemm: keys 'm', 'k', 'n' are missing {GEMM_KEYS}"),
        ("gemm:", f"gemm: keys 'm', 'k', 'n' are missing {GEMM_KEYS}"),
        ("gemm:m=1,k=1,nn=1", f"gemm: unknown key 'nn'; did you mean 'n'? {GEMM_KEYS}"),
        ("gemm:m=1,k=1,n=1,zebra=1", f"gemm: unknown key 'zebra' {GEMM_KEYS}"),
        ("gemm:m=1,k=1,n=1,kind=1", f"gemm: unknown key 'kind' {GEMM_KEYS}"),
        ("gemm:m=1,k=1,n=1,m=2", f"gemm: key 'm' is given twice; remove one {GEMM_KEYS}"),
        ("gemm:m=1,k=1,n=1,offset=2", f"gemm: offset = 2 is not a switch; give 1 or 0 {GEMM_KEYS}"),
        ("gemm:m=1,k=1,n=1,trans_b=yes", f"gemm: trans_b = 'yes' is not a switch; give 1 or 0 {GEMM_KEYS}"),
        ("grouped_gemm:m=1,k=1,n=1", f"grouped_gemm: key 'groups' is missing {GROUPED_KEYS}"),
        ("grouped_gemm:rows=5+0,m=3,k=1,n=1", "grouped_gemm: m = 3 does not agree with rows, whose largest is 5; leave out m, or "
         f"give every group the same rows by groups and m {GROUPED_KEYS}"),
        ("grouped_gemm:groups=3,rows=5+0,k=1,n=1", "grouped_gemm: groups = 3 does not agree with rows, which has 2 numbers; leave "
         f"out groups or give one number for each group {GROUPED_KEYS}"),
        *((f"grouped_gemm:rows={rows},k=1,n=1",
           f"grouped_gemm: rows = '{rows}' has '{part}' for group {group}, which is no whole number from 0 to 2147483647; give "
           f"one for each group, such as 5+0+33+16 {GROUPED_KEYS}")
          for rows, part, group in (("5+x", "x", 2), ("5++3", "", 2), ("-1+3", "-1", 1), ("3+", "", 2), ("1.5+2", "1.5", 1),
                                    ("3 +4", "3 ", 1), ("", "", 1))),
        ("grouped_gemm:rows=0+0,k=1,n=1",
         f"grouped_gemm: rows = '0+0' has 0 rows in all; give from 1 to 2147483647 {GROUPED_KEYS}"),
        ("grouped_gemm:rows=2147483647+1,k=1,n=1",
         f"grouped_gemm: rows = '2147483647+1' has 2147483648 rows in all; give from 1 to 2147483647 {GROUPED_KEYS}"),
        ("grouped_gemm:rows=5+0,n=1", f"grouped_gemm: key 'k' is missing {GROUPED_KEYS}"),
        ("attention:batch=1,heads=32,kv_heads=5,head_dim=128,q=1,kv=8",
         "attention: heads = 32 is not a multiple of kv_heads = 5; every KV head serves equally many query heads, give "
         f"for example kv_heads = 4 {ATTENTION_KEYS}"),
        ("attention:batch=1,heads=8,kv_heads=32,head_dim=128,q=1,kv=8",
         "attention: heads = 8 is not a multiple of kv_heads = 32; every KV head serves equally many query heads, give "
         f"for example kv_heads = 8 {ATTENTION_KEYS}"),
        ("attention:batch=1,heads=8,kv_heads=8,head_dim=128,q=9,kv=8,causal=1",
         "attention: q = 9 is above kv = 8 with causal = 1; raise kv to at least 9 or leave out causal "
         f"{ATTENTION_KEYS}"),
        ("attention:batch=1,heads=8,kv_heads=8,head_dim=128,q=1,kv=8,v_dim=129,shared_kv=1",
         "attention: v_dim = 129 is above head_dim = 128 with shared_kv = 1; V is the first v_dim channels of K, give at most "
         f"128 {ATTENTION_KEYS}"),
        ("attention:batch=1,heads=8,kv_heads=8,head_dim=128,q=1,kv=8,v_dim=0",
         f"attention: v_dim = 0 is below 1; give a whole number of at least 1 {ATTENTION_KEYS}"),
        ("attention:batch=1,heads=8,kv_heads=8,head_dim=128,q=1,kv=0",
         f"attention: kv = 0 is below 1; give a whole number of at least 1 {ATTENTION_KEYS}"),
        ("attention:batch=1,heads=8,kv_heads=8,head_dim=128,q=1,kv=1,scales=row",
         f"attention: scales = 'row' must be 'channel' or 'token' {ATTENTION_KEYS}"),
        ("gem:m=1,k=1,n=1", "unknown problem kind 'gem'; did you mean 'gemm'? (kinds: gemm, grouped_gemm, attention, micro)"),
        (":", "unknown problem kind '' (kinds: gemm, grouped_gemm, attention, micro)"),
    ],
)
def test_a_mistake_is_one_line(text, message):
    with pytest.raises(ProblemError) as caught:
        parse_problem(text)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@given(st.text(max_size=40) | st.text(max_size=40).map("gemm:".__add__))
def test_any_text_is_a_problem_or_an_input_error_of_one_line(text):
    message = ""
    try:
        parse_problem(text)
    except InputError as err:
        message = str(err)
    assert len(message.splitlines()) <= 1


def test_in_python_the_same_errors():
    with pytest.raises(ProblemError, match="gemm: m = 0 is below 1"):
        Gemm(m=0, k=1, n=1)
    with pytest.raises(ProblemError, match="gemm: m = True is not a whole number"):
        Gemm(m=True, k=1, n=1)
    with pytest.raises(ProblemError, match="gemm: m = None is not a whole number"):
        Gemm(m=None, k=1, n=1)
    with pytest.raises(ProblemError, match=r"^a problem needs a 'kind' \(gemm, grouped_gemm, attention, micro\)$"):
        problem_from_json({"m": 1})
    with pytest.raises(ProblemError, match="gemm: unknown key 'z'"):
        problem_from_json({"kind": "gemm", "m": 1, "k": 1, "n": 1, "z": 1})


def test_whole_numbers_of_any_type_are_sizes():
    found = Gemm(m=np.int64(16), k=64.0, n=np.float64(32))
    assert found == Gemm(m=16, k=64, n=32)
    assert type(found.m) is type(found.k) is int
    with pytest.raises(ProblemError, match=r"k = 1\.5 is not a whole number"):
        Gemm(m=1, k=1.5, n=1)


def test_groups_with_rows_of_their_own():
    shape = GroupedGemm(rows=[5, 0, 33, 16], k=2, n=3)
    assert (shape.groups, shape.m, shape.rows, shape.total_rows) == (4, 33, (5, 0, 33, 16), 54)
    assert shape == parse_problem("grouped_gemm:rows=5+0+33+16,groups=4,k=2,n=3")
    assert shape == GroupedGemm(rows=np.array([5, 0, 33, 16]), k=2.0, n=3)
    assert parse_problem("grouped_gemm:rows=7,k=2,n=3").rows == (7,)
    assert GroupedGemm(groups=4, m=33, k=2, n=3).total_rows == 132
    for wrong, part in (([5, True], "True"), ([5, None], "None"), ([5, 1.5], "1.5")):
        with pytest.raises(ProblemError, match=f"has {part} for group 2, which is no whole number"):
            problem_from_json({"kind": "grouped_gemm", "rows": wrong, "k": 1, "n": 2})


def test_names_and_paths():
    assert parse_problem("kernels/mine.kir") == KernelFile(Path("kernels/mine.kir"))
    assert isinstance(parse_problem("llama3-8b-decode"), Workload)
    with pytest.raises(UnknownNameError) as caught:
        parse_problem("llama3-8b")
    assert str(caught.value) == (
        f"unknown problem 'llama3-8b'; did you mean 'llama3-8b-decode'? (workloads: {WORKLOADS}; "
        "or give sizes, such as gemm:m=16,k=4096,n=4096)"
    )


def test_causal_attention_may_begin_with_an_empty_cache():
    form = "attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=8,kv={},causal=1"
    assert parse_problem(form.format(8)).kv == 8
    with pytest.raises(ProblemError, match="kv"):
        parse_problem(form.format(7))


def test_problems_do_not_need_numpy():
    code = "import sys, msdsim.problems; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
