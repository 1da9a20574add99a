"""Which dataflow runs which operator of a workload: one for all, one for each kind or entry, or the best accurate enough.

A mix is written ``gemm=w8a8,attention=bf16,lm_head=bf16`` (or with ``+`` for the commas).  What is named by an entry's own
name, on the command line or in the workload's file, is run so or not at all.  What is named by kind or for all gives way by
rule, and the result says so: entries whose weights are published in 16 bits stay in 16 bits, and an operator whose sizes a
dataflow cannot take falls back to the same method with wider weights, and else to BF16.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msdsim.dataflows.lookup import dataflows_for, find_dataflow
from msdsim.errors import InputError, MsdsimError
from msdsim.formats.mx import MX_ELEMENTS
from msdsim.formats.schemes import SCHEMES
from msdsim.hardware import Hardware
from msdsim.problems import Workload
from msdsim.problems.model import closest
from msdsim.problems.workload import Entry

#: Kinds of operators that a mix may name; ``gemm`` is for grouped ones too, unless they are named.
KINDS = ("gemm", "grouped_gemm", "attention")
#: Where an operator cannot be run as asked: the same method with wider weights.
_WIDER = {"msd-int4": "msd-int8", "convert-int4": "convert-int8",
          "convert-fp16-int4": "convert-fp16-int8", "dequant-int4": "dequant-int8", "a8w4": "w8a8"}
BEST = "best"


@dataclass(frozen=True)
class Mix:
    """Dataflows by entry, by kind, and for all that neither names (None: nothing does).

    ``text`` is how it was written.  A dataflow called ``best`` or ``best:NAME`` is chosen for each operator among those at
    least as accurate as NAME.
    """

    text: str
    default: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)

    def named(self, entry: Entry) -> tuple[str | None, bool]:
        """The dataflow asked for, and whether it was asked for by the entry's own name."""
        own = self.entries.get(entry.name) or entry.dataflow
        if own is not None:
            return own, True
        kind = entry.problem.kind
        by_kind = self.kinds.get(kind) or (self.kinds.get("gemm") if kind == "grouped_gemm" else None)
        return by_kind or self.default, False


@dataclass(frozen=True)
class Chosen:
    """An entry with the dataflow that runs it and the problem as that takes it; ``note`` says why it is none that was named."""

    entry: Entry
    problem: Any
    dataflow: str
    note: str = ""


