"""The numbers of a kernel: executed, held bit for bit against the whole-tensor reference, and measured against float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from msdsim.numerics.shared import Shared

if TYPE_CHECKING:
    from msdsim.ir.kernel import Kernel
    from msdsim.numerics.contract import Contract


@dataclass(frozen=True)
class Numerics:
    """Outcome of a numeric check; errors are against float64 on the same quantized weights.

    ``overflowed`` outputs are infinite or NaN, by one rule in kernel and reference: a conversion to BF16 beyond its range gives
    an infinity.  The errors are those of the other outputs; where there are none, ``relative_l2`` and ``max_abs_error`` are
    infinite.  ``bound_ratio`` is None where no output has a bound.
    """

    bit_exact: bool
    elements: int
    mismatches: int
    relative_l2: float
    max_abs_error: float
    bound_ratio: float | None
    overflowed: int = 0
    first_mismatch: str = ""

    @property
    def good(self) -> bool:
        """Bit-exact, and every error inside its proven bound."""
        return self.bit_exact and (self.bound_ratio is None or self.bound_ratio <= 1)


@dataclass(frozen=True)
class Executed:
    """What the execution of a kernel's numbers gives: the outcome of the check, and arrays by name in plain numpy types."""

    numerics: Numerics | None
    arrays: Mapping[str, np.ndarray]


def check_numbers(contract: Contract, problem: Any, kernel: Kernel, *, inputs: Mapping[str, np.ndarray] | None = None,
                  seed: int = 0, keep: Sequence[str] = (), shared: Shared | None = None) -> Executed:
    """Execute a dataflow's kernel and hold it against its ``contract``, on ``inputs`` and random arrays of ``seed`` for
    what they lack; with ``components`` in ``keep`` the arrays have those and their scales beside ``y``.  ``shared`` has what
    checks of other dataflows on the same problem, inputs and seed found."""
    with (Shared() if shared is None else shared).opened():
        return _check(contract, problem, kernel, inputs, seed, keep)


def _check(contract: Contract, problem: Any, kernel: Kernel, inputs: Mapping[str, np.ndarray] | None, seed: int,
           keep: Sequence[str]) -> Executed:
    # Imported here: most runs execute no numbers.
    from msdsim.numerics.executor import execute
    from msdsim.numerics.metrics import bound_ratio, compare_bits, max_abs_error, overflowed, relative_l2

    operands = contract.operands(problem, inputs, seed)
    # The reference first: it speaks of the user's arrays where their numbers are beyond what a kernel can compute with.
    with np.errstate(all="ignore"):
        expected = contract.reference(problem, operands)
    # A workspace of a hand-written kernel may have a name of the contract and be something else.
    outputs = {name: array for name, array in execute(kernel, operands).items()
               if name not in expected or array.size == expected[name].size}
    mismatches = [found for name in expected if name in outputs
                  if (found := compare_bits(expected[name], outputs[name].reshape(expected[name].shape), name)) is not None]
    with np.errstate(all="ignore"):
        exact = contract.exact(problem, operands)
        bound = contract.bound(problem, operands, exact)
    y = outputs["y"].reshape(exact.shape)
    numerics = Numerics(
        bit_exact=not mismatches,
        elements=y.size,
        mismatches=sum(found.count for found in mismatches),
        relative_l2=relative_l2(y, exact),
        max_abs_error=max_abs_error(y, exact),
        bound_ratio=bound_ratio(y, exact, bound),
        overflowed=overflowed(y),
        first_mismatch=str(mismatches[0]) if mismatches else "",
    )
    arrays = {"y": y.astype(np.float32)}
    if "components" in keep:
        arrays |= {name: _plain(value) for name, value in expected.items() if name not in ("y", "y32")}
    return Executed(numerics, arrays)


def execute_kernel(kernel: Kernel, inputs: Mapping[str, np.ndarray]) -> Executed:
    """Execute a kernel that has no reference, such as a hand-written one; the arrays are its outputs as float32."""
    from msdsim.numerics.executor import execute

    outputs = execute(kernel, _stored(kernel, inputs))
    roles = {tensor.name: tensor.role for tensor in kernel.tensors}
    return Executed(None, {name: value.astype(np.float32) for name, value in outputs.items() if roles[name] == "out"})


def _stored(kernel: Kernel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays in the tensors' storage formats, rounded half to even where they come wider."""
    from msdsim.formats.number import FORMATS
    from msdsim.formats.rounding import round_to

    return {
        tensor.name: array if array.dtype == FORMATS[tensor.fmt].dtype else round_to(array, tensor.fmt)
        for tensor in kernel.tensors if tensor.role == "in" and (array := inputs.get(tensor.name)) is not None
    }


def _plain(array: np.ndarray) -> np.ndarray:
    """A component or scale in a plain numpy type: integers as int8, codes of one-byte formats as uint8, the rest float32."""
    if array.dtype.itemsize > 1:
        return array.astype(np.float32)
    return array.astype(np.int8) if array.dtype.kind == "i" or array.dtype.name == "int4" else array.view(np.uint8)
