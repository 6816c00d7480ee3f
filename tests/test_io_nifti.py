"""NIfTI in and out: every orientation against nibabel, every odd header, and all that is refused."""

from __future__ import annotations

import contextlib
import gzip
import struct
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.core.geometry import Axes, CTSeries, Geometry
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source
from jcs_ct.io.nifti import values as nifti_values
from jcs_ct.io.nifti import write as nifti_write
from jcs_ct.io.nifti.volume import read_nifti
from jcs_ct.io.nifti.write import write_nifti_slices
from volumes_help import write_nifti

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

nib: Any = nibabel
AFFINE = np.array([[0.9, 0, 0, -20], [0, 1.1, 0, -18], [0, 0, 2.5, 100], [0, 0, 0, 1.0]])  # RAS
ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@lru_cache(maxsize=1)
def chest() -> NDArray[np.int16]:
    """Return x × y × z to the right, front and head: air, a body, two lungs and, in one of them, a bright marker."""
    x, y, z = np.mgrid[0:44, 0:34, 0:22]
    hu = np.full(x.shape, -980, np.int16)
    hu[((x - 22) / 20) ** 2 + ((y - 16) / 15) ** 2 < 1] = 40
    for middle in (12, 32):
        hu[((x - middle) / 7) ** 2 + ((y - 17) / 9) ** 2 + ((z - 11) / 9) ** 2 < 1] = -850
    hu += np.rint(np.random.default_rng(0).normal(0, 15, hu.shape)).clip(-40, 40).astype(np.int16)
    hu[9:13, 20:23, 14:16] = 1500  # the patient's left, since x = 9 lies left of the middle in "R+"
    return hu


def image(hu: NDArray[Any] | None = None, affine: NDArray[Any] = AFFINE, kind: Any = None) -> Any:
    made = (kind or nib.Nifti1Image)(chest() if hu is None else hu, affine)
    made.set_qform(affine, 1)
    made.set_sform(affine, 1)
    return made


def source(path: Path, member: str | None = None) -> Source:
    return Source("name", str(path) if member is None else f"{path}!{member}", path, member, Kind.NIFTI)


def saved(made: Any, path: Path) -> Source:
    nib.save(made, path)
    return source(path)


def volume(series: CTSeries) -> NDArray[np.int16]:
    return np.stack([series.read(index) for index in range(len(series))])


def canonical(ras: NDArray[Any]) -> NDArray[Any]:
    """Return an array that counts up to the right, front and head as (slice, row, column) of this package."""
    return ras.transpose(2, 1, 0)[::-1, ::-1, ::-1]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation(order: tuple[int, int, int], signs: tuple[int, int, int], tmp_path: Path) -> None:
    turned = image().as_reoriented(np.array(list(zip(order, signs, strict=True))))
    packed = signs[0] * signs[1] > 0
    series = read_nifti(saved(turned, tmp_path / ("ct.nii.gz" if packed else "ct.nii")))
    closest = nib.as_closest_canonical(turned)
    assert series.facts["stored axes"] == "".join(nib.aff2axcodes(turned.affine))
    found = volume(series)
    assert np.array_equal(found, canonical(np.asarray(closest.dataobj)))
    assert series.geometry.shape == found.shape == (22, 34, 44)
    assert series.geometry.spacing == pytest.approx((2.5, 1.1, 0.9))

    marker = found > 1000
    place = ndimage.center_of_mass(marker)
    assert place[2] > 22 > 17 > place[1]  # the image's right half is the patient's left; rows run to the back
    world = series.geometry.affine @ [*place, 1]
    stored = np.asarray(turned.dataobj) > 1000
    expected = nib.affines.apply_affine(turned.affine, ndimage.center_of_mass(stored))
    assert world[:3] == pytest.approx(expected * [-1, -1, 1], abs=1e-4)

    write_nifti(tmp_path / "mask.nii.gz", marker.astype(np.uint8), series)
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), stored)
    assert mask.get_data_dtype() == np.uint8
    original = nib.load(series.sources[0].path)
    for name in ("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"):
        assert np.array_equal(mask.header[name], original.header[name])
    assert np.array_equal(mask.header["pixdim"][:4], original.header["pixdim"][:4])
    assert np.array_equal(mask.affine, original.affine)
    ml = np.asarray(mask.dataobj).sum() * np.prod(mask.header.get_zooms()) / 1000
    assert ml == pytest.approx(marker.sum() * series.geometry.voxel_ml)
    assert ml == pytest.approx(4 * 3 * 2 * 0.9 * 1.1 * 2.5 / 1000)


