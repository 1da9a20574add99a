"""Folders that are full or read-only, under every file that a command writes: one line, the exit code of a user's mistake, what was
there before as it was, and nothing half-written beside it.  They are small file systems of this test's own, where those may be made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from msdsim.cli.program import run_program

P = "gemm:m=4,k=64,n=48"
SPEC = 'problem = "gemm:m={m},k=64,n=48"\nhw = "toy"\n[parameters]\nm = { start = 1, stop = 16, step = 1 }\n'
CONFIG = ('{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128, '
          '"vocab_size": 256}')
#: Options that write a file, the file, and the command.
WRITERS = {
    "json": (["run", P, "--hw", "toy", "--json"], "out.json"), "html": (["run", P, "--hw", "toy", "--html"], "out.html"),
    "plot": (["run", P, "--hw", "toy", "--plot"], "out.png"), "svg": (["run", P, "--hw", "toy", "--plot"], "out.svg"),
    "trace": (["run", P, "--hw", "toy", "--trace"], "out.pftrace"), "trace json": (["run", P, "--hw", "toy", "--trace"], "out.json"),
    "arrays": (["run", "gemm:m=64,k=64,n=512", "--hw", "toy", "--outputs"], "out.npz"),
    "compare": (["compare", P, "--hw", "toy", "--dataflow", "bf16,msd-int8", "--html"], "out.html"),
    "explain": (["explain", P, "--hw", "toy", "--html"], "out.html"), "schedule": (["schedule", "record", P, "--hw", "toy", "--out"], "out.json"),
    "tune": (["tune", P, "--hw", "toy", "--budget", "2", "--json"], "out.json"), "import": (["import", "config.json", "--kv", "64", "--out"], "out.toml"),
}


@pytest.fixture
def disk(tmp_path):
    """A file system of so many kilobytes with a file in it, or a read-only one."""
    made: list[Path] = []

    def make(kilobytes: int, old: str, read_only: bool = False) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder], capture_output=True, check=False).returncode:
            pytest.skip("no file system may be mounted here")
        made.append(folder)
        (folder / old).write_text("as it was")
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True, capture_output=True)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", folder], check=False, capture_output=True)


def _one_line(capsys, code: int) -> str:
    told = capsys.readouterr().err
    assert code == 2, told
    assert told.startswith("error: ")
    assert told.count("\n") == 1, told
    return told


#: Ways to write that differ; the rest go the same ways.
OFTEN = ("json", "arrays", "schedule", "import")


@pytest.mark.parametrize("name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in WRITERS])
@pytest.mark.parametrize("read_only", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["full", "read-only"])
def test_what_was_there_stays(disk, tmp_path, monkeypatch, capsys, name, read_only):
    words, file = WRITERS[name]
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(CONFIG)
    folder = disk(4, file, read_only)  # one page, which the old file has
    told = _one_line(capsys, run_program([*words, str(folder / file), *(["--quiet"] if words[0] != "import" else [])]))
    assert file in told or str(folder) in told
    assert {path.name: path.read_text() for path in folder.iterdir()} == {file: "as it was"}


def test_a_sweep_goes_on_when_there_is_room(disk, tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    folder = disk(24, "other")
    command = ["sweep", str(spec), "--out", str(folder), "--jobs", "1", "--quiet"]
    assert "results.jsonl' cannot be written (No space left on device); the rows before are kept" in _one_line(capsys, run_program(command))
    kept = (folder / "results.jsonl").read_bytes()
    assert kept.count(b"\n") > 2
    subprocess.run(["mount", "-o", "remount,size=4m", folder], check=True, capture_output=True)
    assert run_program(command) == 0
    now = (folder / "results.jsonl").read_bytes()
    assert now.startswith(kept[: kept.rindex(b"\n") + 1])
    assert now.count(b"\n") in (16, 17), "the row cut short, and every point once"


def test_a_sweep_into_a_folder_that_cannot_be_written(disk, tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    folder = disk(96, "other", read_only=True)
    for out in (folder, folder / "new"):
        assert "Read-only file system" in _one_line(capsys, run_program(["sweep", str(spec), "--out", str(out), "--quiet"]))


def test_a_schedule_is_updated_whole_or_not_at_all(disk, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_program(["schedule", "record", P, "--hw", "toy", "--out", "s.json", "--quiet"]) == 0
    text = Path("s.json").read_text()
    folder = disk(64, "other")
    old = text.replace('"cycles": ', '"cycles": 9', 1)
    (folder / "s.json").write_text(old)
    left = subprocess.run(["df", "--output=avail", "-B1", folder], capture_output=True, text=True, check=True).stdout.split()[-1]
    (folder / "fill").write_bytes(b"x" * int(left))
    _one_line(capsys, run_program(["schedule", "verify", "--update", str(folder / "s.json"), "--quiet"]))
    assert (folder / "s.json").read_text() == old
    assert {path.name for path in folder.iterdir()} == {"other", "fill", "s.json"}
