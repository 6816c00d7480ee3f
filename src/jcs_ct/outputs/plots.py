"""Plots of scores and of training, as PNG files. Matplotlib's objects only: no pyplot, no global state, loaded late.

Colours are Okabe and Ito's, which stay apart for all common kinds of colour blindness; second curves are dashed or have
other markers besides, so that a plot also reads in grey.
"""

from __future__ import annotations

import io
import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.caches import cache_for_figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

BLUE, ORANGE, GREEN, PURPLE, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
_CURVES = ((BLUE, "-"), (RED, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, (0, (5, 1, 1, 1))), (SKY, (0, (1, 1))))
_GREY = "#6E6E6E"
_MOST_NAMES = 100


def dice_plot(names: Sequence[str], scores: Mapping[str, NDArray[np.float64]], threshold: float) -> bytes:
    """Draw the Dice score of every slice, lowest first, with its name; of many slices the lowest ones are named.

    Args:
        names: Of the slices.
        scores: One or two models → Dice of each slice in [0, 1], NaN where undefined. The first one gives the order.
        threshold: Of the maps, for the caption.
    """
    values = list(scores.values())
    order = np.lexsort((np.arange(len(names)), np.nan_to_num(values[0], nan=2.0)))  # undefined ones come last
    shown = order[:_MOST_NAMES]
    figure = _figure(7.2, 1.5 + 0.165 * len(shown) + 0.3 * len(values))
    axes = figure.add_subplot()
    y = np.arange(len(shown))
    axes.hlines(y, 0, np.nan_to_num(values[0][shown]), color="#D9D9D9", linewidth=1, zorder=1)
    styles = ((BLUE, "o", 22), (ORANGE, "D", 16))
    for (label, column), (colour, marker, size) in zip(scores.items(), styles, strict=False):
        known = np.isfinite(column)
        mean = float(column[known].mean()) if known.any() else math.nan
        of_all = f"mean {mean:.3f}" if known.any() else "mean not defined, because no lesion is in masks and maps"
        text = f"{_short(label)}: {of_all}" + (f", {int((~known).sum())} undefined" if not known.all() else "")
        axes.scatter(column[shown], y, s=size, color=colour, marker=marker, label=text, zorder=3, linewidths=0)
        if known.any():
            axes.axvline(mean, color=colour, linewidth=1, linestyle="--", zorder=2)
    for i in np.flatnonzero(np.isnan(values[0][shown])):
        axes.annotate("undefined (both empty)", (0.01, i), va="center", fontsize=7, color=_GREY)
    axes.set(xlim=(-0.015, 1.015), ylim=(len(shown) - 0.3, -0.7), xlabel=f"Dice at p ≥ {threshold:g} (dashed: mean)")
    axes.set_yticks(y, [_short(names[i], 34) for i in shown], fontsize=7)
    axes.tick_params(axis="y", length=0)
    title = f"Dice of {len(names)} slices"
    if len(shown) < len(names):
        title = f"The {len(shown)} lowest Dice scores of {len(names)} slices"
    axes.set_title(title, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8)
    return _png(figure)


def roc_plot(curves: Mapping[str, tuple[Curve, float]], point: tuple[float, float] | None, threshold: float) -> bytes:
    """Draw ROC curves.

    Args:
        curves: Name → ((1 − specificity, sensitivity), AUC); at most six are drawn.
        point: (1 − specificity, sensitivity) of the first curve at the threshold.
        threshold: What a slice's probability has to reach.
    """
    figure, axes = _square("1 − specificity", "sensitivity", "Receiver operating characteristic")
    axes.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=1, label="chance")
    _draw(axes, {f"{_short(name)}: AUC {_area(area)}": curve for name, (curve, area) in curves.items()})
    if point is not None and all(math.isfinite(v) for v in point):
        axes.plot(
            *point, "o", color=BLUE, markersize=7, markeredgecolor="white", label=f"at p ≥ {threshold:g}", zorder=5
        )
    axes.legend(loc="lower right", fontsize=8, framealpha=0.9)
    return _png(figure)