def plain(hu: NDArray[np.int16], dtype: str, slope: float, inter: float, endian: Any = "<", version: int = 1) -> Any:
    header = (nib.Nifti1Header if version == 1 else nib.Nifti2Header)(endianness=endian)
    stored = np.rint((hu - inter) / slope).astype(np.dtype(dtype).newbyteorder(endian))
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(hu.shape)
    header.set_sform(AFFINE, 1)
    header["scl_slope"], header["scl_inter"] = slope, inter
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    gap = bytes(int(header["vox_offset"]) - len(header.binaryblock))
    return header.binaryblock + gap + stored.tobytes(order="F")


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "slope", "inter"),
    [("i2", 1, 0), ("i2", 0, 0), ("i2", 2, 0), ("u2", 1, -1024), ("i4", 0.5, 3), ("f4", 1, 0), ("f8", 1, 0),
     ("i8", 1, 0), ("f4", float("nan"), float("nan"))],
)  # fmt: skip
def test_types_and_scales(dtype: str, slope: float, inter: float, endian: str, tmp_path: Path) -> None:
    used = (slope, inter) if slope == slope and slope != 0 else (1.0, 0.0)
    data = bytearray(plain(chest(), dtype, *used, endian=endian))
    data[112:120] = struct.pack(f"{endian}ff", slope, inter)
    (tmp_path / "ct.nii").write_bytes(data)
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(data))
    expected = canonical(nib.load(tmp_path / "ct.nii").get_fdata())
    for name in ("ct.nii", "ct.nii.gz"):
        found = volume(read_nifti(source(tmp_path / name)))
        assert found.dtype == np.int16
        assert np.abs(found - expected).max() <= 0.5


def test_values_are_clipped(tmp_path: Path) -> None:
    hu = chest().copy()
    hu[0, :5], hu[-1, :5] = -3024, 20000
    for name in ("ct.nii", "ct.nii.gz"):
        found = volume(read_nifti(saved(image(hu), tmp_path / name)))
        assert np.array_equal(found, canonical(hu).clip(-1024, 3071))


def test_version_2_keeps_its_precision(tmp_path: Path) -> None:
    affine = AFFINE + np.eye(4) * [1 / 3, 1 / 7, 1 / 9, 0]
    series = read_nifti(saved(image(affine=affine, kind=nib.Nifti2Image), tmp_path / "ct.nii"))
    write_nifti(tmp_path / "out.nii.gz", np.zeros(series.geometry.shape, np.uint8), series)
    written = nib.load(tmp_path / "out.nii.gz")
    assert isinstance(written, nib.Nifti2Image)
    assert np.array_equal(written.affine, affine)


def test_four_dimensions_with_one_volume(tmp_path: Path) -> None:
    series = read_nifti(saved(image(chest()[..., None]), tmp_path / "ct.nii"))
    assert np.array_equal(volume(series), canonical(chest()))
    write_nifti(tmp_path / "out.nii.gz", volume(series), series)
    assert nib.load(tmp_path / "out.nii.gz").shape == chest().shape


