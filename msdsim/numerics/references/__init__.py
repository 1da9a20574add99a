"""Whole-tensor references: the same contracts as the tile kernels, by another method and without tiles."""
