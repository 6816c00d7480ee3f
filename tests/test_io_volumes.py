"""MetaImage and NRRD: every orientation, every layout, and a true reason for whatever is refused."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.kinds import Kind, sniff
from jcs_ct.io.files.sources import Source, find_sources
from jcs_ct.io.nifti.volume import read_nifti
from jcs_ct.io.studies import find_series
from jcs_ct.io.volumes.metaimage import read_metaimage
from jcs_ct.io.volumes.nrrd import read_nrrd
from test_io_nifti import AFFINE, canonical, chest, image, volume
from volumes_help import write_metaimage, write_nifti, write_nrrd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

nib: Any = nibabel
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
WRITE: dict[str, Callable[..., Path]] = {
    "mha": write_metaimage,
    "mhd": write_metaimage,
    "nrrd": write_nrrd,
    "nhdr": write_nrrd,
}


def read(path: Path) -> Any:
    source = Source("name", str(path), path, None, Kind.NRRD if path.suffix in {".nrrd", ".nhdr"} else Kind.METAIMAGE)
    return (read_nrrd if source.kind is Kind.NRRD else read_metaimage)(source)


def write(path: Path, **options: Any) -> Path:
    return WRITE[path.suffix[1:]](path, options.pop("values", chest()), options.pop("lps", LPS @ AFFINE), **options)


@pytest.mark.parametrize("form", ["mha", "nrrd"])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation(order: tuple[int, int, int], signs: tuple[int, int, int], form: str, tmp_path: Path) -> None:
    """A marker ends where nibabel says that it lies, and a result on the grid of the file."""
    turned = image().as_reoriented(np.array(list(zip(order, signs, strict=True))))
    stored = np.asarray(turned.dataobj)
    series = read(write(tmp_path / f"ct.{form}", values=stored, lps=LPS @ turned.affine))
    assert series.facts["stored axes"] == "".join(nib.aff2axcodes(turned.affine))
    found = volume(series)
    assert np.array_equal(found, canonical(np.asarray(nib.as_closest_canonical(turned).dataobj)))
    assert series.geometry.shape == found.shape == (22, 34, 44)
    assert series.geometry.spacing == pytest.approx((2.5, 1.1, 0.9))

    marker = found > 1000
    place = ndimage.center_of_mass(marker)
    assert place[2] > 22 > 17 > place[1]  # the image's right half is the patient's left; rows run to the back
    world = series.geometry.affine @ [*place, 1]
    expected = nib.affines.apply_affine(turned.affine, ndimage.center_of_mass(stored > 1000))
    assert world[:3] == pytest.approx(expected * [-1, -1, 1], abs=1e-4)

    write_nifti(tmp_path / "mask.nii.gz", marker.astype(np.uint8), series)
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), stored > 1000)
    assert mask.affine == pytest.approx(turned.affine, abs=1e-4)


@pytest.mark.parametrize("form", WRITE)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("big", [False, True])
def test_every_layout_gives_the_volume_of_the_nifti_file(
    form: str, packed: bool, kind: str, big: bool, tmp_path: Path
) -> None:
    nib.save(image(), tmp_path / "ct.nii")
    expected = read_nifti(Source("ct", "ct", tmp_path / "ct.nii", None, Kind.NIFTI))
    options: dict[str, Any] = (
        {"packed": packed} if form in {"mha", "mhd"} else {"encoding": "gzip" if packed else "raw"}
    )
    path = write(tmp_path / f"a.{form}", values=chest().astype(kind), lps=LPS @ image().affine, big=big, **options)
    series = read(path)
    assert np.array_equal(volume(series), volume(expected))
    assert series.geometry.affine == pytest.approx(expected.geometry.affine, abs=1e-5)
    assert series.facts["format"] == f"{'MetaImage' if form in {'mha', 'mhd'} else 'NRRD'}, {np.dtype(kind).name}"
    assert series.name == "a"
    assert len(series.sources) == (2 if form in {"mhd", "nhdr"} else 1)
    assert "Planted" not in repr(series)


def test_headers_of_other_programs(tmp_path: Path) -> None:
    expected = volume(read(write(tmp_path / "a.mha")))
    older = {"Offset": None, "Position": "20 18 100", "TransformMatrix": None, "Rotation": "-1 0 0 0 -1 0 0 0 1"}
    older |= {"ElementSpacing": None, "ElementSize": "0.9 1.1 2.5", "AnatomicalOrientation": "LPI", "Comment": "x"}
    series = read(write(tmp_path / "b.mha", change=older))
    assert np.array_equal(volume(series), expected)
    assert series.geometry.affine == pytest.approx(read(tmp_path / "a.mha").geometry.affine)
    lined = write(tmp_path / "c.mhd", change={"HeaderSize": "-1"}, before=b"anything")
    lined.write_bytes(lined.read_bytes().replace(b"\n", b"\r\n"))
    assert np.array_equal(volume(read(lined)), expected)
    assert np.array_equal(
        volume(read(write(tmp_path / "d.mhd", change={"HeaderSize": "5"}, before=b"12345"))), expected
    )
    assert np.array_equal(
        volume(read(write(tmp_path / "e.nrrd", encoding="raw", before=b"abc", change={"byte skip": "3"}))), expected
    )
    assert np.array_equal(
        volume(read(write(tmp_path / "f.nhdr", encoding="raw", before=b"abc", change={"byte skip": "-1"}))), expected
    )
    for space in ("right-anterior-superior", "LAS"):
        series = read(write(tmp_path / "g.nrrd", space=space))
        assert np.array_equal(volume(series), expected)
        assert series.geometry.affine == pytest.approx(read(tmp_path / "a.mha").geometry.affine)
    assert np.array_equal(volume(read(write(tmp_path / "h.nrrd", change={"space units": '"mm" "mm" "mm"'}))), expected)


def test_a_matrix_that_is_missing_or_contradicted_is_told(tmp_path: Path) -> None:
    spaced = {"TransformMatrix": None}
    series = read(write(tmp_path / "a.mha", change=spaced))
    assert any("has no TransformMatrix: columns are taken to run to the left" in line for line in series.warnings)
    assert np.array_equal(volume(series), chest().transpose(2, 1, 0)[::-1])
    series = read(write(tmp_path / "b.mha", change={"AnatomicalOrientation": "RPI"}))
    assert any("AnatomicalOrientation says RPI, which TransformMatrix contradicts" in line for line in series.warnings)
    for fine in ("RAS", "LPI", "???"):  # where the axes go to, or come from
        series = read(write(tmp_path / "c.mha", change={"AnatomicalOrientation": fine}))
        assert not any("Anatomical" in line for line in series.warnings)


def turned_by(degrees: float) -> NDArray[np.float64]:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(turn @ LPS @ AFFINE)


LABELS = (chest() > 0).astype(np.int16)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "object": ("mha", {"change": {"ObjectType": "Mesh"}}, "holds no image but another object"),
    "text": ("mha", {"change": {"BinaryData": "False"}}, "holds its values as text"),
    "channels": ("mha", {"change": {"ElementNumberOfChannels": "3"}}, "several values a voxel"),
    "scaled": ("mha", {"change": {"ElementToIntensityFunctionSlope": "2"}}, "scales its values"),
    "type": ("mha", {"change": {"ElementType": "MET_STRING"}}, "type MET_STRING, whole or real numbers"),
    "strange type": ("mha", {"change": {"ElementType": "Planted"}}, "of another format"),
    "no spacing": ("mha", {"change": {"ElementSpacing": None}}, "does not say how large its voxels are"),
    "spacing 0": ("mha", {"change": {"ElementSpacing": "0.9 1.1 0"}}, "without an extent"),
    "spacing of 2": ("mha", {"change": {"ElementSpacing": "0.9 1.1"}}, "ElementSpacing that is not 3 numbers"),
    "huge voxels": ("mha", {"change": {"ElementSpacing": "90 110 250"}}, "impossible orientation: voxels of 90 × 110"),
    "NaN": ("mha", {"change": {"Offset": "nan 0 0"}}, "Offset that is not 3 numbers"),
    "no unit vectors": ("mha", {"change": {"TransformMatrix": "2 0 0 0 2 0 0 0 2"}}, "are not unit vectors"),
    "flat": ("mha", {"change": {"TransformMatrix": "1 0 0 1 0 0 0 0 1"}}, "impossible orientation: the axes"),
    "oblique": ("mha", {"lps": turned_by(40)}, "is 40° oblique"),
    "dimensions": ("mha", {"change": {"NDims": "2"}}, "does not say NDims and DimSize alike"),
    "two dimensions": ("mha", {"change": {"NDims": "2", "DimSize": "44 34"}}, "has 2 dimensions"),
    "two volumes": ("mha", {"change": {"NDims": "4", "DimSize": "44 34 11 2"}}, "holds 2 volumes"),
    "words": ("mha", {"change": {"DimSize": "44 34 many"}}, "DimSize that is not a whole number"),
    "too many": ("mha", {"change": {"DimSize": "44000 34000 22"}}, "voxels, 1 to"),
    "nothing": ("mha", {"change": {"DimSize": "44 34 0"}}, "claims to hold 44 × 34 × 0 voxels"),
    "slices": ("mhd", {"change": {"ElementDataFile": "LIST"}}, "lists a file for each slice"),
    "pattern": ("mhd", {"change": {"ElementDataFile": "ct%03d.raw 1 22 1"}}, "lists a file for each slice"),
    "absolute": ("mhd", {"change": {"ElementDataFile": "/etc/passwd"}}, "does not lie beside it"),
    "up": ("mhd", {"change": {"ElementDataFile": "../ct.raw"}}, "does not lie beside it"),
    "windows": ("mhd", {"change": {"ElementDataFile": "C:\\ct.raw"}}, "does not lie beside it"),
    "missing": ("mhd", {"change": {"ElementDataFile": "other.raw"}}, "lacks its values: other.raw is not beside it"),
    "no file": ("mhd", {"change": {"ElementDataFile": ""}}, "does not say where its values are"),
    "labels": ("mha", {"values": LABELS}, "has 2 distinct values from 0 to 1, as a mask"),
    "damaged": ("mha", {"packed": True, "before": b"\0\0"}, "is a damaged MetaImage file: it cannot be unpacked"),
    "truncated": ("mha", {"change": {"DimSize": "44 34 23"}}, "is a damaged MetaImage file: it has"),
    "packed and short": ("mha", {"packed": True, "change": {"DimSize": "44 34 23"}}, "it ends in slice 23 of 23"),
    "no space": (
        "nrrd",
        {"change": {"space": None, "space dimension": "3"}},
        "does not say how it lies in the patient",
    ),
    "scanner": ("nrrd", {"change": {"space": "scanner-xyz"}}, "does not say how it lies in the patient"),
    "no directions": ("nrrd", {"change": {"space directions": None}}, "does not say how it lies in the patient"),
    "inches": ("nrrd", {"change": {"space units": '"inch" "inch" "inch"'}}, "another unit of length"),
    "block": ("nrrd", {"change": {"type": "block"}}, "whose type is neither a whole nor a real number"),
    "no order": ("nrrd", {"change": {"endian": None}}, "in which order its bytes are"),
    "hex": ("nrrd", {"encoding": "raw", "change": {"encoding": "hex"}}, "in the encoding hex"),
    "list": ("nhdr", {"change": {"data file": "LIST"}}, "lists a file for each slice"),
    "nrrd up": ("nhdr", {"change": {"data file": "../../a.raw"}}, "does not lie beside it"),
    "sizes": ("nrrd", {"change": {"sizes": "44 34"}}, "does not say dimension and sizes alike"),
    "nrrd header": ("nrrd", {"change": {"sizes": "many"}}, "its header cannot be understood"),
    "nrrd twice": ("nrrd", {"change": {"Space": "LPS"}}, "its header cannot be understood"),
    "line skip": ("nrrd", {"change": {"line skip": "1"}}, "skips lines"),
    "byte skip": ("nrrd", {"change": {"byte skip": "4"}}, "skips bytes of packed values"),
    "nrrd short": ("nrrd", {"encoding": "raw", "change": {"sizes": "44 34 23"}}, "is a damaged NRRD file: it has"),
    "nrrd labels": ("nrrd", {"values": LABELS}, "as a mask or a label map"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_true_reason(case: str, tmp_path: Path) -> None:
    form, options, text = REFUSED[case]
    path = write(tmp_path / f"ct.{form}", **options)
    with pytest.raises(InputError, match=text.replace("(", r"\(")) as caught:
        read(path)
    line = caught.value.line()
    assert f"read as {'NRRD' if form in {'nrrd', 'nhdr'} else 'MetaImage'}, it " in line
    assert line.endswith("convert it to NIfTI)")
    assert "Planted" not in line
    assert "\n" not in line


@pytest.mark.parametrize("form", WRITE)
def test_cut_anywhere_is_refused(form: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"ct.{form}")
    whole = path.read_bytes()
    for size in (40, 200, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        if form in {"mhd", "nhdr"} and size > 200:
            continue  # the header without its end may still say all
        with pytest.raises(InputError):
            read(path)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    air = np.full((512, 512, 300), -1000, np.int16)
    path = write(
        tmp_path / "ct.mha", values=air[:, :, :1].repeat(60, axis=2), packed=True, change={"DimSize": "512 512 300"}
    )
    with pytest.raises(InputError, match="more than 200 times its size"):
        read(path)


def test_found_in_folders_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.mha", "b.mhd", "c.nrrd", "deep/d.nhdr"):
        write(folder / name)
    nib.save(nib.Nifti1Pair(chest(), image().affine), folder / "e.img")
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.*"):
            file.write(path, path.relative_to(folder))
    expected = volume(find_series([folder / "a.mha"]).series[0])
    for where in (folder, archive):
        found = find_series([where])
        assert not found.problems
        assert not found.notes  # nothing is said of the files that hold the values
        assert [series.name for series in found.series] == ["a", "b", "c", "d", "e"]
        assert [row.kind for row in found.rows] == ["metaimage", "metaimage", "nrrd", "nrrd", "nifti"]
        for series in found.series:
            assert np.array_equal(volume(series), expected)


@pytest.mark.parametrize(("name", "values"), [("b.mhd", "b.raw"), ("d.nhdr", "d.raw.gz")])
def test_the_file_of_values_leads_to_its_header(name: str, values: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    (series,) = find_series([tmp_path / values]).series
    assert series.label == str(tmp_path / name)
    (problem,) = find_sources([tmp_path / values]).problems  # slices are wanted there
    assert "slices as PNG" in problem.line()


def test_analyze_is_named(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(chest(), image().affine), tmp_path / "old.img")
    for given in (tmp_path / "old.hdr", tmp_path / "old.img", tmp_path):
        (problem,) = find_series([given]).problems
        assert problem.path == str(tmp_path / "old.hdr")
        assert "is an Analyze 7.5 volume, which does not say how it lies in the patient" in problem.line()
    write(tmp_path / "a.mha")  # nor is it passed over where something else is read
    found = find_series([tmp_path])
    assert len(found.series) == len(found.problems) == 1


def test_a_packed_pair_is_found_by_either_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(chest(), image().affine), tmp_path / "p.hdr.gz")
    expected = volume(find_series([tmp_path / "p.hdr.gz"]).series[0])
    assert np.array_equal(volume(find_series([tmp_path / "p.img.gz"]).series[0]), expected)


def test_what_is_packed_otherwise_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.mha.gz").write_bytes(gzip.compress(write(tmp_path / "a.mha").read_bytes()))
    (problem,) = find_series([tmp_path / "a.mha.gz"]).problems
    assert problem.line().startswith(f"{tmp_path / 'a.mha.gz'}: is a gzip file; ")
    assert problem.hint == "unpack it"
    inner = tmp_path / "inner"
    inner.mkdir()
    with tarfile.open(tmp_path / "b.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "a.mha", "a.mha")
    with zipfile.ZipFile(inner / "c.zip", "w") as packed:
        packed.write(tmp_path / "a.mha", "a.mha")
    (problem,) = find_series([tmp_path / "b.tar.xz"]).problems
    assert problem.hint == "unpack it and give the folder, or pack it as zip or tar.gz"
    (problem,) = find_series([inner]).problems
    assert "only 1 other file (1 ZIP): c.zip" in problem.message
    assert problem.hint == "give it as an input itself"


@pytest.mark.parametrize(
    "text",
    [
        "ObjectType = Image\nNDims = 3\n",
        "NDims=3\nDimSize = 1 2 3\n",
        "Comment = é\r\nObjectType = Image\r\nNDims = 3\r\n",
    ],
)
def test_told_from_the_head(text: str) -> None:
    assert sniff(text.encode() + bytes(9)) is Kind.METAIMAGE


@pytest.mark.parametrize("text", ["Name = value\nother = 3\n", "NDims of it\n", "ObjectType: Image\n", "ID = 4\n"])
def test_other_texts_are_none(text: str) -> None:
    assert sniff(text.encode()) is Kind.TEXT
