"""Hand-written kernels in the places of problems, and dataflows from users' own files and packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

P = "gemm:m=4,k=64,n=48"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def mine(cli):
    """A kernel that computes msd-int8's numbers, with names and order of its own making."""
    text = cli("ir", P, "--hw", "toy", "--dataflow", "msd-int8")[1]
    Path("mine.kir").write_text(text.replace("kernel msd_int8", "kernel mine"), encoding="utf-8")
    return text


def test_numbers_of_a_kernel_are_held_to_a_dataflow(cli, mine):
    code, out, err = cli("run", "mine.kir", "--hw", "toy", "--check", "--reference", f"msd-int8:{P}", "--json", "r.json")
    assert code == 0, err
    assert f"its numbers are held to msd-int8:{P}" in out
    numbers = json.loads(Path("r.json").read_text(encoding="utf-8"))["numerics"]
    assert (numbers["bit_exact"], numbers["elements"]) == (True, 4 * 48)
    # The last conversion rounds down: the same time, other numbers.
    head, _, tail = mine.rpartition("{round=rint}")
    wrong = head + "{round=floor}" + tail
    Path("wrong.kir").write_text(wrong, encoding="utf-8")
    code, _, err = cli("run", "wrong.kir", "--hw", "toy", "--check", "--reference", f"msd-int8:{P}")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: msd_int8: y")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--check", "--reference", f"bf16:{P}"], "it has 'w: int8[64, 48] in', not 'w: bf16[64, 48] in'"),
    (["--check", "--reference", "msd-int8:gemm:m=8,k=64,n=48"], "it has 'x: bf16[4, 64] in', not 'x: bf16[8, 64] in'"),
    (["--check", "--reference", "msd-int8"], "reference 'msd-int8' is not DATAFLOW:PROBLEM"),
    (["--check", "--reference", f"msd-int7:{P}"], "unknown gemm dataflow 'msd-int7'"),
    (["--reference", f"msd-int8:{P}"], "add --check"),
    (["--dataflow", "bf16"], "--dataflow belongs to a problem, and 'mine.kir' is a kernel already"),
    (["--tiling", "base_m=16"], "has no param 'base_m' (it has none; 'param NAME = N in [N, ...]'"),
])
def test_what_does_not_belong_to_a_kernel_is_refused(cli, mine, arguments, message):
    code, _, err = cli("run", "mine.kir", "--hw", "toy", *arguments)
    assert code == 2
    assert message in err
    assert cli("run", P, "--hw", "toy", "--check", "--reference", f"bf16:{P}")[0] == 2


def test_kernels_beside_dataflows(cli, mine):
    code, out, _ = cli("compare", P, "--hw", "toy", "--dataflow", "bf16,msd-int8", "--kernel", "msd-int8:mine.kir", "--check",
                       "--json", "c.json")
    assert code == 0
    runs = {run["dataflow"]: run for run in json.loads(Path("c.json").read_text(encoding="utf-8"))["runs"]}
    assert list(runs) == ["bf16", "msd-int8", "mine.kir"]
    assert runs["mine.kir"]["cycles"] == runs["msd-int8"]["cycles"]
    assert runs["mine.kir"]["numerics"] == runs["msd-int8"]["numerics"]
    assert "mine.kir" in out
    code, _, err = cli("compare", "gemm:m=4,k=64,n=64", "--hw", "toy", "--dataflow", "bf16", "--kernel", "mine.kir")
    assert code == 2
    assert "kernel 'mine' has the tensors of no dataflow of gemm:m=4,k=64,n=64" in err
    assert "say whose numbers" in cli("compare", P, "--hw", "toy", "--dataflow", "bf16", "--kernel", "mine.kir", "--check")[2]


def page():
    """The file that the page on dataflows prints."""
    text = (ROOT / "docs" / "adding-a-dataflow.md").read_text(encoding="utf-8")
    return text.partition("```python\n")[2].partition("```")[0]


def test_a_dataflow_in_a_file_of_ones_own(cli):
    Path("mine.py").write_text(page(), encoding="utf-8")
    assert cli("run", P, "--hw", "toy", "--dataflow", "mine.py", "--check")[0] == 0
    code, _, _ = cli("compare", P, "--hw", "toy", "--dataflow", "bf16,mine.py", "--json", "c.json")
    assert code == 0
    names = [run["dataflow"] for run in json.loads(Path("c.json").read_text(encoding="utf-8"))["runs"]]
    assert names == ["bf16", "plain"]
    Path("golden").mkdir()
    assert cli("schedule", "record", P, "--hw", "toy", "--dataflow", "mine.py", "--out", "golden/s.json")[0] == 0
    assert cli("schedule", "verify", "golden")[0] == 0
    for name, text, message in [("none.py", "x = 1\n", "registers no gemm dataflow (it registers: none)"),
                                ("bad.py", "x = 1\nx.y\n", "dataflow file 'bad.py', line 2: AttributeError"),
                                ("twice.py", page(), "dataflow 'plain' is registered twice"),
                                ("broken.py", "def\n", "line 1: SyntaxError")]:
        Path(name).write_text(text, encoding="utf-8")
        code, _, err = cli("run", P, "--hw", "toy", "--dataflow", name)
        assert code == 2, name
        assert message in err, err
    assert "does not exist" in cli("run", P, "--dataflow", "gone.py")[2]
