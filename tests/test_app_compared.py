"""`--resume` compares all that a result depends on: options, fields of cards, bytes of inputs, how they are read."""

from __future__ import annotations

import inspect
import os
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

import jcs_ct
from jcs_ct.app.compared import changed_input, changed_settings, made_with
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import identify
from jcs_ct.app.resume_index import files_now, record_files, untouched_cases
from jcs_ct.cli.diagnose import diagnose
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import write_pngs
from jcs_ct.study.settings import Networks, Settings, cards_fit, fits_of, rule_fit
from jcs_ct.weights.card import DESCRIBE, WeightsCard
from study_help import BandNetwork, small_phantom
from weights_help import card_for

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.study.case import Case

WITH_NETWORKS = {"model", "rule", "segment", "language", "pdf"}  # in `made_with`
READING = {"series", "allow_gaps", "drop_odd", "keep_identity"}  # in `changed_input`
NOT_COMPARED = {
    "inputs": "what is looked for; the input is compared by its bytes",
    "target": "where results are looked for",
    "no_html": "changes no number; --overwrite writes the report",
    "resume": "asks for the comparison",
    "overwrite": "keeps nothing",
    "part": "says which studies",
    "part_by": "says which studies",
    "engine": "says where",
    "address": "says where",
    "workers": "says where",
    "device": "a runtime must pass the parity check wherever it runs",
    "runtime": "as device",
    "threads": "changes no number",
    "quiet": "says how much is printed",
    "verbose": "says how much is printed",
    "as_json": "says how it is printed",
}
TWIN_ONLY = {
    "study": "what is looked at",
    "spacing": "of an array, of which nothing can be resumed",
    "affine": "as spacing",
    "progress": "tells how far it is",
    "self": "",
}


def test_every_option_is_compared_or_said_not_to_be() -> None:
    known = WITH_NETWORKS | READING | set(NOT_COMPARED)
    assert {option.name for option in diagnose.params} == known
    twins = (jcs_ct.diagnose, jcs_ct.Diagnoser.__init__, jcs_ct.Diagnoser.__call__)
    given = {name for twin in twins for name in inspect.signature(twin).parameters}
    assert given <= known | TWIN_ONLY.keys()
    assert set(inspect.signature(gather).parameters) == READING | {"inputs", "known"}
    assert {one.name for one in fields(Settings)} == {"frames"} | (WITH_NETWORKS - {"model"})  # as no_html


OTHERS: dict[str, Any] = {
    "architecture": "jcs-joint", "weights_sha256": 64 * "b", "recipe": "other", "classes": ("a", "b"),
    "threshold": 0.31, "bn_eps_folded": 0.5, "temperature": 1.5, "covid_threshold": 0.41, "mirror": True,
    "patient": (1.0, 2.0), "whole_study": {"slope": 3.0},
}  # fmt: skip


def test_every_field_of_a_card_is_compared_unless_it_only_describes() -> None:
    card = card_for("jcs-lite", covid_threshold=0.5)
    assert {one.name for one in fields(WeightsCard)} == OTHERS.keys() | DESCRIBE
    for name, value in OTHERS.items():
        assert replace(card, **{name: value}).fit() != card.fit(), name
    other: dict[str, Any] = dict.fromkeys(DESCRIBE, "another")
    assert replace(card, **other).fit() == card.fit()


def networks(**card: Any) -> Networks:
    band: Any = BandNetwork()
    band.card = replace(band.card, **card)
    band.threshold = card.get("threshold", band.threshold)
    return Networks(band, band)


