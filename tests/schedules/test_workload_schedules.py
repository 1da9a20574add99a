"""Golden schedules of workloads: recorded, repeated as chosen then, and compared so that the operator to blame comes first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.problems import Gemm, Workload
from msdsim.problems.workload import Entry
from msdsim.schedules import (
    Limits,
    hold,
    judge_workload,
    load_schedule,
    record,
    record_workload,
    repeat_workload,
    save_schedule,
)
from msdsim.schedules.report import verdict_text
from tests.schedules.layer import LAYER as LAYER_FILE

UP, DOWN = Gemm(m=4, k=64, n=48), Gemm(m=4, k=48, n=64)
LAYER = Workload("layer", "two matmuls", "made up", 4, (Entry("up", 3, UP), Entry("down", 3, DOWN, weights="bf16")))


@pytest.fixture(scope="module")
def recorded():
    return record_workload(LAYER, "toy", "msd-int8")


def moved(schedule, name, **changes):
    """The schedule with other figures of one operator."""
    entries = tuple(entry.model_copy(update={"schedule": entry.schedule.model_copy(update=changes)})
                    if entry.name == name else entry for entry in schedule.entries)
    return schedule.model_copy(update={"entries": entries, "cycles": sum(
        entry.count * entry.schedule.cycles for entry in entries)})


def test_the_total_weighs_every_operator_by_its_count(recorded):
    assert recorded.cycles == sum(3 * schedule.cycles for schedule in recorded.schedules.values())
    assert {name: schedule.dataflow for name, schedule in recorded.schedules.items()} == {"up": "msd-int8", "down": "bf16"}


def test_repeated_it_is_the_same(recorded):
    verdict, choice = hold(recorded, Path())
    assert verdict.same
    assert not list(choice)
    assert verdict.headline == f"{recorded.cycles:,} cycles of 2 operators, the same schedules"


def test_what_was_chosen_is_repeated_and_another_choice_is_told(recorded):
    """An operator named in the mix, and a tiling that nobody would choose: both are run again as they were recorded."""
    chosen = recorded.schedules["up"].tiling
    other = chosen | {"l0_ring": 1 if chosen["l0_ring"] > 1 else 2}
    slow = record_workload(LAYER, "toy", "up=msd-int8,gemm=bf16", like=moved(recorded, "up", tiling=other))
    assert slow.schedules["up"].tiling == other
    verdict, choice = hold(slow, Path())
    assert verdict.same
    assert [(item.what, item.before, item.after) for item in choice] == \
        [("up l0_ring", str(other["l0_ring"]), str(chosen["l0_ring"]))]


def test_the_operator_that_moves_the_total_most_comes_first(recorded):
    small = moved(recorded, "down", cycles=recorded.schedules["down"].cycles + 1)
    large = moved(small, "up", cycles=recorded.schedules["up"].cycles + 100)
    verdict = judge_workload(recorded, large)
    assert not verdict.good
    assert list(verdict.changed) == ["up", "down"]
    assert verdict.moved("up") == 300
    share = 100 * 303 / recorded.cycles
    assert verdict.headline.startswith(f"{recorded.cycles:,} -> {recorded.cycles + 303:,} cycles ({share:+.1f}%): 'up' ")
    assert verdict.headline.endswith(", and 1 other operator")
    assert "moves the total by" in verdict_text(verdict)
    document = verdict.to_json()
    assert [(item["name"], item["moved"], item["status"]) for item in document["entries"]] == \
        [("up", 300, "differs"), ("down", 3, "differs")]
    assert document["cycles"]["change"] == pytest.approx(303 / recorded.cycles)


def test_limits_are_those_of_the_total(recorded):
    """One operator a tenth slower is within a limit of the whole; another request is within none."""
    cycles = recorded.schedules["down"].cycles
    slower = moved(recorded, "down", cycles=cycles + cycles // 10)
    grown = 3 * (cycles // 10) / recorded.cycles
    assert judge_workload(recorded, slower, Limits(max_slowdown=grown + 0.001)).good
    assert not judge_workload(recorded, slower, Limits(max_slowdown=grown - 0.001)).good
    assert not judge_workload(recorded, moved(recorded, "up", memory="banked"), Limits(tolerance=9)).good
    assert not judge_workload(recorded, recorded.model_copy(update={"dataflow": "bf16"}), Limits(tolerance=9)).good


def test_another_list_of_operators_is_another_request(recorded):
    other = record_workload(Workload("layer", "", "", 4, (Entry("up", 2, UP), Entry("gate", 1, UP))), "toy", "msd-int8")
    verdict = judge_workload(recorded, other, Limits(tolerance=9))
    assert not verdict.good
    assert [item.what for item in verdict.request] == ["operator up", "operator down", "operator gate"]
    assert (verdict.request[0].before, verdict.request[0].after) == (
        "count=3 problem=gemm:m=4,k=64,n=48", "count=2 problem=gemm:m=4,k=64,n=48")


def test_numbers_are_pinned_for_every_operator():
    pinned = record_workload(LAYER, "toy", "msd-int8", numbers=True, seed=7)
    marks = [schedule.numbers["outputs_sha256"]["y"] for schedule in pinned.schedules.values()]
    assert len(set(marks)) == 2
    assert [schedule.numbers["seed"] for schedule in pinned.schedules.values()] == [7, 7]
    other = moved(pinned, "up", numbers=pinned.schedules["up"].numbers | {"outputs_sha256": {"y": "0" * 64}})
    assert not judge_workload(pinned, other, Limits(tolerance=9)).good
    assert judge_workload(pinned, repeat_workload(pinned, Path())).same


def test_what_belongs_to_one_problem_is_refused():
    with pytest.raises(InputError, match="warm belongs to one problem"):
        record(LAYER, "toy", warm=True)
    with pytest.raises(InputError, match="a reference belongs to a hand-written kernel"):
        record(LAYER, "toy", reference="bf16:gemm:m=4,k=64,n=48")


def test_files_and_the_command_line(recorded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("layer.toml").write_text(LAYER_FILE, encoding="utf-8")
    Path("golden").mkdir()
    assert run_program(["schedule", "record", "layer.toml", "--hw", "toy", "--out", "golden/layer.json"]) == 0
    schedule = load_schedule("golden/layer.json")
    assert (schedule.dataflow, schedule.workload["name"]) == ("msd-int8", "layer")
    save_schedule(schedule, "again.json")
    assert Path("again.json").read_bytes() == Path("golden/layer.json").read_bytes()
    # The kernels are there line by line, and the numbers of the chip once.
    text = Path("again.json").read_text(encoding="utf-8")
    assert text.count('"hbm.bandwidth_gbps"') == 1
    assert all(f"{json.dumps(line)}\n" in text or f"{json.dumps(line)},\n" in text
               for schedule in schedule.schedules.values() for line in schedule.kernel)
    capsys.readouterr()
    assert run_program(["schedule", "verify", "golden", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["schedules"][0]["status"] == "same"
    # A workload's file may change or go; what was recorded is repeated.
    Path("layer.toml").unlink()
    save_schedule(moved(schedule, "up", cycles=schedule.schedules["up"].cycles - 7), "golden/layer.json")
    assert run_program(["schedule", "verify", "golden"]) == 1
    assert "'up' " in capsys.readouterr().out
    assert run_program(["schedule", "diff", "golden/layer.json", "again.json"]) == 1
    assert "+21" in capsys.readouterr().out
    assert run_program(["schedule", "verify", "golden", "--update"]) == 0
    assert load_schedule("golden/layer.json") == schedule


def test_two_schedules_must_be_of_a_kind(recorded, tmp_path, capsys):
    save_schedule(recorded, tmp_path / "workload.json")
    save_schedule(record(UP, "toy"), tmp_path / "gemm.json")
    assert run_program(["schedule", "diff", str(tmp_path / "workload.json"), str(tmp_path / "gemm.json")]) == 2
    assert "give two of a kind" in capsys.readouterr().err
    assert run_program(["schedule", "diff", str(tmp_path / "workload.json"), "--profile", "trace.json"]) == 2
    assert "(up, down, ...)" in capsys.readouterr().err


def test_a_file_whose_operators_are_not_those_of_its_workload_is_refused(recorded, tmp_path, capsys):
    save_schedule(recorded.model_copy(update={"entries": recorded.entries[:1]}), tmp_path / "half.json")
    assert run_program(["schedule", "verify", str(tmp_path / "half.json")]) == 2
    assert "has the operators up, down, its schedules are of others" in capsys.readouterr().err


KERNEL_NUMBERS = ("schedule", "record", "mine.kir", "--hw", "toy", "--check", "--out", "mine.json")


def test_numbers_of_a_hand_written_kernel_are_pinned_against_its_reference(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_program(["ir", str(UP), "--hw", "toy", "--dataflow", "msd-int8"]) == 0
    Path("mine.kir").write_text(capsys.readouterr().out, encoding="utf-8")
    assert run_program([*KERNEL_NUMBERS]) == 2
    assert "held to a reference; add one, such as msd-int8:gemm:m=16,k=1024,n=512" in capsys.readouterr().err
    assert run_program([*KERNEL_NUMBERS, "--reference", f"msd-int8:{UP}"]) == 0
    pinned = load_schedule("mine.json")
    own = record(UP, "toy", "msd-int8", numbers=True)
    assert pinned.numbers == {"reference": f"msd-int8:{UP}", "seed": 0, "bit_exact": True,
                              "outputs_sha256": own.numbers["outputs_sha256"]}
    assert run_program(["schedule", "verify", "mine.json"]) == 0
    # Another rounding changes bits and not one cycle.
    text = Path("mine.kir").read_text(encoding="utf-8")
    assert "{round=round}" in text
    Path("mine.kir").write_text(text.replace("{round=round}", "{round=floor}"), encoding="utf-8")
    capsys.readouterr()
    assert run_program(["schedule", "verify", "mine.json", "--tolerance", "5%"]) == 1
    assert "numbers are others" in capsys.readouterr().out


def test_a_reference_without_a_check_or_a_kernel_is_refused(tmp_path, capsys):
    out = str(tmp_path / "s.json")
    assert run_program(["schedule", "record", str(UP), "--hw", "toy", "--reference", f"bf16:{UP}", "--out", out]) == 2
    assert "add --check" in capsys.readouterr().err
    assert run_program(["schedule", "record", str(UP), "--hw", "toy", "--check", "--reference", f"bf16:{UP}", "--out", out]) == 2
    assert "belongs to a hand-written kernel" in capsys.readouterr().err
