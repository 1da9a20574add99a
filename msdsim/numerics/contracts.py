"""The contract of every dataflow, found by its name."""

from __future__ import annotations

from msdsim.errors import ProblemError
from msdsim.numerics.contract import CONTRACTS, Arrays, Contract
from msdsim.numerics.references import gemm_float, gemm_integer, gemm_mx  # registered on import

FAMILIES = (gemm_float, gemm_integer, gemm_mx)


def contract_for(kind: str, dataflow: str) -> Contract:
    """The contract of ``dataflow`` for a problem of ``kind`` (gemm, grouped_gemm, attention)."""
    if kind in ("gemm", "grouped_gemm"):
        return CONTRACTS[dataflow]
    key = f"{kind}:{dataflow}"
    if key not in CONTRACTS:
        known = [name.partition(":")[2] for name in CONTRACTS if name.startswith(f"{kind}:")]
        raise ProblemError(f"no contract '{dataflow}' for {kind} (known: {', '.join(known)})")
    return CONTRACTS[key]


__all__ = ["CONTRACTS", "FAMILIES", "Arrays", "Contract", "contract_for"]
