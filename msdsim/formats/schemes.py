"""The methods of quantized GEMMs, each named once: what is stored, what Vector makes of it, and what the Cube multiplies.

Dataflows, number contracts and closed forms read a method here, so that they cannot mean different things by its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.formats.msd import MSD_INT4, MSD_INT8, MSD_MXFP4, MSD_NIBBLES, MsdSpec
from msdsim.formats.mx import MX_BLOCK, MX_MODES
from msdsim.formats.number import FORMATS
from msdsim.registry import Registry

#: Activations quantized once to an MX format; block scales never saturate.
MXFP8_ROWS = MsdSpec("mxfp8", "mx", "fp8_e4m3fn", 1, rounding="rint", scale_rule="rceil", description="MXFP8, one pass")
MXFP4_ROWS = MsdSpec("mxfp4", "mx", "fp4_e2m1", 1, rounding="rint", scale_rule="rceil", description="MXFP4, one pass")


@dataclass(frozen=True)
class Scheme:
    """One method.

    ``weights`` is the format of the stored elements.  Vector turns them into ``widened`` (None: the Cube takes them as they
    are), and the activations, which are BF16, into the components of ``decomposition`` (None: it leaves them alone);
    ``nibbles`` splits its one INT8 component further into two exact INT4 ones.  ``scales_sums``: weights are only converted,
    and their scales and offsets are applied to the sums of the Cube.
    """

    name: str
    description: str
    weights: str = "bf16"
    widened: str | None = None
    decomposition: MsdSpec | None = None
    nibbles: bool = False
    scales_sums: bool = False

    @property
    def spec(self) -> MsdSpec:
        """The decomposition of a method that has one."""
        assert self.decomposition is not None
        return self.decomposition

    # Weights

    @property
    def mx_weights(self) -> bool:
        """Whether weights are MX blocks with E8M0 scales, rather than integers with FP32 scales per channel or group."""
        return self.weights == "fp4_e2m1" or (self.weights in MX_MODES and self.mx)

    @property
    def weight_name(self) -> str:
        """What weights are called with their scales: ``int8``, ``int4``, ``mxfp4``, ``mxfp8``."""
        return MX_MODES[self.weights] if self.mx_weights else self.weights

    @property
    def weight_bits(self) -> float:
        """Bits of a stored weight, with its part of a block's scale."""
        return FORMATS[self.weights].bits + (8 / MX_BLOCK if self.mx_weights else 0)

    def group(self, group: int | None) -> int | None:
        """K per scale when the problem has ``group`` (None: one scale per channel)."""
        return MX_BLOCK if self.mx_weights else group

    @property
    def scales_weights(self) -> bool:
        """Whether Vector applies the scales to the weights themselves."""
        return self.widened is not None and not self.scales_sums and not self.mx

    # What the Cube multiplies

    @property
    def half(self) -> bool:
        """Whether the Cube multiplies FP16, to which rows of the activations come over a power of two
        (:mod:`msdsim.formats.half`)."""
        return self.widened == "fp16"

    @property
    def component(self) -> str:
        """Format of the activations on the Cube."""
        if self.decomposition is None:
            return "fp16" if self.half else "bf16"
        return MSD_NIBBLES.target if self.nibbles else self.spec.target

    @property
    def cube(self) -> tuple[str, str]:
        """Formats of both operands, as chip files name them."""
        b = self.widened or self.weights
        return MX_MODES.get(self.component, self.component), MX_MODES.get(b, b)

    @property
    def mx(self) -> bool:
        """Whether the Cube multiplies MX blocks and applies their scales itself."""
        return self.decomposition is not None and self.spec.scheme == "mx"

    @property
    def sums(self) -> str:
        """Format of what the Cube accumulates."""
        return "int32" if FORMATS[self.component].kind == "int" else "fp32"

    def takes(self, x: str) -> bool:
        """Whether activations that come in format ``x`` are what the Cube multiplies."""
        return self.cube[0] == x and not self.free_passes

    @property
    def max_k(self) -> int:
        """Longest sum of products that INT32 holds whatever the operands are."""
        return (2**31 - 1) // 2 ** (FORMATS[self.component].bits + FORMATS[self.weights].bits - 2)

    # Passes

    @property
    def passes(self) -> int:
        """Components of an activation that the Cube sees, unless a tiling says otherwise."""
        if self.decomposition is None:
            return 1
        return MSD_NIBBLES.passes if self.nibbles else self.spec.passes

    @property
    def free_passes(self) -> bool:
        """Whether another number of passes still is this method."""
        return self.decomposition is not None and not self.nibbles and self.spec.passes > 1

    def pass_weights(self, passes: int) -> tuple[float, ...]:
        """Weight of each component in the sum, in units of the row scale."""
        return MSD_NIBBLES.pass_weights if self.nibbles else self.spec.with_passes(passes).pass_weights


