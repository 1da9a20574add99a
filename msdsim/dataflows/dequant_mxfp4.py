"""``dequant-mxfp4``: MXFP4 weights become BF16 on Vector before one Cube pass."""

from msdsim.dataflows.dequant import register_dequant

register_dequant("fp4_e2m1", "MXFP4 weights dequantized to BF16 on Vector, one BF16 Cube pass")
