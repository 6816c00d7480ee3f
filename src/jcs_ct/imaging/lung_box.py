"""The lung field of a slice: the box that a small network should look at, whatever was scanned around it.

Sources differ in how much air, table and arm surrounds the lungs. Cropping to the lungs spends the network's input on
them and takes away what tells one hospital from another. Classical and fast: threshold, components, box. It never
fails: where no lungs are found, the field is the whole slice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 160  # the search runs on a slice reduced to this length
MARGIN = 0.16  # of the box, on each side: consolidated lung is bright and lies outside of what is found
LEAST_SHARE = 0.02  # of the slice, below which dark regions are no lungs
FLATTEST = 0.72  # height over width, below which the box is made higher: dependent consolidation hides lung
PADDING_NOISE = 3  # grey values above the darkest that still belong to what a scanner or a program filled in
FLAT = 12  # grey values between the darkest and the brightest of a row, up to which it belongs to a frame
LEAST_CONTENT = 0.3  # of the height and of the width; what is smaller is no picture within a frame
MOST_FRAMES = 4  # within one another
LEAST_FRAMED, MOST_FRAMED = 0.12, 0.93  # share of a page that a slice on it takes
RECTANGLE = 0.97  # of its box that a region with its holes fills, where it is a picture and not a body
LEAST_PAGE = 0.1  # share of a page that has exactly its grey value
LOW = 0.65  # of the height, below which what reaches both sides is no lung
STEP = 16  # grey values
TAIL = 0.001  # of the pixels of the lungs, at each end
WIDE, FLAT_AIR = 0.4, 2.5  # of the picture's width, and of its own height: what lies so below all else is no lung
BENEATH = 0.2  # of the height, by which the lungs of one chest never differ
SMALL_PART = 0.12  # of the largest region, below which a dark region is gas or noise


Box = tuple[int, int, int, int]
"""(top, left, rows, columns) in pixels of a picture."""


def otsu(values: NDArray[np.uint8]) -> int:
    """Return the grey value that splits `values` with the largest variance between (Otsu, 1979): dark is ≤ it."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below, total = counts.cumsum(), counts.sum()
    first = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (first[-1] * below - first * total) ** 2 / (below * (total - below))
    return int(np.nan_to_num(between, nan=-1.0, posinf=-1.0).argmax())


