"""From held-out logits to probabilities that keep their word, and to the threshold of a stated sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from jcs_ct.metrics.classification import calibration_error
from jcs_ct.study.rules import LEAST_SLICES, TopK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """What is stored with the weights.

    Attributes:
        temperature: Logits are divided by it (Guo et al., ICML 2017).
        offset: Added then; in the shipped weights it is part of the network's own.
        threshold: Probability from which a slice counts as COVID-19.
        sensitivity: Of the held-out slices at that threshold.
        specificity: Of the same.
        error: Expected calibration error (15 bins) of held-out probabilities, each fold scaled by the others' fit.
        raw_error: The same without scaling.
    """

    temperature: float
    offset: float
    threshold: float
    sensitivity: float
    specificity: float
    error: float
    raw_error: float


LEAST_GROUPS = 5  # of each class, of the groups that stand for patients


def fit_patients(groups: Sequence[tuple[NDArray[np.float64], int]]) -> tuple[float, float] | None:
    """Return slope and intercept of the patient rule top-k, from the calibrated probabilities and label of each group.

    None where fewer than `LEAST_GROUPS` groups of a class have `LEAST_SLICES` slices.
    """
    usable = [(p, label) for p, label in groups if len(p) >= LEAST_SLICES]
    counts = [sum(label == wanted for _, label in usable) for wanted in (0, 1)]
    if min(counts) < LEAST_GROUPS:
        return None
    fitted = TopK().fit([p for p, _ in usable], [label for _, label in usable])
    return fitted.slope, fitted.intercept


def fit_scaling(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Return temperature and offset with the least cross-entropy of σ(logit / temperature + offset).

    Temperature scaling with an offset (Platt, 1999): slices are drawn in balance while training, and come as they come.
    """

    def entropy(parameters: NDArray[np.float64]) -> float:
        scaled = logits / np.exp(parameters[0]) + parameters[1]
        return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))

    found = minimize(entropy, [0.0, 0.0], method="L-BFGS-B", bounds=[(np.log(0.05), np.log(20)), (-20, 20)])
    return float(np.exp(found.x[0])), float(found.x[1])


def balanced_threshold(p: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Return the threshold at which sensitivity and specificity are as nearly equal as they can be."""
    candidates = np.unique(p)
    positives, negatives = np.sort(p[labels == 1]), np.sort(p[labels == 0])
    sensitivity = 1 - np.searchsorted(positives, candidates) / len(positives)
    specificity = np.searchsorted(negatives, candidates) / len(negatives)
    return float(candidates[int(np.abs(sensitivity - specificity).argmin())])


def calibrate(folds: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Calibration:
    """Fit on the held-out slices of all folds, each (logits, labels); every slice is scored by a fit without its fold.

    The networks of the folds are not the shipped one; that one had more data, and cannot be fitted without a fold of
    its own. It takes their scaling and threshold.
    """
    logits = np.concatenate([fold[0] for fold in folds])
    labels = np.concatenate([fold[1] for fold in folds])
    crossed = []
    for i, (own, _) in enumerate(folds):
        others = [fold for j, fold in enumerate(folds) if j != i] or list(folds)
        temperature, offset = fit_scaling(*(np.concatenate([o[part] for o in others]) for part in (0, 1)))
        crossed.append(expit(own / temperature + offset))
    temperature, offset = fit_scaling(logits, labels)
    p = expit(logits / temperature + offset)
    threshold = balanced_threshold(p, labels)
    found = p >= threshold
    return Calibration(
        temperature,
        offset,
        threshold,
        float(found[labels == 1].mean()),
        float((~found[labels == 0]).mean()),
        calibration_error(labels, np.concatenate(crossed), bins=15),
        calibration_error(labels, expit(logits), bins=15),
    )
