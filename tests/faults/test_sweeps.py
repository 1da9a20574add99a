"""Sweeps that are killed, starved, doubled or cut off: finished rows stay, nothing goes on behind them, the same command ends it.

A few faults by default; ``pytest -m slow tests/faults/test_sweeps.py`` kills fifty sweeps at random moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msdsim.errors import InputError
from msdsim.explore.sweep import read_spec, run_sweep
from msdsim.explore.sweep.spec import parse_spec
from msdsim.explore.sweep.store import RESULTS, Store

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for left-over processes in /proc")

SPEC = """
problem = "gemm:m={m},k=512,n={n}"
hw = "toy"
dataflow = ["bf16", "msd-int8"]
[parameters]
m = [1, 2, 3, 4, 5]
n = { start = 64, stop = 512, step = 64 }
"""
POINTS = 2 * 5 * 8


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "spec.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def whole(spec):
    return run_sweep(read_spec(spec))


class Command:
    """A command, running in a session of its own, with a mark by which its processes are found."""

    def __init__(self, out: Path, *words: str) -> None:
        self.out, self.mark = out, f"MSDSIM_TEST_SWEEP={out}"
        name, value = self.mark.split("=", 1)
        command = f"from msdsim.cli import main; main({list(words)!r})"
        self.process = subprocess.Popen([sys.executable, "-c", command], env=os.environ | {name: value}, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                                        # Where these tests run in the background of a shell, Ctrl-C is ignored in them.
                                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    @property
    def rows(self) -> int:
        path = self.out / RESULTS
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for_rows(self, count: int) -> None:
        end = time.monotonic() + 120
        while self.rows < count and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)

    def others(self) -> list[int]:
        """Its processes that are alive, but for the first."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (entry / "environ").read_bytes() and "Z" not in (entry / "stat").read_text().split()[2]:
                    found.append(int(entry.name))
            except OSError:
                continue
        return [pid for pid in found if pid != self.process.pid]

    def workers(self) -> list[int]:
        return [pid for pid in self.others() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def end(self) -> tuple[int, str]:
        _, told = self.process.communicate(timeout=120)
        return self.process.returncode, told

    def gone(self) -> bool:
        end = time.monotonic() + 20
        while self.others() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.others()


class Sweep(Command):
    """A sweep into a folder."""

    def __init__(self, spec: Path, out: Path, *arguments: str) -> None:
        super().__init__(out, "sweep", str(spec), "--out", str(out), "--quiet", *arguments)


def _kill_and_resume(spec: Path, out: Path, whole, how: signal.Signals, after: int, jobs: int) -> None:
    sweep = Sweep(spec, out, "--jobs", str(jobs))
    sweep.wait_for_rows(after)
    sweep.process.send_signal(how)
    code, _ = sweep.end()
    kept = sweep.rows
    assert (code == 0) <= (kept >= POINTS), "it was not killed"
    assert kept >= min(after, POINTS)
    assert sweep.gone(), f"still alive: {sweep.others()}"
    assert run_sweep(read_spec(spec), out) == whole
    lines = [json.loads(line)["key"] for line in (out / RESULTS).read_text().splitlines() if line.endswith("}")]
    assert len(lines) == len(set(lines)) == POINTS, "a point that was on disk ran again"


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
                                 pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_killed(spec, whole, tmp_path, how):
    _kill_and_resume(spec, tmp_path / "out", whole, how, after=7, jobs=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_killed_at_random(spec, whole, tmp_path, seed):
    dice = random.Random(seed)
    how = dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    _kill_and_resume(spec, tmp_path / "out", whole, how, after=dice.randrange(POINTS), jobs=dice.choice([1, 2]))


def test_interrupted_quietly(spec, whole, tmp_path):
    sweep = Sweep(spec, tmp_path / "out", "--jobs", "2")
    sweep.wait_for_rows(5)
    os.killpg(sweep.process.pid, signal.SIGINT)  # what a terminal sends: to every process
    code, told = sweep.end()
    assert (code, told.strip()) == (130, "error: interrupted")
    assert sweep.gone()
    assert run_sweep(read_spec(spec), tmp_path / "out") == whole


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.05, 0.1, 0.2, 0.4])
def test_interrupted_while_workers_start(spec, tmp_path, delay):
    sweep = Sweep(spec, tmp_path / "out", "--jobs", "2")
    end = time.monotonic() + 60
    while not sweep.workers() and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(delay)
    os.killpg(sweep.process.pid, signal.SIGINT)
    code, told = sweep.end()
    assert (code, told.strip()) == (130, "error: interrupted")
    assert sweep.gone()


def test_a_worker_that_dies_takes_no_row_with_it(spec, whole, tmp_path):
    sweep = Sweep(spec, tmp_path / "out", "--jobs", "2")
    sweep.wait_for_rows(5)
    os.kill(sweep.workers()[0], signal.SIGKILL)
    code, told = sweep.end()
    assert (code, told) == (0, "")
    assert run_sweep(read_spec(spec), tmp_path / "out") == whole
    assert sweep.rows == POINTS


@pytest.mark.slow
def test_a_point_that_kills_its_worker_is_one_failed_row(tmp_path):
    """Its neighbours' rows are those of a sweep without it."""
    script = tmp_path / "script.py"
    script.write_text("""
import os
from msdsim.explore.sweep import point, run_sweep
run = point.run
def dies(problem, *rest):
    if problem.m == 3 and problem.n == 64:
        os.kill(os.getpid(), 9)
    return run(problem, *rest)
point.run = dies
if __name__ == "__main__":
    from msdsim.explore.sweep import read_spec
    import json
    spec = {"problem": "gemm:m={m},k=512,n=64", "hw": "toy", "parameters": {"m": [1, 2, 3, 4, 5]}}
    print(json.dumps([row["status"] for row in run_sweep(spec, jobs=2)]))
""")
    told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True).stdout
    assert json.loads(told) == ["done", "done", "failed", "done", "done"]


