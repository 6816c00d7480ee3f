"""What `--resume` compares: all that a result depends on, its input aside.

Every option of `jcs diagnose` stands here or, with the reason why not, in `tests/test_app_compared.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.app.identity import as_read, unchanged
from jcs_ct.core.version import __version__
from jcs_ct.study.settings import Networks, Settings, cards_fit, fits_of, rule_fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jcs_ct.study.case import Case

SHOWN = frozenset({"series", "allow_gaps", "drop_odd"})
"""Options of reading that show in which files are read, on which grid and with which warnings. Those are compared, so
that a study without gaps stays when `--allow-gaps` is added. Every other option is compared by its value."""

ANY_FIELD = "card of the weights"
OF_CARDS = frozenset({"fit of the patient rule", "threshold", "threshold of lesions", "temperature", ANY_FIELD})


def made_with(networks: Networks, settings: Settings) -> dict[str, Any]:
    """Return what a result depends on, its input and how that is read aside, as JSON values."""
    screen, segmenter = networks.screen, networks.separate_segmenter
    return {
        "weights": screen.card.weights_sha256,
        "segmenter": segmenter and segmenter.card.weights_sha256,
        "patient rule": settings.rule,
        "fit of the patient rule": rule_fit(screen.card),
        "language": settings.language,
        "choice of files": settings.pdf,
        "choice of lesions": settings.segment,
        "threshold": screen.covid_threshold,
        "threshold of lesions": networks.segment and networks.segment.threshold,
        "temperature": screen.card.temperature,
        ANY_FIELD: cards_fit(*(fits_of(one) for one in (screen, segmenter) if one is not None)),
        "version": __version__,
    }


def changed_settings(report: Mapping[str, Any], networks: Networks, settings: Settings) -> list[str]:
    """Return in what a result differs from one that would be made now, its input and how that is read aside."""
    model, chosen, segmenter = report["model"], report["settings"], report.get("segmenter")
    before = {
        "weights": model["weights_sha256"],
        "segmenter": None if segmenter is None else segmenter["weights_sha256"],
        "patient rule": chosen["rule"],
        "fit of the patient rule": chosen.get("rule_fit"),
        "language": chosen.get("language", "en"),
        "choice of files": settings.pdf and "pdf" in report.get("files", {}),
        "choice of lesions": chosen["segment"],
        "threshold": model["covid_threshold"],
        "threshold of lesions": model.get("lesion_threshold"),
        "temperature": model.get("temperature"),
        ANY_FIELD: chosen.get("cards_fit"),
        "version": report["jcs_ct_version"],
    }
    changed = [what for what, now in made_with(networks, settings).items() if before[what] != now]
    if {"weights", "segmenter"} & set(changed):  # other weights have another card
        return [what for what in changed if what not in OF_CARDS]
    return [what for what in changed if what != ANY_FIELD] or changed  # the others say more


def changed_input(recorded: Mapping[str, Any] | None, case: Case | None, reading: Mapping[str, Any]) -> list[str]:
    """Return in what an input, and how it is read, differ from those that a result was made of.

    Args:
        recorded: `source` of the report; None where it has none.
        case: The input as it is now; None where the series that was read is not there any more.
        reading: The options of reading, of now.

    Raises:
        InputError: A file cannot be read.
    """
    if recorded is None or case is None or not unchanged(case, recorded):
        return ["input"]
    then = recorded.get("reading", {})
    other = any(then.get(name) != value for name, value in reading.items() if _counts(name, case))
    return ["way of reading"] if other or recorded.get("as_read") != as_read(case) else []


def _counts(option: str, case: Case) -> bool:
    """Return whether an option is compared by its value. Only DICOM says who somebody is."""
    return option not in SHOWN and (option != "keep_identity" or case.kind == "dicom")
