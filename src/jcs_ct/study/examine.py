"""One study from its slices to its result: the order of the stages, slice by slice, so that memory stays small.

Volumes are read twice: once small, to find the lungs, and once at full size for the networks, which skip slices without
lung. A segmenter of its own makes it three times: a classifier or `jcs-lite` screens, and only then is segmented what
is worth it, as the paper's pipeline does. `jcs-lite` alone does both in its one pass.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jcs_ct.anatomy.burden import BurdenCounter
from jcs_ct.anatomy.lungs import LEFT, RIGHT, Reducer
from jcs_ct.anatomy.plausibility import REFUSED_OFFSET, Judge
from jcs_ct.core.errors import InputError, NoLungsError
from jcs_ct.core.warning import CodedWarning
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.imaging.window import to_grey
from jcs_ct.inference import pipeline
from jcs_ct.outputs.report.frames import encode_frame, frame_budget
from jcs_ct.study.flow import Behind, Clock, ahead, batches, side_by_side
from jcs_ct.study.lying import Lying
from jcs_ct.study.noticed import Noticed
from jcs_ct.study.report import build_report
from jcs_ct.study.result import CaseResult, PackedLabels, PackedMaps, SliceResult
from jcs_ct.study.settings import rule_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from jcs_ct.outputs.report.frames import EncodedFrame
    from jcs_ct.study.case import Case, CaseSlice
    from jcs_ct.study.rules import Rule
    from jcs_ct.study.settings import Networks, Settings

LEAST_LUNG_MM2 = 300.0  # of a slice that networks look at; less is the very apex or the recess behind the liver


class Maps(NamedTuple):
    """What the networks said of a slice.

    Attributes:
        lesion: bool, rows × columns; None without lesions.
        attention: float32, rows × columns in [0, 1]; None where another pass gave it.
    """

    lesion: NDArray[np.bool_] | None
    attention: NDArray[np.float32] | None


class Examination:
    """A study that is being looked at."""

    def __init__(self, case: Case, networks: Networks, settings: Settings, patient_rule: Rule | None = None) -> None:
        self.case, self.networks, self.settings = case, networks, settings
        self.rule = patient_rule or rule_for(settings.rule, networks.screen.card.patient)
        self.warnings: list[str] = list(case.series.warnings if case.series else ())
        self.shapes: list[tuple[int, int]] = [(0, 0)] * len(case)
        self.lungs: PackedLabels | None = None
        self.lung_mm2: list[float | None] = [None] * len(case)
        self.probability: list[float | None] = [None] * len(case)
        self.flags: list[tuple[str, ...]] = [()] * len(case)
        self.lesion_share: list[float | None] = [None] * len(case)
        self.lesion_mm2: list[float | None] = [None] * len(case)
        self.frames: dict[int, EncodedFrame] = {}
        self.noticed = Noticed(len(case))
        self.lying = Lying(len(case), volume=case.series is not None)
        self.clock = Clock()

    def run(self) -> CaseResult:
        """Look at the study.

        Raises:
            InputError: It cannot be read, or shows no lungs.
        """
        started = time.perf_counter()
        case, settings = self.case, self.settings
        if case.series is not None:
            self.shapes = [case.series.geometry.shape[1:]] * len(case)
            self.find_lungs()
            area = case.series.geometry.spacing[1] * case.series.geometry.spacing[2]
            self.counter: BurdenCounter | None = BurdenCounter(
                case.series.geometry.spacing, case.series.geometry.voxel_ml
            )
        else:
            area, self.counter = 0.0, None
        self.area = area
        self.lesions = PackedMaps(self.shapes, bits=True)
        self.attention = PackedMaps(self.shapes, bits=False)
        everything = list(range(len(case)))
        worth = [i for i in everything if self.lung_mm2[i] is None or (self.lung_mm2[i] or 0) >= LEAST_LUNG_MM2]
        single = self.networks.one_pass and settings.segment != "positive"
        if single:
            self.look(everything, set(worth), lesions=settings.segment == "always")
        else:
            self.screen(worth)
        looked = [p for p in self.probability if p is not None]
        if not looked:
            why = next((f": slice {i + 1} {flags[0]}" for i, flags in enumerate(self.flags) if flags), "")
            raise InputError(f"no slice of it could be looked at{why}", path=case.label, hint="check the slices")
        verdict = self.rule(looked)
        wanted = settings.segment == "always" or (settings.segment == "positive" and verdict.positive)
        wanted = wanted and self.networks.segment is not None
        if not single:
            self.look(everything, set(worth), lesions=wanted)
        burden = self.counter.result() if self.counter is not None and wanted else None
        threshold = self.networks.screen.covid_threshold
        slices = tuple(self.slice_result(i, threshold) for i in everything)
        lungs = self.lungs
        self.warnings += [*self.lying.warnings(), *self.noticed.warnings(), *mixed_sizes(self)]
        report = build_report(self, verdict, burden, slices, time.perf_counter() - started)
        frames = tuple(self.frames[i] for i in everything) if settings.frames else ()
        return CaseResult(case, verdict, slices, report, self.lesions, lungs, self.attention, frames, self.clock)

    def find_lungs(self) -> None:
        """Find the lungs of a volume on a reduced copy of it."""
        series = self.case.series
        assert series is not None  # noqa: S101  # only volumes have lungs to measure
        reducer = Reducer(series.geometry.shape, series.geometry.spacing)
        judge = Judge(series.geometry.spacing)

        def read(i: int) -> NDArray[np.int16]:
            with self.clock("read"):
                return series.read(i)

        for i, hu in ahead(read, list(range(len(series)))):
            with self.clock("lungs"):
                reducer.add(i, hu)
                judge.add(hu)
                if self.lying.asks(i):
                    self.lying.add(i, to_grey(hu))
        offset = judge.offset()
        if abs(offset) >= REFUSED_OFFSET:
            raise InputError(
                f"holds no Hounsfield units: {judge.warnings((0, 0), units_only=True)[0]}",
                path=self.case.label,
                hint="convert it again from DICOM, with its rescale slope and intercept",
            )
        with self.clock("lungs"):
            found = reducer.find()
        if found.reason:
            raise NoLungsError(
                f"{found.reason}; an axial chest CT is expected",
                path=self.case.label,
                hint="choose another with --series",
            )
        self.lungs = PackedLabels(self.shapes)
        area = series.geometry.spacing[1] * series.geometry.spacing[2]
        sides = np.zeros(3, np.int64)
        for i in range(len(series)):
            labels = found.slice(i)
            self.lungs.set(i, labels)
            self.lung_mm2[i] = float(np.count_nonzero(labels) * area)
            sides += np.bincount(labels.ravel(), minlength=3)[:3]
        right, left = (float(sides[side] * series.geometry.voxel_ml) for side in (RIGHT, LEFT))
        self.warnings += judge.warnings((right, left))

    def screen(self, indices: Sequence[int]) -> None:
        """Give slices their probability and attention."""
        network = self.networks.screen

        def answer(numbered: tuple[int, CaseSlice | None]) -> tuple[float, NDArray[np.float32] | None] | None:
            _, item = numbered
            if item is None:
                return None
            with self.clock("network"):
                if self.networks.one_pass:  # the second look brings the attention
                    return pipeline.classify(item.image, network), None
                if network.spec.task == "lite":
                    return pipeline.screen_slice(item.image, network)
                found = pipeline.explain(item.image, network, "grad-cam")
                assert found.probability is not None  # noqa: S101  # a classifier gives one
                return found.probability, found.map

        def keep(i: int, attention: NDArray[np.float32]) -> None:
            self.shapes[i] = attention.shape[:2] if self.case.series is None else self.shapes[i]
            self.attention.set(i, attention)

        with Behind() as behind, network.concurrent_calls(len(indices)) as calls:
            for (i, _), answered in side_by_side(answer, self.items(indices), calls):
                if answered is None:
                    continue
                self.probability[i], attention = answered
                if attention is not None:
                    behind.do(keep, i, attention)

    def look(self, indices: Sequence[int], worth: set[int], *, lesions: bool) -> None:
        """Find lesions where wanted, count them, and make the pictures of the report."""
        network = self.networks.segment if lesions else None
        groups = batches(self.items(indices), self.networks.screen.batch if self.networks.one_pass else 1)

        def answer(group: list[tuple[int, CaseSlice | None]]) -> dict[int, Maps]:
            with self.clock("network"):
                return self.maps_of([(i, item) for i, item in group if item and i in worth], lesions=lesions)

        with Behind() as behind, nullcontext(1) if network is None else network.concurrent_calls(len(worth)) as calls:
            for group, found in side_by_side(answer, groups, calls):
                for i, item in group:
                    behind.do(self.finish, i, item, found.get(i, Maps(None, None)), lesions)

    def finish(self, i: int, item: CaseSlice | None, maps: Maps, lesions: bool) -> None:
        """Count the lesions of a slice and make its picture: in order, in a thread beside the network."""
        if item is None:
            if self.settings.frames:
                blank = np.zeros((64, 64), np.uint8)
                self.frames[i] = encode_frame(
                    hu=None, grey=blank, lesion=blank.astype(bool), attention=blank.astype(np.float32)
                )
            return
        with self.clock("measure"):
            shape = (item.image.pixels.shape[0], item.image.pixels.shape[1])
            self.shapes[i] = shape
            if maps.attention is not None:
                self.attention.set(i, maps.attention)
            found = np.zeros(shape, bool) if maps.lesion is None else maps.lesion
            if self.lungs is not None and self.counter is not None and item.hu is not None:
                of_slice = self.counter.add(i, item.hu, found, self.lungs.levels(i))
                found = self.counter.counted
                self.lung_mm2[i] = of_slice.lung_mm2
            if found.any():
                self.lesions.set(i, found)
            self.measure(i, found, lesions=lesions)
        if self.settings.frames:
            with self.clock("pictures"):
                p = self.probability[i] or 0.0
                attention = self.attention.levels(i).astype(np.float32) * np.float32(p / 255)
                grey = None if item.hu is not None else item.image.pixels[:, :, 1]
                self.frames[i] = encode_frame(
                    hu=item.hu, grey=grey, lesion=found, attention=attention, budget_bytes=frame_budget(len(self.case))
                )

    def items(self, indices: Sequence[int]) -> Iterator[tuple[int, CaseSlice | None]]:
        """Yield slices; a picture that cannot be read is None and flagged, a volume with such a slice fails."""

        def read(i: int) -> CaseSlice | InputError:
            try:
                with self.clock("read"):
                    return self.case.slice(i)
            except InputError as error:
                if self.case.series is not None:
                    raise
                return error

        for i, item in ahead(read, indices):
            if isinstance(item, InputError):
                if not self.flags[i]:
                    self.flags[i] = (f"could not be read: {item.message}",)
                    text = f"slice {i + 1} could not be read: {item.message}"
                    self.warnings.append(CodedWarning("unread-slices", text))
                yield i, None
            else:
                self.noticed.add(i, item.image.notes)
                if self.case.series is None and self.lying.asks(i):
                    self.lying.add(i, item.image.pixels[..., 1])
                yield i, item

    def maps_of(self, chosen: Sequence[tuple[int, CaseSlice]], *, lesions: bool) -> dict[int, Maps]:
        """Return what the networks say of slices; with `jcs-lite`, note the probabilities of its pass."""
        if not chosen:
            return {}
        volume, network = self.case.series is not None, self.networks.segment
        if self.networks.one_pass:
            screen, maps = self.networks.screen, {}
            diagnosed = pipeline.diagnose_slices([item.image for _, item in chosen], screen, guard=not volume)
            for (i, _), found in zip(chosen, diagnosed, strict=True):
                self.probability[i] = found.probability
                if not volume:
                    self.flags[i] = found.flags
                maps[i] = Maps(found.lesion >= screen.threshold if lesions else None, found.attention)
            return maps
        if not volume:
            for i, item in chosen:
                self.flags[i] = check_slice(item.image.pixels)
        if not lesions or network is None:
            return {}
        return {i: Maps(pipeline.segment(item.image, network) >= network.threshold, None) for i, item in chosen}

    def measure(self, i: int, found: NDArray[np.bool_], *, lesions: bool) -> None:
        """Note the extent of the lesions of a slice."""
        if not lesions:
            return
        pixels = int(np.count_nonzero(found))
        if self.case.series is None:
            self.lesion_share[i] = pixels / found.size
            return
        lung = self.lung_mm2[i] or 0.0
        self.lesion_mm2[i] = pixels * self.area
        self.lesion_share[i] = min(1.0, pixels * self.area / lung) if lung else 0.0

    def slice_result(self, i: int, threshold: float) -> SliceResult:
        """Return what is known of a slice."""
        series, p = self.case.series, self.probability[i]
        return SliceResult(
            i + 1,
            "" if series is not None else self.case.pictures[i].name.rpartition("/")[2],
            None if series is None else series.geometry.position(i),
            p,
            p is not None and p >= threshold,
            self.lung_mm2[i],
            self.lesion_mm2[i],
            self.lesion_share[i],
            self.flags[i],
        )


def mixed_sizes(study: Examination) -> list[CodedWarning]:
    """Return a warning where pictures have several sizes: those of one study have one."""
    sizes = Counter(shape for shape in study.shapes if shape != (0, 0))
    if study.case.series is not None or len(sizes) < 2:
        return []
    (rows, columns), most = sizes.most_common(1)[0]
    text = f"pictures of {len(sizes)} sizes: {most} of {len(study.case)} have {rows} × {columns} pixels"
    text += "; those of one study have one size"
    return [CodedWarning("mixed-pictures", text)]


def examine(case: Case, networks: Networks, settings: Settings, patient_rule: Rule | None = None) -> CaseResult:
    """Look at one study. Raises InputError where it cannot be read or shows no lungs."""
    return Examination(case, networks, settings, patient_rule).run()
