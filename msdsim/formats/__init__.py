"""Number formats, roundings, packing, weight quantizers and the MSD decomposition.

Only the descriptions of the formats are imported here: listing formats needs no numpy.  The rest is imported by module
(``msdsim.formats.rounding``, ``.packing``, ``.mx``, ``.quantize``, ``.msd``).
"""

from msdsim.formats.number import FORMATS, NumberFormat, storage_bytes

__all__ = ["FORMATS", "NumberFormat", "storage_bytes"]
