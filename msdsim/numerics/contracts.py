"""The contract of every dataflow, found by its name."""

from __future__ import annotations

from msdsim.numerics.contract import CONTRACTS, Arrays, Contract
from msdsim.numerics.references import attention, gemm_convert, gemm_float, gemm_integer, gemm_mx  # registered on import
from msdsim.numerics.references.grouped import GroupedContract
from msdsim.registry import unknown_name

FAMILIES = (gemm_float, gemm_convert, gemm_integer, gemm_mx, attention)


def contract_for(kind: str, dataflow: str) -> Contract:
    """The contract of ``dataflow`` for a problem of ``kind`` (gemm, grouped_gemm, attention)."""
    if kind in ("gemm", "grouped_gemm"):
        gemm = {name: contract for name, contract in CONTRACTS.items() if contract.kind == "gemm"}
        if dataflow not in gemm:
            raise unknown_name("contract", dataflow, list(gemm))
        return gemm[dataflow] if kind == "gemm" else GroupedContract.of(gemm[dataflow])
    key = f"{kind}:{dataflow}"
    if key not in CONTRACTS:
        raise unknown_name(f"{kind} contract", dataflow, [c.name for c in CONTRACTS.values() if c.kind == kind])
    return CONTRACTS[key]


__all__ = ["CONTRACTS", "FAMILIES", "Arrays", "Contract", "contract_for"]
