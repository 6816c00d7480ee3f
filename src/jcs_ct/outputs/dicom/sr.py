"""DICOM structured report: a measurement report (PS3.16 TID 1500) that refers to the segments and the source images.

It is marked PARTIAL, UNVERIFIED and PRELIMINARY, and says in words that it is for research and that nobody checked it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import highdicom as hd
from highdicom import sr
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from jcs_ct.core.errors import InputError
from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import whole_file
from jcs_ct.outputs.dicom import codes
from jcs_ct.outputs.dicom.headers import SourceHeaders, made_here, name_patient, read_headers, refused_by_highdicom
from jcs_ct.outputs.report import words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

    from jcs_ct.core.geometry import CTSeries

    Group = sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations

SERIES_NUMBER = 9002
UNVERIFIED = f"{codes.RESEARCH}. Computed without a human observer and not verified by anyone."
CALLS = {"positive": codes.POSITIVE, "negative": codes.NEGATIVE, "indeterminate": codes.INDETERMINATE}
DEVICE_UID = "2.25.96853618108681642995385531141888295025"
"""Stands for this software as an observer, made once."""


def write_sr(
    path: Path,
    series: CTSeries,
    report: Mapping[str, Any],
    seg_path: Path | None,
    *,
    source: SourceHeaders | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write what `report` says of a DICOM series as a structured report.

    Groups of measurements: the patient (verdict, probability or score, severity), the lesions, each lung, and the
    slices most affected with references to their images. Lesions and lungs refer to their segments in the SEG.

    Args:
        path: The file, usually `sr.dcm`. It holds the identity of the patient as the standard requires.
        series: The source images.
        report: As `report.json` ("jcs-ct/report/1").
        seg_path: What `jcs_ct.outputs.dicom.seg.write_seg` wrote for the same series; None where there are no masks.
        source: What `jcs_ct.outputs.dicom.headers.read_headers` gives for the series, where it was read already.
        overwrite: Replace an existing file.

    Returns:
        What a user should know of the source headers, a line each, free of identity.

    Raises:
        InputError: The series cannot be referred to, see `jcs_ct.outputs.dicom.headers.read_headers`; or the SEG is
            of another series.
        OutputError: As `jcs_ct.core.whole_files.whole_file` does.
    """
    with whole_file(path, overwrite=overwrite) as temporary:
        source = source or read_headers(series)
        seg = None if seg_path is None else _read_seg(seg_path, source)
        groups = [_patient(report), *_burden(report, seg), *_slices(report, source)]
        with refused_by_highdicom(series.label):
            document = _document(source, seg, groups, report)
        name_patient(document, source)
        document.save_as(temporary, enforce_file_format=True)
    return source.notes


def _read_seg(path: Path, source: SourceHeaders) -> Dataset:
    try:
        seg = dcmread(path, stop_before_pixels=True)
        series = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    except (OSError, EOFError, InvalidDicomError, AttributeError, LookupError) as error:
        raise InputError("is not a readable DICOM SEG", path=path, hint="write it first") from error
    if series != source.images[0].SeriesInstanceUID:
        raise InputError("is a segmentation of another series", path=path, hint="give the one of this series")
    return seg


def _document(source: SourceHeaders, seg: Dataset | None, groups: Sequence[Group], report: Mapping[str, Any]) -> Any:
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=DEVICE_UID, name=codes.PRODUCT, manufacturer_name=codes.PRODUCT, model_name=codes.PRODUCT
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DEVICE, observer_identifying_attributes=observer
            )
        ),
        procedure_reported=codes.CHEST_CT,
        imaging_measurements=groups,
        title=codes.REPORT,
    )
    comment = sr.TextContentItem(codes.COMMENT, _words(report), sr.RelationshipTypeValues.CONTAINS)
    content[0].ContentSequence.append(comment)
    document = sr.ComprehensiveSR(
        evidence=[*source.objects, *([] if seg is None else [seg])],
        content=content,
        series_number=SERIES_NUMBER,
        series_description="COVID-19 measurements, research use only",
        **made_here(),
        coding_schemes=[codes.scheme()],
    )
    document.CompletionFlagDescription = codes.RESEARCH
    return document


def _words(report: Mapping[str, Any]) -> str:
    """Return what the numbers do not say, with every reservation of report.html, in its words."""
    verdict = report["verdict"]
    lines = [UNVERIFIED, report["disclaimer"], f"Verdict by the rule {verdict['rule']!r}: {verdict['text']}"]
    lines += [sentence for sentence in words.explanation(report) if sentence not in lines]
    if verdict["reliable"]:
        lines.append("No check rules this result out.")
    else:
        lines.append("Do not rely on this result:" if verdict["reasons"] else "Do not rely on this result.")
    lines += [f"- {reason}" for reason in verdict["reasons"]]
    severity = _severity(report)
    if severity is not None:
        lines.append(f"Severity: {severity['name']}. Source of the grades: {severity['source']}")
    lines += [f"Note: {warning}" for warning in report["warnings"] if warning not in verdict["reasons"]]
    lines += [f"Slice {entry['index']}: {'; '.join(entry['flags'])}" for entry in report["slices"] if entry["flags"]]
    model = report["model"]
    lines += [f"{model['name']}: trained on {model['trained_on']}"] if model.get("trained_on") else []
    lines += [f"{model['name']}: {note}" for note in model["notes"]]
    return "\n".join(line for line in lines if line)


