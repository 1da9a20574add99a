"""What a user types in the place of a problem: an inline form, a workload, or a kernel file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdsim.errors import ProblemError, UnknownNameError
from msdsim.problems.model import KINDS, Micro, Problem, closest, keys_text
from msdsim.problems.workload import Workload, load_workload
from msdsim.resources import shipped_names

_INTEGER = re.compile(r"[+-]?[0-9]{1,99}")


@dataclass(frozen=True)
class KernelFile:
    """A kernel in text form, named in the place of a problem; whoever runs it reads it."""

    path: Path


def parse_problem(text: str) -> Problem | Workload | KernelFile:
    """The problem behind ``gemm:m=16,k=8192,n=12288``, a workload's name or .toml path, or a .kir path."""
    text = text.strip()
    head, colon, _ = text.partition(":")
    if head in KINDS:
        return parse_inline(text)
    if text.endswith(".kir"):
        return KernelFile(Path(text))
    if text.endswith(".toml") or "/" in text:
        return load_workload(text, parse_inline)
    if colon:
        raise ProblemError(f"unknown problem kind {head!r}{closest(head, list(KINDS))} (kinds: {', '.join(KINDS)})")
    known = shipped_names("workloads")
    if text not in known:
        raise UnknownNameError(f"unknown problem {text!r}{closest(text, known)} (workloads: {', '.join(known)}; "
                               f"or give sizes, such as gemm:m=16,k=4096,n=4096)")
    return load_workload(text, parse_inline)


def parse_inline(text: str) -> Problem:
    """The problem of an inline form; ProblemError lists the keys of its kind."""
    kind, _, body = text.strip().partition(":")
    if kind not in KINDS:
        raise ProblemError(f"unknown problem kind {kind!r}{closest(kind, list(KINDS))} (kinds: {', '.join(KINDS)})")
    cls = KINDS[kind]
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in body.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals and kind == Micro.kind_name() and not values:
            key, equals, value = "op", "=", key
        if not equals:
            raise ProblemError(f"{kind}: {item!r} has no value; write KEY=VALUE ({keys_text(cls)})")
        if key in values:
            raise ProblemError(f"{kind}: key {key!r} is given twice; remove one ({keys_text(cls)})")
        values[key] = int(value) if _INTEGER.fullmatch(value) else value
    if "kind" in values:
        raise ProblemError(f"{kind}: unknown key 'kind' ({keys_text(cls)})")
    return cls(**values)  # type: ignore[return-value]
