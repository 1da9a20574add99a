"""HBM traffic of attention per element of the KV cache: the figures that the MSD paper calls 5Md and 2Md.

With M tokens and head dimension d, K (or V) has M d elements.  Per element of an INT8 cache, in bytes:

* Every pass over the integers costs 1: ``Md`` when the components are stacked so that one pass serves them all, ``2Md`` when
  each of two components reads K and V for itself.
* Dequantizing to a BF16 workspace costs 1 to read, 2 to write and 2 to read back: ``5Md`` when all of it goes through HBM.
  A workspace that stays in L2 costs only the 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from msdsim.timeline.record import HBM_READ, HBM_WRITE, RunRecord

#: Tensors that hold the cache, and those in which a dataflow keeps it dequantized.
CACHE, WORKSPACE = ("k", "v"), ("k_ring", "v_ring", "k_bf16", "v_bf16")


@dataclass(frozen=True)
class CacheTraffic:
    """HBM bytes per element of K and V; ``workspace_left`` is at most what L2 still holds unwritten at the end."""

    cache_read: float
    workspace_write: float
    workspace_read: float
    workspace_left: float

    @property
    def total(self) -> float:
        """In units of Md, what is left in L2 counted as written."""
        return self.cache_read + self.workspace_write + self.workspace_read + self.workspace_left


def cache_traffic(record: RunRecord) -> CacheTraffic:
    """Traffic of the KV cache of an attention run, in bytes per element of K and V (units of Md)."""
    elements = read = back = held = 0
    for row, tensor in zip(record.tensor_traffic, record.program.kernel.tensors, strict=True):
        if tensor.name in CACHE:
            elements += prod(tensor.shape)
            read += int(row[HBM_READ])
        elif tensor.name in WORKSPACE and tensor.space == "GM":
            back += int(row[HBM_READ])
            held += tensor.size_bytes
    # A write to HBM is charged to the access that evicts the line, whatever tensor that belongs to; what attention writes
    # besides the workspace is small.  L2 is written back at some time, so what of the workspace is still dirty there counts.
    write = int(record.tensor_traffic[:, HBM_WRITE].sum())
    left = min(record.l2_dirty_bytes, held)
    return CacheTraffic(read / elements, write / elements, back / elements, left / elements)