def report_of(given: Networks) -> dict[str, Any]:
    """Return what `report.json` says of networks."""
    card = given.screen.card
    model = {"weights_sha256": card.weights_sha256, "covid_threshold": given.screen.covid_threshold}
    model |= {"temperature": card.temperature, "lesion_threshold": given.screen.threshold}
    settings = {"rule": "whole-study", "rule_fit": rule_fit(card), "segment": "always", "language": "en"}
    settings["cards_fit"] = cards_fit(fits_of(given.screen))
    return {"model": model, "settings": settings, "jcs_ct_version": made_with(given, Settings())["version"]}


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({}, []),
        ({"threshold": 0.31}, ["threshold of lesions"]),
        ({"temperature": 1.5}, ["temperature"]),
        ({"patient": (1.0, 2.0)}, ["fit of the patient rule"]),
        ({"mirror": True}, ["card of the weights"]),
        ({"weights_sha256": 64 * "b", "temperature": 1.5}, ["weights"]),
    ],
)
def test_what_a_card_says_is_compared(card: dict[str, Any], said: list[str]) -> None:
    assert changed_settings(report_of(networks()), networks(**card), Settings()) == said


@pytest.mark.parametrize("other", [{"rule": "fraction"}, {"segment": "never"}, {"language": "de"}, {"pdf": True}])
def test_settings_are_compared(other: dict[str, Any]) -> None:
    (said,) = changed_settings(report_of(networks()), networks(), replace(Settings(), **other))
    assert said in {"patient rule", "choice of lesions", "language", "choice of files"}


def test_a_member_of_an_ensemble_with_another_temperature_is_another_card() -> None:
    cards = card_for("jcs-lite"), card_for("jcs-lite")
    band: Any = BandNetwork()
    fits = fits_of(band)
    both = type("Both", (), {"cards": cards})()
    warm = type("Both", (), {"cards": (cards[0], replace(cards[1], temperature=2.0))})()
    assert len({cards_fit(fits_of(both)), cards_fit(fits_of(warm)), cards_fit(fits)}) == 3


# --- inputs, and how they are read -----------------------------------------------------------------------------------

AS_USUAL: dict[str, Any] = {"series": None, "allow_gaps": False, "drop_odd": False, "keep_identity": False}


def only(path: Path, **ways: Any) -> Case:
    (case,) = gather([str(path)], **ways).cases
    return case


