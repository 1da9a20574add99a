"""The second library's view of our formats."""

import gfloat
import gfloat.formats
import pytest


@pytest.fixture(scope="session")
def gfloat_formats() -> dict[str, gfloat.FormatInfo]:
    return {
        "bf16": gfloat.formats.format_info_bfloat16,
        "fp16": gfloat.formats.format_info_binary16,
        "fp32": gfloat.formats.format_info_binary32,
        "fp8_e4m3fn": gfloat.formats.format_info_ocp_e4m3,
        "fp8_e5m2": gfloat.formats.format_info_ocp_e5m2,
        "fp4_e2m1": gfloat.formats.format_info_ocp_e2m1,
        "e8m0": gfloat.formats.format_info_ocp_e8m0,
    }
