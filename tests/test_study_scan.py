"""A whole study: the marker is found where it lies whatever the axes, and every file says the same."""

from __future__ import annotations

import itertools
import json
import time
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest

import jcs_ct
from jcs_ct.app.examine import examine_case
from jcs_ct.app.gather import gather
from jcs_ct.cli import main
from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.inference import apply
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.models import model_spec
from jcs_ct.phantom import write_pngs
from jcs_ct.study.packed import PackedMap
from jcs_ct.study.rules import Count
from jcs_ct.study.settings import Networks, Settings
from report_help import check
from study_help import MARKER_HU, BandNetwork, mark, mark_all, mark_screened, marked_volume, small_phantom, write_lite
from weights_help import card_for

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.app.examine import CaseResult
    from jcs_ct.study.case import Case

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
BAND: Any = BandNetwork()
NETWORKS = Networks(BAND, BAND)


@pytest.fixture
def marking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)


def one_case(path: Path) -> Case:
    found = gather([str(path)])
    assert [problem.line() for problem in found.problems] == []
    assert len(found.cases) == 1
    return found.cases[0]


def look(path: Path, **settings: Any) -> CaseResult:
    return examine_case(one_case(path), NETWORKS, Settings(frames=False, **settings))


def write_permuted(path: Path, order: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray[Any, Any]:
    """Write the marked phantom as NIfTI with its axes in this order, some reversed; return the marker as stored."""
    study = small_phantom()
    hu, where = marked_volume(study)
    affine = np.eye(4)
    for axis, (mm, direction) in enumerate(zip(study.spacing, study.direction, strict=True)):
        affine[:3, axis] = np.array(direction) * mm
    affine[:3, 3] = study.origin
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        move[source, axis] = -1 if flip else 1
        move[source, 3] += hu.shape[source] - 1 if flip else 0
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    stored = hu.transpose(order)[turn]
    library: Any = nibabel
    image = library.Nifti1Image(np.ascontiguousarray(stored), LPS_TO_RAS @ affine @ move)
    image.set_qform(image.affine, code=1)
    nibabel.save(image, path)
    return np.ascontiguousarray(where.transpose(order)[turn])


@pytest.mark.usefixtures("marking")
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_the_marker_is_found_in_all_48_orientations(order: tuple[int, ...], tmp_path: Path) -> None:
    for flips in itertools.product((False, True), repeat=3):
        path = tmp_path / "ct.nii.gz"
        where = write_permuted(path, order, flips)
        result = look(path)
        folder = result.save(tmp_path / "out", overwrite=True)
        mask: Any = nibabel.load(folder / "lesions.nii.gz")
        stored: Any = nibabel.load(path)
        assert np.allclose(mask.affine, stored.affine)
        found = np.asarray(mask.dataobj) > 0
        assert np.array_equal(found, where), f"{order} {flips}"
        voxel = abs(np.linalg.det(stored.affine[:3, :3])) / 1000
        assert result.report["burden"]["lesion_ml"] == pytest.approx(where.sum() * voxel, rel=0.01)
        assert result.report["burden"]["right"]["lesion_ml"] > 0
        assert result.report["burden"]["left"]["lesion_ml"] == 0


@pytest.mark.usefixtures("marking")
def test_a_study_says_the_same_in_every_file(tmp_path: Path) -> None:
    study = small_phantom()
    hu, where = marked_volume(study)
    write_ct_series(tmp_path / "ct", hu, study.spacing, study.origin)
    result = examine_case(one_case(tmp_path / "ct"), NETWORKS, Settings(rule="fraction"))
    folder = result.save(tmp_path / "out")
    report = json.loads((folder / "report.json").read_text())
    check(report)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(report["files"].values()) | {"report.json"} == names
    assert np.array_equal(result.lesion > 0, where)
    assert report["burden"]["mean_hu"] == pytest.approx(MARKER_HU, abs=1)
    assert report["burden"]["lesions"] == 1
    affected = np.flatnonzero(where.any(axis=(1, 2))) + 1
    assert sorted(report["most_affected"]) == affected.tolist()
    assert [s["index"] for s in report["slices"] if s["positive"]] == affected.tolist()
    lines = (folder / "slices.csv").read_text().splitlines()
    assert len(lines) == len(hu) + 1
    assert report["verdict"]["positive"] is (3 / sum(s["probability"] is not None for s in report["slices"]) >= 0.1)
    assert list((tmp_path / "out").iterdir()) == [folder]
    with pytest.raises(OutputError, match="exists already"):
        result.save(tmp_path / "out")


@pytest.mark.usefixtures("marking")
def test_the_same_study_in_three_coats_gives_the_same_numbers(tmp_path: Path) -> None:
    study = small_phantom()
    hu, _ = marked_volume(study)
    paths = write_ct_series(tmp_path / "ct", hu, study.spacing, study.origin)
    with zipfile.ZipFile(tmp_path / "shuffled.zip", "w") as archive:
        for i, path in enumerate(sorted(paths, key=lambda p: p.name[::-1])):
            archive.write(path, f"deep/er/{(i * 7919) % 1000}_{i}")
    write_permuted(tmp_path / "ct.nii.gz", (2, 1, 0), (False, False, True))
    reports = [look(tmp_path / name).report for name in ("ct", "shuffled.zip", "ct.nii.gz")]
    for other in reports[1:]:
        for part in ("verdict", "burden", "most_affected"):
            assert other[part] == reports[0][part], part
        for a, b in zip(other["slices"], reports[0]["slices"], strict=True):
            assert a.keys() == b.keys()
            assert all(v == (pytest.approx(b[k], abs=1e-6) if isinstance(v, float) else b[k]) for k, v in a.items())


@pytest.mark.usefixtures("marking")
def test_lesions_of_positive_studies_only_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_permuted(tmp_path / "ct.nii.gz", (2, 1, 0), (False, False, False))
    monkeypatch.setattr(apply, "screen_slice", mark_screened)
    monkeypatch.setattr(apply, "segment", lambda image, network: mark(image, network).lesion)
    case = one_case(tmp_path / "ct.nii.gz")
    negative = examine_case(case, NETWORKS, Settings(segment="positive", frames=False), Count(more_than=18))
    assert not negative.verdict.positive
    assert negative.report["burden"] is None
    assert not negative.lesion.any()
    positive = examine_case(case, NETWORKS, Settings(segment="positive", frames=False), Count(more_than=2))
    assert positive.report["burden"]["lesion_ml"] > 0
    never = examine_case(case, NETWORKS, Settings(segment="never", frames=False))
    assert never.report["burden"] is None
    check(never.report)


def test_pictures_of_a_folder_are_one_study(tmp_path: Path) -> None:
    weights = write_lite(tmp_path)
    write_pngs(small_phantom(), tmp_path / "pictures")
    for mask in (tmp_path / "pictures" / "masks").iterdir():
        mask.unlink()
    (tmp_path / "pictures" / "phantom_003.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    result = jcs_ct.diagnose(tmp_path / "pictures", model=weights)
    assert result.name == "pictures"
    assert len(result.slices) == 24
    assert result.slices[3].probability is None
    assert result.slices[3].flags[0].startswith("could not be read")
    folder = result.save(tmp_path / "out")
    report = json.loads((folder / "report.json").read_text())
    check(report)
    assert report["burden"] is None
    assert len(list((folder / "overlays").iterdir())) == 23
    assert (folder / "report.html").exists()


def test_pictures_of_which_none_can_be_read_are_refused_with_a_reason(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"phantom_{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"no slice of it could be looked at: slice 1 could not be read: .+"):
        examine_case(one_case(tmp_path), NETWORKS, Settings(frames=False))


def test_a_volume_without_lungs_is_refused(tmp_path: Path) -> None:
    study = small_phantom()
    hu = np.where(study.lungs > 0, np.int16(30), study.hu)
    write_ct_series(tmp_path / "ct", hu, study.spacing, study.origin)
    case = one_case(tmp_path / "ct")
    with pytest.raises(InputError, match="chest CT is expected"):
        examine_case(case, NETWORKS, Settings(frames=False))


def test_roles_of_networks() -> None:
    def network(name: str) -> Any:
        return SimpleNamespace(spec=model_spec(name), card=SimpleNamespace(name=name))

    classifier, segmenter, lite = network("jcs-classifier"), network("jcs-single"), network("jcs-lite")
    both = Networks.of([segmenter, classifier])
    assert (both.screen, both.segment, both.separate_segmenter) == (classifier, segmenter, segmenter)
    assert Networks.of([classifier]).segment is None
    assert Networks.of([lite]).one_pass
    assert Networks.of([lite]).separate_segmenter is None
    mixed = Networks.of([segmenter, lite])
    assert (mixed.screen, mixed.segment, mixed.one_pass) == (lite, segmenter, False)
    backbone = network("vgg16-bn")
    wrongs: list[list[Any]]
    wrongs = [[segmenter], [lite, classifier], [backbone], []]
    for wrong in wrongs:
        with pytest.raises(UsageError):
            Networks.of(wrong)


def test_packed_maps_come_back() -> None:
    rng = np.random.default_rng(0)
    mask, values = rng.random((7, 9)) > 0.5, rng.random((16, 8)).astype(np.float32)
    labels = rng.integers(0, 3, (5, 4)).astype(np.uint8)
    assert np.array_equal(PackedMap.of_mask(mask).levels(), mask)
    assert np.array_equal(PackedMap.of_labels(labels[:, ::2]).levels(), labels[:, ::2])
    assert np.abs(PackedMap.of_shares(values).levels() / 255 - values).max() <= 0.5 / 255 + 1e-6
    for nothing in (PackedMap((3, 2)), PackedMap.of_mask(np.zeros((3, 2), bool))):
        assert nothing.data is None
        assert np.array_equal(nothing.levels(), np.zeros((3, 2), np.uint8))


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_many_studies_with_bad_ones_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(write_lite(tmp_path))
    study = small_phantom()
    for i in range(2):
        write_ct_series(tmp_path / "in" / f"s{i}", study.hu, study.spacing, study.origin, key=str(i))
    write_ct_series(tmp_path / "in" / "gap", study.hu, study.spacing, study.origin, key="gap")
    for number in (9, 10, 11):
        (tmp_path / "in" / "gap" / f"ct_{number:03d}.dcm").unlink()
    words = ["diagnose", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m", weights, "--no-html"]
    assert run(words) == 1  # some case failed, the others are written
    said = capsys.readouterr().err
    assert said.count("jcs: error:") == 1
    folders = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir() and not p.name.startswith("."))
    assert len(folders) == 2
    assert all(name.startswith("study-") for name in folders)
    rows = (tmp_path / "out" / "summary.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["failed", "done", "done"]
    assert run(words) == 2  # nothing is overwritten without being asked
    assert "use --overwrite, --resume" in capsys.readouterr().err
    before = {name: (tmp_path / "out" / name / "report.json").stat().st_mtime_ns for name in folders}
    debris = tmp_path / "out" / f".{folders[0]}.999.part"
    debris.mkdir()
    __import__("shutil").rmtree(tmp_path / "out" / folders[1])
    assert run([*words, "--resume"]) == 1
    said = capsys.readouterr().err
    assert "1 half-written studies" in said
    assert "(finished before)" in said
    assert not debris.exists()
    assert (tmp_path / "out" / folders[0] / "report.json").stat().st_mtime_ns == before[folders[0]]
    assert (tmp_path / "out" / folders[1] / "report.json").exists()
    assert run([*words, "--resume", "--rule", "fraction"]) == 1
    assert capsys.readouterr().err.count("was made with another patient rule, so it is made again") == 2
    assert run([*words, "--resume", "--overwrite"]) == 2


PLANTED = {
    "PatientName": "Zyzzyva^Quilla",
    "PatientID": "ID-773311",
    "PatientBirthDate": "19310417",
    "AccessionNumber": "ACC-553917",
    "InstitutionName": "Hospital Fjordholm",
    "ReferringPhysicianName": "Wexelbat^Orla",
    "StudyDescription": "Zyzzyva follow-up",
}


@pytest.mark.usefixtures("marking")
def test_nothing_names_the_patient_but_seg_and_sr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pydicom import dcmread

    study = small_phantom()
    hu, _ = marked_volume(study)
    for path in write_ct_series(tmp_path / "ct", hu, study.spacing, study.origin):
        header = dcmread(path)
        for keyword, value in PLANTED.items():
            setattr(header, keyword, value)
        header.save_as(path)
    weights = str(write_lite(tmp_path))
    assert run(["diagnose", str(tmp_path / "ct"), "-o", str(tmp_path / "out"), "-m", weights, "--verbose"]) == 0
    said = capsys.readouterr()
    words = [
        w for value in PLANTED.values() for w in value.replace("^", " ").split() if len(w) > 3 and w != "follow-up"
    ]
    text = said.out + said.err
    for path in (tmp_path / "out").rglob("*"):
        text += path.name
        if path.suffix in {".json", ".html", ".csv"}:
            text += path.read_text(encoding="utf-8")
        if path.suffix == ".gz":
            text += str(nibabel.load(path).header)
    assert [w for w in words if w in text] == []
    for name in ("seg.dcm", "sr.dcm"):
        path = next((tmp_path / "out").rglob(name))
        assert str(dcmread(path, stop_before_pixels=True).PatientID) == PLANTED["PatientID"]
    kept = str(tmp_path / "kept")
    assert run(["diagnose", str(tmp_path / "ct"), "-o", kept, "-m", weights, "--no-html", "--keep-identity"]) == 0
    assert (tmp_path / "kept" / "ID-773311" / "report.json").exists()
    assert "Zyzzyva" in (tmp_path / "kept" / "ID-773311" / "report.json").read_text()


@pytest.mark.usefixtures("marking")
def test_slices_that_go_through_the_network_together_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_permuted(tmp_path / "ct.nii.gz", (2, 1, 0), (False, False, False))
    one = look(tmp_path / "ct.nii.gz")
    monkeypatch.setattr(BAND, "batch", 5)
    five = look(tmp_path / "ct.nii.gz")
    assert np.array_equal(one.lesion, five.lesion)
    assert np.array_equal(one.study.attention, five.study.attention)
    for result in (one, five):
        assert set(result.study.clock.seconds) == {"read", "lungs", "network", "measure", "pictures"}
        result.report.pop("seconds")
    assert one.report == five.report


def test_lite_screens_for_a_segmenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probability and attention are those of jcs-lite, lesions the segmenter's, where the verdict is positive."""
    write_permuted(tmp_path / "ct.nii.gz", (2, 1, 0), (False, False, False))
    case, segmenter = one_case(tmp_path / "ct.nii.gz"), BandNetwork()
    segmenter.spec, segmenter.card = model_spec("jcs-single"), card_for("jcs-single")
    networks: Any = Networks(BAND, segmenter)  # type: ignore[arg-type]
    monkeypatch.setattr(apply, "screen_slice", mark_screened)
    sought = []

    def everywhere(image: Any, network: Any) -> Any:
        assert network is segmenter
        sought.append(image.name)
        return np.ones(image.pixels.shape[:2], np.float32)

    monkeypatch.setattr(apply, "segment", everywhere)
    settings = Settings(segment="positive", frames=False)
    negative = examine_case(case, networks, settings, Count(more_than=18))
    assert not sought
    assert negative.report["burden"] is None
    assert negative.study.attention.any()
    positive = examine_case(case, networks, settings, Count(more_than=2))
    assert len(sought) == sum(s.probability is not None for s in positive.slices)
    assert positive.report["segmenter"]["architecture"] == "jcs-single"
    assert positive.report["burden"]["share"] > 0.9
    assert np.array_equal(positive.study.attention, negative.study.attention)
    check(positive.report)

    running, most = [0], [0]

    def slowly(image: Any, network: Any) -> Any:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02 if len(sought) % 2 else 0.05)
        running[0] -= 1
        return everywhere(image, network)

    monkeypatch.setattr(apply, "segment", slowly)
    monkeypatch.setattr(segmenter, "concurrent_calls", lambda slices: nullcontext(min(slices, 2)))
    together = examine_case(case, networks, settings, Count(more_than=2))
    assert most[0] == 2, "two slices at once"
    assert np.array_equal(together.lesion, positive.lesion)
    for result in (positive, together):
        result.report.pop("seconds")
    assert together.report == positive.report
