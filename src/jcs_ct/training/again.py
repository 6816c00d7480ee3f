"""Weights that were chosen on other data, once what they are validated on was changed and accepted: scored again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.training.scores import Validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from jcs_ct.training.module import TrainingModule
    from jcs_ct.training.scores import Score


def score_of(
    tensors: Mapping[str, Tensor],
    module: TrainingModule,
    batches: Iterable[dict[str, Any]],
    epoch: int,
    because: str,
) -> Score:
    """Return the score of other weights than a module has; the module is left as it was, to the last bit.

    Args:
        tensors: The weights.
        module: Whose network and loss they are for.
        batches: The slices to validate on; none: there is no score.
        epoch: After which epoch they were kept.
        because: As in `Validation.score`.
    """
    before = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    training = module.training
    module.network.load_state_dict(dict(tensors))
    module.eval()
    module.validation = Validation()
    try:
        with torch.no_grad():
            for index, batch in enumerate(batches):
                module.validation_step({name: value.to(module.device) for name, value in batch.items()}, index)
        return module.validation.score(epoch, because)
    finally:
        module.network.load_state_dict(before)
        module.train(training)
        module.validation = Validation()
