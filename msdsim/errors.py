"""The one exception tree of msdsim, with the exit code each branch maps to.

Every message is one sentence that names the offending value, the limit it broke and what would mend it.  The command
line prints ``error: <message>`` and leaves with :attr:`MsdsimError.exit_code`; nothing else decides exit codes.
"""

from __future__ import annotations


class MsdsimError(Exception):
    """Root of all errors raised on purpose by msdsim."""

    exit_code = 2


class InputError(MsdsimError):
    """The user's input is wrong: a name, a number, a file or an array (exit code 2)."""


class UnknownNameError(InputError):
    """A name that a registry does not hold; the message lists the names it does hold."""


class ProblemError(InputError):
    """A problem (shape, format, group, heads ...) that cannot exist or that a dataflow cannot run."""


class ChipError(InputError):
    """A chip file or an override of it that is missing, misspelt or out of range."""


class TilingError(InputError):
    """A tiling that does not fit the chip's buffers or the problem."""


class KernelError(InputError):
    """A kernel that the verifier refuses; the message names the operation and its line."""


class ArrayError(InputError):
    """An input array with a wrong shape, type, range, or with NaN or infinity."""


class CheckFailed(MsdsimError):
    """A check that ran and did not hold: numbers or a golden schedule differ (exit code 1)."""

    exit_code = 1


class Deadlock(MsdsimError):
    """The simulated kernel cannot make progress; the message says who waits for what (exit code 3)."""

    exit_code = 3


class InvariantError(MsdsimError):
    """msdsim contradicts itself (a conservation law does not add up): a bug to report, never a user's mistake."""

    exit_code = 1
