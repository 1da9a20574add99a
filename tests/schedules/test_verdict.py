"""What the one line about a changed schedule says, and what is within limits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from msdsim.ir.parser import parse_kernel
from msdsim.problems import Gemm
from msdsim.schedules import Limits, judge, load_schedule, read_share, record_schedule, save_schedule

P = Gemm(m=40, k=256, n=192)


@pytest.fixture(scope="module")
def recorded():
    return record_schedule(P, "toy")


def test_a_shorter_ring_is_named_with_its_holder_and_line(recorded):
    longer = next(row.strip() for row in recorded.kernel if row.strip().startswith("buffer b1:"))
    shorter = re.sub(r"ring \d+", "ring 1", longer)
    assert shorter != longer
    text = "\n".join(recorded.kernel).replace(longer, shorter)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "copy b1" in row)
    found = judge(recorded, record_schedule(parse_kernel(text + "\n"), "toy"))
    assert text.count(shorter) == 1
    assert found.headline == (f"{found.before.cycles:,} -> {found.after.cycles:,} cycles "
                              f"({100 * (found.after.cycles / found.before.cycles - 1):+.1f}%): "
                              f"AIC MTE2 now waits for b1, held by MTE1, line {line}")
    assert [row.replace(" ", "") for row in found.kernel_diff if row[:1] in "+-" and "@@" not in row] == [
        f"-{longer}".replace(" ", ""), f"+{shorter}".replace(" ", "")]
    assert ("kernel", "+1 -1 lines") in found.changed
    assert any(row.text.startswith("copy b1") and row.after > row.before for row in found.lines)


def test_the_sums_of_the_recorded_lines_are_the_totals_of_the_pipes(recorded):
    for pipe, totals in recorded.pipes.items():
        rows = [row.cycles for row in recorded.lines if row.pipe == pipe]
        if pipe.endswith(".s"):
            continue
        assert {name: sum(row.get(name, 0) for row in rows) for name in totals if name not in ("instances", "drained")} == {
            name: value for name, value in totals.items() if name not in ("instances", "drained")}


def test_the_chip_is_named_with_its_numbers(recorded):
    other = record_schedule(P, "toy", overrides={"hbm.bandwidth_gbps": 32})
    found = judge(recorded, other)
    assert dict(found.changed)["chip"].startswith("hbm.bandwidth_gbps 128.0 -> 32.0")
    assert "request" in dict(found.changed)
    assert "engine" not in dict(found.changed)
    assert "memory" in found.headline


def test_figures_that_move_alone_are_the_engines(recorded):
    found = judge(recorded.model_copy(update={"cycles": recorded.cycles + 5, "msdsim": "0.0.9"}), recorded)
    assert dict(found.changed) == {"engine": f"the same kernel on the same chip runs otherwise (msdsim 0.0.9 -> {recorded.msdsim})"}
    assert "version" in found.to_json()


def test_equal_time_for_other_reasons(recorded):
    row = next(row for row in recorded.lines if row.cycles.get("busy"))
    pipes = {**recorded.pipes, row.pipe: {**recorded.pipes[row.pipe], "busy": recorded.pipes[row.pipe]["busy"] - 600}}
    lines = tuple(item.model_copy(update={"cycles": {**item.cycles, "busy": item.cycles["busy"] - 600}}) if item is row else item
                  for item in recorded.lines)
    found = judge(recorded.model_copy(update={"lines": lines, "pipes": pipes}), recorded)
    assert found.headline.startswith(f"{recorded.cycles:,} cycles as before, for other reasons: AIC MTE2 works ")
    assert not found.good
    assert judge(found.before, found.after, Limits(cycles_only=True)).good


@pytest.mark.parametrize(("limits", "slower", "faster"), [
    (Limits(), False, False), (Limits(tolerance=0.03), True, True), (Limits(tolerance=0.01), False, False),
    (Limits(max_slowdown=0.03), True, True), (Limits(max_slowdown=0.01), False, True), (Limits(cycles_only=True), False, False),
])
def test_limits(recorded, limits, slower, faster):
    base = recorded.model_copy(update={"cycles": 1000})
    assert judge(base, base, limits).good
    assert judge(base, base.model_copy(update={"cycles": 1020}), limits).good is slower
    assert judge(base, base.model_copy(update={"cycles": 980}), limits).good is faster
    assert not judge(base, base.model_copy(update={"problem": {"kind": "gemm", "m": 1, "k": 1, "n": 1}}), limits).good


def test_shares():
    assert (read_share("2%", "x"), read_share("0.02", "x"), read_share(0.02, "x"), read_share(None, "x")) == (0.02, 0.02, 0.02, None)


def test_numbers_and_warm_are_pinned(cli):
    assert cli("schedule", "record", "gemm:m=4,k=64,n=48", "--hw", "toy", "--dataflow", "msd-int8", "--warm", "--check",
               "--seed", "3", "--out", "s.json")[0] == 0
    found = load_schedule("s.json")
    assert (found.warm, found.numbers["seed"], found.numbers["bit_exact"]) == (True, 3, True)
    assert cli("schedule", "verify", "s.json")[0] == 0
    other = {**found.numbers, "outputs_sha256": {"y": "0" * 64}}
    save_schedule(found.model_copy(update={"numbers": other}), "s.json")
    code, out, _ = cli("schedule", "verify", "s.json", "--tolerance", "50%")
    assert code == 1
    assert "but the numbers are others" in out


def test_a_kernel_of_a_file_and_a_folder_of_schedules(cli, recorded):
    Path("mine.kir").write_text("\n".join(recorded.kernel) + "\n", encoding="utf-8")
    Path("golden").mkdir()
    assert cli("schedule", "record", "mine.kir", "--hw", "toy", "--out", "golden/k.json")[0] == 0
    assert load_schedule("golden/k.json").problem == {"kind": "kernel", "name": "bf16", "file": "../mine.kir"}
    assert load_schedule("golden/k.json").cycles == recorded.cycles
    Path("golden/other.json").write_text("{}", encoding="utf-8")
    assert cli("schedule", "verify", "golden")[1] == f"ok       golden/k.json  {recorded.cycles:,} cycles\n"
    text = Path("mine.kir").read_text(encoding="utf-8")
    Path("mine.kir").write_text(re.sub(r"(buffer b1: .* ring) \d+", r"\1 1", text), encoding="utf-8")
    code, out, _ = cli("schedule", "verify", "golden", "--json", "v.json")
    assert code == 1
    assert "now waits for b1, held by MTE1" in out.splitlines()[0]
    document = json.loads(Path("v.json").read_text(encoding="utf-8"))["schedules"][0]
    grown = document["cycles"]["after"] - document["cycles"]["before"]
    assert document["changed"] == [{"what": "kernel", "how": f"+1 -1 lines, {grown:+,} cycles"}]
    assert document["cause"]["category"] == "wait_buffer"
    assert cli("schedule", "verify", "golden", "--max-slowdown", "500%")[0] == 0
    code, _, err = cli("schedule", "record", "mine.kir", "--hw", "toy", "--dataflow", "bf16", "--out", "x.json")
    assert (code, "--dataflow belongs to a problem" in err) == (2, True)
    assert cli("schedule", "verify", "golden", "--tolerance", "much")[0] == 2
    Path("none").mkdir()
    assert "holds no schedule files" in cli("schedule", "verify", "none")[2]


@pytest.mark.parametrize(("cycles", "limits", "code", "word"), [
    (0, [], 0, "ok "), (-10, [], 1, "DIFFERS"), (-10, ["--tolerance", "5%"], 0, "within"), (-10, ["--max-slowdown", "5%"], 0, "within"),
    (10, ["--max-slowdown", "0%"], 0, "within"), (-10, ["--max-slowdown", "0%"], 1, "DIFFERS"), (-10, ["--cycles-only"], 1, "DIFFERS")])
def test_exit_codes_of_verify_and_diff(cli, recorded, cycles, limits, code, word):
    """10 of 4,000 cycles or so: recorded fewer than it takes now is a slowdown."""
    save_schedule(recorded.model_copy(update={"cycles": recorded.cycles + cycles}), "s.json")
    save_schedule(recorded, "now.json")
    found, out, err = cli("schedule", "verify", "s.json", *limits)
    assert (found, out.split()[0]) == (code, word.strip())
    assert ("error: 1 of 1 schedules differ" in err) is bool(code)
    assert cli("schedule", "diff", "s.json", "now.json", *limits)[0] == code


def test_update_writes_what_differs_and_leaves_the_rest(cli, recorded):
    save_schedule(recorded.model_copy(update={"cycles": 7}), "old.json")
    save_schedule(recorded, "good.json")
    before = Path("good.json").stat().st_mtime_ns
    assert cli("schedule", "verify", "--update", "old.json", "good.json")[0] == 0
    assert load_schedule("old.json") == recorded
    assert Path("good.json").stat().st_mtime_ns == before
    # One without its kernel's text, of an older version, is recorded anew although nothing differs.
    save_schedule(recorded.model_copy(update={"kernel": (), "lines": ()}), "older.json")
    assert cli("schedule", "verify", "--update", "older.json")[0] == 0
    assert load_schedule("older.json").kernel == recorded.kernel
