"""The MSD paper's claims about time and traffic (P1, P2, P4, P5), answered by simulation, and P6 for executed kernels.

Every row names the problem and chip it was simulated on, since none of these claims holds for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msdsim.analysis.cache_traffic import cache_traffic
from msdsim.dataflows.lookup import dataflows_for
from msdsim.explore.accuracy.claims import NOT_REPRODUCED, ONLY, REPRODUCED, ClaimRow
from msdsim.formats.schemes import baselines
from msdsim.hardware import Hardware, load_hw
from msdsim.ir.kernel import operations
from msdsim.problems import Attention, Gemm
from msdsim.report.result import Result
from msdsim.runs import RunOptions, run

Progress = Callable[[str], None]

#: A decode-sized matmul of a large dense model: the size the latency model is discussed for.
DECODE = Gemm(m=16, k=8192, n=12288)
#: A decode step whose dequantized KV cache (512 MiB of BF16) is larger than any L2 here.
CACHE = Attention(batch=4, heads=32, kv_heads=8, head_dim=128, q=1, kv=32768)
#: ... and one small enough to execute its numbers, the last tile of KV a partial one.
EXECUTED = Attention(batch=2, heads=8, kv_heads=2, head_dim=128, q=1, kv=1100)
#: The baselines of MSD: weights dequantized, and only converted to BF16 or FP16.
_BASELINES = baselines("int8")
_GEMMS = (*_BASELINES, "msd-int8")
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def timing_claims(hw: str | Hardware = "ascend910b1", mx_hw: str | Hardware = "ascend950pr",
                  progress: Progress | None = None) -> Mapping[str, Sequence[ClaimRow]]:
    """Rows of P1, P2, P4, P5 and P6 by claim; a row that needs a dataflow which is not there is left out."""
    say = progress or (lambda _: None)
    hardware = load_hw(hw) if isinstance(hw, str) else hw
    mx = load_hw(mx_hw) if isinstance(mx_hw, str) else mx_hw
    say("P1, P2, P5: dequantization against MSD")
    by_rows = {m: {name: run(Gemm(m=m, k=DECODE.k, n=DECODE.n), hardware, name) for name in _GEMMS}
               for m in ROWS}
    decode = by_rows[DECODE.m]
    found: dict[str, list[ClaimRow]] = {"P1": _dequant_cost(hardware, by_rows), "P2": [_no_conversion(hardware, decode)],
                                        "P5": [_stall(hardware, by_rows)]}
    if {"dequant-int8", "msd-int8"} <= set(dataflows_for("attention")):
        say("P5, P6: attention")
        found["P5"] += _cache(hardware)
        found["P6"] = [_executed(hardware)]
    if {"msd-mxfp4", "mxfp8"} <= set(dataflows_for("gemm")):
        say("P4: two MXFP4 passes against one MXFP8 pass")
        found["P4"] = [_mx_time(mx)]
    return found


def _where(hardware: Hardware, problem: object) -> str:
    return f"{problem} on {hardware.name}"


def _busy_us(result: Result, pipe: str) -> float:
    """Work of one instance of a pipe, averaged over instances."""
    row = result.stalls[pipe]
    return row["busy"] / row["instances"] / float(result.hardware.chip.clock_mhz)


def cube_waiting_for_vector(result: Result) -> float:
    """Share of the run in which the AIC's loads wait for what Vector makes (signals), averaged over the AICs."""
    row = result.stalls["aic.mte2"]
    return row["wait_sync"] / (row["instances"] * result.cycles)


def _dequant_cost(hardware: Hardware, by_rows: Mapping[int, Mapping[str, Result]]) -> list[ClaimRow]:
    vector = {m: _busy_us(runs["dequant-int8"], "aiv.v") for m, runs in by_rows.items()}
    cube = {m: _busy_us(runs["dequant-int8"], "aic.m") for m, runs in by_rows.items()}
    dearer = [m for m in by_rows if vector[m] > cube[m]]
    idle = 1 - cube[DECODE.m] / by_rows[DECODE.m]["dequant-int8"].time_us
    verdict = REPRODUCED if len(dearer) == len(by_rows) else f"{ONLY} m <= {max(dearer)}" if dearer else NOT_REPRODUCED
    where = f"gemm:m=1..512,k={DECODE.k},n={DECODE.n} on {hardware.name}"
    return [
        ClaimRow("P1", "dequantization costs more cycles than the matmul", "Vector above Cube",
                 f"m={DECODE.m}: Vector {vector[DECODE.m]:.1f} us, Cube {cube[DECODE.m]:.1f} us", where, verdict),
        ClaimRow("P1", "... and leaves the Cube idle", "idle Cube", f"Cube works {1 - idle:.0%} of the time",
                 _where(hardware, by_rows[DECODE.m]["dequant-int8"].kernel.name + f", m={DECODE.m}"),
                 REPRODUCED if idle > 0.5 else NOT_REPRODUCED),
    ]


