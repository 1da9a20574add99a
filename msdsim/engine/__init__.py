"""Timing engines: two implementations of one machine that must agree on every cycle."""

from msdsim.engine.base import ENGINES, MEMORY_MODELS, Engine, EngineOptions, empty_l2, load_engine

__all__ = ["ENGINES", "MEMORY_MODELS", "Engine", "EngineOptions", "empty_l2", "load_engine"]
