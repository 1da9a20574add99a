"""Params: what a kernel's text leaves open is chosen, tuned, swept, compared and recorded; nothing else of it moves."""

from __future__ import annotations

import json

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.errors import InputError, KernelError
from msdsim.explore.sweep.run import run_sweep
from msdsim.explore.tune import tune
from msdsim.ir.identity import kernel_hash
from msdsim.ir.params import with_params
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel

TEXT = """\
# tiles of columns

kernel own {
  param base_n = 64 in [32, 64, 96, 128]
  let tiles = (128 + base_n - 1) // base_n
  param depth = 1 in [1, 2]
  cores 2 x 1
  tensor x: bf16[16, 128] in
  tensor w: bf16[128, 128] in
  tensor y: bf16[16, 128] out
  aic {
    for t in core .. tiles step 2 {
      let n = min(base_n, 128 - t * base_n)
      buffer acc: L0C fp32[16, base_n] ring 1
      for k in 0 .. 4 {
        buffer a1: L1 bf16[16, 32] ring depth
        buffer b1: L1 bf16[32, base_n] ring depth

        copy a1 <- x[:, k * 32 +: 32]
        copy b1[:, :n] <- w[k * 32 +: 32, t * base_n +: n]
        buffer a0: L0A bf16[16, 32] ring 1
        buffer b0: L0B bf16[32, base_n] ring 1
        copy a0 <- a1
        copy b0[:, :n] <- b1[:, :n]
        mmad acc[:, :n] <- a0, b0[:, :n] {accumulate=k}
      }
      fixpipe y[:, t * base_n +: n] <- acc[:, :n]
    }
  }
}
"""
REFERENCE = "bf16:gemm:m=16,k=128,n=128"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.kir"
    path.write_text(TEXT)
    return path


def cycles(text_or_kernel):
    kernel = parse_kernel(text_or_kernel) if isinstance(text_or_kernel, str) else text_or_kernel
    return msdsim.simulate(kernel, "toy").cycles


def test_print_and_parse_are_inverse():
    kernel = parse_kernel(TEXT)
    assert kernel.params == {"base_n": 64, "depth": 1}
    assert parse_kernel(print_kernel(kernel)) == kernel
    assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)


@pytest.mark.parametrize(("base_n", "depth"), [(32, 1), (64, 2), (96, 1), (128, 2)])
def test_a_chosen_value_is_the_kernel_written_with_it(base_n, depth):
    chosen = with_params(parse_kernel(TEXT), {"base_n": base_n, "depth": depth})
    by_hand = TEXT.replace("param base_n = 64 in [32, 64, 96, 128]", f"let base_n = {base_n}")
    by_hand = by_hand.replace("param depth = 1 in [1, 2]", f"let depth = {depth}")
    assert kernel_hash(chosen) == kernel_hash(parse_kernel(by_hand))
    assert chosen.params == {"base_n": base_n, "depth": depth}
    # Lines are those of the file, blank lines and comments counted.
    assert [op.line for op in chosen.aic[0].body[-1:]] == [TEXT.splitlines().index(
        "      fixpipe y[:, t * base_n +: n] <- acc[:, :n]") + 1]


def test_a_whole_dimension_stays_whole_and_a_number_stays_a_number():
    text = TEXT.replace("copy a1 <- x[:, k * 32 +: 32]", "copy a1 <- x[:, k * 32 +: 32]\n        copy b1[:32, :32] <- w[:32, :32]")
    kernel = with_params(parse_kernel(print_kernel(with_params(parse_kernel(text), {"base_n": 32}))), {"base_n": 64})
    copies = [str(op) for op in kernel.aic[0].body[2].body if str(op).startswith("copy b1")]
    assert copies[0] == "copy b1[:, :32] <- w[:32, :32]"


def test_a_changed_kernel_is_chosen_for_as_it_is():
    import dataclasses

    kernel = dataclasses.replace(parse_kernel(TEXT), name="renamed")
    assert with_params(kernel, {"depth": 2}).name == "renamed"


@pytest.mark.parametrize(("line", "message"), [
    ("param base_n = 48 in [32, 64]", "line 4: param 'base_n' takes 32 or 64, not 48"),
    ("param base_n = 32 in [32, 32]", "line 4: param 'base_n' may take 32 twice"),
    ("param base_n = 32", "line 5: expected 'in' and the values that it may take"),
    ("param base_n = 32 in []", "line 4: expected a whole number"),
    ("param base_n = 32 in [32, x]", "line 4: expected a whole number"),
    ("let depth = 1\n  param base_n = 64 in [64]", "line 7: 'depth' is already in use"),
])
def test_mistakes_in_the_line(line, message):
    with pytest.raises(KernelError, match=message.replace("[", r"\[")):
        parse_kernel(TEXT.replace("param base_n = 64 in [32, 64, 96, 128]", line))


