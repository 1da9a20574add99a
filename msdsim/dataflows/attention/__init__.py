"""Attention dataflows: FlashAttention over KV tiles with Cube and Vector overlapped; one file a family."""

from msdsim.dataflows.attention import bf16, convert, dequant, msd, mx

__all__ = ["bf16", "convert", "dequant", "msd", "mx"]
