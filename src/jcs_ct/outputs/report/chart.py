"""The chart of probability and lesions over the slices, as what an inline SVG draws: it needs no script and prints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FEWEST = 12  # places on the axis, so that two slices are no walls
_GAPS_TO = 150  # slices; more bars than that stand side by side

HEIGHT = 100.0
"""Units of each plot from bottom to top; places along the axis are 1 wide."""


@dataclass(frozen=True)
class Chart:
    """Two plots over the same slices. Paths are in units of 1 place × `HEIGHT`, y down.

    Attributes:
        places: Length of the axis; slice i lies from i − 1 to i.
        positive: Path of the bars of positive slices.
        negative: Path of the bars of the others.
        blank: Path of bars from top to bottom where a slice was not looked at.
        threshold: y of the threshold of a slice, or None.
        lesions: Path of the bars of lesions, or None where none were looked for.
        top: What the upper edge of the lesion plot stands for.
        unit: Of the lesion plot.
        ticks: (place in percent of the axis, index of the slice).
    """

    places: int
    positive: str
    negative: str
    blank: str
    threshold: float | None
    lesions: str | None
    top: float
    unit: str
    ticks: list[tuple[float, int]]


def make_chart(report: Mapping[str, Any]) -> Chart:
    """Return the chart of a report's slices."""
    slices: Sequence[Mapping[str, Any]] = report["slices"]
    places = max(_FEWEST, len(slices))
    width = 0.8 if len(slices) <= _GAPS_TO else 1.0
    probability = [s["probability"] or 0.0 for s in slices]
    areas, unit = [s["lesion_mm2"] for s in slices], "cm²"
    if all(a is None for a in areas):
        areas, unit = [s["lesion_share"] for s in slices], "%"
    scale = 0.01 if unit == "cm²" else 100.0
    known = [None if a is None else a * scale for a in areas]
    top = _round_up(max((a for a in known if a is not None), default=0.0))
    limit = report["model"]["covid_threshold"]
    return Chart(
        places,
        _bars([p if s["positive"] else 0.0 for p, s in zip(probability, slices, strict=True)], 1.0, width),
        _bars([0.0 if s["positive"] else p for p, s in zip(probability, slices, strict=True)], 1.0, width),
        _bars([float(s["probability"] is None) for s in slices], 1.0, 1.0),
        None if limit is None else round(HEIGHT * (1 - limit), 2),
        None if all(a is None for a in known) else _bars([a or 0.0 for a in known], top, width),
        top,
        unit,
        _ticks(len(slices), places),
    )


def _bars(values: Sequence[float], top: float, width: float) -> str:
    gap = (1 - width) / 2
    return "".join(
        f"M{i + gap:.2f} {HEIGHT:g}V{HEIGHT * (1 - min(value / top, 1)):.1f}h{width:g}V{HEIGHT:g}z"
        for i, value in enumerate(values)
        if value > 0
    )


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20 …, so that the axis ends at a number to read."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 5) if step * power >= value), 10 * power)


def _ticks(slices: int, places: int) -> list[tuple[float, int]]:
    step = max(1, int(_round_up(slices / 6)))
    marks = [1, *range(step, slices + 1, step)] if step > 1 else list(range(1, slices + 1))
    return [(round(100 * (i - 0.5) / places, 2), i) for i in marks]
