"""Small kernels that several tests use."""

from __future__ import annotations

from msdsim.ir import KernelBuilder, at
from msdsim.ir.kernel import Kernel


def copy_kernel(rows: int = 8, cols: int = 64, ring: int = 2, cores: int = 1, step: int = 1) -> Kernel:
    """y = x through UB, ``step`` rows at a time, on one AIV a core."""
    kb = KernelBuilder("copy", cores=cores, aiv_per_core=1)
    x = kb.tensor("x", "fp32", (rows, cols), "in")
    y = kb.tensor("y", "fp32", (rows, cols), "out")
    with kb.part("aiv"), kb.loop("i", kb.core, rows // step, cores) as i:
        tile = kb.buffer("tile", "UB", "fp32", (step, cols), ring)
        kb.copy(tile[:, :], x[at(i * step, step), :])
        kb.copy(y[at(i * step, step), :], tile[:, :])
    return kb.build()


def scale_kernel(rows: int = 8, cols: int = 64) -> Kernel:
    """y = x * 2 + x, with a chain of dependent Vector operations."""
    kb = KernelBuilder("scale", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "fp32", (rows, cols), "in")
    y = kb.tensor("y", "fp32", (rows, cols), "out")
    with kb.part("aiv"), kb.loop("i", 0, rows) as i:
        a = kb.buffer("a", "UB", "fp32", (1, cols), 2)
        b = kb.buffer("b", "UB", "fp32", (1, cols), 2)
        kb.copy(a[:, :], x[at(i, 1), :])
        kb.op("muls", b[:, :], a[:, :], scalar=2.0)
        kb.op("add", b[:, :], b[:, :], a[:, :])
        kb.copy(y[at(i, 1), :], b[:, :])
    return kb.build()


def matmul_kernel(m: int = 16, k: int = 64, n: int = 32, l0_k: int = 16) -> Kernel:
    """y = x @ w on one AIC."""
    kb = KernelBuilder("matmul", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "bf16", (m, k), "in")
    w = kb.tensor("w", "bf16", (k, n), "in")
    y = kb.tensor("y", "bf16", (m, n), "out")
    with kb.part("aic"):
        a1, b1 = kb.buffer("a1", "L1", "bf16", (m, k)), kb.buffer("b1", "L1", "bf16", (k, n))
        acc = kb.buffer("acc", "L0C", "fp32", (m, n))
        kb.copy(a1[:, :], x[:, :])
        kb.copy(b1[:, :], w[:, :])
        with kb.loop("k0", 0, k // l0_k) as k0:
            a0 = kb.buffer("a0", "L0A", "bf16", (m, l0_k), 2)
            b0 = kb.buffer("b0", "L0B", "bf16", (l0_k, n), 2)
            kb.copy(a0[:, :], a1[:, at(k0 * l0_k, l0_k)])
            kb.copy(b0[:, :], b1[at(k0 * l0_k, l0_k), :])
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :], accumulate=k0)
        kb.op("fixpipe", y[:, :], acc[:, :])
    return kb.build()


def exchange_kernel(rows: int = 4, cols: int = 64) -> Kernel:
    """The AIV doubles x into a workspace; the AIC waits for each row and passes it on through L1, L0 and the Cube."""
    kb = KernelBuilder("exchange", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "bf16", (rows * 16, cols), "in")
    one = kb.tensor("one", "bf16", (cols, cols), "in")
    ws = kb.tensor("ws", "bf16", (rows * 16, cols), "workspace")
    y = kb.tensor("y", "bf16", (rows * 16, cols), "out")
    kb.signal("ready", "aiv_to_aic")
    with kb.part("aiv"), kb.loop("i", 0, rows) as i:
        tile = kb.buffer("tile", "UB", "bf16", (16, cols), 2)
        kb.copy(tile[:, :], x[at(i * 16, 16), :])
        kb.copy(ws[at(i * 16, 16), :], tile[:, :])
        kb.raise_signal("ready", "MTE3")
    with kb.part("aic"):
        b1 = kb.buffer("b1", "L1", "bf16", (cols, cols))
        b0 = kb.buffer("b0", "L0B", "bf16", (cols, cols))
        kb.copy(b1[:, :], one[:, :])
        kb.copy(b0[:, :], b1[:, :])
        with kb.loop("i", 0, rows) as i:
            a1, a0 = kb.buffer("a1", "L1", "bf16", (16, cols), 2), kb.buffer("a0", "L0A", "bf16", (16, cols), 2)
            acc = kb.buffer("acc", "L0C", "fp32", (16, cols), 2)
            kb.wait_signal("ready", "MTE2")
            kb.copy(a1[:, :], ws[at(i * 16, 16), :])
            kb.copy(a0[:, :], a1[:, :])
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])
            kb.op("fixpipe", y[at(i * 16, 16), :], acc[:, :])
    return kb.build()
