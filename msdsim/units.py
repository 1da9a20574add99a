"""Exact rates and periods: every conversion between physical units and clock cycles lives here.

A tick is one cycle of the core clock.  Rates are kept as exact rationals (bytes per tick); nothing in the engines is ever
rounded to a floating-point period, so time cannot drift.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction


def exact(value: int | float | str | Fraction) -> Fraction:
    """The rational a person meant: ``0.1`` is one tenth, not the nearest binary float."""
    if isinstance(value, float):
        return Fraction(Decimal(repr(value)))
    return Fraction(value)


def bytes_per_tick(gbps: int | float | str | Fraction, clock_mhz: int | float | str | Fraction) -> Fraction:
    """Bytes per clock cycle of a bandwidth in GB/s (10**9 bytes per second) at a clock in MHz."""
    return exact(gbps) * 1000 / exact(clock_mhz)


def ticks_to_us(ticks: int, clock_mhz: int | float | Fraction) -> float:
    """Microseconds of a number of clock cycles; the only place where ticks become floating point."""
    return float(Fraction(ticks) / exact(clock_mhz))


def ceil_div(a: int, b: int) -> int:
    """Ceiling of ``a / b`` for integers, ``b > 0``."""
    return -(-a // b)


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of ``multiple`` that is at least ``value``."""
    return ceil_div(value, multiple) * multiple


def part_size(total: int, parts: int) -> int:
    """Size of the parts into which ``total`` is cut for at most ``parts`` of them, in multiples of 64; the last part is
    smaller.  Kernels that split K and their number contracts both cut it so."""
    return min(total, round_up(ceil_div(total, parts), 64))