#: The method of a dataflow that restates somebody's kernel under a name of its own.
RESTATED = {"vendor-int8": "dequant-int8", "vendor-int4": "dequant-int4"}

#: All methods, by the name of their dataflow and number contract.
SCHEMES: Registry[Scheme] = Registry("method")
for _scheme in (
    Scheme("bf16", "BF16 weights, one Cube pass"),
    Scheme("dequant-int8", "INT8 weights dequantized to BF16 on Vector, one BF16 Cube pass", "int8", "bf16"),
    Scheme("dequant-int4", "INT4 weights dequantized to BF16 on Vector, one BF16 Cube pass", "int4", "bf16"),
    Scheme("dequant-mxfp4", "MXFP4 weights dequantized to BF16 on Vector, one BF16 Cube pass", "fp4_e2m1", "bf16"),
    Scheme("convert-int8", "INT8 weights only converted to BF16 on Vector (exact), one BF16 Cube pass, sums scaled on Vector",
           "int8", "bf16", scales_sums=True),
    Scheme("convert-int4", "INT4 weights only converted to BF16 on Vector (exact), one BF16 Cube pass, sums scaled on Vector",
           "int4", "bf16", scales_sums=True),
    Scheme("convert-fp16-int8", "INT8 weights only converted to FP16 on Vector (exact, one cast), rows of activations to FP16 "
           "over a power of two, one FP16 Cube pass, sums scaled on Vector", "int8", "fp16", scales_sums=True),
    Scheme("convert-fp16-int4", "INT4 weights only converted to FP16 on Vector (exact, one cast), rows of activations to FP16 "
           "over a power of two, one FP16 Cube pass, sums scaled on Vector", "int4", "fp16", scales_sums=True),
    Scheme("convert-mxfp4", "MXFP4 elements only converted to BF16 on Vector (exact), one BF16 Cube pass, sums of blocks "
           "scaled on Vector", "fp4_e2m1", "bf16", scales_sums=True),
    Scheme("msd-int8", "BF16 activations split into INT8 components, INT8 weights as they are, merged on Vector",
           "int8", decomposition=MSD_INT8),
    Scheme("w8a8", "activations quantized to INT8 per row on Vector, one INT8 Cube pass, scaled on Vector",
           "int8", decomposition=MSD_INT8.with_passes(1)),
    Scheme("msd-int4", "BF16 activations split into INT4 components, INT4 weights as they are, merged on Vector",
           "int4", decomposition=MSD_INT4),
    Scheme("a8w4", "INT8 activations split into two exact INT4 nibbles, INT4 weights, merged on Vector",
           "int4", decomposition=MSD_INT8.with_passes(1), nibbles=True),
    Scheme("msd-mxfp4", "BF16 activations split into MXFP4 components, MXFP4 weights as they are, added up on Vector",
           "fp4_e2m1", decomposition=MSD_MXFP4),
    Scheme("mxfp8", "MXFP8 activations, MXFP4 weights widened to MXFP8 on Vector, one MX Cube pass",
           "fp4_e2m1", "fp8_e4m3fn", MXFP8_ROWS),
    Scheme("w8a8-mxfp8", "MXFP8 activations and MXFP8 weights as they are, one MX Cube pass", "fp8_e4m3fn",
           decomposition=MXFP8_ROWS),
    Scheme("w4a4-mxfp4", "MXFP4 activations and MXFP4 weights as they are, one MX Cube pass", "fp4_e2m1",
           decomposition=MXFP4_ROWS),
):
    SCHEMES.add(_scheme.name, _scheme)


def baselines(stored: str) -> tuple[str, ...]:
    """Methods that multiply 16-bit activations by weights in ``stored`` (``int8``, ``mxfp4``), made 16 bits on Vector."""
    return tuple(scheme.name for scheme in SCHEMES.values()
                 if scheme.weight_name == stored and scheme.widened and scheme.decomposition is None)
