"""The program ``msdsim``: finds commands by name, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import gc
import io
import os
import pkgutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import TextIO

import click

from msdsim.errors import MsdsimError
from msdsim.registry import unknown_name
from msdsim.version import __version__

#: The order in which help lists commands; others follow by name.
_ORDER = ("run", "compare", "explain", "sweep", "report", "tune", "schedule", "ir", "claims", "validate",
          "calibrate", "import", "list")

DONE, USER_ERROR, INTERNAL, NO_OUTPUT, INTERRUPTED, BROKEN_PIPE = 0, 2, 70, 74, 130, 141
#: How the modules of users' dataflow files are called (:mod:`msdsim.dataflows.own`).
OWN_MODULE = "msdsim_own_"
#: Nobody reads more of an error than this.
_LONGEST_LINE = 1800


def command_modules() -> dict[str, str]:
    """Modules by command: every module of ``msdsim.cli.commands`` is one; an underscore keeps a name off Python's words."""
    folder = str(Path(__file__).parent / "commands")
    modules = {item.name.rstrip("_"): item.name for item in pkgutil.iter_modules([folder])}
    known = [name for name in _ORDER if name in modules]
    return {name: modules[name] for name in [*known, *sorted(set(modules) - set(known))]}


class _Program(click.Group):
    """A group that imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(command_modules())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        modules = command_modules()
        if cmd_name not in modules:
            return None
        command: click.Command = import_module(f"msdsim.cli.commands.{modules[cmd_name]}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in command_modules():
            raise unknown_name("command", args[0], list(command_modules()))
        return super().resolve_command(ctx, args)


@click.group(cls=_Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="msdsim", message="%(prog)s %(version)s")
@click.pass_context
def program(context: click.Context) -> None:
    """How long a quantized matmul or attention takes on an NPU, what it waits for, and whether its numbers are right.

    PROBLEM is an inline form (gemm:m=16,k=8192,n=12288), a workload's name or .toml file, or a kernel's .kir file.
    Exit codes: 0 done, 1 a check failed, 2 the input is wrong, 3 the simulated kernel deadlocked, 70 an error inside msdsim,
    74 standard output cannot be written.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run the command line and leave with its exit code."""
    # Numbers are executed on threads of msdsim's own; BLAS threads on top of them only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Plugins of pydantic would be looked for among all that is installed, and nothing that is imported is garbage: both take
    # a good part of a short command.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(50_000, 20, 50)
    code = run_program(arguments)
    if code == INTERRUPTED:
        # At once: the interpreter would wait for threads that are still at work.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run_program(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    sys.stdout, sys.stderr = sys.stdout or _Closed("standard output"), sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with _notes():
            code = program.main(args=arguments, prog_name="msdsim", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except MsdsimError as err:
        return _fail(str(err), err.exit_code)
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.format_message())
        return DONE
    except click.UsageError as err:
        return _fail(_usage_text(err, sys.argv[1:] if arguments is None else arguments), USER_ERROR)
    except click.ClickException as err:
        return _fail(err.format_message(), USER_ERROR)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone (a pager that was closed, head): nothing is left to say, and nothing to flush at exit.
        _give_up_output()
        return BROKEN_PIPE
    except MemoryError:
        return _fail("this machine has not enough memory for the arrays of this problem; make it smaller", USER_ERROR)
    except OSError as err:
        if err.filename is not None:
            return _fail(f"'{err.filename}' cannot be read or written ({err.strerror})", USER_ERROR)
        _give_up_output()
        return _fail(f"standard output cannot be written ({err.strerror or err})", NO_OUTPUT)
    except Exception as err:
        if os.environ.get("MSDSIM_TRACEBACK"):
            raise
        if (own := _own_place(err)) is not None:
            return _fail(f"dataflow file {own}: {type(err).__name__}: {err} (MSDSIM_TRACEBACK=1 shows the way there)",
                         USER_ERROR)
        return _fail(f"internal error, please report it with the command: {type(err).__name__}: {err} ({_place(err)}; "
                     f"MSDSIM_TRACEBACK=1 shows the way there)", INTERNAL)


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings that are meant for users are notes."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int,
             file: TextIO | None = None, line: str | None = None) -> None:
        if issubclass(category, FutureWarning):
            click.echo(f"note: {message}", err=True)
        else:
            others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class _Closed(io.StringIO):
    """In the place of a stream that the caller has closed: says so when something is to be written."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def write(self, text: str) -> int:
        if text:
            raise OSError(errno.EBADF, f"{self.name} is closed")
        return 0


def _give_up_output() -> None:
    """What is still in standard output's buffer goes nowhere, so that Python's own end does not stumble over it."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = io.StringIO()


def _own_place(err: BaseException) -> str | None:
    """Where in a user's dataflow file an error began; None where no such file was at work."""
    for frame, line in reversed(list(walk_tb(err.__traceback__))):
        if str(frame.f_globals.get("__name__", "")).startswith(OWN_MODULE):
            return f"'{Path(frame.f_code.co_filename).name}', line {line}"
    return None


def _place(err: BaseException) -> str:
    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}" if trace is not None else "no place"


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE * 2 // 3]} ... {line[-_LONGEST_LINE // 4 :]}"
    with suppress(OSError):  # where nobody listens, the exit code says it
        click.echo(f"error: {line}", err=True)
    return code


def _usage_text(err: click.UsageError, arguments: Sequence[str]) -> str:
    """click's message as one line in this program's voice, with where to look."""
    message = err.format_message().rstrip(".")
    named = [name for name in arguments[:1] if name in command_modules()]
    command = err.ctx.command_path if err.ctx is not None else " ".join(["msdsim", *named])
    return f"{message[:1].lower()}{message[1:]} ('{command} --help' shows how it is used)"
