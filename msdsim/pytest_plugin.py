"""pytest plugin: the fixture ``golden_schedule`` holds a kernel to the schedule that is recorded beside its test.

.. code-block:: python

    def test_decode(golden_schedule):
        golden_schedule("gemm:m=16,k=8192,n=12288", hw="ascend910b1", dataflow="msd-int8", max_slowdown="2%")

``pytest --msdsim-update`` records what is not there yet or differs.  Nothing of the simulator is imported before a test asks
for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from msdsim.ir.kernel import Kernel
    from msdsim.problems import Problem, Workload
    from msdsim.schedules import AnySchedule

#: Folder of the schedules, beside the test files.
FOLDER = "golden_schedules"
_PROPERTY = "msdsim golden schedule"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--msdsim-update``."""
    parser.getgroup("msdsim").addoption(
        "--msdsim-update", action="store_true",
        help="record golden schedules that do not exist or differ, instead of failing their tests")


@pytest.fixture
def golden_schedule(request: pytest.FixtureRequest) -> Callable[..., AnySchedule]:
    """Hold a problem's or kernel's schedule to the one recorded beside the test; call it as :meth:`Golden.__call__` says."""
    return Golden(request)


class Golden:
    """What ``golden_schedule`` is: call it once for each schedule of a test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.node = request.node
        self.update = bool(request.config.getoption("--msdsim-update"))
        self.base = Path(request.node.path).parent
        self.used: set[str] = set()

    def __call__(self, problem: str | Problem | Kernel | Workload, hw: str = "ascend910b1", dataflow: str | None = None, *,
                 tolerance: float | str | None = None, max_slowdown: float | str | None = None, cycles_only: bool = False,
                 tiling: Mapping[str, int] | None = None, overrides: Mapping[str, object] | None = None,
                 memory: str = "bandwidth", warm: bool = False, numbers: bool = False, seed: int = 0,
                 reference: str | None = None, name: str | None = None) -> AnySchedule:
        """The schedule found now; the test fails where it is not the recorded one.

        ``problem`` is an inline form, a problem, a kernel, the path of a ``.kir`` file, or a workload (its name, file or
        object); paths, that of a chip file too, are looked for from the test's folder.  ``dataflow`` is bf16 or the workload's
        own where it is left out; a workload takes a mix.  ``tolerance`` is the share (0.02 or "2%") by which cycles
        may differ, ``max_slowdown`` that by which they may grow; without any of them, or ``cycles_only``, all values count.
        ``numbers`` executes and pins the numbers too, for which a kernel needs a ``reference`` (``DATAFLOW:PROBLEM``).
        ``name`` takes the place of the test's name in that of the file.  A recorded tiling is repeated, as 'msdsim schedule
        verify' does; where another would be chosen today, pytest's summary says so.
        """
        __tracebackhide__ = True
        from msdsim.errors import MsdsimError
        from msdsim.schedules import Limits, load_schedule, read_share
        from msdsim.schedules.schedule import relative_hw

        try:
            limits = Limits(read_share(tolerance, "tolerance"), read_share(max_slowdown, "max_slowdown"), cycles_only)
            file = self._file(name)
            asked = self._asked(problem, file)
            chip = relative_hw(str(self.base / hw), file) if hw.endswith(".toml") else hw
            options = {"overrides": overrides, "memory": memory, "warm": warm, "numbers": numbers, "seed": seed,
                       "reference": reference, "folder": file.parent}
            recorded = load_schedule(file) if file.exists() else None
            using = dataflow or getattr(asked, "dataflow", None) or "bf16"
            found = self._found(recorded, asked, chip, using, dict(tiling or {}), options)
            return self._held(recorded, found, file, limits)
        except MsdsimError as err:
            pytest.fail(str(err), pytrace=False)

    def _file(self, name: str | None) -> Path:
        given = name if name is not None else self.node.name
        # Parameters may hold anything; what is no file name is told apart by its hash.
        plain = re.sub(r"[^A-Za-z0-9_.=,-]+", "-", given).strip("-.")[:100]
        if name is None and plain != given and plain != re.sub(r"\[(.*)\]$", r"-\1", given):
            plain += f"-{hashlib.sha256(given.encode()).hexdigest()[:8]}"
        stem = f"{Path(self.node.path).stem}.{plain}" if name is None else plain
        if stem in self.used:
            number = next(count for count in range(2, len(self.used) + 3) if f"{stem}.{count}" not in self.used)
            stem = f"{stem}.{number}"
        self.used.add(stem)
        return self.base / FOLDER / f"{stem}.json"

    def _asked(self, problem: Any, file: Path) -> Any:
        from msdsim.problems import KernelFile, parse_problem
        from msdsim.schedules.schedule import relative_path

        if isinstance(problem, str):
            text = problem.strip()
            problem = parse_problem(str(self.base / text) if text.endswith(".toml") else text)
        if isinstance(problem, KernelFile):
            return KernelFile(Path(relative_path(str(self.base / problem.path), file)))
        return problem

    def _found(self, recorded: AnySchedule | None, asked: Any, chip: str, dataflow: str, tiling: dict[str, int],
               options: dict[str, Any]) -> AnySchedule:
        """What is asked for now, with what was chosen for the recorded schedule where the same was asked for then."""
        from msdsim.errors import TilingError
        from msdsim.problems import Workload
        from msdsim.schedules import WorkloadSchedule, choices_today, record

        given: dict[str, Any] = {"tiling": tiling} | options
        if recorded is None or recorded.tiling_given != tiling or recorded.dataflow != dataflow:
            return record(asked, chip, dataflow, **given)
        try:
            if isinstance(recorded, WorkloadSchedule):
                found = record(asked, chip, dataflow, **(given | ({"like": recorded} if isinstance(asked, Workload) else {})))
            elif recorded.of_kernel or not hasattr(asked, "to_json") or recorded.problem != asked.to_json():
                return record(asked, chip, dataflow, **given)
            else:
                found = record(asked, chip, dataflow, **(given | {"tiling": recorded.tiling})).model_copy(
                    update={"tiling_given": tiling})
        except TilingError:
            # The dataflow has other parameters now, or they no longer fit: the tiling is chosen anew, and differs.
            return record(asked, chip, dataflow, **given)
        for item in choices_today(found, options["folder"]):
            self._tell(f"another choice today for {self.node.name}: {item.what} {item.before} -> {item.after}")
        return found

    def _held(self, recorded: AnySchedule | None, found: AnySchedule, file: Path, limits: Any) -> AnySchedule:
        __tracebackhide__ = True
        from msdsim.schedules import compare
        from msdsim.schedules.report import verdict_text

        shown = f"{self.base.name}/{FOLDER}/{file.name}"
        if recorded is None:
            if self.update:
                return self._save(found, file, f"recorded {shown}: {found.cycles:,} cycles")
            pytest.fail(f"there is no golden schedule {shown} yet ({found.cycles:,} cycles now); 'pytest --msdsim-update' "
                        f"records it", pytrace=False)
        verdict = compare(recorded, found, limits, file.parent)
        if self.update and not verdict.same:
            return self._save(found, file, f"updated {shown}: {verdict.headline}")
        if not verdict.good:
            pytest.fail(f"{verdict_text(verdict)}\n\n{shown}; if that is intended, 'pytest --msdsim-update' records it anew "
                        f"(limits: {limits})", pytrace=False)
        return found

    def _save(self, schedule: AnySchedule, file: Path, what: str) -> AnySchedule:
        from msdsim.schedules import save_schedule

        file.parent.mkdir(exist_ok=True)
        save_schedule(schedule, file)
        self._tell(what)
        return schedule

    def _tell(self, what: str) -> None:
        # Properties travel with the report, from the workers of pytest-xdist too.
        self.node.user_properties.append((_PROPERTY, what))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which schedules were written, and for which another tiling would be chosen."""
    written = [text for reports in terminalreporter.stats.values() for report in reports
               if getattr(report, "when", "") == "call" for name, text in report.user_properties if name == _PROPERTY]
    if written:
        terminalreporter.section("msdsim golden schedules")
        for text in written:
            terminalreporter.write_line(text)
