"""Predictions of a network on the slices to be scored, one at a time. `jcs_ct.evaluate.slice_reader` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.types import SliceImage, StageOneFeatures
from jcs_ct.datasets.masks import read_mask
from jcs_ct.imaging.recipes import resize_map
from jcs_ct.inference import apply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.inference import Network
    from jcs_ct.metrics.explanation import Model


def lesion_map(item: SliceImage | StageOneFeatures, case: Case, network: Network) -> NDArray[np.float64]:
    """Return the lesion map of a slice, in [0, 1], with the 256 levels that `jcs segment` stores: floor(255·p) / 255.

    So that scores of a model and of its stored maps are the same. Stage-1 features do not know the slice's grid
    (half-size ones are a quarter of it), so their map is brought to the grid of the mask.
    """
    probability = apply.segment(item, network)
    if isinstance(item, StageOneFeatures) and case.sample.mask is not None:
        rows, columns = read_mask(case.sample.mask).shape
        probability = resize_map(probability, (rows, columns))
    return np.floor(255 * probability.astype(np.float64)) / 255


def classifier(network: Network) -> Model:
    """Return a network as a function of pixels uint8 N×H×W×3, for deletion and insertion."""

    def answer(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.array([apply.classify(SliceImage("", "", pixels), network) for pixels in batch])

    return answer
