"""Scores, in NumPy and SciPy: segmentation, classification, explanation, and how sure one can be of them.

No torch, no files: arrays in, numbers out. `jcs_ct.evaluate` reads files and writes tables.
"""

from __future__ import annotations

from jcs_ct.metrics.bootstrap import average, bootstrap, compare
from jcs_ct.metrics.classification import Scored, calibration_error, reliability, roc_auc
from jcs_ct.metrics.counts import EMPTY_POLICIES, Counts, count
from jcs_ct.metrics.explanation import energy_inside, map_dice, perturb, pointing_game
from jcs_ct.metrics.release import release_iou, release_mae
from jcs_ct.metrics.segmentation import hausdorff95, mean_absolute_error, pixel_counts
from jcs_ct.metrics.structure import e_measure_adaptive, e_measure_curve, s_measure, weighted_f

__all__ = [
    "EMPTY_POLICIES",
    "Counts",
    "Scored",
    "average",
    "bootstrap",
    "calibration_error",
    "compare",
    "count",
    "e_measure_adaptive",
    "e_measure_curve",
    "energy_inside",
    "hausdorff95",
    "map_dice",
    "mean_absolute_error",
    "perturb",
    "pixel_counts",
    "pointing_game",
    "release_iou",
    "release_mae",
    "reliability",
    "roc_auc",
    "s_measure",
    "weighted_f",
]
