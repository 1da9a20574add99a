"""Params: numbers that a kernel's text leaves open, with the values that they may take."""

from __future__ import annotations

from collections.abc import Mapping

from msdsim.errors import InputError, KernelError
from msdsim.ir.kernel import Kernel
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel
from msdsim.ir.tokens import nearest


def with_params(kernel: Kernel, values: Mapping[str, int]) -> Kernel:
    """The kernel with other values of its params.  InputError for a name that is none, or for a value that its line does not
    list."""
    params = kernel.params
    for name in values:
        if name not in params:
            known = f"its params: {', '.join(params)}" if params else \
                "it has none; 'param NAME = N in [N, ...]' in its text declares one"
            raise InputError(f"kernel '{kernel.name}' has no param '{name}'{nearest(name, list(params))} ({known})")
    if all(params[name] == value for name, value in values.items()):
        return kernel
    return parse_kernel(_text(kernel), {**params, **values})


def _text(kernel: Kernel) -> str:
    """What the kernel was read from, whose lines messages cite; its own text where it has been changed since."""
    try:
        if kernel.source and parse_kernel(kernel.source, kernel.params) == kernel:
            return kernel.source
    except KernelError:
        pass
    return print_kernel(kernel)

