"""Attention dataflows: FlashAttention over KV tiles with Cube and Vector overlapped; one file a dataflow."""

from msdsim.dataflows.attention import bf16

__all__ = ["bf16"]