def test_values_that_are_refused(file):
    with pytest.raises(InputError, match="no param 'base_m'; did you mean 'base_n'"):
        msdsim.simulate(str(file), "toy", tiling={"base_m": 32})
    with pytest.raises(KernelError, match="line 4: param 'base_n' takes 32, 64, 96 or 128, not 48"):
        msdsim.simulate(str(file), "toy", tiling={"base_n": 48})
    with pytest.raises(InputError, match=r"has no param 'x' \(it has none; 'param NAME"):
        msdsim.simulate(parse_kernel(TEXT.replace("param base_n = 64 in [32, 64, 96, 128]", "let base_n = 64").replace(
            "param depth = 1 in [1, 2]", "let depth = 1")), "toy", tiling={"x": 1})


def test_the_result_says_what_was_chosen(file):
    result = msdsim.simulate(str(file), "toy", tiling={"depth": 2}, check=True, reference=REFERENCE)
    assert result.tiling == {"base_n": 64, "depth": 2}
    assert result.numerics.bit_exact
    assert result.cycles == cycles(with_params(parse_kernel(TEXT), {"depth": 2}))


def test_tune_tries_everything_that_the_budget_allows(file):
    found = tune(str(file), "toy", reference=REFERENCE)
    assert found.complete
    assert len(found.trials) + found.refused == 8
    assert found.best.cycles == min(trial.cycles for trial in found.trials) < found.start.cycles
    for trial in found.trials:
        assert trial.cycles == cycles(with_params(parse_kernel(TEXT), trial.tiling))
    assert all(refusal.reason for refusal in found.refusals)


def test_tune_climbs_where_it_does_not(file):
    found = tune(str(file), "toy", budget=5)
    assert not found.complete
    assert len(found.trials) <= 5
    assert found.best.cycles < found.start.cycles


def test_tune_keeps_what_is_given(file):
    found = tune(str(file), "toy", tiling={"base_n": 32})
    assert {trial.tiling["base_n"] for trial in found.trials} == {32}
    assert len(found.trials) == 2


def test_a_fast_candidate_with_wrong_numbers_is_refused():
    # With 96 columns a tile the last ones are left out, which is fast.
    text = TEXT.replace("(128 + base_n - 1) // base_n", "128 // base_n")
    found = tune(parse_kernel(text), "toy", reference=REFERENCE, tiling={"depth": 1})
    assert 96 in {refusal.tiling["base_n"] for refusal in found.refusals}
    assert 96 not in {trial.tiling["base_n"] for trial in found.trials}


def test_nothing_to_tune():
    with pytest.raises(InputError, match="leaves nothing open to tune"):
        tune(parse_kernel(TEXT), "toy", tiling={"base_n": 64, "depth": 1})


def test_sweep_over_params_and_chip_numbers(file):
    spec = {"problem": str(file), "hw": "toy", "parameters": {"tiling.depth": [1, 2], "hbm.bandwidth_gbps": [50, 200]}}
    rows = run_sweep(spec)
    assert [row["status"] for row in rows] == ["done"] * 4
    assert rows[0]["cycles"] > rows[3]["cycles"]
    assert {row["tiling.base_n"] for row in rows} == {64}
    with pytest.raises(InputError, match=r"nothing uses the parameter 'tiling.width' \(params of the kernel .*: base_n, depth\)"):
        run_sweep(spec | {"parameters": {"tiling.width": [1]}})


def test_commands(file, tmp_path, capsys):
    assert run_program(["tune", str(file), "--hw", "toy", "--reference", REFERENCE, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["complete"] is True
    assert run_program(["tune", str(file), "--hw", "toy"]) == 0
    assert "numbers were not compared" in capsys.readouterr().out
    assert run_program(["ir", str(file), "--hw", "toy", "--tiling", "depth=2"]) == 0
    assert "param depth = 2 in [1, 2]" in capsys.readouterr().out
    assert run_program(["compare", "gemm:m=16,k=128,n=128", "--hw", "toy", "--dataflow", "bf16", "--kernel", f"bf16:{file}",
                        "--tiling", "own.kir:depth=2", "--check", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][1]["tiling"] == {"base_n": 64, "depth": 2}
    for command in (["explain"], ["ir"], ["tune"], ["run"]):
        assert run_program([*command, str(file), "--hw", "toy", "--dataflow", "msd-int8"]) == 2
        assert "--dataflow belongs to a problem" in capsys.readouterr().err
    assert run_program(["tune", "gemm:m=16,k=128,n=128", "--reference", REFERENCE]) == 2
    assert "--reference belongs to a .kir file" in capsys.readouterr().err


def test_golden_of_a_chosen_value(file, tmp_path, capsys):
    golden = str(tmp_path / "own.json")
    assert run_program(["schedule", "record", str(file), "--hw", "toy", "--tiling", "depth=2", "--out", golden]) == 0
    assert run_program(["schedule", "verify", golden]) == 0
    capsys.readouterr()
    # Another value in the text, where none was given, is a difference with its name.
    file.write_text(TEXT.replace("param base_n = 64", "param base_n = 32"))
    assert run_program(["schedule", "verify", golden]) == 1
    assert "base_n 64 -> 32" in capsys.readouterr().out
