"""What a run can learn from its slices, and whether those that are held back can score it. Looked at before it starts.

Labels and masks alone decide, as `jcs_ct.datasets.check` has read them; no pixel is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jcs_ct.datasets.samples import Sample

UNDEFINED = "not defined, because"
_NAMES = ("no COVID-19", "COVID-19")


@dataclass(frozen=True)
class Outlook:
    """What can be said of the scores of a run before it starts.

    Attributes:
        undefined: Why the validation score cannot be computed; "" where it can.
        advice: What to do about it.
    """

    undefined: str = ""
    advice: str = ""

    @property
    def warning(self) -> str:
        """What to say before the first step; "" where there is nothing to say."""
        if not self.undefined:
            return ""
        return (
            f"warning: the validation score is {UNDEFINED} {self.undefined}; best is chosen by the loss ({self.advice})"
        )


def outlook_of_labels(training: Sequence[Sample], held: Sequence[Sample], where: str) -> Outlook:
    """Return the outlook of a classifier; `held` are slices to validate on, `where` is the data set, for messages.

    Raises UsageError where all slices to train on that have a label have the same, or none has one.
    """
    one = only_label(training)
    if one is not None:
        raise UsageError(
            f"has nothing to learn: {_all(training, 'to train on')} {one}",
            path=where,
            hint="add slices of the other class, or choose another --fold or split; "
            "`jcs data split` puts both classes into every fold",
        )
    one = only_label(held) if held else None
    if one is None:
        return Outlook()
    return Outlook(
        f"{_all(held, 'to validate on')} {one}",
        "put slices of both classes into the validation part; `jcs data split` does",
    )


def outlook_of_masks(
    training: Sequence[Sample], held: Sequence[Sample], lesion: Callable[[Sample], bool], where: str
) -> Outlook:
    """Return the outlook of a segmentation, where `lesion` tells whether the mask of a slice holds a lesion.

    The other arguments are as of `outlook_of_labels`. Raises UsageError where no mask to train on holds a lesion.
    """
    if not any(lesion(s) for s in training):
        raise UsageError(
            f"has nothing to learn: no lesion is in {some_masks(training)} of the slices to train on",
            path=where,
            hint="add slices with lesions, or choose another --fold or split; `jcs data check` lists the empty masks",
        )
    if not held or any(lesion(s) for s in held):
        return Outlook()
    return Outlook(
        f"no lesion is in {some_masks(held)} of the slices to validate on",
        "put slices with lesions into the validation part",
    )


def only_label(samples: Sequence[Sample]) -> str | None:
    """Return what is true of the labels where they are of one class; None where they are of both."""
    found = {s.label for s in samples if s.label is not None}
    if len(found) == 2:
        return None
    return f"the label {(label := found.pop())} ({_NAMES[label]}): one class" if found else "no label"


def _all(samples: Sequence[Sample], what: str) -> str:
    return f"all {len(samples):,} slices {what} have" if len(samples) != 1 else f"the only slice {what} has"


def some_masks(samples: Sequence[Sample]) -> str:
    """Return how many masks slices have, in words."""
    count = sum(s.mask is not None for s in samples)
    return f"the {count:,} masks" if count != 1 else "the only mask"
