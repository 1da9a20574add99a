"""Which dataflow won, and the one sentence why: what the loser was bound by or waited for."""

from __future__ import annotations

from collections.abc import Sequence

from msdsim.formats.schemes import baselines
from msdsim.report.labels import percent, resource_label
from msdsim.report.result import BoundBy, Comparison, Result, WorkloadComparison
from msdsim.report.waits import Wait, stall_share, waits

#: A resource used at least this much is what binds a run; below it, the run waits in turns.
BOUND = 0.6
_CUBE = "aic.m"


#: Times that differ by less are a tie.
TIE = 1.02


def verdict(comparison: Comparison) -> str:
    """Who won and why, or an empty text when nothing ran.  A run that is less accurate than 16-bit weights never wins: it may
    be the fastest, and the winner is the fastest of the others."""
    winner, fastest = comparison.winner, comparison.fastest
    if winner is None or fastest is None:
        return ""
    if len(comparison.runs) == 1:
        return f"{winner.dataflow} is the only dataflow that ran; it is {binding(winner)}."
    lost = comparison.less_accurate(fastest)
    if not lost:
        return _plain(winner, comparison.runs) + _baselines(comparison)
    text = f"{fastest.dataflow} is the fastest, but {lost}"
    if comparison.less_accurate(winner):
        return f"{text}; no dataflow here is at least as accurate as bf16."
    others = [run for run in comparison.runs if not comparison.less_accurate(run)]
    if len(others) == 1:
        return (f"{text}; of those at least as accurate as bf16, {winner.dataflow} is the only one ({_times(winner, fastest)} "
                f"its time).")
    return f"{text}; of those at least as accurate as bf16, {_plain(winner, others)}{_baselines(comparison)}"


def _plain(winner: Result, runs: Sequence[Result]) -> str:
    """The winner of some runs and the one behind it."""
    rival = min((run for run in runs if run is not winner), key=lambda run: run.cycles)
    ratio = rival.cycles / winner.cycles
    if ratio < TIE:
        apart = f" ({percent(ratio - 1)} apart)" if rival.cycles != winner.cycles else ""
        return f"{winner.dataflow} and {rival.dataflow} tie{apart}; {rival.dataflow} is {binding(rival)}."
    reason = why(winner, rival) + _price(winner, rival)
    return f"{winner.dataflow} wins, {ratio:.2f}x as fast as {rival.dataflow}, which {reason}."


def _baselines(comparison: Comparison) -> str:
    """Which baseline of the winner's weights is the best one, where there are several."""
    winner = comparison.winner
    assert winner is not None
    names = baselines(winner.dataflow.rpartition("-")[2])
    rivals = sorted((run for run in comparison.runs if run.dataflow in names), key=lambda run: run.cycles)
    if len(rivals) < 2 or winner in rivals:
        return ""
    best = rivals[0]
    near = [run for run in rivals if run.cycles < TIE * best.cycles]
    rest = "".join(f", {run.dataflow} {_times(run, winner)}" for run in rivals[len(near):])
    if len(near) > 1:
        found = ", ".join(run.dataflow for run in near[:-1])
        return f" Of its baselines, {found} and {near[-1].dataflow} tie at {_times(best, winner)} its time{rest}."
    degree = "better" if len(rivals) == 2 else "best"
    return f" Of its baselines, {best.dataflow} is the {degree}: {_times(best, winner)} its time{rest}."


def _times(run: Result, other: Result) -> str:
    return f"{run.cycles / max(1, other.cycles):.2f}x"


def _price(winner: Result, rival: Result) -> str:
    """What the speed costs, where numbers were executed and the winner's are clearly less accurate."""
    if winner.numerics is None or rival.numerics is None:
        return ""
    if winner.numerics.overflowed:
        return f"; but {winner.numerics.overflowed:,} of {winner.dataflow}'s outputs overflow"
    if rival.numerics.overflowed or winner.numerics.relative_l2 < 1.5 * rival.numerics.relative_l2:
        return ""
    ratio = winner.numerics.relative_l2 / max(rival.numerics.relative_l2, 1e-300)
    return f"; but {winner.dataflow}'s error is {ratio:.1f}x as large"