def _severity(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the grade; None where nothing was segmented, or no lungs were found."""
    burden = report["burden"]
    return None if burden is None else burden["severity"]


def _patient(report: Mapping[str, Any]) -> Group:
    verdict, model = report["verdict"], report["model"]
    measurements = _measured(
        verdict,
        (codes.SCORE, "score", codes.UNITY),
        (codes.LIMIT, "limit", codes.UNITY),
        (codes.PROBABILITY, "probability", codes.UNITY),
    )
    evaluations = [
        sr.QualitativeEvaluation(codes.COVID_19, CALLS[words.call_of(verdict)]),
        sr.QualitativeEvaluation(codes.RELIABLE, codes.YES if verdict["reliable"] else codes.NO),
    ]
    severity = _severity(report)
    if severity is not None:
        measurements += _measured(severity, (codes.SEVERITY_SCORE, "score", codes.UNITY))
        grade = codes.own(f"SEVERITY_{severity['score']}", codes.short(severity["name"]))
        evaluations.append(sr.QualitativeEvaluation(codes.SEVERITY, grade))
    return sr.MeasurementsAndQualitativeEvaluations(
        # No finding type: it would read as a finding of COVID-19 in a patient without it.
        tracking_identifier=sr.TrackingIdentifier(hd.UID(), f"{codes.PRODUCT}: patient"),
        algorithm_id=_algorithm(model["name"], model["weights_sha256"]),
        finding_sites=[sr.FindingSite(codes.LUNG)],
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _burden(report: Mapping[str, Any], seg: Dataset | None) -> list[Group]:
    """Return the groups of the lesions and of each lung; none where nothing was segmented."""
    burden, model = report["burden"], report.get("segmenter") or report["model"]
    if burden is None:
        return []
    found = _measured(
        burden,
        (codes.VOLUME, "lesion_ml", codes.ML),
        (codes.LESION_SHARE, "share", codes.PERCENT),
        (codes.LESION_COUNT, "lesions", codes.UNITY),
        (codes.LARGEST, "largest_ml", codes.ML),
        (codes.MEAN_ATTENUATION, "mean_hu", codes.HOUNSFIELD),
        (codes.GROUND_GLASS, "ground_glass_share", codes.PERCENT),
        (codes.CONSOLIDATION, "consolidation_share", codes.PERCENT),
    )
    groups = [_volume(1, seg, (model["name"], model["weights_sha256"]), found)]
    for segment, side in ((2, "right"), (3, "left")):
        found = _measured(
            burden[side],
            (codes.VOLUME, "lung_ml", codes.ML),
            (codes.LESION_VOLUME, "lesion_ml", codes.ML),
            (codes.LESION_SHARE, "share", codes.PERCENT),
        )
        groups.append(_volume(segment, seg, (codes.PRODUCT, __version__), found))
    return groups


def _volume(segment: int, seg: Dataset | None, algorithm: tuple[str, str], measurements: list[sr.Measurement]) -> Group:
    """Return a group about a segment; without a SEG that has it, about the organ as a whole."""
    side = {1: None, 2: codes.RIGHT, 3: codes.LEFT}[segment]
    common: dict[str, Any] = {
        "finding_type": codes.LESION if segment == 1 else codes.LUNG,
        "finding_category": codes.ABNORMAL if segment == 1 else codes.ANATOMY,
        "finding_sites": [sr.FindingSite(codes.LUNG, laterality=side)],
        "algorithm_id": _algorithm(*algorithm),
        "measurements": measurements,
    }
    described = {int(item.SegmentNumber): item for item in seg.SegmentSequence} if seg is not None else {}
    if seg is None or segment not in described:
        name = f"{codes.PRODUCT}: " + {1: "lesions", 2: "right lung", 3: "left lung"}[segment]
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(hd.UID(), name), **common
        )
    item = described[segment]
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(item.TrackingUID, item.TrackingID),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=segment,
            source_series=sr.SourceSeriesForSegmentation(seg.ReferencedSeriesSequence[0].SeriesInstanceUID),
        ),
        **common,
    )


def _slices(report: Mapping[str, Any], source: SourceHeaders) -> list[Group]:
    """Return a group for each of the slices most affected."""
    numbers = {entry["index"]: entry for entry in report["slices"]}
    groups: list[Group] = []
    for index in report["most_affected"]:
        entry, image, frame = numbers[index], source.images[index - 1], source.frames[index - 1]
        frames = None if frame is None else [frame]
        measurements = _measured(
            entry,
            (codes.PROBABILITY, "probability", codes.UNITY),
            (codes.AREA, "lesion_mm2", codes.SQUARE_MM),
            (codes.LESION_AREA_SHARE, "lesion_share", codes.PERCENT),
        )
        groups.append(
            sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(hd.UID(), f"{codes.PRODUCT}: slice {index} from the head"),
                finding_type=codes.LESION,
                finding_sites=[sr.FindingSite(codes.LUNG)],
                measurements=measurements,
                source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID, frames)],
            )
        )
    return groups


def _algorithm(name: str, version: str) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(name=name, version=version, manufacturer=codes.PRODUCT)


def _measured(values: Mapping[str, Any], *wanted: tuple[Code, str, Code]) -> list[sr.Measurement]:
    """Return the measurements (name, key of its value, unit) that have a value, to five decimals; shares in percent."""
    given = [
        (name, values[key] * (100 if unit is codes.PERCENT else 1), unit)
        for name, key, unit in wanted
        if values[key] is not None
    ]
    return [sr.Measurement(name=name, value=round(float(value), 5), unit=unit) for name, value, unit in given]