def _no_conversion(hardware: Hardware, decode: Mapping[str, Result]) -> ClaimRow:
    msd, dequant = decode["msd-int8"], decode["dequant-int8"]
    touched = sum(any(item.of.name == "w" for item in op.ins) for op in operations(msd.kernel.aiv))
    gain, converting = dequant.time_us / msd.time_us, [decode[name] for name in _BASELINES[1:]]
    only = ", ".join(f"{run.time_us:.1f} us ({run.time_us / msd.time_us:.2f}x) as {run.dataflow}" for run in converting)
    return ClaimRow("P2", "no weight conversion before GEMM: components meet the quantized weights in native GEMM",
                    "no conversion", f"{touched} Vector operations read weights; {msd.time_us:.1f} us against "
                    f"{dequant.time_us:.1f} us ({gain:.2f}x); weights only converted take {only}",
                    _where(hardware, DECODE),
                    REPRODUCED if touched == 0 else NOT_REPRODUCED)


def _stall(hardware: Hardware, by_rows: Mapping[int, Mapping[str, Result]]) -> ClaimRow:
    shares = {name: {m: cube_waiting_for_vector(runs[name]) for m, runs in by_rows.items()} for name in _GEMMS}
    faster = [m for m, runs in by_rows.items() if runs["msd-int8"].cycles < min(runs[name].cycles for name in _BASELINES)]
    text = "; ".join(f"{name} {share[1]:.0%} at m=1, {share[DECODE.m]:.0%} at m={DECODE.m}, {share[512]:.0%} at m=512"
                     for name, share in shares.items())
    less = [m for m in by_rows if all(shares["msd-int8"][m] < shares[name][m] for name in _BASELINES)]
    verdict = REPRODUCED if len(less) == len(by_rows) else f"{ONLY} m <= {max(less)}" if less else NOT_REPRODUCED
    ahead = f"; msd faster than all baselines for m <= {max(faster)}" if faster else "; msd never faster"
    return ClaimRow("P5", "MSD avoids the Vector-Cube pipeline stall (share of the run the Cube's loads wait for Vector)",
                    "no stall", text + ahead, f"gemm:m=1..512,k={DECODE.k},n={DECODE.n} on {hardware.name}", verdict)


def _cache(hardware: Hardware) -> list[ClaimRow]:
    whole = cache_traffic(run(CACHE, hardware, "dequant-int8", RunOptions(tiling={"fused": 0})).record)
    ring = cache_traffic(run(CACHE, hardware, "dequant-int8").record)
    convert = cache_traffic(run(CACHE, hardware, "convert-int8").record)
    msd = cache_traffic(run(CACHE, hardware, "msd-int8").record)
    ratio = whole.total / msd.total
    where = _where(hardware, CACHE)
    return [
        ClaimRow("P5", "KV-cache HBM traffic in attention falls by up to 2.5x (5Md to 2Md)", "2.5x",
                 f"{whole.total:.2f} Md (dequantized copy through HBM) to {msd.total:.2f} Md ({ratio:.1f}x: stacked components "
                 f"read the cache once)", where, REPRODUCED if ratio >= 2.5 else NOT_REPRODUCED),
        ClaimRow("P5", "... against a dequantized workspace that stays in L2", "2.5x",
                 f"{ring.total:.2f} Md ({convert.total:.2f} Md where it is only converted) to {msd.total:.2f} Md "
                 f"({ring.total / msd.total:.1f}x)", where,
                 REPRODUCED if ring.total >= 2.5 * msd.total else f"{ONLY} workspaces that leave L2"),
    ]


def _executed(hardware: Hardware) -> ClaimRow:
    runs = {name: run(EXECUTED, hardware, name, RunOptions(check=True)).numerics
            for name in ("dequant-int8", "convert-int8", "msd-int8")}
    numbers = {name: value for name, value in runs.items() if value is not None}
    exact = all(value.bit_exact for value in numbers.values())
    text = "; ".join(f"{name} {value.relative_l2:.1e}" for name, value in numbers.items())
    better = all(numbers["msd-int8"].relative_l2 <= value.relative_l2 for value in numbers.values())
    return ClaimRow("P6", "attention as the simulated kernels compute it: msd-int8 has no more error than dequant-int8 and "
                    "convert-int8",
                    "lower or equal L2", f"{text} (BF16 outputs); bits {'equal' if exact else 'DIFFER FROM'} the contract",
                    _where(hardware, EXECUTED), REPRODUCED if exact and better else NOT_REPRODUCED)


def _mx_time(hardware: Hardware) -> ClaimRow:
    problem = Gemm(m=128, k=DECODE.k, n=DECODE.n)
    two, one = run(problem, hardware, "msd-mxfp4"), run(problem, hardware, "mxfp8")
    ratio = two.time_us / one.time_us
    return ClaimRow("P4", "two MXFP4 passes take the same effective GEMM time as one MXFP8 pass", "equal time",
                    f"{two.time_us:.1f} us against {one.time_us:.1f} us ({ratio:.2f}x); Cube work "
                    f"{_busy_us(two, 'aic.m'):.1f} against {_busy_us(one, 'aic.m'):.1f} us", _where(hardware, problem),
                    REPRODUCED if ratio <= 1.1 else f"{ONLY} the Cube's work" if
                    _busy_us(two, "aic.m") <= 1.1 * _busy_us(one, "aic.m") else NOT_REPRODUCED)