def overwrite(path: Path, content: bytes) -> None:
    """Write other bytes of the same number into a file, and give it its old times, as `cp -p` would."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    phantom, folder = small_phantom(), tmp_path_factory.mktemp("chest")
    paths = write_ct_series(folder, phantom.hu, phantom.spacing, phantom.origin, key="1")
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def series(chest: dict[str, bytes], tmp_path: Path) -> Path:
    (tmp_path / "ct").mkdir()
    for name, content in chest.items():
        (tmp_path / "ct" / name).write_bytes(content)
    return tmp_path / "ct"


def test_a_header_value_counts_where_uids_pixels_size_and_times_are_the_same(series: Path) -> None:
    recorded = identify(only(series), AS_USUAL).to_dict()
    assert changed_input(recorded, only(series), AS_USUAL) == []
    path = next(series.iterdir())
    header, before = dcmread(path), path.read_bytes()
    header.RescaleIntercept = str(int(header.RescaleIntercept) + 1)
    header.save_as(path.with_name("other"))
    after = path.with_name("other").read_bytes()
    path.with_name("other").unlink()
    overwrite(path, after)
    assert changed_input(recorded, only(series), AS_USUAL) == ["input"]
    overwrite(path, before)
    assert changed_input(recorded, only(series), AS_USUAL) == []


def test_options_of_reading_count_where_they_change_what_is_read(series: Path) -> None:
    recorded = identify(only(series), AS_USUAL).to_dict()
    for option in ({"allow_gaps": True}, {"drop_odd": True}, {"series": str(only(series).series.number)}):  # type: ignore[union-attr]
        now = AS_USUAL | option
        assert changed_input(recorded, only(series, **option), now) == [], option
    assert changed_input(recorded, only(series), AS_USUAL | {"keep_identity": True}) == ["way of reading"]
    assert changed_input(recorded, only(series), AS_USUAL | {"made up": 1}) == ["way of reading"]
    assert changed_input(recorded | {"as_read": "another grid"}, only(series), AS_USUAL) == ["way of reading"]
    assert changed_input(recorded, None, AS_USUAL) == ["input"]


def test_a_case_that_was_read_otherwise_is_read_again(series: Path, tmp_path: Path) -> None:
    case, out = only(series), tmp_path / "out"
    report: dict[str, Any] = {"source": identify(case, AS_USUAL).to_dict(), "input": {"slices": 24}}
    record_files(out, case, report, files_now(case), AS_USUAL)

    def again(**options: Any) -> int:
        return len(list(untouched_cases(out, lambda _: report, AS_USUAL | options)))

    assert [again(), again(series="2"), again(allow_gaps=True), again(drop_odd=True)] == [1, 0, 0, 0]
    assert len(list(untouched_cases(out, lambda _: report))) == 1


def test_with_another_key_new_files_of_a_study_would_not_be_known(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, out = only(series), tmp_path / "out"
    report: dict[str, Any] = {"source": identify(case).to_dict(), "input": {"slices": 24}}
    record_files(out, case, report, files_now(case), {})
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "elsewhere"))
    assert list(untouched_cases(out, lambda _: report, {})) == []


def test_files_that_changed_while_they_were_read_are_not_noted(series: Path, tmp_path: Path) -> None:
    case, out = only(series), tmp_path / "out"
    report: dict[str, Any] = {"source": identify(case).to_dict(), "input": {"slices": 24}}
    before = files_now(case)
    next(series.iterdir()).touch()
    record_files(out, case, report, before, {})
    assert not (out / ".inputs").exists()


def write_pair(folder: Path, form: str, hu: np.ndarray[Any, Any], mm: tuple[float, ...]) -> tuple[Path, Path]:
    """Write a header and a file of values; return both."""
    library: Any = nibabel
    if form == "hdr":
        library.save(library.Nifti1Pair(hu, np.diag([*mm, 1.0])), folder / "chest.img")
        return folder / "chest.hdr", folder / "chest.img"
    words = {"ObjectType": "Image", "NDims": "3", "DimSize": " ".join(map(str, hu.shape)), "ElementType": "MET_SHORT"}
    words |= {"ElementSpacing": " ".join(map(str, mm)), "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0"}
    words["ElementDataFile"] = "chest.raw"
    (folder / "chest.mhd").write_text("".join(f"{name} = {value}\n" for name, value in words.items()))
    (folder / "chest.raw").write_bytes(hu.tobytes(order="F"))
    return folder / "chest.mhd", folder / "chest.raw"


@pytest.mark.parametrize("form", ["hdr", "mhd"])
def test_both_files_of_a_pair_count(form: str, tmp_path: Path) -> None:
    phantom = small_phantom()
    hu = np.ascontiguousarray(phantom.hu.transpose(2, 1, 0))
    header, values = write_pair(tmp_path, form, hu, phantom.spacing[::-1])
    recorded = identify(only(tmp_path), AS_USUAL).to_dict()
    assert (recorded["files"], recorded["path"]) == (2, str(header))
    for path in (header, values):
        before = path.read_bytes()
        spacing = before.replace(b"2.796875", b"2.796876") if form == "mhd" else before[:80] + b"\1" + before[81:]
        overwrite(path, spacing if path == header else before[:-1] + b"\7")
        assert changed_input(recorded, only(tmp_path), AS_USUAL) == ["input"], path
        overwrite(path, before)
    assert changed_input(recorded, only(tmp_path), AS_USUAL) == []


def test_pictures_in_the_order_of_another_list_are_another_study(tmp_path: Path) -> None:
    write_pngs(small_phantom(slices=3, size=64), tmp_path / "chest")
    names = sorted(path.name for path in (tmp_path / "chest").glob("*.png"))
    listed = tmp_path / "chest.txt"
    listed.write_text("\n".join(f"chest/{name}" for name in names))
    recorded = identify(only(listed), AS_USUAL).to_dict()
    assert changed_input(recorded, only(listed), AS_USUAL) == []
    listed.write_text("\n".join(f"chest/{name}" for name in names[::-1]))
    assert changed_input(recorded, only(listed), AS_USUAL) == ["input"]
