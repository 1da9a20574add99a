"""A dataflow for each operator of a workload: by kind, by name, in the file, by rule, and the best of those accurate enough."""

from __future__ import annotations

import json

import pytest

from msdsim.api import compare_workload, simulate_workload
from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.hardware import load_hw
from msdsim.mixes import choices, parse_mix
from msdsim.numerics.accuracy_order import accurate_enough
from msdsim.problems import parse_problem
from msdsim.problems.model import Attention, Gemm
from msdsim.problems.workload import Entry, Workload
from msdsim.workload_runs import _order

HEAD = 'description = "d"\nsource = "s"\n'
OPS = {
    "qkv": ("gemm:m=4,k=64,n=96", ""), "attention": ("attention:batch=1,heads=4,kv_heads=1,head_dim=32,q=1,kv=64", ""),
    "experts": ("grouped_gemm:groups=2,m=2,k=64,n=64", ""), "head": ("gemm:m=1,k=64,n=128", 'weights = "bf16"'),
}


def workload(tmp_path, top=HEAD, **changes):
    text = top
    for name, (problem, more) in (OPS | changes).items():
        text += f'[[op]]\nname = "{name}"\ncount = 2\nproblem = "{problem}"\n{more}\n'
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return parse_problem(str(path))


def chosen(found, text, hw="toy"):
    return {item.entry.name: (item.dataflow, item.note) for item in choices(found, parse_mix(text, found), load_hw(hw))}


def test_by_kind_and_by_name(tmp_path):
    found = workload(tmp_path)
    assert chosen(found, "gemm=w8a8,attention=msd-int8") == {
        "qkv": ("w8a8", ""), "attention": ("msd-int8", ""), "experts": ("w8a8", ""), "head": ("bf16", "published in 16 bits")}
    assert chosen(found, "msd-int8+grouped_gemm=dequant-int4+qkv=bf16+head=dequant-int8") == {
        "qkv": ("bf16", ""), "attention": ("msd-int8", ""), "experts": ("dequant-int4", ""), "head": ("dequant-int8", "")}


def test_in_the_file(tmp_path):
    found = workload(tmp_path, qkv=("gemm:m=4,k=64,n=96", 'dataflow = "dequant-int4"'))
    assert chosen(found, "msd-int8")["qkv"] == ("dequant-int4", "")
    assert chosen(found, "msd-int8,qkv=w8a8")["qkv"] == ("w8a8", "")


def test_a_name_on_the_command_line_comes_before_the_file_and_both_before_kinds(tmp_path):
    found = workload(tmp_path, qkv=("gemm:m=4,k=64,n=96", 'dataflow = "dequant-int4"'), head=("gemm:m=1,k=64,n=128", 'weights = "bf16"\ndataflow = "w8a8"'))
    assert chosen(found, "gemm=msd-int8,attention=bf16,qkv=w8a8") == {
        "qkv": ("w8a8", ""), "attention": ("bf16", ""), "experts": ("msd-int8", ""), "head": ("w8a8", "")}
    assert chosen(found, "gemm=msd-int8,attention=bf16")["qkv"] == ("dequant-int4", "")
    # Grouped products go with gemm until they are named; naming them alone says nothing of plain ones.
    assert chosen(found, "bf16,grouped_gemm=w8a8") == {"qkv": ("dequant-int4", ""), "attention": ("bf16", ""), "experts": ("w8a8", ""), "head": ("w8a8", "")}


def test_one_odd_operator_falls_back_by_rule_and_says_so(tmp_path):
    found = workload(tmp_path, odd=("gemm:m=4,k=64,n=97", ""))
    dataflow, note = chosen(found, "msd-int4")["odd"]
    assert dataflow == "msd-int8"
    assert note.startswith("msd-int4 cannot: ")
    # What is asked for by name is run so or not at all, and so is what no operator of the kind can be run with.
    with pytest.raises(InputError, match="entry 'odd': dataflow 'msd-int4' cannot run"):
        chosen(found, "msd-int8,odd=msd-int4")
    alone = workload(tmp_path, qkv=("gemm:m=4,k=64,n=97", ""), head=("gemm:m=4,k=64,n=99", ""))
    with pytest.raises(InputError, match="entry 'qkv': dataflow 'msd-int4' cannot run"):
        chosen(alone, "gemm=msd-int4,attention=bf16,grouped_gemm=bf16")


