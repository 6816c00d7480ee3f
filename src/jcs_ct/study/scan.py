"""A study, from its slices to its result: one record a slice, and memory that does not grow with their number.

A volume is read a first time for its lungs (`jcs_ct.study.measures`). Then each slice is read once for the networks,
which skip slices without lung: `jcs-lite` says everything in its one pass. With a segmenter of its own, or where
lesions are sought in positive studies only, a network screens, and only then is segmented what is worth it, as the
paper's pipeline does; decoded slices wait on disk until then.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.core.spool import Spool
from jcs_ct.core.warning import CodedWarning
from jcs_ct.inference import apply
from jcs_ct.study.flow import Clock, batches, concurrently, in_order
from jcs_ct.study.notes import note_warnings
from jcs_ct.study.packed import PackedMap
from jcs_ct.study.result import SliceResult, StudyResult
from jcs_ct.study.settings import rule_for, whole_study_rule
from jcs_ct.study.slices import Unreadable
from jcs_ct.study.whole_study import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from jcs_ct.inference.apply import SliceDiagnosis
    from jcs_ct.study.case import Case
    from jcs_ct.study.measures import Measures
    from jcs_ct.study.rules import Rule
    from jcs_ct.study.settings import Networks, Settings
    from jcs_ct.study.slices import CaseSlice


class SliceListener(Protocol):
    """Sees each slice once, in order, while its pixels are still there: in the thread that measures."""

    def __call__(self, result: SliceResult, item: CaseSlice | None) -> None:
        """Take the result of a slice, and the slice; None where it could not be read."""
        ...


@dataclass(frozen=True)
class Answer:
    """What networks said of a slice; None where they did not.

    Attributes:
        probability: Of COVID-19.
        attention: float32, rows × columns in [0, 1]; or packed.
        lesion: bool, rows × columns.
        unread: Why the slice could not be read, or "".
        notes: What was noticed when it was read.
    """

    probability: float | None = None
    attention: NDArray[np.float32] | PackedMap | None = None
    lesion: NDArray[np.bool_] | None = None
    unread: str = ""
    notes: tuple[str, ...] = ()


ReadSlice = tuple[int, "CaseSlice | Unreadable"]
NO_ANSWER = Answer()


def scan_study(
    case: Case,
    networks: Networks,
    settings: Settings,
    patient_rule: Rule | None = None,
    listener: SliceListener | None = None,
) -> StudyResult:
    """Look at one study.

    Args:
        case: The study.
        networks: What runs.
        settings: How.
        patient_rule: The rule, where it is not the usual one of its name.
        listener: Sees the slices pass by.

    Raises:
        InputError: It cannot be read, or shows no lungs.
    """
    started, clock = time.perf_counter(), Clock()
    card, whole = networks.screen.card, None
    rule = patient_rule or rule_for(settings.rule, card.patient)
    if patient_rule is None and networks.one_pass:  # it was fitted on what this network marks
        whole = whole_study_rule(settings.rule, card)
    scan = _Scan(case, networks, case.measures(clock), clock, listener)
    if networks.one_pass and settings.segment != "positive":
        wanted = settings.segment == "always"
        slices = scan.in_one_pass(lesions=wanted)
        verdict = rule(_probabilities(case, slices))
        burden = scan.measures.burden() if wanted else None
        if whole is not None and burden is not None and burden.both.share is not None:
            verdict = whole(_evidence(slices, burden.both.share))
    else:
        screened = scan.screened()
        verdict = rule(_probabilities(case, screened))
        wanted = settings.segment == "always" or (settings.segment == "positive" and verdict.positive)
        wanted = wanted and networks.segment is not None
        slices = scan.after_screening(screened, lesions=wanted)
        burden = scan.measures.burden() if wanted else None
    unread = (
        CodedWarning("unread-slices", f"slice {one.index} could not be read: {one.unread}")
        for one in slices
        if one.unread
    )
    return StudyResult(
        case,
        *networks.used(),
        settings,
        verdict,
        tuple(slices),
        burden,
        (*case.warnings, *scan.measures.warnings, *unread, *note_warnings(slices)),
        time.perf_counter() - started,
        clock,
    )


class _Scan:
    """The stages of one study. What a stage finds goes to the next one as a value; none looks into another."""

    def __init__(
        self, case: Case, networks: Networks, measures: Measures, clock: Clock, listener: SliceListener | None
    ) -> None:
        self.case, self.networks, self.measures = case, networks, measures
        self._clock, self._listener = clock, listener
        self._decoded = Spool()  # what was screened, for the segmenter
        self._worth = [i for i in range(len(case)) if measures.shows_lung(i)]

    def in_one_pass(self, *, lesions: bool) -> list[SliceResult]:
        """Return the results of all slices, of which one pass of a network says everything."""
        network, worth = self.networks.screen, set(self._worth)

        def answer(group: Sequence[ReadSlice]) -> list[Answer]:
            chosen = [item.image for i, item in group if i in worth and not isinstance(item, Unreadable)]
            with self._clock("network"):
                found = iter(apply.diagnose_slices(chosen, network) if chosen else ())
            return [
                _of_one_pass(next(found), network.threshold if lesions else None)
                if i in worth and not isinstance(item, Unreadable)
                else NO_ANSWER
                for i, item in group
            ]

        groups = batches(self._slices(range(len(self.case))), network.batch)
        with network.concurrent_calls(len(worth)) as calls:
            answered = concurrently(answer, groups, calls)
            pairs = (pair for group, answers in answered for pair in zip(group, answers, strict=True))
            return self._measured(pairs, lesions=lesions)

    def screened(self) -> list[Answer]:
        """Return probability and attention of all slices, and keep those that were looked at."""
        network = self.networks.screen

        def answer(read: ReadSlice) -> Answer:
            if isinstance(read[1], Unreadable):
                return Answer(unread=read[1].reason)
            with self._clock("network"):
                return Answer(*apply.screen_slice(read[1].image, network))

        def keep(pair: tuple[ReadSlice, Answer]) -> Answer:
            (index, item), said = pair
            if isinstance(item, Unreadable):
                return said
            self._decoded.put(index, item.decoded)
            return replace(said, attention=_packed(said.attention, item), notes=item.image.notes)

        answers = [NO_ANSWER] * len(self.case)
        with network.concurrent_calls(len(self._worth)) as calls:
            for ((index, _), _), said in in_order(keep, concurrently(answer, self._slices(self._worth), calls)):
                answers[index] = said
        return answers

    def after_screening(self, screened: Sequence[Answer], *, lesions: bool) -> list[SliceResult]:
        """Return the results of all slices, of which the lesions are still to be found, where they are wanted."""
        network, worth = self.networks.segment if lesions else None, set(self._worth)

        def answer(read: ReadSlice) -> Answer:
            index, item = read
            if network is None or index not in worth or isinstance(item, Unreadable):
                return screened[index]
            with self._clock("network"):
                return replace(screened[index], lesion=apply.segment(item.image, network) >= network.threshold)

        with nullcontext(1) if network is None else network.concurrent_calls(len(worth)) as calls:
            return self._measured(concurrently(answer, self._slices(range(len(self.case))), calls), lesions=lesions)

    def _slices(self, indices: Iterable[int]) -> Iterator[ReadSlice]:
        """Yield slices, read ahead."""

        def read(index: int) -> CaseSlice | Unreadable:
            with self._clock("read"):
                if index in self._decoded:
                    return self.case.slice_of(index, self._decoded.get(index))
                return self.case.slice(index)

        return in_order(read, indices)

    def _measured(self, answered: Iterable[tuple[ReadSlice, Answer]], *, lesions: bool) -> list[SliceResult]:
        """Return the results of slices, which are measured in order in a thread beside the network."""

        def measure(pair: tuple[ReadSlice, Answer]) -> SliceResult:
            (index, item), said = pair
            if isinstance(item, Unreadable):
                result = self._unread(index, item.reason)
            else:
                with self._clock("measure"):
                    result = self._result(index, item, said, lesions=lesions)
            if self._listener is not None:
                with self._clock("pictures"):
                    self._listener(result, None if isinstance(item, Unreadable) else item)
            return result

        return [result for _, result in in_order(measure, answered)]

    def _result(self, index: int, item: CaseSlice, said: Answer, *, lesions: bool) -> SliceResult:
        series, p = self.case.series, said.probability
        drawn = np.zeros(item.image.pixels.shape[:2], bool) if lesions and said.lesion is None else said.lesion
        measured = self.measures.measure(index, item, drawn)
        return SliceResult(
            index=index + 1,
            name=self.case.picture_name(index),
            z_mm=None if series is None else series.geometry.position(index),
            probability=p,
            positive=p is not None and p >= self.networks.screen.covid_threshold,
            lung_mm2=measured.lung_mm2,
            lesion_mm2=measured.lesion_mm2,
            lesion_share=measured.lesion_share,
            flags=measured.flags,
            lesions=PackedMap.of_mask(measured.lesion),
            attention=_packed(said.attention, item),
            lungs=self.measures.lungs(index),
            notes=said.notes or item.image.notes,
        )

    def _unread(self, index: int, reason: str) -> SliceResult:
        nothing, name = PackedMap((0, 0)), self.case.picture_name(index)
        flags = (f"could not be read: {reason}",)
        return SliceResult(index + 1, name, None, None, False, None, None, None, flags, nothing, nothing, unread=reason)


def _of_one_pass(found: SliceDiagnosis, threshold: float | None) -> Answer:
    lesion = None if threshold is None else found.lesion >= threshold
    return Answer(found.probability, found.attention, lesion)


def _packed(attention: NDArray[np.float32] | PackedMap | None, item: CaseSlice) -> PackedMap:
    if isinstance(attention, PackedMap):
        return attention
    shape = item.image.pixels.shape[:2]
    return PackedMap((shape[0], shape[1])) if attention is None else PackedMap.of_shares(attention)


def _probabilities(case: Case, found: Sequence[Answer | SliceResult]) -> list[float]:
    """Return the probabilities of the slices that were looked at. Raises InputError where there are none."""
    looked = [one.probability for one in found if one.probability is not None]
    if not looked:
        why = next((f": slice {i} could not be read: {one.unread}" for i, one in enumerate(found, 1) if one.unread), "")
        raise InputError(f"no slice of it could be looked at{why}", path=case.label, hint="check the slices")
    return looked


def _evidence(slices: Sequence[SliceResult], affected: float) -> Evidence:
    """Return what a rule for whole studies looks at; at least one slice was looked at."""
    looked = [(one.probability, one.positive) for one in slices if one.probability is not None]
    return Evidence([p for p, _ in looked], [positive for _, positive in looked], affected)
