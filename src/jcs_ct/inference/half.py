"""Float16 on GPUs: convolutions only, and only for weights that bear it.

Whether they do is measured against float32 with the limits of `jcs_ct.inference.parity`: float16 has eleven significant
bits, and with them probabilities of the shipped `jcs-lite` are off by 0.02 where 0.002 is allowed.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from jcs_ct.inference.parity import check_arrays, compare
from jcs_ct.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from jcs_ct.inference.fold import Inference
    from jcs_ct.inference.graphs import Forward

SHAPES = (96, 128), (256, 320)  # on which float16 has to pass; errors grow with the size
LARGEST = float(torch.finfo(torch.float16).max)
HEADROOM = 8  # how far below LARGEST every value of the check has to stay: other slices differ from its pictures
HEADS = "cls1", "lesion.0", "evidence", "fc"  # 1×1 layers before outputs; those of a network that has them


class InFloat32(nn.Module):
    """A layer that computes in float32 whatever surrounds it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor of any floating-point type to a float32 tensor, of the shape that the layer gives."""
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.layer(x.float())
        return y


class InHalf(nn.Module):
    """A network whose convolutions compute in float16.

    Outputs, the layers that make them, and the pooling of the classifier and of `jcs-lite` stay in float32. The means
    of channel attention need no care: PyTorch adds float16 up in float32.

    Args:
        network: On its device; it is not changed.
        device_type: "cuda", or "cpu" to see that it works.
    """

    def __init__(self, network: Inference, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.network = copy.deepcopy(network)
        inner: Any = self.network.network
        modules = dict(inner.named_modules())
        for name, module in modules.items():
            if isinstance(module, nn.Conv2d) and name not in HEADS:
                module.half()  # once, instead of at every pass
        for name in set(HEADS) & set(modules):
            owner, _, last = name.rpartition(".")
            setattr(inner.get_submodule(owner), last, InFloat32(modules[name]))
        if self.network.evidence is not None:
            inner.layer4.append(InFloat32(nn.Identity()))  # the pooling follows
            self.network.evidence = InFloat32(self.network.evidence)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map float32 inputs to the outputs of `Inference`, in float32."""
        with torch.autocast(self.device_type, dtype=torch.float16, cache_enabled=False):  # a graph must not hold casts
            found: tuple[Tensor, ...] = self.network(*tensors)
        return found


def half_passes(
    network: Inference, exact: Forward, half: Forward, upload: Callable[[NDArray[np.float32]], Tensor]
) -> tuple[bool, str]:
    """Tell whether float16 is close enough to float32 and far enough from its largest value, and why.

    Large values need a check of their own: infinity behind a ReLU can become 0 and look like any other result.

    Args:
        network: What `exact` runs.
        exact: In float32.
        half: In float16.
        upload: Brings an input to the device.
    """
    kind = f"{type(network.network).__module__}:{type(network.network).__qualname__}"
    spec = next((spec for spec in MODELS.values() if spec.home == kind), None)
    if spec is None:
        return False, f"there is no check for {kind}"
    inner: Any = network.network
    features = bool(inner.vgg16.first_stage) if hasattr(inner, "vgg16") else getattr(inner, "from_features", False)
    peaks: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda _m, _x, y: _note(peaks, y)) for m in network.modules()]
    parities = []
    try:
        with torch.inference_mode():
            for shape in SHAPES:
                tensors = [upload(a) for a in check_arrays(spec, shape, "features" if features else "image")]
                plain = [tensor.float().cpu().numpy() for tensor in exact(*tensors)]
                parities.append(
                    compare(network.outputs, plain, [tensor.float().cpu().numpy() for tensor in half(*tensors)])
                )
    finally:
        for hook in hooks:
            hook.remove()
    peak = float(torch.stack(peaks).max())
    if not peak * HEADROOM <= LARGEST:
        return False, f"values up to {peak:.1e} are too near its largest, {LARGEST:.1e}"
    parity = parities[0].worst(parities[1])
    return parity.ok, parity.text()


def _note(peaks: list[Tensor], output: object) -> None:
    if isinstance(output, torch.Tensor):
        peaks.append(output.abs().amax().float())
