"""Every mistake a user can make on the command line: one ``error:`` line that says what would mend it, and the exit code."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from msdsim.api import dataflows_for
from msdsim.dataflows import DATAFLOWS
from msdsim.errors import Deadlock
from msdsim.numerics.check import Executed, Numerics
from msdsim.problems import KINDS
from msdsim.resources import data_dir, shipped_names

P = "gemm:m=16,k=64,n=48"
TOY = ["--hw", "toy"]
GEMM_KEYS = "(keys: m, k, n; optional: group, offset, trans_b, x, out, layout)"
CHIPS = ", ".join(shipped_names("hwmodels"))
HELP = "('msdsim run --help' shows how it is used)"


def assert_error(outcome, message, code=2):
    """Exactly one line on standard error, and nothing on standard output."""
    assert outcome.err == f"error: {message}\n"
    assert outcome.out == ""
    assert outcome.code == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gemm:m=0,k=64,n=48"], f"gemm: m = 0 is below 1; give a whole number of at least 1 {GEMM_KEYS}"),
        (["gemm:m=-3,k=64,n=48"], f"gemm: m = -3 is below 1; give a whole number of at least 1 {GEMM_KEYS}"),
        (["gemm:m=ten,k=64,n=48"], f"gemm: m = 'ten' is not a whole number; give one of at least 1 {GEMM_KEYS}"),
        (["gemm:m=16,k=64"], f"gemm: key 'n' is missing {GEMM_KEYS}"),
        (["gemm:m=16,k=64,n=48,o=1"], f"gemm: unknown key 'o' {GEMM_KEYS}"),
        (["conv:m=3"], f"unknown problem kind 'conv' (kinds: {', '.join(KINDS)})"),
        ([P, "--hw", "ascend910"], f"unknown chip 'ascend910'; did you mean 'ascend910b4'? (known: {CHIPS})"),
        ([P, "--hw", "no/chip.toml"],
         f"chip file 'no/chip.toml' does not exist; give a path to a .toml file or a shipped name ({CHIPS})"),
        ([P, *TOY, "--engine", "slow"], "unknown engine 'slow' (known: fast, reference)"),
        ([P, *TOY, "--set", "hbm.bandwith_gbps=3"],
         "unknown chip parameter 'hbm.bandwith_gbps'; did you mean 'hbm.bandwidth_gbps'? "
         "('msdsim list hw --verbose' lists them)"),
        ([P, *TOY, "--set", "hbm.bandwidth_gbps=0"], "chip 'toy' as set: key 'hbm.bandwidth_gbps' = 0 must be above 0"),
        ([P, *TOY, "--set", "hbm.bandwidth_gbps=much"], "chip 'toy' as set: key 'hbm.bandwidth_gbps' = 'much' must be a number"),
        ([P, *TOY, "--set", "hbm.bandwidth_gbps"],
         "--set 'hbm.bandwidth_gbps' is not KEY=VALUE; write for example --set hbm.bandwidth_gbps=3200"),
        ([P, *TOY, "--set", "clock_mhz=1", "--set", "clock_mhz=2"], "--set gives 'clock_mhz' twice; remove one"),
        ([P, *TOY, "--tiling", "l1_k"], "tiling 'l1_k' is not KEY=VALUE; write for example --tiling base_m=128,base_n=256, or auto"),
        ([P, *TOY, "--tiling", "l1_k=long"], "tiling l1_k='long' is not a whole number of at least 0"),
        ([P, *TOY, "--tiling", "l1_k=16,l1_k=32"], "tiling gives 'l1_k' twice; remove one"),
        ([P, *TOY, "--tiling", ","], "--tiling is empty; write KEY=VALUE,..., or auto"),
        ([P, *TOY, "--tiling", "base_m=24"],
         "tiling base_m=24 is not a multiple of 16 (the Cube works in fractals of 16 rows); try 16"),
        ([P, *TOY, "--tiling", "base_m=0"], "tiling base_m=0 is below 1; give at least 1"),
        ([P, *TOY, "--outputs", "y.txt"], "--outputs 'y.txt' does not end in .npz"),
        ([P, *TOY, "--plot", "y.gif"], "--plot 'y.gif' does not end in .png or .svg or .pdf"),
        ([P, *TOY, "--json", "no/run.json"], "--json 'no/run.json': there is no folder 'no'; create it first"),
        ([P, *TOY, "--html", "."], "--html '.' is not a file name; give the file to write"),
        ([P, *TOY, "--json", "a.json", "--trace", "a.json"], "--trace and --json both write 'a.json'; give two names"),
        ([P, *TOY, "--keep", "components"], "--keep needs a file to write to; add --outputs FILE.npz"),
        ([P, *TOY, "--keep", "scales"], f"invalid value for '--keep': 'scales' is not 'components' {HELP}"),
        ([P, *TOY, "--seed", "x"], f"invalid value for '--seed': 'x' is not a valid whole number {HELP}"),
        ([P, *TOY, "--seed", "-1"], f"invalid value for '--seed': -1 is not in the range x>=0 {HELP}"),
        ([], f"missing argument 'PROBLEM' {HELP}"),
        ([P, "twice"], f"got unexpected extra argument (twice) {HELP}"),
        ([P, "--inputs"], f"option '--inputs' requires an argument {HELP}"),
        (["llama3-8b-decode", "--trace", "t.pftrace"],
         "--trace belongs to one problem, and 'llama3-8b-decode' has 6; give one of them, such as gemm:m=16,k=4096,n=6144"),
    ],
)
def test_run(cli, arguments, message):
    assert_error(cli("run", *arguments), message)


def test_unknown_dataflow_lists_those_of_the_problem(cli):
    found = cli("run", P, *TOY, "--dataflow", "msd-int9")
    known = ", ".join(dataflows_for("gemm", restated=True))
    assert_error(found, f"unknown gemm dataflow 'msd-int9'; did you mean 'msd-int8'? (known: {known})")


def test_unknown_tiling_key_lists_those_of_the_dataflow(cli):
    found = cli("run", P, *TOY, "--tiling", "base_x=16")
    known = ", ".join(key.name for key in fields(DATAFLOWS["bf16"].tiling))
    assert_error(found, f"dataflow 'bf16' has no tiling key 'base_x' (keys: {known})")


def test_a_tiling_too_large_says_which_buffer_and_by_how_many_bytes(cli):
    tiling = "base_m=16,base_n=48,l1_k=4096,l0_k=16,l1_ring=2"
    assert_error(cli("run", P, *TOY, "--tiling", tiling),
                 "tiling needs 1048576 bytes of L1 (a1 262144 + b1 786432), 983040 more than the 65536 bytes of 'toy'; "
                 "lower the tile sizes or ring depths")


def test_an_unknown_command_names_the_closest(cli):
    found = cli("runn")
    assert found.err.startswith("error: unknown command 'runn'; did you mean 'run'? (known: run, compare, ")
    assert found.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", P, *TOY, "--dataflow", ","], "--dataflow is empty; give names separated by commas, or all"),
        (["compare", P, *TOY, "--dataflow", "bf16,msd-int8", "--tiling", "w8:l1_k=1"],
         "--tiling 'w8:l1_k=1' is for 'w8', which is not among the dataflows (bf16, msd-int8)"),
        (["ir", "llama3-8b-decode"],
         "ir takes one problem, and 'llama3-8b-decode' is a workload (qkv_proj, attention, o_proj, gate_up_proj, ...); "
         "give one of its problems, such as gemm:m=16,k=4096,n=6144"),
        (["list", "chips"],
         "invalid value for 'hw|workloads|dataflows|formats|families': 'chips' is not one of 'hw', 'workloads', 'dataflows', 'formats', 'families' "
         "('msdsim list --help' shows how it is used)"),
        (["list", "formats", "fp3"], "unknown format 'fp3'; did you mean 'fp32'? (known: bf16, fp16, fp32, fp8_e4m3fn, "
                                     "fp8_e5m2, fp4_e2m1, e8m0, int8, int4, int32)"),
        (["schedule", "record", P, "--out", "s.txt"], "--out 's.txt' does not end in .json"),
        (["schedule", "record", P], "missing option '--out' ('msdsim schedule record --help' shows how it is used)"),
        (["schedule", "verify"], "missing argument 'FILE|DIR...' ('msdsim schedule verify --help' shows how it is used)"),
        (["schedule", "verify", "no.json"],
         "schedule file 'no.json' does not exist; record one with 'msdsim schedule record'"),
        (["schedule", "check"], "no such command 'check' ('msdsim schedule --help' shows how it is used)"),
    ],
)
def test_other_commands(cli, arguments, message):
    assert_error(cli(*arguments), message)


def save(name, **arrays):
    np.savez(name, **arrays)


def save_one(array):
    with open("in.npz", "wb") as file:
        np.save(file, array)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda x: None, "inputs file 'in.npz' does not exist; give an .npz file as numpy.savez writes it"),
        (lambda x: Path("in.npz").write_text("x", encoding="utf-8"),
         "inputs file 'in.npz' is not an npz file of plain arrays; write it with numpy.savez"),
        (lambda x: save("in.npz", x=np.array([{}])),
         "inputs file 'in.npz' is not an npz file of plain arrays; write it with numpy.savez"),
        (save_one,
         "inputs file 'in.npz' holds one array without a name; write it with numpy.savez(FILE, x=...)"),
        (lambda x: save("in.npz", activations=x), "unknown array 'activations' in the inputs (known: x, x_scale, w, q, scale, offset)"),
        (lambda x: save("in.npz", x=x.T), "x has shape [64, 16], the problem needs [16, 64]"),
        (lambda x: save("in.npz", x=np.where(x == x[3, 7], np.nan, x)),
         "x has nan at row 3, column 7; every value must be finite: clean the array before quantizing it"),
        (lambda x: save("in.npz", w=np.full((64, 48), np.inf, np.float32)),
         "w has inf at row 0, column 0; every value must be finite: clean the array before quantizing it"),
    ],
)
def test_input_arrays(cli, activations, write, message):
    write(activations)
    assert_error(cli("run", P, *TOY, "--inputs", "in.npz"), message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clock_mhz = { value = 1000", "clock_mhz = { value = -5", "key 'clock_mhz' = -5 must be above 0"),
        ("clock_mhz = ", "clock_mzh = ", "key 'clock_mzh' is not known; did you mean 'clock_mhz'?"),
        ("clock_mhz = ", "# ", "key 'clock_mhz' is missing"),
    ],
)
def test_chip_files(cli, old, new, message):
    with open("mine.toml", "w", encoding="utf-8") as file:
        file.write((data_dir("hwmodels") / "toy.toml").read_text(encoding="utf-8").replace(old, new, 1))
    assert_error(cli("run", P, "--hw", "mine.toml"), f"chip file 'mine.toml': {message}")


def test_a_check_that_fails_names_tensor_index_and_both_values(cli, monkeypatch):
    from msdsim.numerics import executor

    execute = executor.execute

    def flipped(kernel, operands, **options):
        outputs = execute(kernel, operands, **options)
        y = outputs["y"].copy()
        y.reshape(-1).view(np.uint16)[49] ^= 1
        return outputs | {"y": y}

    monkeypatch.setattr(executor, "execute", flipped)
    found = cli("run", P, *TOY, "--check")
    assert found.code == 1
    assert found.err.startswith("error: bf16: y: 1 of 768 elements differ; first at [1, 1]: expected ")
    assert ", got " in found.err
    assert "NOT bit-exact: y: 1 of 768 elements differ" in found.out


def test_a_bound_that_is_exceeded_fails_the_check(cli, monkeypatch):
    import msdsim.runs

    def beyond(*_, **__):
        return Executed(Numerics(True, 768, 0, 0.5, 0.5, 2.0), {})

    monkeypatch.setattr(msdsim.runs, "check_numbers", beyond)
    found = cli("run", P, *TOY, "--check", "--quiet")
    assert_error(found, "bf16: the error is 2 times its proven bound; please report this", code=1)


class _Stuck:
    def run(self, program, options):
        raise Deadlock("the kernel 'bf16' deadlocks at cycle 12: Chip.Core[0].AIC.M waits for MTE1 on buffer 'a0'")


def test_a_deadlock_leaves_with_3(cli, monkeypatch):
    import msdsim.runs

    monkeypatch.setattr(msdsim.runs, "load_engine", lambda name: _Stuck())
    found = cli("run", P, *TOY)
    assert_error(found, "the kernel 'bf16' deadlocks at cycle 12: Chip.Core[0].AIC.M waits for MTE1 on buffer 'a0'", code=3)


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        # The first newline ends the terminal's line with ^C in it.
        (KeyboardInterrupt(), 130, "\nerror: interrupted\n"),
        (MemoryError(), 2, "error: this machine has not enough memory for the arrays of this problem; make it smaller\n"),
    ],
)
def test_what_ends_a_run_from_outside(cli, monkeypatch, raised, code, message):
    import msdsim.api

    def stop(*_, **__):
        raise raised

    monkeypatch.setattr(msdsim.api, "simulate", stop)
    assert cli("run", P, *TOY) == (code, "", message)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_folder_that_may_not_be_written(cli, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_error(cli("run", P, *TOY, "--json", "locked/a.json"), "--json 'locked/a.json' cannot be written: permission denied")


def test_nothing_is_written_when_the_input_is_wrong(cli, tmp_path):
    assert cli("run", P, *TOY, "--set", "clock_mhz=0", "--json", "a.json", "--html", "a.html").code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dataflow", "key"), [("bf16", "base_m"), ("msd-int8", "slots"), ("msd-int8", "l1_k")])
@pytest.mark.filterwarnings("error")
def test_no_warning_of_a_library_with_a_size_of_0(cli, dataflow, key):
    assert_error(cli("run", P, *TOY, "--dataflow", dataflow, "--tiling", f"{key}=0"), f"tiling {key}=0 is below 1; give at least 1")


@pytest.mark.parametrize("text", ["a = " + "[" * 3000 + "]" * 3000, "a = " + "9" * 5000])
def test_tables_beyond_python_s_own_limits(cli, tmp_path, text):
    """Nested by the thousand, numbers of thousands of digits: in a chip, a workload, a sweep and an option."""
    path = tmp_path / "any.toml"
    path.write_text(text)
    for arguments in (["run", P, "--hw", str(path)], ["run", str(path), *TOY], ["sweep", str(path), "--out", str(tmp_path / "out")],
                      ["validate", str(path)], ["run", P, *TOY, "--set", "hbm.bandwidth_gbps=" + text[4:]]):
        outcome = cli(*arguments)
        assert outcome.code == 2, arguments
        assert outcome.err.startswith("error: ")
        assert outcome.err.count("\n") == 1
        assert len(outcome.err) < 2000
