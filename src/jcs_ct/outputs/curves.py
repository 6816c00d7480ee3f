"""The curves of a training run: loss, score and learning rate over the epochs."""

from __future__ import annotations

import io
import math
import textwrap
from typing import TYPE_CHECKING

from jcs_ct.core.caches import cache_for_figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def training_curves(rows: Sequence[Mapping[str, float]], score: str, title: str, undefined: str = "") -> bytes:
    """Draw the table of a run as a PNG: losses, the validation score, the learning rate.

    Args:
        rows: One for each epoch: "epoch", "train_loss", "lr", and with validation "val_loss" and "val_score".
        score: What the score is called.
        title: Of the figure.
        undefined: What stands in place of scores that cannot be computed (NaN): "not defined, because …".
    """
    cache_for_figures()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    epochs = [row["epoch"] for row in rows]
    validated = [row for row in rows if "val_loss" in row]
    loss, scored, rate = figure.subplots(1, 3)
    marker = "o" if len(rows) < 20 else ""
    loss.plot(epochs, [row["train_loss"] for row in rows], marker=marker, label="training", color="#0072B2")
    if validated:
        at = [row["epoch"] for row in validated]
        loss.plot(at, [r["val_loss"] for r in validated], marker=marker, ls="--", label="validation", color="#D55E00")
        scored.plot(at, [row["val_score"] for row in validated], marker=marker, color="#009E73")
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
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": "jcs-ct"})
    return data.getvalue()