def workload_verdict(found: WorkloadComparison) -> str:
    """Like :func:`verdict` for the totals of a workload; the reason is that of the layer where most time is lost."""
    winner = found.winner
    rivals = sorted((run for run in found.runs if run is not winner), key=lambda run: run.cycles)
    if winner is None or not rivals:
        return ""
    rival = rivals[0]
    if rival.cycles < TIE * winner.cycles:
        return f"{winner.dataflow} and {rival.dataflow} tie in total ({percent(rival.cycles / winner.cycles - 1)} apart)."
    pairs = list(zip(winner.runs, rival.runs, strict=True))
    ours, theirs = max(pairs, key=lambda pair: pair[1].count * (pair[1].result.cycles - pair[0].result.cycles))
    return (f"{winner.dataflow} wins, {rival.cycles / winner.cycles:.2f}x as fast as {rival.dataflow} in total; most of the "
            f"difference is in {theirs.name}, where {rival.dataflow} {why(ours.result, theirs.result)}.")


def bound_text(causes: Sequence[BoundBy], most: int = 3) -> str:
    """``L2 (twice as fast: 1.10x), Vector (twice as fast: 1.05x)``: what binds a run, with what its change would gain."""
    if not causes:
        return "no single thing: no one change of the chip gains 2%"
    return ", ".join(f"{cause.resource} ({_how(cause)}: {cause.speedup:.2f}x)" for cause in causes[:most])


def _how(cause: BoundBy) -> str:
    """``twice as fast`` of ``HBM twice as fast``, ``free`` of ``signals and barriers free``, ``gone`` of ``no latencies``."""
    return next((text for text in ("twice as fast", "twice as wide", "twice as large", "free") if cause.change.endswith(text)),
                "gone")


def binding(run: Result) -> str:
    """What a run is bound by where its causes are known, else its busiest resource and how much of the time that works."""
    if run.causes:
        return f"bound by {bound_text(run.causes, 1)}"
    busiest = f"{resource_label(run.bottleneck.name)}, {percent(run.bottleneck.utilization)} of the time"
    return f"bound by no single resource (the busiest is {busiest})" if run.causes is not None else f"busiest at {busiest}"


def why(winner: Result, rival: Result) -> str:
    """What holds ``rival`` back, as a clause that follows its name."""
    found = rival.bottleneck
    if not rival.causes and found.utilization < BOUND:
        busiest = f"its busiest resource, {resource_label(found.name)}, works {percent(found.utilization)} of the time"
        return f"mostly waits ({busiest}){_cube_wait(rival)}"
    text = f"is {binding(rival)}"
    if rival.causes[0].resource == "HBM" if rival.causes else found.name == "hbm":
        ratio = rival.hbm_bytes / max(1, winner.hbm_bytes)
        return f"{text} and moves {ratio:.1f}x the bytes" if ratio >= 1.05 else text
    return text if (rival.causes[0].resource == "Cube" if rival.causes else found.name == _CUBE) else text + _cube_wait(rival)


def _cube_wait(run: Result) -> str:
    """``; its Cube waits 62% of the time, in the end for b1 from MTE2``; empty when the Cube hardly waits."""
    row, chain = run.stalls.get(_CUBE), culprits(run)
    share = stall_share(row, run.cycles) if row is not None else 0.0
    if share < 0.05 or not chain:
        return ""
    return f"; its Cube waits {percent(share)} of the time, in the end for {chain[-1].text}"


def culprits(run: Result, pipe: str = _CUBE) -> list[Wait]:
    """The chain of longest waits from ``pipe`` back: what it waits for, what that pipe waits for, and so on.

    The chain stops where a pipe works more than it waits, or waits for something that is no pipe of its core.
    """
    by_pipe = waits(run.record)
    chain: list[Wait] = []
    seen: set[str] = set()
    while pipe and pipe not in seen and by_pipe.get(pipe):
        longest = by_pipe[pipe][0]
        row = run.stalls[pipe]
        if chain and longest.share < row["busy"] / (row["instances"] * max(1, run.cycles)):
            break
        chain.append(longest)
        seen.add(pipe)
        pipe = longest.culprit
    return chain

