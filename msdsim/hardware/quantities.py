"""Kinds of numbers in a chip file, and the table that holds them."""

from __future__ import annotations

import numbers
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _number(value: Any) -> int | float:
    """Numbers only: a text that happens to hold digits, or a truth value, is a slip in the file and not a number."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise PydanticCustomError("not_a_number", "must be a number")


def _plain(value: float) -> int | float:
    """``1850`` and ``1850.0`` are the same number and print the same way."""
    return int(value) if value.is_integer() else value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False), AfterValidator(_plain)]
Whole = Annotated[int, BeforeValidator(_number), Field(le=2**50)]
Positive = Annotated[Number, Field(gt=0)]
PositiveInt = Annotated[Whole, Field(gt=0)]
Cycles = Annotated[Whole, Field(ge=0, le=10**9)]
#: Timings of a memory device; the longest of a real one, between two refreshes, is 7,800.
Nanoseconds = Annotated[Positive, Field(le=10**6)]


class Table(BaseModel):
    """A table of a chip file: its numbers do not change, and a key that it does not have is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")
