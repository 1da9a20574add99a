"""Golden schedules: the project's own still hold in both engines, and what changes is shown so that a person can judge it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msdsim.cli.program import run_program
from msdsim.engine import ENGINES
from msdsim.errors import InputError
from msdsim.hardware import load_hw
from msdsim.problems import Gemm
from msdsim.resources import data_dir
from msdsim.schedules import differences, load_schedule, record_schedule, repeat_schedule, save_schedule
from msdsim.schedules.schedule import chip_hash, relative_hw

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
P = "gemm:m=4,k=64,n=48"
KEYS = ["schema", "msdsim", "problem", "hw", "overrides", "chip_sha256", "dataflow", "memory", "tiling_given", "tiling",
        "kernel_sha256", "cycles", "instructions", "traffic", "pipes", "chip", "lines", "kernel"]


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden(file, engine):
    recorded = load_schedule(file)
    found = differences(recorded, repeat_schedule(recorded, file.parent, engine))
    assert not found, (f"{file.name} has changed; if that is intended: msdsim schedule verify --update "
                       f"tests/schedules/golden/*.json\n" + "\n".join(str(item) for item in found))


def test_golden_files_cover_the_first_dataflows_on_two_chips():
    kinds = {(schedule.hw, schedule.dataflow) for schedule in map(load_schedule, GOLDEN)}
    assert kinds >= {(hw, dataflow) for hw in ("toy", "ascend910b1") for dataflow in ("bf16", "dequant-int8", "msd-int8")}


def test_golden_files_cover_problems_chips_and_memory():
    found = [(schedule.problem, schedule.hw, schedule.memory, schedule.tiling) for schedule in map(load_schedule, GOLDEN)]
    assert {problem["kind"] for problem, *_ in found} == {"gemm", "grouped_gemm", "attention"}
    assert {hw for _, hw, *_ in found} >= {"toy", "ascend910b1", "ascend950pr"}
    assert {memory for _, _, memory, _ in found} == {"bandwidth", "banked"}
    assert any(problem.get("group") for problem, *_ in found)
    assert any(tiling.get("k_parts", 1) > 1 for *_, tiling in found)


@pytest.fixture
def schedule():
    return record_schedule(Gemm(m=4, k=64, n=48), "toy", "msd-int8")


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        code = run_program(["schedule", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def changed(schedule, **values):
    return schedule.model_copy(update=values)


def test_a_file_reads_back_as_it_was_and_has_the_documented_keys(schedule, tmp_path):
    save_schedule(schedule, tmp_path / "s.json")
    document = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert list(document) == KEYS
    assert document["schema"] == "msdsim.schedule/1"
    assert load_schedule(tmp_path / "s.json") == schedule


def test_recording_twice_is_the_same_in_every_engine(schedule):
    for engine in ENGINES:
        again = record_schedule(Gemm(m=4, k=64, n=48), "toy", "msd-int8", engine=engine)
        assert again == schedule
        assert differences(schedule, again) == []


def test_differences_are_in_cycles_and_percent(schedule):
    pipes = {**schedule.pipes, "aic.m": {**schedule.pipes["aic.m"], "busy": 50}}
    before = changed(schedule, cycles=1000, pipes={**pipes, "aic.m": {**pipes["aic.m"], "busy": 40}})
    found = {item.what: item for item in differences(before, changed(schedule, cycles=1100, pipes=pipes))}
    assert (found["cycles"].before, found["cycles"].after, found["cycles"].change) == ("1,000", "1,100", "+100 (+10.00%)")
    assert found["aic.m busy"].change == "+10 (+25.00%)"
    assert len(found) == 2


def test_causes_come_before_effects(schedule):
    other = record_schedule(Gemm(m=4, k=64, n=48), "toy", "msd-int8", overrides={"hbm.bandwidth_gbps": 64},
                            tiling={**schedule.tiling, "l1_ring": 1})
    names = [item.what for item in differences(schedule, other)]
    assert names[:6] == ["override hbm.bandwidth_gbps", "chip numbers", "chip hbm.bandwidth_gbps", "tiling l1_ring",
                         "kernel text", "cycles"]
    assert any(name.startswith("aic.mte2 wait_") for name in names)


def test_the_hash_of_a_chip_sees_every_number_and_no_words():
    toy = load_hw("toy")
    assert chip_hash(toy) != chip_hash(toy.replace(hbm__extra_latency_cycles=101))
    assert chip_hash(toy) == chip_hash(toy.replace(description="other words"))


def test_verify_and_update(cli, schedule, tmp_path):
    assert cli("record", P, "--hw", "toy", "--dataflow", "msd-int8", "--out", "good.json") == (
        0, f"recorded good.json: {schedule.cycles:,} cycles\n", "")
    save_schedule(changed(schedule, cycles=schedule.cycles - 10, kernel_sha256="0" * 64), "old.json")
    code, out, err = cli("verify", "good.json", "old.json")
    assert code == 1
    assert err == ("error: 1 of 2 schedules differ: old.json (if that is intended, 'msdsim schedule verify --update FILE...' "
                   "records them anew)\n")
    lines = out.splitlines()
    assert lines[0] == f"ok       good.json  {schedule.cycles:,} cycles"
    assert lines[1].startswith(f"DIFFERS  old.json  {schedule.cycles - 10:,} -> {schedule.cycles:,} cycles (+0.8%)")
    rows = [line.split() for line in lines[2:]]
    at = rows.index(["recorded", "now", "change"])
    assert rows[at + 1][:3] == ["kernel", "text", "0" * 12]
    assert rows[at + 2][:3] == ["cycles", f"{schedule.cycles - 10:,}", f"{schedule.cycles:,}"]
    assert rows[at + 2][3] == "+10"
    assert cli("verify", "--update", "good.json", "old.json")[0] == 0
    assert load_schedule("old.json") == schedule
    assert cli("verify", "good.json", "old.json", "--quiet") == (0, "", "")


def test_json_of_verify_and_diff(cli, schedule):
    save_schedule(schedule, "a.json")
    save_schedule(changed(schedule, cycles=1), "b.json")
    code, out, _ = cli("verify", "a.json", "--json", "-")
    document = json.loads(out)
    assert (code, document["schema"], document["updated"]) == (0, "msdsim.schedule_verify/1", False)
    [found] = document["schedules"]
    assert (found["file"], found["status"], found["differences"]) == ("a.json", "same", [])
    assert found["cycles"] == {"before": schedule.cycles, "after": schedule.cycles, "change": 0.0}
    code, out, err = cli("diff", "a.json", "b.json", "--json", "-")
    document = json.loads(out)
    assert (code, err, document["schema"]) == (1, "error: the schedules differ in 1 values\n", "msdsim.schedule_diff/1")
    assert [(item["what"], item["values"]) for item in document["differences"]] == [("cycles", [schedule.cycles, 1])]
    assert cli("diff", "a.json", "a.json") == (0, "the schedules are the same\n", "")


def test_a_chip_file_is_found_from_the_schedule_not_from_the_present_folder(cli, tmp_path, monkeypatch):
    chip = tmp_path / "chips" / "mine.toml"
    chip.parent.mkdir()
    chip.write_bytes((data_dir("hwmodels") / "toy.toml").read_bytes())
    (tmp_path / "golden").mkdir()
    assert cli("record", P, "--hw", "chips/mine.toml", "--out", "golden/s.json")[0] == 0
    assert load_schedule("golden/s.json").hw == "../chips/mine.toml"
    monkeypatch.chdir(tmp_path / "chips")
    assert run_program(["schedule", "verify", "../golden/s.json"]) == 0
    chip.write_text(chip.read_text(encoding="utf-8").replace("value = 1000, ", "value = 2000, ", 1), encoding="utf-8")
    assert run_program(["schedule", "verify", "../golden/s.json"]) == 1
    assert relative_hw("ascend910b1", "anywhere/s.json") == "ascend910b1"


def test_tiling_and_overrides_are_repeated(cli):
    assert cli("record", P, "--hw", "toy", "--set", "hbm.bandwidth_gbps=64", "--tiling", "l1_ring=1", "--out", "s.json")[0] == 0
    found = load_schedule("s.json")
    assert (found.overrides, found.tiling_given, found.tiling["l1_ring"]) == ({"hbm.bandwidth_gbps": 64}, {"l1_ring": 1}, 1)
    assert cli("verify", "s.json")[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "schedule file 's.json' is not JSON: "),
        ("[]", "schedule file 's.json' is not of schema 'msdsim.schedule/1' or 'msdsim.workload_schedule/1'; 'msdsim schedule record' writes it"),
        ('{"schema": "msdsim.run/1"}', "schedule file 's.json' is not of schema 'msdsim.schedule/1' or "),
        ('{"schema": "msdsim.schedule/1"}', "schedule file 's.json': key 'msdsim' is missing; record it again"),
    ],
)
def test_files_that_are_no_schedules(cli, text, message):
    Path("s.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_schedule("s.json")
    assert str(caught.value).startswith(message)


def test_a_schedule_that_cannot_be_repeated_says_which_and_why(cli, schedule):
    save_schedule(changed(schedule, dataflow="gone"), "s.json")
    code, _, err = cli("verify", "s.json")
    assert code == 2
    assert err.startswith("error: schedule file 's.json' cannot be repeated: unknown gemm dataflow 'gone' (known: ")


def test_another_choice_of_tiling_is_a_line_and_no_difference(cli, monkeypatch):
    """The recorded tiling is repeated: a chooser that has become better does not redden a golden schedule."""
    other = {"l1_ring": 1}
    today = record_schedule(Gemm(m=4, k=64, n=48), "toy", "bf16").tiling
    automatic, given = today["l1_ring"], ",".join(f"{key}={value}" for key, value in {**today, **other}.items())
    assert cli("record", P, "--hw", "toy", "--tiling", given, "--out", "s.json")[0] == 0
    # As if the automatic choice had been 1 when it was recorded.
    recorded = changed(load_schedule("s.json"), tiling_given={})
    save_schedule(recorded, "s.json")
    assert recorded.tiling == {**recorded.tiling, **other}
    code, out, err = cli("verify", "s.json", "--json", "v.json")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"ok       s.json  {recorded.cycles:,} cycles",
                                f"choice   s.json  would be another today: l1_ring 1 -> {automatic}"]
    document = json.loads(Path("v.json").read_text(encoding="utf-8"))["schedules"][0]
    assert document["differences"] == []
    assert [(item["before"], item["after"]) for item in document["choice"]] == [("1", str(automatic))]
    assert cli("verify", "--update", "s.json")[0] == 0
    assert load_schedule("s.json") == recorded
