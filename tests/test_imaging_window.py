"""One recipe from HU to grey, and the measurement that says which window the public 8-bit slices were made with.

`python -m pytest tests/test_imaging_window.py -k measured -s` prints the table of docs/methods.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jcs_ct.core.errors import ShapeError
from jcs_ct.imaging.lung_box import lung_regions
from jcs_ct.imaging.window import LUNG, Window, to_grey
from jcs_ct.phantom import lung_window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def test_known_values() -> None:
    hu = np.array([[-1024, -1350, -32768], [-600, 150, 32767], [-860, 149, 41]], np.int16)
    # 326/1500, 750/1500, 490/1500, 1499/1500, 1391/1500 of 255
    assert to_grey(hu).tolist() == [[55, 0, 0], [128, 255, 255], [83, 255, 236]]
    assert to_grey(hu, Window(-160, 240))[2].tolist() == [0, 197, 128]  # 309/400 and 201/400 of 255


def test_agrees_with_the_phantoms_window_and_with_pydicom() -> None:
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    hu = np.random.default_rng(0).integers(-1024, 3072, (64, 48)).astype(np.int16)
    difference = np.abs(to_grey(hu).astype(int) - lung_window(hu))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # ties, in single precision there
    header = Dataset()
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = -600, 1500, "LINEAR_EXACT"
    header.PhotometricInterpretation, header.BitsStored, header.PixelRepresentation = "MONOCHROME2", 16, 1
    other = apply_windowing(hu, header)  # spread over the int16 range
    assert np.abs((other + 32768) / 65535 * 255 - to_grey(hu)).max() <= 0.51


def test_slices_that_are_views_and_the_shape() -> None:
    hu = np.arange(-1000, 1000, dtype=np.int16).reshape(40, 50)
    assert np.array_equal(to_grey(hu[::-1, ::2]), to_grey(hu)[::-1, ::2])
    assert to_grey(hu).dtype == np.uint8


@pytest.mark.parametrize("window", [(150.0, -1350.0), (0.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_empty_windows_are_refused(window: tuple[float, float]) -> None:
    with pytest.raises(ShapeError, match="the lower one first"):
        to_grey(np.zeros((2, 2), np.int16), window)


def test_other_types_are_refused() -> None:
    floats: Any = np.zeros((2, 2), np.float32)
    with pytest.raises(ShapeError, match="float32, int16 is expected"):
        to_grey(floats)


def landmarks(values: NDArray[Any], grey: NDArray[np.uint8]) -> tuple[float, float] | None:
    """Return the median of aerated lung and the mode of soft tissue around it; None where no lungs are found."""
    lungs = lung_regions(grey)
    core = ndimage.binary_erosion(lungs, iterations=2)
    if lungs.mean() < 0.06 or core.sum() < 300:
        return None
    down, across = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
    box = np.s_[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
    bright = values[box][~ndimage.binary_dilation(lungs[box], iterations=4)]
    bright = bright[(bright < 251) if values.dtype == np.uint8 else (bright > -200) & (bright < 200)]
    if bright.size < 300:
        return None
    counts, edges = np.histogram(bright, bins=80)
    smooth = np.convolve(counts, np.ones(5), "same")
    return float(np.median(values[core])), float(edges[smooth.argmax()] + np.diff(edges)[0] / 2)


def volume_landmarks(hu: NDArray[np.int16]) -> list[tuple[float, float]]:
    middle = np.linspace(0.3 * len(hu), 0.7 * len(hu), 7).astype(int)
    return [mark for k in middle if (mark := landmarks(hu[k], to_grey(hu[k])))]


def test_measured_window(real_data: Path) -> None:
    import nibabel
    import pydicom

    volumes = {}
    for name in ("id001", "id002"):
        stored = np.asanyarray(nibabel.load(real_data / f"nifti/{name}-128x128x64.nii.gz").dataobj)  # type: ignore[attr-defined]
        hu = np.clip(np.rint(stored), -1024, 3071).astype(np.int16).transpose(2, 1, 0)
        volumes[name] = volume_landmarks(np.ascontiguousarray(hu[::-1, ::-1]))
    found = []
    for path in sorted((real_data / "dicom/ricord_axial_248").rglob("*"))[60:200:20]:
        image = pydicom.dcmread(path)
        hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        found.append(np.clip(hu, -1024, 3071).astype(np.int16))
    volumes["ricord"] = [mark for hu in found if (mark := landmarks(hu, to_grey(hu)))]
    each = np.array([np.median(marks, axis=0) for marks in volumes.values()])
    lung, soft = each.mean(axis=0)
    print(f"\nHU volumes {dict(zip(volumes, each.round().tolist(), strict=True))}: lung {lung:.0f}, soft {soft:.0f} HU")
    assert -920 < lung < -800
    assert 0 < soft < 70

    for folder, pattern in (("ct100/images", "*.png"), ("covid_cs_examples", "*.jpg")):
        pictures = [np.asarray(Image.open(p).convert("L")) for p in sorted((real_data / folder).glob(pattern))[::3]]
        marks = np.array([mark for grey in pictures if (mark := landmarks(grey, grey))])
        dark, bright = np.median(marks, axis=0)
        width = (soft - lung) * 255 / (bright - dark)
        low = lung - dark / 255 * width
        print(f"{folder}: lung {dark:.0f}, soft {bright:.0f} grey; fits {low:.0f} … {low + width:.0f} HU")
        errors = {}
        for window in (LUNG, Window(-1400, 200), Window(-1250, 250), Window(-1000, 400), Window(-1024, 3071)):
            expected = (np.array([lung, soft]) - window.low) * 255 / (window.high - window.low)
            errors[window] = float(np.abs(expected.clip(0, 255) - [dark, bright]).max())
            print(f"  {window.low:.0f} … {window.high:.0f}: off by at most {errors[window]:.0f} grey")
        assert min(errors, key=lambda window: errors[window]) == LUNG
        assert errors[LUNG] < 10
