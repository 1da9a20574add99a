"""``msdsim schedule``: record what a kernel does on a chip, and find out when it does something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from msdsim.cli.options import Seed, hardware_options, mix_options, options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msdsim.cli.outputs import Outputs
    from msdsim.schedules import AnySchedule, AnyVerdict, Difference, Limits

_engine = click.option("--engine", metavar="NAME", default=None, help="fast (the default) or reference; both give the same.")
_json = click.option("--json", "json_to", metavar="FILE|-",
                     help="Write the outcome as JSON; - for standard output, then without tables.")
_quiet = click.option("--quiet", is_flag=True, help="Print no tables.")
_limits = (
    click.option("--tolerance", metavar="SHARE", help="Cycles may differ by this share, such as 2% or 0.02."),
    click.option("--max-slowdown", metavar="SHARE", help="Cycles may grow by this share; fewer are always good."),
    click.option("--cycles-only", is_flag=True, help="Only the cycles count, not categories, traffic and text."),
)


@click.group("schedule", short_help="Golden schedules: record, verify, show where two differ.")
def command() -> None:
    """Golden schedules: cycles, stalls and traffic of a kernel, kept in a file with its text, to be verified later."""


@command.command("record", short_help="Simulate and keep the schedule in a file.")
@click.argument("problem")
@options(
    hardware_options, mix_options,
    click.option("--memory", metavar="NAME", default="bandwidth", show_default=True, help="Fidelity of the memory system."),
    click.option("--warm", is_flag=True, help="Time a second run of the kernel, which finds in L2 what the first left."),
    click.option("--check", is_flag=True, help="Execute and check the numbers, and pin them too."),
    click.option("--reference", metavar="DATAFLOW:PROBLEM",
                 help="With --check of a .kir file: the dataflow and problem whose numbers it computes."),
    click.option("--seed", type=Seed(), metavar="N", default=0, show_default=True, help="Seed of the inputs of --check."),
    _engine,
    click.option("--out", metavar="FILE.json", required=True, help="The file to write."),
    _quiet,
)
def record(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, out: str, quiet: bool,
           **given: Any) -> None:
    """Simulate PROBLEM, the operators of a workload, or the kernel of a .kir file, and write the schedule to FILE.json."""
    from pathlib import Path

    from msdsim.cli.arguments import read_changes, read_tiling
    from msdsim.errors import InputError
    from msdsim.report.files import require_writable
    from msdsim.schedules import record, save_schedule
    from msdsim.schedules.schedule import relative_hw

    require_writable(out, "--out", (".json",))
    if given["reference"] is not None and not given["check"]:
        raise InputError("--reference is what --check holds the numbers to; add --check")
    asked = _recorded(problem, out)
    schedule = record(
        asked, relative_hw(hw, out), _dataflow(asked, dataflow, out), overrides=read_changes(changes),
        tiling=read_tiling(tiling), memory=given["memory"], folder=Path(out).parent, warm=given["warm"],
        numbers=given["check"], seed=given["seed"], reference=given["reference"], **_engine_argument(given["engine"]),
    )
    save_schedule(schedule, out)
    if not quiet:
        click.echo(f"recorded {out}: {schedule.cycles:,} cycles")


def _recorded(problem: str, out: str) -> Any:
    """What is recorded: a kernel's file by its path from the schedule's."""
    from pathlib import Path

    from msdsim.cli.arguments import read_problem
    from msdsim.cli.simulation import left_out
    from msdsim.problems import KernelFile
    from msdsim.schedules.schedule import relative_path

    if problem.strip().endswith(".kir"):
        if not left_out("dataflow"):
            from msdsim.errors import InputError

            raise InputError(f"--dataflow belongs to a problem; the kernel '{problem}' is one already; leave it out")
        return KernelFile(Path(relative_path(problem.strip(), out)))
    return read_problem(problem)


def _dataflow(asked: Any, dataflow: str, out: str) -> str:
    """The dataflow or mix as the schedule names it; a workload's own where none was given."""
    from msdsim.cli.simulation import left_out
    from msdsim.problems import Workload
    from msdsim.schedules.schedule import relative_dataflow

    if isinstance(asked, Workload):
        return asked.dataflow if asked.dataflow is not None and left_out("dataflow") else dataflow
    return relative_dataflow(dataflow, out)