def test_out_of_an_archive(tmp_path: Path) -> None:
    nib.save(image(), tmp_path / "a.nii.gz")
    nib.save(image(), tmp_path / "b.nii")
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.write(tmp_path / "a.nii.gz", "study/A b.NII.GZ")
        file.write(tmp_path / "b.nii", "scan")
    for member, name in (("study/A b.NII.GZ", "A b"), ("scan", "scan")):
        series = read_nifti(source(tmp_path / "all.zip", member))
        assert series.name == name
        assert np.array_equal(volume(series), canonical(chest()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ct.nii.gz", "ct"), ("ct.nii", "ct"), ("a.b.NII.gz", "a.b"), ("con.nii", "_con"), ("x.gz", "x"), ("ct", "ct")],
)  # fmt: skip
def test_names(name: str, expected: str, tmp_path: Path) -> None:
    nib.save(image(), tmp_path / "t.nii.gz")
    data = (tmp_path / "t.nii.gz").read_bytes()
    (tmp_path / name).write_bytes(data if name.endswith("gz") else gzip.decompress(data))
    assert read_nifti(source(tmp_path / name)).name == expected


def test_packing_is_told_from_the_content(tmp_path: Path) -> None:
    nib.save(image(), tmp_path / "t.nii.gz")
    (tmp_path / "t.nii.gz").rename(tmp_path / "t.nii")
    assert np.array_equal(volume(read_nifti(source(tmp_path / "t.nii"))), canonical(chest()))


SECRETS = {"descrip": b"DOE^JANE 1970", "aux_file": b"MRN 4711", "db_name": b"ACC0815", "intent_name": b"Jane Doe"}


def test_free_text_goes_nowhere(tmp_path: Path) -> None:
    made = image()
    for name, text in SECRETS.items():
        made.header[name] = text
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE born 1970"))
    series = read_nifti(saved(made, tmp_path / "ct.nii.gz"))
    write_nifti(tmp_path / "out.nii.gz", volume(series), series)
    written = gzip.decompress((tmp_path / "out.nii.gz").read_bytes())
    told = repr(series).replace(str(tmp_path), "").encode() + repr((series.facts, series.grid)).encode()
    for text in [*SECRETS.values(), b"JANE", b"1970"]:
        assert text not in written
        assert text not in told
    assert np.array_equal(nib.load(tmp_path / "out.nii.gz").get_fdata(), chest())


# What is refused, and what a message says then.


def edited(**fields: Any) -> Any:
    made = image()
    for name, value in fields.items():
        made.header[name] = value
    return made


def turned(degrees: float) -> NDArray[Any]:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(turn @ AFFINE)


def sheared(degrees: float) -> Any:
    affine = AFFINE.copy()
    affine[1, 2] = affine[2, 2] * np.tan(np.radians(degrees))
    made = nib.Nifti1Image(chest(), affine)
    made.set_qform(None, 0)
    return made


def nan() -> NDArray[Any]:
    hu = chest().astype(np.float32)
    hu[:3, 0, 0] = np.nan, np.inf, -np.inf
    return hu


def grey(low: float, high: float) -> NDArray[Any]:
    hu = ndimage.gaussian_filter(chest().astype(np.float32).clip(None, 300), 0.7)
    return np.asarray((hu - hu.min()) / (hu.max() - hu.min()) * (high - low) + low)


REFUSED: dict[str, tuple[Any, str]] = {
    "labels": (lambda: image((chest() > 0).astype(np.uint8) * 3), "has 2 distinct values from 0 to 3, as a mask"),
    "8 bits": (lambda: image(grey(0, 255).astype(np.uint8)), "values from 0 to 255: it was windowed to 8 bits"),
    "unit": (lambda: image(grey(0, 1)), r"values from 0 to 1: it was rescaled to \[0, 1\]"),
    "intercept": (lambda: image((chest() + 1100).astype(np.uint16)), "stored without its intercept, or no CT"),
    "no air": (lambda: image(grey(-300, 900)), "values from -300 to 900, hardly any of air"),
    "no tissue": (lambda: image(grey(-2000, -300)), "hardly any of soft tissue"),
    "nan": (lambda: image(nan()), r"3 of 32,912 values are not numbers \(NaN\) or infinite"),
    "volumes": (lambda: image(np.stack([chest()] * 4, axis=-1)), "holds 4 volumes, one is expected"),
    "flat": (lambda: edited(dim=[2, 44, 34, 1, 1, 1, 1, 1]), "its header cannot be understood: 2 dimensions"),
    "none": (lambda: edited(dim=[3, 44, 0, 22, 1, 1, 1, 1]), "claims to hold 44 × 0 × 22 voxels"),
    "huge": (lambda: edited(dim=[3, 32767, 32767, 9, 1, 1, 1, 1]), "claims to hold 32767 × 32767 × 9 voxels"),
    "more": (lambda: edited(dim=[3, 44, 34, 23, 1, 1, 1, 1]), r"it has 66,176 bytes of 69,168|it ends in slice 23"),
    "lost": (lambda: edited(qform_code=0, sform_code=0), "does not say how it lies in the patient"),
    "type": (lambda: edited(datatype=12345), "its type of values has the unknown code 12345"),
    "complex": (lambda: image(chest().astype(np.complex64)), "holds values of type complex64"),
    "scale": (lambda: edited(scl_slope=1, scl_inter=np.inf), "its values are scaled by 1 and shifted by inf"),
    "unit code": (lambda: edited(xyzt_units=5), "its unit of length has the unknown code 5"),
    "tiny": (lambda: edited(xyzt_units=3), "its orientation is impossible: voxels of 0.0009 × 0.0011 × 0.0025 mm"),
    "flat axes": (lambda: edited(qform_code=0, srow_z=[0, 0, 0, 0]), "its orientation is impossible"),
    "nan axes": (lambda: edited(qform_code=0, srow_x=[np.nan] * 4), "its orientation is impossible"),
    "quaternion": (lambda: edited(quatern_b=3), "its orientation cannot be understood"),
    "mirrored": (lambda: edited(srow_x=[-0.9, 0, 0, 20]), "contradicts itself: its sform and its qform say LAS and"),
    "oblique": (lambda: image(affine=turned(40)), "is 40° oblique; axial slices are expected"),
    "sheared": (lambda: sheared(28), "is sheared by 28°"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_refused(what: str, ending: str, tmp_path: Path) -> None:
    make, message = REFUSED[what]
    made = make()
    path = tmp_path / f"x.{ending}"
    data = made.header.binaryblock + bytes(4) + np.asarray(made.dataobj).tobytes(order="F")
    data = data[:108] + struct.pack("<f", 352) + data[112:344] + b"n+1\0" + data[348:]
    path.write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
    with pytest.raises(InputError, match=message) as caught:
        read_nifti(source(path))
    assert str(path) in caught.value.line()
    assert "\n" not in caught.value.line()


def test_colours_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros(chest().shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(InputError, match=r"holds colours \(RGB\)"):
        read_nifti(saved(image(rgb), tmp_path / "rgb.nii"))


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_pairs_of_files(kind: Any, packed: str, tmp_path: Path) -> None:
    nib.save(kind(chest(), AFFINE), tmp_path / f"pair.img{packed}")
    series, alone = read_nifti(source(tmp_path / f"pair.hdr{packed}")), read_nifti(saved(image(), tmp_path / "one.nii"))
    assert np.array_equal(volume(series), volume(alone))
    assert series.geometry.affine == pytest.approx(alone.geometry.affine, abs=1e-5)  # NIfTI-1 has 32 bits for it
    assert [file.path.name for file in series.sources] == [f"pair.hdr{packed}", f"pair.img{packed}"]
    assert series.name == "pair"
    write_nifti(tmp_path / "mask.nii.gz", (volume(series) > 1000).astype(np.uint8), series)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), chest() > 1000)

    (tmp_path / f"pair.img{packed}").unlink()
    with pytest.raises(InputError, match=r"lacks its values: pair\.img is not beside it"):
        read_nifti(source(tmp_path / f"pair.hdr{packed}"))


def test_damaged_files(tmp_path: Path) -> None:
    nib.save(image(), tmp_path / "t.nii.gz")
    packed = (tmp_path / "t.nii.gz").read_bytes()
    checksum = bytearray(packed)
    checksum[-8] ^= 1
    middle = bytearray(packed)
    middle[len(packed) // 2] ^= 255
    for data in (packed[: len(packed) // 2], packed[:-4], bytes(checksum), bytes(middle), packed[:40]):
        (tmp_path / "t.nii.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"damaged NIfTI file: (it|its header) ") as caught:
            read_nifti(source(tmp_path / "t.nii.gz"))
        assert "\n" not in caught.value.line()
    whole = gzip.decompress(packed)
    for length in (0, 4, 100, 347, 400, len(whole) - 1):
        (tmp_path / "t.nii").write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged NIfTI"):
            read_nifti(source(tmp_path / "t.nii"))


def test_headers_of_noise_are_read_or_refused(tmp_path: Path) -> None:
    rng, good = np.random.default_rng(5), plain(chest(), "i2", 1, 0)
    for _ in range(150):
        data = bytearray(good)
        for place in rng.integers(0, 348, rng.integers(1, 30)):
            data[place] = rng.integers(256)
        (tmp_path / "x.nii").write_bytes(data)
        with contextlib.suppress(InputError):
            volume(read_nifti(source(tmp_path / "x.nii")))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    head = bytearray(plain(chest(), "i2", 1, 0)[:352])
    head[40:56] = struct.pack("<8h", 3, 512, 512, 2000, 1, 1, 1, 1)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(head) + bytes(2**22)))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"unpacks to 1,000 MiB, more than 200 times its size"):
        read_nifti(source(tmp_path / "bomb.nii.gz"))
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


# What is accepted with a warning.


@pytest.mark.parametrize(("degrees", "warned"), [(0, False), (5, False), (-9, False), (15, True), (-28, True)])
def test_oblique_volumes_go_to_the_nearest_axes(degrees: float, warned: bool, tmp_path: Path) -> None:
    affine = turned(degrees)
    series = read_nifti(saved(image(affine=affine), tmp_path / "ct.nii"))
    lines = [line for line in series.warnings if line.startswith("oblique")]
    assert lines == ([f"oblique: the axes lie {abs(degrees)}° off the patient's; the nearest ones are taken"] * warned)
    assert np.array_equal(volume(series), canonical(chest()))
    corner = series.geometry.affine @ [21, 33, 43, 1]
    assert corner[:3] == pytest.approx(affine[:3, 3] * [-1, -1, 1], abs=1e-4)


def test_a_tilted_gantry_keeps_its_volume(tmp_path: Path) -> None:
    series = read_nifti(saved(sheared(12), tmp_path / "ct.nii"))
    assert "tilt: the axes of the volume are 12° off a right angle (a tilted gantry)" in series.warnings
    assert series.geometry.voxel_ml == pytest.approx(0.9 * 1.1 * 2.5 / 1000)
    write_nifti(tmp_path / "out.nii.gz", np.zeros(series.geometry.shape, np.uint8), series)
    assert np.array_equal(nib.load(tmp_path / "out.nii.gz").affine, nib.load(tmp_path / "ct.nii").affine)


def test_forms_that_differ_a_little(tmp_path: Path) -> None:
    made = image()
    other = AFFINE.copy()
    other[0, 3] += 4
    made.set_qform(other, 1)
    series = read_nifti(saved(made, tmp_path / "ct.nii"))
    assert "sform and qform differ by up to 4.0 mm; the sform is used" in series.warnings
    data = bytearray((tmp_path / "ct.nii").read_bytes())
    data[254:256] = bytes(2)  # sform_code
    (tmp_path / "q.nii").write_bytes(data)
    series = read_nifti(source(tmp_path / "q.nii"))
    assert not [line for line in series.warnings if "form" in line]
    assert (series.geometry.affine @ [21, 33, 43, 1])[0] == pytest.approx(16)


def test_units(tmp_path: Path) -> None:
    for code, factor, fact in ((0, 1.0, True), (2, 1.0, False), (1, 1000.0, False), (3, 0.001, False)):
        made = image(
            affine=AFFINE @ np.diag([1 / factor] * 3 + [1]) if factor == 1 else np.diag([1 / factor] * 3 + [1]) @ AFFINE
        )
        made.header["xyzt_units"] = code
        series = read_nifti(saved(made, tmp_path / "ct.nii"))
        assert series.geometry.spacing == pytest.approx((2.5, 1.1, 0.9), rel=1e-5)
        assert ("units" in series.facts) == fact


def test_what_speaks_against_a_whole_chest_in_fine_slices(tmp_path: Path) -> None:
    series = read_nifti(saved(image(), tmp_path / "ct.nii"))
    assert series.warnings == ("partial chest: 55 mm along the body, a whole one has at least 150",)
    coarse = AFFINE * [3, 3, 4, 1]
    series = read_nifti(saved(image(affine=coarse), tmp_path / "ct.nii"))
    assert [line.split(":")[0] for line in series.warnings] == ["thick slices", "coarse pixels"]
    series = read_nifti(saved(image(chest()[:, :, 8:14]), tmp_path / "ct.nii"))
    assert series.warnings[0] == "few slices: 6"


# Writing.


def test_the_same_result_is_the_same_file(tmp_path: Path) -> None:
    series = read_nifti(saved(image(), tmp_path / "ct.nii"))
    values = np.random.default_rng(1).random(series.geometry.shape).astype(np.float32)
    for name in ("one.nii.gz", "two.nii.gz"):
        write_nifti(tmp_path / name, values, series)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    assert np.array_equal(canonical(np.asarray(nib.load(tmp_path / "one.nii.gz").dataobj)), values)
    levels = np.rint(values * 255).astype(np.uint8)
    write_nifti(tmp_path / "levels.nii.gz", levels, series, slope=1 / 255)
    assert np.abs(canonical(nib.load(tmp_path / "levels.nii.gz").get_fdata()) - values).max() < 0.6 / 255
    with pytest.raises(OutputError, match="exists already"):
        write_nifti(tmp_path / "one.nii.gz", values, series)
    write_nifti(tmp_path / "one.nii.gz", values, series, overwrite=True)


@pytest.mark.parametrize("slab", [1, 9_000, 2**24])
@pytest.mark.parametrize("order", permutations(range(3)))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_slice_by_slice_is_what_nibabel_writes(
    order: tuple[int, int, int],
    signs: tuple[int, int, int],
    slab: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nifti_write, "SLAB", slab)
    turned = image(chest()[:43, :33, :21]).as_reoriented(np.array(list(zip(order, signs, strict=True))))
    series = read_nifti(saved(turned, tmp_path / "ct.nii"))
    levels = np.random.default_rng(2).integers(0, 256, series.geometry.shape, np.uint8)
    write_nifti_slices(tmp_path / "map.nii.gz", levels.__getitem__, np.uint8, series, slope=1 / 255)

    found = nib.load(tmp_path / "map.nii.gz")
    header = turned.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1 / 255, 0)
    expected = nib.Nifti1Image(series.axes.to_stored(levels) / 255, turned.affine, header)
    nib.save(expected, tmp_path / "nibabel.nii.gz")
    expected = nib.load(tmp_path / "nibabel.nii.gz")
    assert np.array_equal(found.dataobj.get_unscaled(), expected.dataobj.get_unscaled())
    assert np.array_equal(found.get_fdata(), expected.get_fdata())
    assert np.array_equal(found.affine, expected.affine)
    for name in (
        "dim",
        "datatype",
        "bitpix",
        "vox_offset",
        "qform_code",
        "sform_code",
        "xyzt_units",
        "magic",
    ):
        assert np.array_equal(found.header[name], expected.header[name]), name
    assert np.array_equal(found.header["pixdim"][:4], expected.header["pixdim"][:4])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_memory_does_not_grow_with_the_volume(axis: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti_write, "SLAB", 2**20)
    shape = (200, 256, 256)
    axes = (Axes((2, 1, 0)), Axes((0, 2, 1), (True, True, False)), Axes((1, 0, 2)))[axis]
    assert axes.order.index(2) == axis
    series = replace(
        read_nifti(saved(image(), tmp_path / "ct.nii")), geometry=Geometry(shape, np.diag([1.0, 1, 1, 1])), axes=axes
    )
    level = np.zeros(shape[1:], np.uint8)
    write_nifti_slices(tmp_path / "warm.nii.gz", lambda _: level, np.uint8, series)
    tracemalloc.start()
    try:
        write_nifti_slices(tmp_path / "out.nii.gz", lambda _: level.copy(), np.uint8, series)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3e6, f"{peak / 1e6:.1f} MB"  # the volume has 13.1


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")])
def test_an_interrupted_file_is_not_there(problem: BaseException, tmp_path: Path) -> None:
    series = read_nifti(saved(image(), tmp_path / "ct.nii"))
    (tmp_path / "out").mkdir()

    def read(index: int) -> NDArray[np.uint8]:
        if index == 12:
            raise problem
        return np.zeros(series.geometry.shape[1:], np.uint8)

    with pytest.raises(OutputError if isinstance(problem, OSError) else type(problem)):
        write_nifti_slices(tmp_path / "out" / "map.nii.gz", read, np.uint8, series)
    with pytest.raises(OutputError, match=r"a result is uint8 \(1, 3, 4\), the volume \(1, 34, 44\) is expected"):
        write_nifti_slices(tmp_path / "out" / "map.nii.gz", lambda _: np.zeros((3, 4), np.uint8), np.uint8, series)
    assert not list((tmp_path / "out").iterdir())


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    series = read_nifti(saved(image(), tmp_path / "ct.nii"))
    for wrong in (np.zeros((22, 44, 34), np.uint8), np.zeros(series.geometry.shape, np.float64)):
        with pytest.raises(OutputError, match=r"a result is .*, the volume \((22|1), 34, 44\) is expected"):
            write_nifti(tmp_path / "out.nii.gz", wrong, series)
    assert not (tmp_path / "out.nii.gz").exists()


def test_results_of_dicom_lie_where_the_series_lies(tmp_path: Path) -> None:
    angle = np.radians(8)
    affine = np.array(
        [[0, 0, 0.7, -90], [2 * np.sin(angle), 0.7 * np.cos(angle), 0, -80],
         [-2 * np.cos(angle), 0.7 * np.sin(angle), 0, 300], [0, 0, 0, 1.0]]
    )  # fmt: skip
    series = CTSeries("c", "c", "dicom", Geometry((5, 8, 9), affine), Axes(), lambda _: np.zeros((8, 9), np.int16), ())
    values = np.zeros((5, 8, 9), np.float32)
    values[3, 2, 7] = 0.5
    write_nifti(tmp_path / "map.nii.gz", values, series)
    written = nib.load(tmp_path / "map.nii.gz")
    place = np.argwhere(np.asarray(written.dataobj) == 0.5)
    assert len(place) == 1
    world = nib.affines.apply_affine(written.affine, place[0]) * [-1, -1, 1]
    assert world == pytest.approx((affine @ [3, 2, 7, 1])[:3], abs=1e-4)
    assert written.header.get_zooms() == pytest.approx((0.7, 0.7, 2.0))
    assert np.allclose(written.get_qform(), written.get_sform(), atol=1e-4)
    assert (int(written.header["sform_code"]), int(written.header["xyzt_units"])) == (1, 2)


# Memory.


def test_one_volume_is_kept_and_none_twice(tmp_path: Path) -> None:
    hu = np.tile(chest()[:, :, :20], (5, 6, 4))
    paths = [tmp_path / f"{number}.nii.gz" for number in range(3)]
    for path in paths:
        path.write_bytes(gzip.compress(plain(hu, "f4", 1, 0), 1))
    size = hu.size * 2
    read_nifti(source(paths[0]))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    series = [read_nifti(source(path)) for path in paths]
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now - before < size * 1.2
    assert peak - before < size * 1.2 + hu[..., 0].size * 40 + 2**18
    assert len(nifti_values.Voxels._kept) == 1
    with ThreadPoolExecutor(4) as pool:  # alternating between volumes costs time, not correctness
        got = list(pool.map(lambda i: (i, series[i % 3].read(i)), range(12)))
    assert all(np.array_equal(picture, canonical(hu)[i]) for i, picture in got)


def test_a_plain_file_is_not_loaded(tmp_path: Path) -> None:
    hu = np.tile(chest(), (5, 6, 4))
    (tmp_path / "ct.nii").write_bytes(plain(hu, "i2", 1, 0))
    tracemalloc.start()
    series = read_nifti(source(tmp_path / "ct.nii"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < hu.nbytes / 3
    assert np.array_equal(series.read(7), canonical(hu)[7])
    with pytest.raises(IndexError):
        series.read(len(series))


def test_real_volumes(real_data: Path) -> None:
    folder = real_data / "nifti"
    for name in ("id001", "id002"):
        path = folder / f"{name}-128x128x64.nii.gz"
        series = read_nifti(source(path))
        expected = canonical(nib.as_closest_canonical(nib.load(path)).get_fdata().clip(-1024, 3071))
        assert np.abs(volume(series) - expected).max() <= 0.5
        with pytest.raises(InputError, match="hardly any of air"):
            read_nifti(source(folder / f"{name}-128x128x64-msk.nii.gz"))
    assert "partial chest" in read_nifti(source(folder / "abdomen_totalseg.nii.gz")).warnings[0]
