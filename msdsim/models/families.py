"""All families; importing this fills the table."""

from msdsim.models import (
    families_dense,
    families_hybrid,
    families_latent,
    families_moe,
    families_recurrent,
    families_special,
    families_state,
)
from msdsim.models.family import FAMILIES

__all__ = [
    "FAMILIES",
    "families_dense",
    "families_hybrid",
    "families_latent",
    "families_moe",
    "families_recurrent",
    "families_special",
    "families_state",
]
