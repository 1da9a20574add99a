"""What a contract is: the operands of a dataflow, its whole-tensor reference, the float64 result and a proven bound.

One file per family under :mod:`msdsim.numerics.references` registers its members, and a contract is tested by being
registered.  :mod:`msdsim.numerics.contracts` imports the families and finds a contract by the dataflow's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdsim.errors import InputError
from msdsim.registry import Registry

Arrays = dict[str, np.ndarray]
Seed = int | tuple[int, int]


@dataclass(frozen=True)
class Contract(ABC):
    """What one dataflow computes, to the last bit.  ``kind`` is the problem kind it belongs to."""

    name: str
    description: str
    kind: str

    @property
    def weights_format(self) -> str:
        """Format of the weights that :meth:`operands` has; empty where there are none."""
        return ""

    def with_passes(self, passes: int) -> Contract:
        """The same contract with another number of passes; refused where nothing is decomposed."""
        raise InputError(f"'{self.name}' decomposes nothing, so it has no number of passes (got {passes})")

    def for_tiling(self, tiling: Mapping[str, int]) -> Contract:
        """The contract as a kernel with these tiling parameters keeps it: itself, where tiles change no bit."""
        return self

    def compiled(self) -> Contract:
        """The same contract computed faster where there is a compiled method with the same bits."""
        return self

    def with_scale_rule(self, rule: str) -> Contract:
        """The same contract on weights whose values are quantized to MXFP4 by this rule; itself where they are not."""
        return self

    @abstractmethod
    def operands(self, problem: Any, inputs: Mapping[str, np.ndarray] | None = None, seed: Seed = 0) -> Arrays:
        """GM tensors by kernel tensor name, in storage dtypes, validated; what ``inputs`` lack is random."""

    @abstractmethod
    def reference(self, problem: Any, operands: Mapping[str, np.ndarray]) -> Arrays:
        """The contract on whole tensors: ``y`` in its storage dtype, ``y32`` before that last rounding, components."""

    @abstractmethod
    def exact(self, problem: Any, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        """y64: the float64 result on the same quantized weights and the activations as given."""

    @abstractmethod
    def bound(self, problem: Any, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        """Proven bound of |y - y64| for every element, float64: representation, fp32 roundings, output rounding."""


CONTRACTS: Registry[Contract] = Registry("contract")


def register(contract: Contract) -> Contract:
    """Enter a contract under its dataflow's name, ``attention:NAME`` for attention."""
    key = contract.name if contract.kind == "gemm" else f"{contract.kind}:{contract.name}"
    return CONTRACTS.add(key, contract)
