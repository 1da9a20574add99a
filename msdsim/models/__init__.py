"""Decoders as data: what a published config says, layer by layer, with every matrix."""
