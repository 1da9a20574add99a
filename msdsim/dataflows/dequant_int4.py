"""``dequant-int4``: packed INT4 weights become BF16 on Vector before one Cube pass."""

from msdsim.dataflows.dequant import register_dequant

register_dequant("int4", "INT4 weights dequantized to BF16 on Vector, one BF16 Cube pass")