def test_groups_say_nothing_to_bf16(tmp_path):
    found = workload(tmp_path, qkv=("gemm:m=4,k=64,n=96,group=32,offset=1", 'weights = "int4"'))
    [first, *_] = choices(found, parse_mix("bf16", found), load_hw("toy"))
    assert (first.dataflow, str(first.problem)) == ("bf16", "gemm:m=4,k=64,n=96")


@pytest.mark.parametrize(("text", "message"), [
    ("w8a8", r"entry 'attention': there is no attention dataflow 'w8a8' \(.*\); give --dataflow gemm=w8a8,attention=bf16"),
    ("gemm=w8a8", "nothing says how 'attention' of 'mine' is run; add attention=NAME"),
    ("gemm=w8a8,attntion=bf16", "'attntion' is no kind of operator .*; did you mean 'attention'"),
    ("gemm=w8a8,gemm=bf16", "gives 'gemm' twice"),
    ("bf16,w8a8", "names 'bf16' and 'w8a8' for all operators"),
    ("gemm=,attention=bf16", "'gemm=' names no dataflow"),
    (",", "--dataflow is empty"),
    ("msd-int9", "there is no gemm dataflow 'msd-int9' .*did you mean"),
    ("best:nobody", "best:nobody names no gemm dataflow"),
])
def test_mistakes(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        chosen(workload(tmp_path), text)


def test_the_order_of_accuracy():
    gemms = ["bf16", "dequant-int8", "msd-int8", "w8a8", "dequant-int4", "msd-int4", "a8w4"]
    plain = Gemm(m=16, k=64, n=64)
    assert accurate_enough(plain, None, "bf16", gemms) == ["bf16"]
    assert accurate_enough(plain, None, "dequant-int8", gemms) == ["bf16", "dequant-int8", "msd-int8"]
    assert accurate_enough(plain, None, "w8a8", gemms) == ["bf16", "dequant-int8", "msd-int8", "w8a8"]
    assert accurate_enough(plain, None, "dequant-int4", gemms) == gemms
    # Weights that are published as INT4 lose nothing as INT4.
    assert accurate_enough(plain, "int4", "dequant-int4", gemms) == ["bf16", "dequant-int4"]
    assert accurate_enough(plain, "int4", "a8w4", gemms) == ["bf16", "msd-int8", "dequant-int4", "msd-int4", "a8w4"]
    cache = Attention(batch=1, heads=4, kv_heads=1, head_dim=32, q=1, kv=64)
    assert accurate_enough(cache, None, "msd-int8", ["bf16", "msd-int8", "msd-int4"]) == ["bf16", "msd-int8"]


def test_the_best_is_the_fastest_of_those_accurate_enough(tmp_path):
    found = workload(tmp_path)
    result = simulate_workload(found, "toy", "gemm=best:w8a8,attention=bf16")
    assert {run.name: run.result.dataflow for run in result.runs}.keys() == OPS.keys()
    for run in result.runs:
        if run.name == "attention":
            continue
        assert "at least as accurate as w8a8" in run.note
        assert run.result.dataflow in ("bf16", "dequant-int8", "msd-int8", "w8a8")
    times = {name: simulate_workload(found, "toy", f"gemm={name},attention=bf16").runs[0].result.time_us
             for name in ("dequant-int8", "msd-int8", "w8a8")}
    assert result.runs[0].result.time_us <= min(times.values())


def test_a_mix_in_the_result(tmp_path):
    found = simulate_workload(workload(tmp_path), "toy", "gemm=msd-int8,attention=bf16")
    data = found.to_json()
    assert data["dataflow"] == "gemm=msd-int8,attention=bf16"
    assert [run["dataflow"] for run in data["runs"]] == ["msd-int8", "bf16", "msd-int8", "bf16"]
    assert data["runs"][3]["note"] == "published in 16 bits"
    assert "notes" not in data


def test_a_model_larger_than_the_chip(tmp_path):
    big = workload(tmp_path, experts=("grouped_gemm:groups=2,m=2,k=1024,n=1024", "experts = 300"))
    [note] = simulate_workload(big, "toy", "bf16").notes
    assert note.startswith("does not fit: 1.3 GB of weights and 0.0 GB of caches are 0.2 GB more than the 1.1 GB of toy's HBM")
    assert simulate_workload(workload(tmp_path), "toy", "bf16").notes == ()


def test_caches_of_every_layer_count(tmp_path):
    """The cache of one layer is 2 x 2 x 32 x 64 x 64 bytes x 2 = 1 MiB: 1,025 layers of it do not fit 1 GiB, whatever the weights are."""
    for count, fits in ((900, True), (1100, False)):
        path = tmp_path / "big.toml"
        path.write_text(f'{HEAD}[[op]]\nname = "attention"\ncount = {count}\nproblem = "attention:batch=64,heads=4,kv_heads=2,head_dim=32,q=1,kv=64"\n')
        notes = simulate_workload(parse_problem(str(path)), "toy", "bf16").notes
        assert (notes == ()) is fits
    assert notes[0].startswith("does not fit: 0.0 GB of weights and 1.2 GB of caches are 0.1 GB more than the 1.1 GB of toy's HBM (1.1 such chips)")


def test_what_runs_ahead_of_a_layer():
    """A layer that is repeated has its end run once ahead, until twice the capacity of L2 has passed; what runs once has nothing before it."""
    entries = (Entry("a", 2, Gemm(m=1, k=1, n=1)), Entry("b", 2, Gemm(m=1, k=1, n=1)), Entry("c", 2, Gemm(m=1, k=1, n=1)), Entry("d", 1, Gemm(m=1, k=1, n=1)))
    workload = Workload("net", "", "", None, entries)

    def order(**reads):
        return "".join(run.entry.name.upper() if run.ahead else run.entry.name for run in _order(workload, {"d": 1, **reads}, 100))

    assert order(a=10, b=10, c=10) == "ABCabcd"
    assert order(a=10, b=100, c=100) == "BCabcd", "200 bytes have passed: what A leaves is gone"
    assert order(a=10, b=100, c=99) == "ABCabcd"
    assert order(a=10, b=10, c=200) == "Cabcd"


def test_compare_lists_what_it_skipped_and_offers_the_mix(tmp_path, capsys):
    found = compare_workload(workload(tmp_path), "toy", "all")
    skipped = {item.dataflow: item.reason for item in found.skipped}
    assert skipped["w8a8"] == ("there is no attention dataflow of that name; --dataflow gemm=w8a8+attention=bf16 runs the mix")
    assert {run.dataflow for run in found.runs} >= {"bf16", "msd-int8", "dequant-int4"}
    mixed = compare_workload(workload(tmp_path), "toy", ["bf16", "gemm=w8a8+attention=msd-int8"])
    assert [run.dataflow for run in mixed.runs] == ["bf16", "gemm=w8a8+attention=msd-int8"]
    path = str(tmp_path / "mine.toml")
    assert run_program(["compare", path, "--hw", "toy", "--dataflow", "bf16,gemm=w8a8,attention=msd-int8", "--json", "-"]) == 0
    assert [run["dataflow"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["bf16", "gemm=w8a8+attention=msd-int8"]


def test_the_command(tmp_path, capsys):
    workload(tmp_path, top=f'dataflow = "gemm=w8a8,attention=bf16"\n{HEAD}')
    path = str(tmp_path / "mine.toml")
    assert run_program(["run", path, "--hw", "toy"]) == 0
    text = capsys.readouterr().out
    assert "gemm=w8a8,attention=bf16" in text
    assert "bf16 for head: published in 16 bits" in text
    assert run_program(["run", path, "--hw", "toy", "--dataflow", "bf16"]) == 0
    assert "w8a8" not in capsys.readouterr().out
    assert run_program(["run", path, "--hw", "toy", "--dataflow", "w8a8"]) == 2
    assert "give --dataflow gemm=w8a8,attention=bf16" in capsys.readouterr().err
