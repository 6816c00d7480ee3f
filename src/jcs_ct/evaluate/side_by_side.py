"""The scores of several models on the same slices, beside each other; refused where the slices are not the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import UsageError
from jcs_ct.evaluate import tables
from jcs_ct.evaluate.record import differences, read_scores
from jcs_ct.evaluate.tables import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ASIDE = ("against", "difference", "fingerprint", "guard", "training_data")  # parts that hold no scores of the model


def side_by_side(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the scores of several evaluations: "models", "data", and "scores", which is score → a value for each.

    They lie in folders that `jcs evaluate` wrote, or are their `scores.json`.

    Raises:
        InputError: One has no scores, or does not say what they are of.
        UsageError: They are of different slices, or were made with different settings.
    """
    read = [read_scores(path) for path in paths]
    first = read[0][1]
    for path, (_, record) in zip(paths[1:], read[1:], strict=True):
        found = differences(first, record)
        if found:
            raise UsageError(
                f"cannot be compared with {paths[0]}: {'; '.join(found)}",
                path=path,
                hint="score both on the same slices with the same settings",
            )
    scored = [dict(scores_in(content)) for content, _ in read]
    names = list(dict.fromkeys(name for scores in scored for name in scores))
    return {
        "task": first.task,
        "data": first.data,
        "slices": len(first.slices),
        "settings": dict(first.settings),
        "models": [{"predictions": record.predictions, "made_by": record.made_by} for _, record in read],
        "scores": {name: [scores.get(name) for scores in scored] for name in names},
        "undefined": [str(content.get("undefined", "")) for content, _ in read],
        "lacking": {name: [name not in scores for scores in scored] for name in names},
    }


def scores_in(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float | None]]:
    """Yield the scores of an evaluation with their paths ("per_image.dice"): what has a value and an interval."""
    for name, held in content.items():
        if not isinstance(held, dict) or (not before and name in ASIDE):
            continue
        if "value" in held:
            yield f"{before}{name}", held["value"]
        else:
            yield from scores_in(held, f"{before}{name}.")


def to_markdown(found: Mapping[str, Any]) -> str:
    """Return the table as Markdown; differences are to the first."""
    models = found["models"]
    header = ["score", *(str(model["predictions"]) for model in models), *(["difference"] * (len(models) - 1))]
    rows = []
    for name, values in found["scores"].items():
        shown = [
            "not scored" if lacks else UNDEFINED if value is None else tables.number(value)
            for value, lacks in zip(values, found["lacking"][name], strict=True)
        ]
        apart = [
            UNDEFINED if value is None or values[0] is None else f"{value - values[0]:+.4f}" for value in values[1:]
        ]
        rows.append([name, *shown, *apart])
    why = [f"{m['predictions']}: {text}." for m, text in zip(models, found["undefined"], strict=True) if text]
    return "\n\n".join([tables.markdown(header, rows), *why])
