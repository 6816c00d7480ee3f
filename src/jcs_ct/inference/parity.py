"""Does a runtime compute what the plain network computes? Limits, comparison, and the input that is compared on.

The check runs on the machine and for the weights it is about, since a conversion can be right for one network, one
processor and one size, and wrong for another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from jcs_ct.imaging.recipes import MEAN, STD, recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.models import ModelSpec

PROBABILITY, PIXELS, RELATIVE = 2e-3, 0.9995, 1e-3  # what is allowed, see `Parity`


@dataclass(frozen=True)
class Parity:
    """How far two computations are apart. None: the network has no such output.

    Attributes:
        probability: Largest difference of a probability of lesion or COVID-19; at most 2e-3.
        pixels: Share of pixels on which the lesion masks agree; at least 0.9995.
        logits: Largest difference of the logits of classes over the largest of them; at most 1e-3.
        evidence: The same of the evidence map.
        spread: Standard deviation of the lesion logits: near 0, agreement of the maps means little.
    """

    probability: float
    pixels: float | None = None
    logits: float | None = None
    evidence: float | None = None
    spread: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every difference is within its limit (NaN is not)."""
        within = [self.probability <= PROBABILITY, self.pixels is None or self.pixels >= PIXELS]
        within += [value is None or value <= RELATIVE for value in (self.logits, self.evidence)]
        return all(within)

    def text(self) -> str:
        """Return it on one line."""
        parts = [f"probabilities differ by {self.probability:.1e}"]
        if self.pixels is not None:
            parts.append(f"masks agree on {100 * self.pixels:.3f} % of pixels")
        if self.logits is not None:
            parts.append(f"logits differ by {self.logits:.1e} of the largest")
        if self.evidence is not None:
            parts.append(f"evidence by {self.evidence:.1e} of the largest")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, the limits and the verdict as JSON values."""
        numbers = {name: value for name, value in asdict(self).items() if value is not None}
        limits = {"probability": PROBABILITY, "pixels": PIXELS, "logits": RELATIVE, "evidence": RELATIVE}
        limits = {name: value for name, value in limits.items() if name in numbers}
        return {"ok": self.ok, "differences": numbers, "limits": limits}

    def worst(self, other: Parity) -> Parity:
        """Return the worse of both in every number; NaN is worst."""

        def pick(name: str, choose: Any = np.maximum) -> Any:
            known = [value for value in (getattr(self, name), getattr(other, name)) if value is not None]
            return float(choose.reduce(known)) if known else None

        highest = (pick(name) for name in ("logits", "evidence", "spread"))
        return Parity(pick("probability"), pick("pixels", np.minimum), *highest)


def compare(
    names: Sequence[str], plain: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]], threshold: float | None = None
) -> Parity:
    """Compare outputs, both in the order of `names` (`ModelSpec.outputs`).

    Args:
        names: Of the outputs.
        plain: Of the plain network.
        found: Of the runtime. Another shape counts as infinitely far.
        threshold: Of the lesion mask; None: the median of the plain map, where a mask is most easily disturbed.
    """
    values: dict[str, float] = {"probability": 0.0}
    for name, a, b in zip(names, plain, found, strict=True):
        if a.shape != b.shape:
            return Parity(float("inf"))
        a, b = a.astype(np.float64), b.astype(np.float64)
        largest = max(float(np.abs(a).max()), 1e-12)
        if name == "evidence":
            values["evidence"] = float(np.abs(a - b).max()) / largest
            continue
        if name == "logits":
            values["logits"] = float(np.abs(a - b).max()) / largest
            a, b = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]  # softmax of two
        p, q = expit(a), expit(b)
        values["probability"] = float(np.maximum(values["probability"], np.abs(p - q).max()))
        if name == "lesion":
            cut = float(np.median(p)) if threshold is None else threshold
            values["pixels"], values["spread"] = float(((p >= cut) == (q >= cut)).mean()), float(a.std())
    return Parity(**values)


def check_shape(how: str) -> tuple[int, int]:
    """Return the (rows, columns) of the inputs that a recipe makes."""
    found = recipe(how)
    side = found.crop or found.size
    return side, found.columns or side


def check_arrays(
    spec: ModelSpec, shape: tuple[int, int], inputs: str = "image", batch: int = 1
) -> list[NDArray[np.float32]]:
    """Return inputs of a network that look like a slice to it: body, two lungs, opacities, noise; always the same.

    Args:
        spec: The network.
        shape: (rows, columns) of the picture.
        inputs: "image" or "features".
        batch: Slices, each another.

    Returns:
        float32 N×C×H×W, one for each input of the network.
    """
    rng = np.random.default_rng(20211)
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    pictures = []
    for _ in range(batch):
        grey = np.where((rows / 0.75) ** 2 + (columns / 0.95) ** 2 < 1, 0.75, 0.05).astype(np.float32)
        for side in (-0.42, 0.42):
            lung = (rows / 0.6) ** 2 + ((columns - side) / 0.33) ** 2 < 1
            grey[lung] = 0.12
            middle = rng.uniform(-0.4, 0.4), side + rng.uniform(-0.2, 0.2)
            spot = np.exp(-((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / 0.02).astype(np.float32)
            grey += np.where(lung, 0.5 * spot, 0).astype(np.float32)
        pictures.append((grey + rng.normal(0, 0.04, shape)).clip(0, 1))
    grey = np.stack(pictures)[:, None].astype(np.float32)
    if inputs == "features":
        gains = rng.uniform(0, 3, (1, 64, 1, 1)).astype(np.float32)
        strides = {"vgg": 1, "res2net": 2}
        return [
            np.ascontiguousarray(grey[:, :, :: strides[which], :: strides[which]] * gains)
            for which in spec.feature_arrays
        ]
    if spec.channels == 1:
        return [np.ascontiguousarray((grey * 2.2 - 1).clip(-1, 1))]
    return [np.ascontiguousarray((grey - MEAN[:, None, None]) / STD[:, None, None])]
