"""``msdsim schedule``: record what a kernel does on a chip, and find out when it does something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from msdsim.cli.options import dataflow_options, hardware_options, options

if TYPE_CHECKING:
    from msdsim.schedules import Difference

_engine = click.option("--engine", metavar="NAME", default=None, help="fast (the default) or reference; both give the same.")
_json = click.option("--json", "json_to", metavar="FILE|-",
                     help="Write the outcome as JSON; - for standard output, then without tables.")
_quiet = click.option("--quiet", is_flag=True, help="Print no tables.")


@click.group("schedule", short_help="Golden schedules: record, verify, show where two differ.")
def command() -> None:
    """Golden schedules: cycles, stalls and traffic of a kernel, kept in a file to be verified later."""


@command.command("record", short_help="Simulate and keep the schedule in a file.")
@click.argument("problem")
@options(
    hardware_options, dataflow_options,
    click.option("--memory", metavar="NAME", default="bandwidth", show_default=True, help="Fidelity of the memory system."),
    _engine,
    click.option("--out", metavar="FILE.json", required=True, help="The file to write."),
    _quiet,
)
def record(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, memory: str,
           engine: str | None, out: str, quiet: bool) -> None:
    """Simulate PROBLEM and write its schedule to FILE.json."""
    from pathlib import Path

    from msdsim.cli.arguments import read_changes, read_single_problem, read_tiling
    from msdsim.report.files import require_writable
    from msdsim.schedules import record_schedule, save_schedule
    from msdsim.schedules.schedule import relative_hw

    require_writable(out, "--out", (".json",))
    schedule = record_schedule(
        read_single_problem(problem, "schedule record"), relative_hw(hw, out), dataflow, overrides=read_changes(changes),
        tiling=read_tiling(tiling), memory=memory, folder=Path(out).parent, **_engine_argument(engine),
    )
    save_schedule(schedule, out)
    if not quiet:
        click.echo(f"recorded {out}: {schedule.cycles:,} cycles")


@command.command("verify", short_help="Simulate again and compare with the files.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@options(
    _engine,
    click.option("--update", is_flag=True, help="Write what is found now into the files that differ, and succeed."),
    _json, _quiet,
)
def verify(files: tuple[str, ...], engine: str | None, update: bool, json_to: str | None, quiet: bool) -> None:
    """Simulate what every FILE holds again, with the tiling it holds, and compare; a difference is shown and leaves with exit
    code 1.  Where another tiling would be chosen today, a line says so, and that is no difference: record again to take it.
    """
    from pathlib import Path

    from msdsim.cli.outputs import Outputs
    from msdsim.errors import CheckFailed, MsdsimError
    from msdsim.schedules import changed_choice, choice_now, differences, load_schedule, repeat_schedule, save_schedule

    outputs = Outputs(json_to=json_to, quiet=quiet)
    outputs.validate()
    recorded = {file: load_schedule(file) for file in files}
    found: dict[str, list[Difference]] = {}
    choices: dict[str, list[Difference]] = {}
    for file, schedule in recorded.items():
        try:
            now = repeat_schedule(schedule, Path(file).parent, **_engine_argument(engine))
            choices[file] = changed_choice(schedule, choice_now(schedule, Path(file).parent))
        except MsdsimError as err:
            raise type(err)(f"schedule file '{file}' cannot be repeated: {err}") from None
        found[file] = differences(schedule, now)
        if not found[file]:
            _print(outputs, f"ok       {file}  {now.cycles:,} cycles")
        elif update:
            save_schedule(now, file)
            _print(outputs, f"updated  {file}  {now.cycles:,} cycles")
        else:
            _print(outputs, f"DIFFERS  {file}", found[file], ("", "recorded", "now", "change"))
        if choices[file]:
            changes = ", ".join(f"{item.what.removeprefix('tiling ')} {item.before} -> {item.after}" for item in choices[file])
            _print(outputs, f"choice   {file}  would be another today: {changes}")
    changed = [file for file in found if found[file]]
    outputs.write_json({"schema": "msdsim.schedule_verify/1", "updated": update,
                        "schedules": [{"file": file, "differences": _documents(items)}
                                      | ({"choice": _documents(choices[file])} if choices[file] else {})
                                      for file, items in found.items()]})
    if changed and not update:
        raise CheckFailed(f"{len(changed)} of {len(found)} schedules differ: {', '.join(changed)} (if that is intended, "
                          f"'msdsim schedule verify --update FILE...' records them anew)")


@command.command("diff", short_help="Show where two schedule files differ.")
@click.argument("before")
@click.argument("after")
@options(_json, _quiet)
def diff(before: str, after: str, json_to: str | None, quiet: bool) -> None:
    """Show where two schedule files differ; a difference leaves with exit code 1."""
    from msdsim.cli.outputs import Outputs
    from msdsim.errors import CheckFailed
    from msdsim.schedules import differences, load_schedule

    outputs = Outputs(json_to=json_to, quiet=quiet)
    outputs.validate()
    found = differences(load_schedule(before), load_schedule(after))
    if found:
        _print(outputs, f"{before} -> {after}", found, ("", "before", "after", "change"))
    else:
        _print(outputs, "the schedules are the same")
    outputs.write_json({"schema": "msdsim.schedule_diff/1", "before": before, "after": after, "differences": _documents(found)})
    if found:
        raise CheckFailed(f"the schedules differ in {len(found)} values")


def _engine_argument(engine: str | None) -> dict[str, Any]:
    return {} if engine is None else {"engine": engine}


def _documents(found: list[Difference]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(item) for item in found]


def _print(outputs: Any, heading: str, found: list[Difference] | None = None, titles: tuple[str, ...] = ()) -> None:
    """A line, and under it the differences as a table."""
    from rich.text import Text

    from msdsim.report.console import emit
    from msdsim.report.table import TextTable

    lines = [Text(heading)]
    if found:
        table = TextTable(titles, right=frozenset({1, 2}))
        for item in found:
            table.add(item.what, item.before, item.after, item.change)
        lines += table.lines()
    outputs.print(lambda console: emit(console, lines))
