"""What inference needs of a network and nothing else: norms fused into convolutions, only the outputs that are used.

Every runtime but `torch` starts from here. The plain network stays as it is; the copy shares what is not fused.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from jcs_ct.core.errors import UsageError
from jcs_ct.models import spec_of

if TYPE_CHECKING:
    from jcs_ct.models import InferenceNetwork


def fused(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode whose norms are fused; the original is not touched.

    Raises:
        UsageError: A norm is left over: its block has no `fuse_norms`.
    """
    duplicate = _copied(network).eval()
    for module in list(duplicate.modules()):
        fuse_norms = getattr(module, "fuse_norms", None)
        if fuse_norms is not None:
            fuse_norms()
    left = [name for name, module in duplicate.named_modules() if hasattr(module, "running_var")]
    if left:
        raise UsageError(f"batch norm {left[0]} is in a block that cannot be fused", hint="use --runtime torch")
    return duplicate


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy with modules and parameters of its own, which use the memory of the original."""
    memory: dict[int, Any] = {id(t): nn.Parameter(t.detach(), requires_grad=False) for t in module.parameters()}
    memory |= {id(t): t.detach() for t in module.buffers()}
    return copy.deepcopy(module, memory)


class FusedNetwork(nn.Module):
    """A network of the table, fused, whose forward is `infer`: what runtimes convert.

    Args:
        network: With results, for images or for stage-1 features.

    Attributes:
        spec: Its row of the table; `spec.outputs` names what comes out.
        network: The fused copy.

    Raises:
        UsageError: A backbone, or no network of the table.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.spec = spec_of(network)
        self.network = fused(network)
        self.eval()  # exporters put a network back into the mode they found: a new module's is training

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of their names."""
        network: InferenceNetwork | Any = self.network
        found: tuple[Tensor, ...] = network.infer(*inputs)
        return found
