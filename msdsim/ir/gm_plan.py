"""Where the tensors of kernels that run one after the other lie in GM."""

from __future__ import annotations

from collections.abc import Iterable

from msdsim.ir.kernel import Kernel, Tensor
from msdsim.units import round_up

#: Names of the tensor that a kernel takes from the operator before it, and of the one that it leaves to the next.
ACTIVATIONS, OUTPUT = ("x", "q"), "y"
#: Tensors begin at multiples of this, as the vendor's run time places them.
ALIGNMENT = 512


class GmPlan:
    """Gives addresses to the tensors of one kernel after the other.

    * The activation of an operator (``x``, of attention ``q``) lies where the operator before has written its output, if it is
      not larger than that; else where the activation of the operator before lies, if that has the same size; else nowhere yet.
    * Workspaces begin at address 0 for every kernel: an allocator gives out the same memory again.
    * All other tensors (weights, scales, caches, outputs) lie where no kernel has been before.
    """

    def __init__(self, kernels: Iterable[Kernel]) -> None:
        self._next = max((sum(_room(t) for t in kernel.tensors if _is_workspace(t)) for kernel in kernels), default=0)
        self._output: tuple[int, int] | None = None
        self._activation: tuple[int, int] | None = None

    def place(self, kernel: Kernel) -> dict[str, int]:
        """Addresses of the tensors of the next kernel."""
        found: dict[str, int] = {}
        workspace = 0
        for tensor in kernel.tensors:
            if tensor.space != "GM":
                # Not in GM; the number means nothing but keeps the table complete.
                found[tensor.name] = 0
            elif _is_workspace(tensor):
                found[tensor.name], workspace = workspace, workspace + _room(tensor)
            elif tensor.role == "in" and tensor.name in ACTIVATIONS and (known := self._known(tensor)) is not None:
                found[tensor.name] = known
            else:
                found[tensor.name], self._next = self._next, self._next + _room(tensor)
        for tensor in kernel.tensors:
            if tensor.role == "in" and tensor.name in ACTIVATIONS:
                self._activation = found[tensor.name], tensor.size_bytes
        outputs = [tensor for tensor in kernel.tensors if tensor.role == "out" and tensor.name == OUTPUT]
        self._output = (found[OUTPUT], outputs[0].size_bytes) if outputs else None
        return found

    def _known(self, tensor: Tensor) -> int | None:
        """Where an activation lies already."""
        if self._output is not None and tensor.size_bytes <= self._output[1]:
            return self._output[0]
        if self._activation is not None and tensor.size_bytes == self._activation[1]:
            return self._activation[0]
        return None


def _is_workspace(tensor: Tensor) -> bool:
    return tensor.role == "workspace" and tensor.space == "GM"


def _room(tensor: Tensor) -> int:
    """Bytes that a tensor takes, up to where the next may begin."""
    return round_up(tensor.size_bytes, ALIGNMENT)