def lung_regions(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the dark regions inside the body of a lung-windowed axial slice: aerated lung and airways.

    Of uint8, rows × columns; bool, the same shape, all false where there are none.
    """
    from scipy import ndimage

    padding = grey <= int(grey.min()) + PADDING_NOISE
    corners = padding[[0, 0, -1, -1], [0, -1, 0, -1]]
    inside = grey[~padding] if corners.sum() >= 3 and padding.mean() > 0.05 else grey
    if not inside.size:
        return np.zeros(grey.shape, dtype=bool)
    dark = ndimage.binary_opening(grey <= otsu(inside), iterations=1)
    labels, count = ndimage.label(dark)
    if not count:
        return np.zeros(grey.shape, dtype=bool)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    # Air around the body reaches the corners; in tightly cropped pictures lungs touch edges, but hardly corners.
    rows, columns = max(1, grey.shape[0] // 40), max(1, grey.shape[1] // 40)
    for down in (labels[:rows], labels[-rows:]):
        areas[np.unique([down[:, :columns], down[:, -columns:]])] = 0
    for edge, length in ((labels[0], 1), (labels[-1], 1), (labels[:, 0], 0), (labels[:, -1], 0)):
        touching = np.bincount(edge, minlength=count + 1)
        areas[touching > 0.6 * grey.shape[length]] = 0  # a strip of table or of padding
    both_sides = np.intersect1d(labels[:, 0], labels[:, -1])
    for number in both_sides[both_sides > 0]:  # air between the back and a table, where the body is cut at both sides
        if areas[number] and np.nonzero(labels == number)[0].mean() > LOW * grey.shape[0]:
            areas[number] = 0
    if areas.max() < LEAST_SHARE * grey.size / 2:
        return np.zeros(grey.shape, dtype=bool)
    large = np.flatnonzero(areas >= SMALL_PART * areas.max())
    kept: NDArray[np.bool_] = np.isin(labels, _without_air_beneath(labels, large, areas))
    return kept


def _without_air_beneath(labels: NDArray[Any], large: NDArray[Any], areas: NDArray[Any]) -> list[int]:
    """Return the `large` regions without the air in and on tables.

    That is what lies below all others, wide and flat; and what reaches an edge and is far below a larger one that does
    not. `areas` are those of all labels, in pixels.
    """
    from scipy import ndimage

    found = ndimage.find_objects(labels)
    kept = [int(number) for number in large]
    heights = {n: np.nonzero(labels[found[n - 1]] == n)[0].mean() + found[n - 1][0].start for n in kept}
    at_edge = {int(n) for edge in (labels[-1], labels[:, 0], labels[:, -1]) for n in np.unique(edge)}
    for number in sorted(at_edge & set(kept)):
        lungs = [heights[n] for n in kept if n not in at_edge and areas[n] >= areas[number]]  # gas may lie above lungs
        if lungs and heights[number] > max(lungs) + BENEATH * labels.shape[0]:
            kept.remove(number)
    for number in sorted(kept, key=heights.__getitem__, reverse=True):  # the lowest first: tables have several layers
        down, across = found[number - 1]
        width = across.stop - across.start
        flat = width > WIDE * labels.shape[1] and width > FLAT_AIR * (down.stop - down.start)
        others = [found[n - 1][0].stop for n in kept if n != number]
        if flat and others and heights[number] >= max(others):
            kept.remove(number)
    return kept


def content_box(grey: NDArray[np.uint8]) -> Box:
    """Return the box of the picture within frames, plain air, or a viewer's window around it."""
    top, left, rows, columns = 0, 0, grey.shape[0], grey.shape[1]
    for _ in range(MOST_FRAMES):
        view = grey[top : top + rows, left : left + columns]
        inner = _trimmed(view) or _framed(view)
        if inner is None:
            break
        top, left, rows, columns = top + inner[0], left + inner[1], inner[2], inner[3]
    return top, left, rows, columns


def _trimmed(view: NDArray[np.uint8]) -> Box | None:
    """Return a picture's box without the even rows and columns around it; None where there are none."""
    height, width = view.shape
    down = np.flatnonzero(np.ptp(view, axis=1) > FLAT)
    across = np.flatnonzero(np.ptp(view, axis=0) > FLAT)
    if not down.size or not across.size:
        return None
    rows, columns = int(down[-1] - down[0]) + 1, int(across[-1] - across[0]) + 1
    if rows < LEAST_CONTENT * height or columns < LEAST_CONTENT * width or (rows, columns) == view.shape:
        return None
    return int(down[0]), int(across[0]), rows, columns


def _framed(view: NDArray[np.uint8]) -> Box | None:
    """Return the box of a rectangle on a page of one grey value, if any: a slice in a viewer's window, or printed."""
    from scipy import ndimage

    height, width = view.shape
    step = max(1, max(height, width) // SIDE)
    small = view[::step, ::step]
    ring = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    page = int(np.bincount(ring, minlength=256).argmax())
    if (small == page).mean() < LEAST_PAGE:
        return None
    labels, _ = ndimage.label(small != page)
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        part = labels[place] == number
        share = part.size / small.size
        if not LEAST_FRAMED < share < MOST_FRAMED or min(part.shape) < 0.5 * max(part.shape):
            continue
        if ndimage.binary_fill_holes(part).mean() > RECTANGLE:
            top, left = place[0].start * step, place[1].start * step
            return top, left, min(height, place[0].stop * step) - top, min(width, place[1].stop * step) - left
    return None


def find_lung_box(grey: NDArray[np.uint8]) -> Box:
    """Return the lung field of a lung-windowed axial slice (uint8, rows × columns), whatever frame is around it."""
    top, left, rows, columns = content_box(grey)
    y, x, height, width = _find_within(np.ascontiguousarray(grey[top : top + rows, left : left + columns]))
    return top + y, left + x, height, width


def reduced(picture: Image.Image) -> Image.Image:
    """Return a picture whose longer side is `SIDE` at most, each pixel the mean of what it stands for."""
    factor = max(1.0, max(picture.size) / SIDE)
    size = (max(1, round(picture.width / factor)), max(1, round(picture.height / factor)))
    return picture.resize(size, Image.Resampling.BOX)


def _between(small: NDArray[np.uint8], regions: NDArray[np.bool_]) -> int:
    """Return the grey value half-way between the regions and what is brighter than them, in steps of `STEP` at most."""
    dark = float(small[regions].mean())
    bright = small[small > otsu(small)]
    light = float(bright.mean()) if bright.size else 255.0
    step = STEP if light - dark >= STEP else 1  # so that it stays between both
    return round((dark + light) / 2 / step) * step


def _extent(grey: NDArray[np.uint8], regions: NDArray[np.bool_], most: int) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the pixels up to `most` in regions that were found on a reduced picture.

    Of the pixels themselves, so that the box moves with a body that is shown elsewhere, and stays where text or a table
    is drawn beside it; without the few at the ends (`TAIL`), of which noise decides.
    """
    from scipy import ndimage

    around = Image.fromarray(ndimage.binary_dilation(regions).view(np.uint8))
    near = around.resize((grey.shape[1], grey.shape[0]), Image.Resampling.NEAREST)
    dark = np.asarray(near).view(np.bool_) & (grey <= most)
    ends = []
    for axis in (1, 0):
        up_to = np.count_nonzero(dark, axis=axis).cumsum()
        ends += [int(np.searchsorted(up_to, TAIL * up_to[-1])), int(np.searchsorted(up_to, (1 - TAIL) * up_to[-1])) + 1]
    return ends[0], ends[1], ends[2], ends[3]


def _find_within(grey: NDArray[np.uint8]) -> Box:
    height, width = grey.shape
    small = np.asarray(reduced(Image.fromarray(grey)), dtype=np.uint8)
    regions = lung_regions(small)
    if regions.mean() < LEAST_SHARE:
        return 0, 0, height, width
    top, bottom, left, right = _extent(grey, regions, _between(small, regions))
    if right - left < 0.2 * width or bottom - top < 0.15 * height:
        return 0, 0, height, width
    extra = max(0.0, FLATTEST * (right - left) - (bottom - top))
    above, below = extra / 3, extra * 2 / 3  # lungs collapse where the patient lies: at the back
    by, bx = MARGIN * (bottom - top + extra), round(MARGIN * (right - left))
    y0, y1 = max(0, top - round(above + by)), min(height, bottom + round(below + by))
    x0, x1 = max(0, left - bx), min(width, right + bx)
    return y0, x0, y1 - y0, x1 - x0
