"""``dequant-int8``: INT8 weights become BF16 on Vector before one Cube pass."""

from msdsim.dataflows.dequant import register_dequant

register_dequant("int8", "INT8 weights dequantized to BF16 on Vector, one BF16 Cube pass")