def parse_mix(text: str, workload: Workload) -> Mix:
    """The mix of a text; names that are no kind and no entry are refused."""
    default: str | None = None
    kinds: dict[str, str] = {}
    entries: dict[str, str] = {}
    names = [entry.name for entry in workload.entries]
    present = {entry.problem.kind for entry in workload.entries}
    for item in filter(None, (part.strip() for part in re.split(r"[,+]", text))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            if default is not None:
                raise InputError(f"--dataflow names '{default}' and '{key}' for all operators; name one, or write KIND=NAME")
            default = key
            continue
        if not value:
            raise InputError(f"--dataflow '{key}=' names no dataflow; write for example {key}=bf16")
        table = kinds if key in KINDS else entries
        if key in table:
            raise InputError(f"--dataflow gives '{key}' twice; remove one")
        if table is entries and key not in names:
            raise InputError(f"--dataflow '{key}' is no kind of operator ({', '.join(KINDS)}) and no operator of "
                             f"'{workload.name}'{closest(key, [*KINDS, *names])}")
        if key in KINDS and key not in present and not (key == "gemm" and "grouped_gemm" in present):
            raise InputError(f"--dataflow names {key}, and '{workload.name}' has no such operator")
        table[key] = value
    if default is None and not kinds and not entries:
        raise InputError("--dataflow is empty; give a name, or KIND=NAME,...")
    return Mix(text, default, kinds, entries)


def choices(workload: Workload, mix: Mix, hardware: Hardware) -> list[Chosen]:
    """How every entry is run.

    InputError where nothing says how, where a dataflow is unknown or where none can run an operator.
    """
    _all_named(workload, mix)
    return [_choice(workload, entry, mix, hardware) for entry in workload.entries]


def _all_named(workload: Workload, mix: Mix) -> None:
    """Every entry must have a dataflow that there is for its kind."""
    for entry in workload.entries:
        name, _ = mix.named(entry)
        kind = entry.problem.kind
        known = dataflows_for(kind, restated=True)
        if name is None:
            raise InputError(f"nothing says how '{entry.name}' of '{workload.name}' is run; add {kind}=NAME ("
                             f"{', '.join(known)})")
        if name not in known and not is_best(name):
            offer = offered(workload, name)
            raise InputError(f"workload '{workload.name}', entry '{entry.name}': there is no {kind} dataflow '{name}' ("
                             f"{', '.join(known)}){f'; give --dataflow {offer}' if offer else closest(name, known)}")


def offered(workload: Workload, name: str) -> str | None:
    """A mix in the place of a dataflow that not all kinds of operators have: theirs where they have it, else BF16."""
    kinds = list(dict.fromkeys("gemm" if entry.problem.kind == "grouped_gemm" else entry.problem.kind
                               for entry in workload.entries))
    if not any(name in dataflows_for(kind) for kind in kinds):
        return None
    return ",".join(f"{kind}={name if name in dataflows_for(kind) else 'bf16'}" for kind in kinds)


def is_best(name: str) -> bool:
    """Whether a dataflow is to be chosen."""
    return name == BEST or name.startswith(f"{BEST}:")


def _choice(workload: Workload, entry: Entry, mix: Mix, hardware: Hardware) -> Chosen:
    name, own = mix.named(entry)
    assert name is not None
    if is_best(name):
        return _best(entry, name.partition(":")[2] or "bf16", hardware)
    if entry.weights == "bf16" and not own and weights_of(entry.problem.kind, name) != "bf16":
        return Chosen(entry, as_taken(entry.problem, "bf16"), "bf16", "published in 16 bits")
    reason = refusal(entry.problem, name, hardware)
    if reason is None:
        return Chosen(entry, as_taken(entry.problem, name), name)
    others = [item for item in workload.entries if item.problem.kind == entry.problem.kind and item is not entry]
    if own or not any(refusal(item.problem, name, hardware) is None for item in others):
        raise InputError(f"workload '{workload.name}', entry '{entry.name}': dataflow '{name}' cannot run {entry.problem} on "
                         f"'{hardware.name}': {reason}")
    for wider in filter(None, (_WIDER.get(name), "bf16")):
        if wider in dataflows_for(entry.problem.kind) and refusal(entry.problem, wider, hardware) is None:
            return Chosen(entry, as_taken(entry.problem, wider), wider, f"{name} cannot: {reason}")
    raise InputError(f"workload '{workload.name}', entry '{entry.name}': no dataflow runs {entry.problem} on '{hardware.name}' "
                     f"({name}: {reason})")


def refusal(problem: Any, name: str, hardware: Hardware) -> str | None:
    """Why a dataflow cannot run a problem, as it takes it."""
    return find_dataflow(problem, name).refuses(as_taken(problem, name), hardware.chip)


def as_taken(problem: Any, name: str) -> Any:
    """The problem as a dataflow reads it: groups and offsets say how integers are stored, which BF16 has none of."""
    if name == "bf16" and problem.kind in ("gemm", "grouped_gemm") and (problem.group is not None or problem.offset):
        return problem.model_copy(update={"group": None, "offset": False})
    if weights_of(problem.kind, name) in MX_ELEMENTS and getattr(problem, "group", None) is not None:
        return problem.model_copy(update={"group": None, "offset": False})
    return problem


def weights_of(kind: str, name: str) -> str:
    """The format of the weights, or of the KV cache, that a dataflow reads."""
    if kind == "attention":
        return next((fmt for fmt in ("int8", "int4", "mxfp4") if name.endswith(fmt)), "bf16")
    return SCHEMES[name].weight_name


def _best(entry: Entry, reference: str, hardware: Hardware) -> Chosen:
    """The fastest dataflow, alone on an empty L2, of those at least as accurate as ``reference``."""
    from msdsim.numerics.accuracy_order import accurate_enough
    from msdsim.runs import RunOptions, run

    kind = entry.problem.kind
    known = dataflows_for(kind)
    if reference not in known:
        if kind == "attention" and reference in dataflows_for("gemm"):
            reference = "bf16"
        else:
            raise InputError(f"best:{reference} names no {kind} dataflow ({', '.join(known)})")
    found: list[tuple[float, str, Any]] = []
    for name in accurate_enough(entry.problem, entry.weights, reference, known):
        if refusal(entry.problem, name, hardware) is not None:
            continue
        problem = as_taken(entry.problem, name)
        try:
            found.append((run(problem, hardware, name, RunOptions()).time_us, name, problem))
        except MsdsimError:
            continue
    if not found:
        raise InputError(f"no dataflow at least as accurate as {reference} runs '{entry.name}', {entry.problem}, on "
                         f"'{hardware.name}'")
    _, name, problem = min(found, key=lambda item: item[0])
    return Chosen(entry, problem, name, f"fastest of {len(found)} at least as accurate as {reference}")
