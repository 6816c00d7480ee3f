"""Attention maps against lesion masks, and against the network they explain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.version import __version__
from jcs_ct.evaluate import tables
from jcs_ct.metrics import average, bootstrap, energy_inside, map_dice, perturb, pointing_game
from jcs_ct.metrics.explanation import DICE_THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from jcs_ct.metrics.explanation import Model

POINTING = ("pointing_game", "energy_inside", *(f"dice_at_{t:g}" for t in DICE_THRESHOLDS), "lesion_share")
AREAS = ("deletion", "insertion")

_MEANING = {
    "pointing_game": "share of slices whose highest pixel lies in the lesion",
    "energy_inside": "share of the map's sum that lies in the lesion",
    **{f"dice_at_{t:g}": f"Dice of (map ≥ {t:g}) and the lesion" for t in DICE_THRESHOLDS},
    "lesion_share": "share of the slice that is lesion: what a random map would reach in the two first",
    "deletion": "area under the probability while the most important pixels are blackened: lower is better",
    "insertion": "area under the probability while they are put back into the blurred slice: higher is better",
}


class Collector:
    """Takes attention maps, which reports call `label`, slice by slice, and tells their scores.

    `tolerance` is that of the pointing game, in pixels; `steps` are those of deletion and insertion; 0 `resamples` give
    no intervals.
    """

    def __init__(self, label: str, *, tolerance: float, steps: int, resamples: int, seed: int) -> None:
        self.label, self.tolerance, self.steps = label, tolerance, steps
        self._resamples, self._seed = resamples, seed
        self._rows: list[dict[str, Any]] = []
        self._curves = np.zeros((2, steps + 1))
        self.share: NDArray[np.float64] = np.linspace(0, 1, steps + 1)
        self.perturbed = 0

    def add(
        self,
        name: str,
        group: str,
        attention: NDArray[np.float64],
        mask: NDArray[np.bool_],
        pixels: NDArray[np.uint8] | None = None,
        model: Model | None = None,
    ) -> None:
        """Score the map of a slice: attention (row, column) in [0, 1], and a mask of the same shape.

        `group` is its patient, or the slice itself. Pixels (uint8 H×W×3) and the network as a function are for deletion
        and insertion. Raises ShapeError where shapes differ, or values are out of range.
        """
        row = {
            "slice": name,
            "group": group,
            "pointing_game": pointing_game(attention, mask, self.tolerance),
            "energy_inside": energy_inside(attention, mask),
            **{f"dice_at_{t:g}": dice for t, dice in map_dice(attention, mask).items()},
            "lesion_share": float(mask.mean()) if mask.any() else math.nan,
            "deletion": math.nan,
            "insertion": math.nan,
            "map_is_zero": float(not attention.any()),
        }
        if pixels is not None and model is not None:
            found = perturb(pixels, attention, model, steps=self.steps)
            row |= {"deletion": found.deletion_area, "insertion": found.insertion_area}
            self._curves += found.deletion, found.insertion
            self.perturbed += 1
        self._rows.append(row)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table of slices."""
        why = "no lesion is in the mask"
        return [row | {"undefined": why if math.isnan(row["energy_inside"]) else ""} for row in self._rows]

    def curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean deletion and insertion curve of the slices that have them."""
        deletion, insertion = self._curves / max(self.perturbed, 1)
        return deletion, insertion

    def report(self) -> dict[str, Any]:
        """Return everything that `scores.json` holds. Raises UsageError where no map came."""
        columns = (*POINTING, *AREAS) if self.perturbed else POINTING
        values = {name: np.array([row[name] for row in self._rows]) for name in columns}
        groups = [row["group"] for row in self._rows]
        found = bootstrap(
            lambda weights: {name: average(column, weights) for name, column in values.items()},
            groups,
            resamples=self._resamples,
            seed=self._seed,
        )
        content: dict[str, Any] = {
            "task": "explanation",
            "jcs_ct": __version__,
            "maps": self.label,
            "slices": len(groups),
            "groups": len(set(groups)),
            "maps_zero": int(sum(row["map_is_zero"] for row in self._rows)),
            "masks_empty": int(sum(math.isnan(row["energy_inside"]) for row in self._rows)),
            "policy": "an empty mask leaves the scores undefined (left out); a map that is zero everywhere scores 0",
            "pointing_tolerance_px": self.tolerance,
            "bootstrap": tables.bootstrap_facts(self._resamples, self._seed),
            "scores": {name: {**vars(found[name]), "meaning": _MEANING[name]} for name in columns},
        }
        lacking = [name for name in columns if tables.is_undefined(found[name].value)]
        if lacking:
            names = [name.replace("_", " ") for name in lacking]
            content["undefined"] = tables.sentence(names, f"no lesion is in the {len(groups)} masks")
        if self.perturbed:
            deletion, insertion = self.curves()
            content["curves"] = {"share": self.share, "deletion": deletion, "insertion": insertion}
        return content


def to_markdown(content: Mapping[str, Any]) -> bytes:
    """Return the report as Markdown."""
    rows = [[name, tables.interval(found), found["meaning"]] for name, found in content["scores"].items()]
    return tables.document(
        f"Explanation scores of {content['maps']}",
        f"{content['slices']} slices in {content['groups']} groups; {content['maps_zero']} maps are zero everywhere, "
        f"{content['masks_empty']} masks are empty. {content['policy'].capitalize()}. "
        f"{tables.in_brackets(content)}",
        tables.slices_seen(content),
        tables.markdown(["score", "mean over slices", "meaning"], rows),
        f"{content['undefined']}." if "undefined" in content else "",
    )
