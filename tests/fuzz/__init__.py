"""Seeded fuzzers: a fast part of each runs with the tests, a long one by ``python -m tests.fuzz.NAME --count N --seed S``."""