def test_one_writer(spec, tmp_path):
    with Store(tmp_path), pytest.raises(InputError, match="another sweep is writing into"):
        run_sweep(read_spec(spec), tmp_path)


def test_full_disk(spec, whole, tmp_path):
    # A limit on the size of a file stands for a disk without room: both make a write fail in the middle of a row.
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written .File too large.; the rows before are kept"):
            run_sweep(read_spec(spec), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = (tmp_path / RESULTS).read_bytes().count(b"\n")
    assert kept > 1
    assert run_sweep(read_spec(spec), tmp_path) == whole
    assert (tmp_path / RESULTS).read_bytes().count(b"\n") == POINTS + 1, "the row cut short, and every point once"


def test_a_point_that_breaks_is_a_row_and_runs_again(spec, whole, tmp_path, monkeypatch):
    from msdsim.explore.sweep import point

    def breaks(problem, *rest):
        if problem.m == 3:
            raise ZeroDivisionError("made up")
        return run(problem, *rest)

    run = point.run
    monkeypatch.setattr(point, "run", breaks)
    rows = run_sweep(read_spec(spec), tmp_path)
    assert {row["status"] for row in rows if row["m"] != 3} == {"done"}
    assert {row["error"] for row in rows if row["m"] == 3} == {"ZeroDivisionError: made up"}
    monkeypatch.setattr(point, "run", run)
    assert run_sweep(read_spec(spec), tmp_path) == whole


def test_rows_of_another_chip_or_version_are_no_answer(tmp_path, monkeypatch):
    from msdsim.explore.sweep import point
    from msdsim.hardware import load_hw

    chip = tmp_path / "mine.toml"
    asked = {"problem": "gemm:m=4,k=512,n=256", "hw": str(chip), "dataflow": "bf16"}
    found = []
    for rate in (64, 16):
        chip.write_text(f'extends = "toy"\n[hbm]\nbandwidth_gbps = {rate}\n')
        found += run_sweep(asked, tmp_path / "out")
    assert found[0]["cycles"] < found[1]["cycles"]
    assert found[1]["cycles"] == run_sweep(asked | {"hw": "toy", "parameters": {"hbm.bandwidth_gbps": [16]}})[0]["cycles"]
    assert load_hw("toy").chip.hbm.bandwidth_gbps != 16
    monkeypatch.setattr(point, "code_version", lambda: "another")
    assert run_sweep(asked, tmp_path / "out")[0]["key"] != found[1]["key"]
    assert (tmp_path / "out" / RESULTS).read_text().count("\n") == 3


def test_memory_model_and_check_belong_to_a_point(tmp_path):
    asked = {"problem": "gemm:m=4,k=512,n=256", "hw": "toy"}
    rows = [run_sweep(asked | more, tmp_path)[0] for more in ({}, {"memory": "banked"}, {"check": True})]
    assert len({row["key"] for row in rows}) == 3
    assert rows[2]["bit_exact"] is True
    assert rows[0]["cycles"] == rows[2]["cycles"]


def test_cluster_gone(spec, whole, tmp_path):
    pytest.importorskip("distributed")
    script = ("import sys\nfrom distributed import LocalCluster\n"
              "if __name__ == '__main__':\n"
              "    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)\n"
              "    print(cluster.scheduler_address, flush=True)\n    sys.stdin.read()\n")
    # An address that other processes reach: the in-process one of the workers is no use to them.
    script = script.replace("dashboard_address=None", "dashboard_address=None, protocol='tcp', host='127.0.0.1'")
    cluster = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    try:
        address = cluster.stdout.readline().strip()
        sweep = Sweep(spec, tmp_path / "out", "--scheduler", address)
        sweep.wait_for_rows(5)
        cluster.kill()
        code, told = sweep.end()
    finally:
        cluster.kill()
        cluster.wait()
    assert code == 2
    assert told.startswith("error: the Dask cluster at")
    assert told.count("\n") == 1
    assert sweep.rows >= 5
    assert run_sweep(read_spec(spec), tmp_path / "out") == whole


def test_ten_million_points_are_counted_at_once():
    spec = parse_spec({"problem": "gemm:m={m},k={k},n={n}", "parameters": {
        "m": {"start": 1, "stop": 1000, "step": 1}, "k": {"start": 16, "stop": 1600, "step": 16},
        "n": {"start": 16, "stop": 1600, "step": 16}}})
    assert len(spec) == 10_000_000
    first = next(spec.combinations())
    assert first[0] == "gemm:m=1,k=16,n=16"


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.1, 0.3, 1, 3])
def test_ctrl_c_while_processes_execute_numbers(tmp_path, delay):
    """Layers side by side: nobody but the command itself says a word, and no process is left."""
    path = tmp_path / "net.toml"
    path.write_text('description = "d"\nsource = "s"\n' + "".join(
        f'[[op]]\nname = "l{n}"\ncount = 1\nproblem = "gemm:m=64,k=4096,n={1024 + 64 * n}"\n' for n in range(8)))
    command = Command(tmp_path, "run", str(path), "--dataflow", "msd-int8", "--check", "--jobs", "2", "--quiet")
    end = time.monotonic() + 60
    while not command.workers() and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(delay)
    os.killpg(command.process.pid, signal.SIGINT)
    code, told = command.end()
    assert (code, told.strip()) in ((130, "error: interrupted"), (0, ""))
    assert command.gone()
