"""Exact rates and periods: every conversion between physical units and clock cycles lives here.

A tick is one cycle of the core clock.  Rates are kept as exact rationals (bytes per tick); nothing in the engines is ever
rounded to a floating-point period, so time cannot drift.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

KIB = 1024
MIB = 1024 * 1024


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


def part_size(total: int, parts: int, multiple: int = 64) -> int:
    """Size of the parts into which ``total`` is cut for at most ``parts`` of them, in multiples of ``multiple``; the last part
    is smaller.  Kernels that split K and their number contracts both cut it so."""
    return min(total, -(-ceil_div(total, parts) // multiple) * multiple)


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of ``multiple`` that is at least ``value``."""
    return ceil_div(value, multiple) * multiple


def format_bytes(count: int | float) -> str:
    """A byte count as a person reads it (binary multiples)."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
