"""The pictures of a case, made or kept while its slices pass by, so that no slice is read again for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.spool import Spool
from jcs_ct.outputs.figures import diagnosed_slice
from jcs_ct.outputs.images import grey_levels
from jcs_ct.outputs.report.frames import EncodedFrame, encode_frame, frame_budget
from jcs_ct.outputs.report.language import drawn_language, mark

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.study.result import SliceResult, StudyResult
    from jcs_ct.study.slices import CaseSlice

MOST_OVERLAYS = 5  # of a volume; pictures have one each


class CasePictures:
    """Listens to a scan of so many slices (`jcs_ct.study.scan.SliceListener`).

    Attributes:
        frames: Packed slices of the page, in order; empty if none were asked for.
    """

    def __init__(self, slices: int, *, frames: bool) -> None:
        self.frames: list[EncodedFrame] = []
        self._budget = frame_budget(slices) if frames else 0
        self._grey = Spool()

    def __call__(self, result: SliceResult, item: CaseSlice | None) -> None:
        """Make the frame of a slice, and keep its pixels if they may be drawn on."""
        if item is None:
            if self._budget:
                self.frames.append(_blank())
            return
        lesion = result.lesions.levels().astype(bool)
        if self._budget:
            self.frames.append(self._frame(result, item, lesion))
        if item.hu is None and result.probability is not None:
            self._grey.put(result.index, grey_levels(item.image.pixels)[:, :, 0])
        elif item.hu is not None and lesion.any():
            self._grey.put(result.index, item.image.pixels[:, :, 0])

    def keep_what_is_drawn(self, study: StudyResult) -> None:
        """Forget the pixels of slices of which no overlay is made."""
        if study.case.series is not None:
            drawn = study.most_affected()[:MOST_OVERLAYS]
            self._grey = Spool({index: self._grey.get(index) for index in drawn})

    def overlay(self, study: StudyResult, index: int) -> bytes:
        """Return the picture of slice `index` (from 1) with its lesions and its attention: a PNG file."""
        found, card = study.slices[index - 1], study.screen.card
        language = drawn_language(study.settings.language)
        score = mark("COVID-19 p = %(p)s (below %(limit)s)")
        if found.positive:
            score = mark("COVID-19 p = %(p)s (at or above %(limit)s)")
        p, limit = found.probability or 0.0, study.screen.covid_threshold
        values = {"p": language.amount(p, digits=3), "limit": language.amount(limit, digits=2)}
        volume = study.case.series is not None
        title = language.say("slice %(index)s of %(total)s", index=index, total=len(study.slices))
        return diagnosed_slice(
            np.repeat(self._grey.get(index)[:, :, None], 3, axis=2),
            found.lesions.levels().astype(bool),
            found.attention.levels().astype(np.float32) / np.float32(255),
            share=found.lesion_share,
            anatomy=volume,
            title=title if volume else study.case.sources[index - 1].name,
            caption=[f"{language.say(score, **values)} · {card.name}", *map(language.text, found.flags)],
            language=language,
        )

    def _frame(self, result: SliceResult, item: CaseSlice, lesion: NDArray[np.bool_]) -> EncodedFrame:
        p = result.probability or 0.0
        attention = result.attention.levels().astype(np.float32) * np.float32(p / 255)
        grey = None if item.hu is not None else item.image.pixels[:, :, 1]
        return encode_frame(hu=item.hu, grey=grey, lesion=lesion, attention=attention, budget_bytes=self._budget)


def _blank() -> EncodedFrame:
    """Return the frame of a slice that could not be read."""
    grey = np.zeros((64, 64), np.uint8)
    return encode_frame(hu=None, grey=grey, lesion=grey.astype(bool), attention=grey.astype(np.float32))
