"""Whether to train in bf16, where a config leaves it to the machine."""

import torch

from rlhf_lab.models.products import multiplies_bf16
from rlhf_lab.section import Bf16


def in_bf16(setting: Bf16) -> bool:
    """What `bf16=...` means here: "auto" is true where the GPU, or without one the CPU, has instructions for it."""
    if setting != "auto":
        return setting
    return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else multiplies_bf16()