def _area(area: float) -> str:
    """Return the area under a curve; a set of slices of one class has none."""
    return f"{area:.3f}" if math.isfinite(area) else "not defined: one class"


def precision_recall_plot(curves: Mapping[str, tuple[Curve, float]], prevalence: float) -> bytes:
    """Draw precision–recall curves.

    Args:
        curves: Name → ((recall, precision), average precision); at most six are drawn.
        prevalence: Share of positives: the precision of chance.
    """
    figure, axes = _square("sensitivity (recall)", "precision", "Precision and recall")
    axes.axhline(prevalence, color="#BDBDBD", linewidth=1, label=f"chance: {prevalence:.3f}")
    _draw(axes, {f"{_short(name)}: AP {_area(area)}": curve for name, (curve, area) in curves.items()}, steps=True)
    axes.legend(loc="lower left", fontsize=8, framealpha=0.9)
    return _png(figure)


def calibration_plot(
    edges: NDArray[np.float64], stated: NDArray[np.float64], observed: NDArray[np.float64],
    weight: NDArray[np.float64], error: float,
) -> bytes:  # fmt: skip
    """Draw how often COVID-19 is found, bin by bin of the stated probability, and how many slices a bin holds.

    Args:
        edges: Of the bins, one more than bins.
        stated: Mean probability of each bin; NaN in an empty one.
        observed: Share of positives in each bin; NaN in an empty one.
        weight: Slices in each bin.
        error: Expected calibration error.
    """
    figure = _figure(5.2, 6.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=1, label="perfectly calibrated")
    known = weight > 0
    above.vlines(stated[known], stated[known], observed[known], color=RED, linewidth=2, alpha=0.6, label="gap")
    above.plot(stated[known], observed[known], "o-", color=BLUE, markersize=5, label=f"model: ECE {error:.3f}")
    above.set(ylim=(-0.02, 1.02), ylabel="share of COVID-19 slices")
    above.set_title("Calibration", loc="left")
    above.legend(loc="upper left", fontsize=8, framealpha=0.9)
    below.bar(edges[:-1], weight, np.diff(edges), align="edge", color=SKY, edgecolor="white")
    below.set(xlim=(-0.02, 1.02), xlabel="stated probability of COVID-19", ylabel="slices")
    for axes in (above, below):
        _plain(axes)
    return _png(figure)


def verdict_plot(
    studies: Sequence[tuple[str, int, float, bool]], limit: float | None, roc: Curve, area: float
) -> bytes:
    """Draw the score of every study by what the patient has, and the ROC curve beside it.

    Args:
        studies: (name, label, score, reliable) of each; those on the wrong side of the limit are named.
        limit: What a score has to reach; None where it is not one number.
        roc: (1 − specificity, sensitivity).
        area: Under it; NaN where all studies are of one class.
    """
    figure = _figure(9.6, 4.6)
    left, right = figure.subplots(1, 2)
    for label, colour in ((0, SKY), (1, RED)):
        part = sorted((s for s in studies if s[1] == label), key=lambda s: s[2])
        places = label + np.linspace(-0.3, 0.3, len(part)) if len(part) > 1 else np.full(len(part), float(label))
        for x, (name, _, score, reliable) in zip(places, part, strict=True):
            face = colour if reliable else "none"
            left.plot(x, score, "o", markersize=6, markerfacecolor=face, markeredgecolor=colour)
            if limit is not None and (score >= limit) != bool(label):
                left.annotate(_short(name, 24), (x, score), textcoords="offset points", xytext=(6, 0), fontsize=7)
    if limit is not None:
        left.axhline(limit, color=_GREY, linestyle="--", linewidth=1)
        left.annotate(f"limit {limit:g}", (1.45, limit), ha="right", va="bottom", fontsize=8, color=_GREY)
    left.set(xlim=(-0.5, 1.5), ylabel="score")
    left.set_xticks([0, 1], ["no COVID-19", "COVID-19"])
    left.set_title("Studies (hollow: not reliable)", loc="left")
    right.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=1, label="chance")
    _draw(right, {f"AUC {_area(area)}": roc})
    right.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    right.set_title("Receiver operating characteristic", loc="left")
    right.legend(loc="lower right", fontsize=8, framealpha=0.9)
    for axes in (left, right):
        _plain(axes)
    return _png(figure)