@command.command("verify", short_help="Simulate again and compare with the files.")
@click.argument("files", metavar="FILE|DIR...", nargs=-1, required=True)
@options(
    _engine, _limits,
    click.option("--update", is_flag=True, help="Write what is found now into the files that differ, and succeed."),
    _json, _quiet,
)
def verify(files: tuple[str, ...], engine: str | None, update: bool, json_to: str | None, quiet: bool, **given: Any) -> None:
    """Simulate what every FILE holds again, with the tiling it holds, and compare; a difference is shown and leaves with exit
    code 1.  A folder stands for the schedules in it.  Where another tiling would be chosen today, a line says so, and that is
    no difference: record again to take it.
    """
    from msdsim.cli.outputs import Outputs
    from msdsim.errors import CheckFailed
    from msdsim.schedules import load_schedule, save_schedule, schedule_files

    outputs = Outputs(json_to=json_to, quiet=quiet)
    outputs.validate()
    limits = _read_limits(given)
    recorded = {file: load_schedule(file) for file in schedule_files(files)}
    documents, bad = [], []
    for file, schedule in recorded.items():
        verdict, choice = _repeated(file, schedule, engine, limits)
        if update and (not verdict.same or not schedule.complete):
            save_schedule(verdict.after, file)
        elif not verdict.good:
            bad.append(file)
        _print_verdict(outputs, file, verdict, choice, update)
        chosen = {"choice": [item.to_json() for item in choice]} if choice else {}
        documents.append({"file": file} | verdict.to_json() | chosen)
    outputs.write_json({"schema": "msdsim.schedule_verify/1", "updated": update, "schedules": documents})
    if bad:
        raise CheckFailed(f"{len(bad)} of {len(recorded)} schedules differ: {', '.join(bad)} (if that is intended, "
                          f"'msdsim schedule verify --update FILE...' records them anew)")


def _read_limits(given: dict[str, Any]) -> Limits:
    from msdsim.schedules import Limits, read_share

    return Limits(read_share(given["tolerance"], "--tolerance"), read_share(given["max_slowdown"], "--max-slowdown"),
                  given["cycles_only"])


def _repeated(file: str, recorded: AnySchedule, engine: str | None, limits: Limits) -> tuple[AnyVerdict, Sequence[Difference]]:
    """The schedule that a file's request gives now beside the recorded one, and where another tiling would be chosen."""
    from pathlib import Path

    from msdsim.errors import MsdsimError
    from msdsim.schedules import hold

    try:
        return hold(recorded, Path(file).parent, limits, **_engine_argument(engine))
    except MsdsimError as err:
        raise type(err)(f"schedule file '{file}' cannot be repeated: {err}") from None


def _print_verdict(outputs: Outputs, file: str, verdict: AnyVerdict, choice: Sequence[Difference], update: bool) -> None:
    from msdsim.schedules.report import verdict_lines

    if verdict.same:
        _print(outputs, f"ok       {file}  {verdict.after.cycles:,} cycles")
    elif update:
        _print(outputs, f"updated  {file}  {verdict.headline}")
    elif verdict.good:
        _print(outputs, f"within   {file}  {verdict.headline} ({verdict.limits})")
    else:
        _print(outputs, f"DIFFERS  {file}  {verdict.headline}", verdict_lines(verdict))
    if choice:
        changes = ", ".join(f"{item.what.removeprefix('tiling ')} {item.before} -> {item.after}" for item in choice)
        _print(outputs, f"choice   {file}  would be another today: {changes}")


@command.command("diff", short_help="Show where two schedule files differ, or lay a measured trace beside one.")
@click.argument("before")
@click.argument("after", required=False)
@options(
    click.option("--profile", metavar="TRACE.json",
                 help="Instead of AFTER: a trace of 'msprof op simulator' (Chrome JSON), laid beside the schedule."),
    _limits, _json, _quiet,
)
def diff(before: str, after: str | None, profile: str | None, json_to: str | None, quiet: bool, **given: Any) -> None:
    """Show where two schedule files differ; a difference leaves with exit code 1.

    With --profile, show busy time and gaps of every pipe as simulated and as traced.
    """
    from msdsim.cli.outputs import Outputs
    from msdsim.errors import CheckFailed, InputError
    from msdsim.schedules import compare, lay_beside, load_schedule
    from msdsim.schedules.golden import single
    from msdsim.schedules.report import verdict_lines

    outputs = Outputs(json_to=json_to, quiet=quiet)
    outputs.validate()
    if (after is None) == (profile is None):
        raise InputError("schedule diff compares BEFORE with AFTER, or with --profile TRACE.json; give one of the two")
    if profile is not None:
        if any(given.values()):
            raise InputError("--tolerance, --max-slowdown and --cycles-only judge two schedules; leave them out with --profile")
        found = lay_beside(single(load_schedule(before), "--profile"), profile)
        _print(outputs, found.headline, found.lines())
        outputs.write_json({"schema": "msdsim.schedule_profile/1", "schedule": before, "trace": profile} | found.to_json())
        return
    assert after is not None
    verdict = compare(load_schedule(before), load_schedule(after), _read_limits(given))
    if verdict.same:
        _print(outputs, "the schedules are the same")
    else:
        _print(outputs, verdict.headline, [*_heading(before, after), *verdict_lines(verdict, ("before", "after"))])
    outputs.write_json({"schema": "msdsim.schedule_diff/1", "before": before, "after": after} | verdict.to_json())
    if not verdict.good:
        raise CheckFailed(f"the schedules differ in {verdict.count} values")


def _heading(before: str, after: str) -> list[Any]:
    from rich.text import Text

    return [Text(f"  {before} -> {after}")]


def _engine_argument(engine: str | None) -> dict[str, Any]:
    return {} if engine is None else {"engine": engine}


def _print(outputs: Outputs, heading: str, lines: list[Any] | None = None) -> None:
    """A line, and what stands under it."""
    from rich.text import Text

    from msdsim.report.console import emit

    outputs.print(lambda console: emit(console, [Text(heading), *(lines or [])]))
