"""Predictions of a network on the slices to be scored, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.types import SliceImage, StageOneFeatures
from jcs_ct.datasets.masks import read_mask
from jcs_ct.imaging.recipes import resize_map
from jcs_ct.inference import pipeline
from jcs_ct.io.files.sources import find_sources
from jcs_ct.io.pictures import read_slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.inference import Network
    from jcs_ct.io.files.sources import Source
    from jcs_ct.metrics.explanation import Model


def source_of(case: Case) -> Source:
    """Return the slice as a source. Raises InputError if it is no slice."""
    found = find_sources([case.sample.path])
    if found.problems:
        raise found.problems[0]
    return found.sources[0]


def pixels_of(case: Case) -> NDArray[np.uint8]:
    """Return the pixels of a slice: uint8, rows × columns × 3. Raises InputError if it is no picture of one."""
    return read_slice(source_of(case)).pixels


def lesion_map(case: Case, network: Network) -> NDArray[np.float64]:
    """Return the lesion map of a slice, in [0, 1], with the 256 levels that `jcs segment` stores: floor(255·p) / 255.

    So that scores of a model and of its stored maps are the same. Stage-1 features do not know the slice's grid
    (half-size ones are a quarter of it), so their map is brought to the grid of the mask.
    """
    item = pipeline.read(source_of(case), network)
    probability = pipeline.segment(item, network)
    if isinstance(item, StageOneFeatures) and case.sample.mask is not None:
        rows, columns = read_mask(case.sample.mask).shape
        probability = resize_map(probability, (rows, columns))
    return np.floor(255 * probability.astype(np.float64)) / 255


def covid_probability(case: Case, network: Network) -> float:
    """Return the COVID-19 probability of a slice."""
    return pipeline.classify(pipeline.read(source_of(case), network), network)


def classifier(network: Network) -> Model:
    """Return a network as a function of pixels uint8 N×H×W×3, for deletion and insertion."""

    def answer(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.array([pipeline.classify(SliceImage("", "", pixels), network) for pixels in batch])

    return answer