def perturbation_plot(
    share: NDArray[np.float64], deletion: NDArray[np.float64], insertion: NDArray[np.float64]
) -> bytes:
    """Draw the mean deletion and insertion curves of attention maps.

    Args:
        share: Of the pixels changed, 0–1.
        deletion: Mean probability with the most important pixels blackened.
        insertion: Mean probability with them put back into the blurred slice.
    """
    figure, axes = _square(
        "share of pixels changed, most important first", "mean probability", "Deletion and insertion"
    )
    curves = {"deletion (should fall fast)": deletion, "insertion (should rise fast)": insertion}
    _draw(axes, {name: (share, curve) for name, curve in curves.items()})
    axes.legend(loc="best", fontsize=8, framealpha=0.9)
    return _png(figure)


def training_curves(rows: Sequence[Mapping[str, float]], score: str, title: str, undefined: str = "") -> bytes:
    """Draw the table of a training run: losses, the validation score and the learning rate over the epochs.

    Args:
        rows: One for each epoch: "epoch", "train_loss", "lr", and with validation "val_loss" and "val_score".
        score: What the score is called.
        title: Of the figure.
        undefined: What stands in place of scores that cannot be computed (NaN): "not defined, because …".
    """
    figure = _figure(12, 3.6, dpi=110)
    from matplotlib.ticker import MaxNLocator

    figure.suptitle(title, parse_math=False)
    epochs = [row["epoch"] for row in rows]
    validated = [row for row in rows if "val_loss" in row]
    loss, scored, rate = figure.subplots(1, 3)
    marker = "o" if len(rows) < 20 else ""
    loss.plot(epochs, [row["train_loss"] for row in rows], marker=marker, label="training", color=BLUE)
    if validated:
        at = [row["epoch"] for row in validated]
        loss.plot(at, [r["val_loss"] for r in validated], marker=marker, ls="--", label="validation", color=RED)
        scored.plot(at, [row["val_score"] for row in validated], marker=marker, color=GREEN)
        scored.set_ylim(0, 1)
    known = [row for row in validated if not math.isnan(row["val_score"])]
    if not known:
        said = textwrap.fill(undefined or "not defined", 36) if validated else "no validation"
        scored.text(0.5, 0.5, said, ha="center", va="center", transform=scored.transAxes, parse_math=False)
    loss.legend(frameon=False)
    rate.plot(epochs, [row["lr"] for row in rows], marker=marker, color="#555555")
    for axes, name in ((loss, "loss"), (scored, score), (rate, "learning rate")):
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def _figure(width: float, height: float, dpi: int = 150) -> Figure:
    cache_for_figures()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def _square(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = _figure(5.2, 5.2)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    axes.set_title(title, loc="left")
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.grid(color="#ECECEC", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw(axes: Axes, curves: Mapping[str, Curve], *, steps: bool = False) -> None:
    for (label, (x, y)), (colour, line) in zip(curves.items(), _CURVES, strict=False):
        style: dict[str, Any] = {"drawstyle": "steps-pre"} if steps else {}
        axes.plot(x, y, color=colour, linestyle=line, linewidth=2 if colour == BLUE else 1.5, label=label, **style)


def _short(text: str, most: int = 44) -> str:
    """Return a name shortened in the middle, where file names differ least; "$" would begin a formula."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
    return text.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": "jcs-ct"})
    return data.getvalue()
