"""The program as a process: help at once, quiet ends, the same from ``python -m`` and from every folder."""

from __future__ import annotations

import subprocess
import sys

from msdsim.cli.program import command_modules

HEAVY = ("numpy", "pydantic", "rich", "matplotlib", "numba", "simpy", "perfetto", "ml_dtypes")


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60, **options)


def test_help_imports_nothing_heavy():
    code = ("import sys; from msdsim.cli.program import run_program; run_program(['--help']); "
            f"print([name for name in {HEAVY!r} if name in sys.modules])")
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_every_command_has_help_and_imports_only_click_for_it(cli):
    for name in command_modules():
        found = cli(name, "--help")
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith(f"Usage: msdsim {name} ")
    code = ("import sys\nfrom importlib import import_module\nfrom msdsim.cli.program import command_modules\n"
            "for module in command_modules().values(): import_module(f'msdsim.cli.commands.{module}')\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules])")
    assert python("-c", code).stdout == "[]\n"


def test_bare_program_and_bare_group_show_help(cli):
    for arguments in ([], ["schedule"]):
        found = cli(*arguments)
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith("Usage: msdsim")


def test_version(cli):
    assert cli("--version") == (0, "msdsim 0.1.0\n", "")


def test_python_m(tmp_path):
    done = python("-m", "msdsim", "list", "formats", "int4", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "name  bits  kind  description",
        "int4     4  int   4-bit two's complement, -8 to 7, one value per byte unpacked",
    ]


def test_a_reader_that_goes_away_is_no_error():
    code = ("import os, sys\nread, write = os.pipe()\nos.dup2(write, 1)\nos.close(write)\nos.close(read)\n"
            "from msdsim.cli import main\nmain(['list', 'hw', '--verbose'])")
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_output_without_unicode_gets_ascii_bars(tmp_path):
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "", "HOME": str(tmp_path)}
    done = python("-m", "msdsim", "run", "gemm:m=4,k=64,n=48", "--hw", "toy", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "# busy" in done.stdout
def _shell(command, **more):
    return subprocess.run(["sh", "-c", command.format(python=sys.executable)], capture_output=True, text=True, check=False,
                          timeout=60, **more)


def test_output_that_cannot_be_written_is_one_line(tmp_path):
    run = "{python} -m msdsim run gemm:m=1,k=64,n=32 --hw toy"
    for redirected, reason in ((">/dev/full", "No space left on device"), (">&-", "standard output is closed")):
        for command in (run, "{python} -m msdsim list hw", "{python} -m msdsim --help"):
            done = _shell(f"{command} {redirected}")
            assert (done.returncode, done.stderr) == (74, f"error: standard output cannot be written ({reason})\n"), command
        # What prints nothing needs no output.
        done = _shell(f"{run} --quiet --json o.json {redirected}", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "o.json").stat().st_size > 100
    assert _shell(f"{run} --tiling x 2>&-").returncode == 2


def test_names_no_file_can_have(cli):
    for arguments in (["run", "a" * 5000 + ".toml"], ["run", "gemm:m=1,k=64,n=32", "--hw", "a" * 5000 + ".toml"],
                      ["run", "a" * 5000 + ".kir"], ["run", "gemm:m=1,k=64,n=32", "--inputs", "a" * 5000], ["run", "a" * 5000]):
        found = cli(*arguments)
        assert found.code == 2, arguments[0]
        assert found.err.startswith("error: ")
        assert found.err.count("\n") == 1
        assert len(found.err) < 2000


def test_an_error_nobody_thought_of(cli, monkeypatch):
    from msdsim.cli.commands import list_

    def breaks(**_):
        raise KeyError("made up")

    monkeypatch.setattr(list_.command, "callback", breaks)
    found = cli("list", "hw")
    assert found.code == 70
    assert found.err.startswith("error: internal error, please report it with the command: KeyError: 'made up' (test_program.py, line")
    assert found.err.count("\n") == 1
