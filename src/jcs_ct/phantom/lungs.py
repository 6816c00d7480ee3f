"""What the phantom's lungs hold: vessels that taper towards the pleura, bronchi, and opacities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.phantom.anatomy import FIELD_OF_VIEW, LEFT, LENGTH, RIGHT, outlines
from jcs_ct.phantom.shapes import cover, mix, smoothstep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.phantom.shapes import SmoothNoise

    Array = NDArray[np.floating]  # single precision throughout

Point = tuple[float, float, float]
"""x, y, z in mm of the reference frame, z from the apices down."""

_LEVELS, _ENDS_PER_LEVEL = 18, 16
_HALF_SLAB = 2.0  # a slice shows the vessels of a slab: lines, not only dots
_BLOOD = 40.0


@dataclass(frozen=True)
class Tube:
    """A straight piece of vessel, thinner at its end; `airway` says that a bronchus runs beside it."""

    start: Point
    end: Point
    radii: tuple[float, float]
    airway: bool


@dataclass(frozen=True)
class Opacity:
    """One irregular ellipsoid of ground glass, with or without a consolidated core; lengths in mm.

    `radii` are half its size along x, y, z before the edge is roughened; `glass` (−640 to −400) and `core` Hounsfield
    units, None where it is ground glass only.
    """

    centre: Point
    radii: Point
    glass: float
    core: float | None


def grow_vessels(rng: np.random.Generator) -> list[Tube]:
    """Return arteries and veins of both lungs: trees from the hila to points spread through the lungs."""
    tubes: list[Tube] = []
    for side in (RIGHT, LEFT):
        for root in ((side * 34.0, -4.0, 0.48 * LENGTH), (side * 32.0, 6.0, 0.55 * LENGTH)):
            ends = [
                (float(x), float(y), (level + rng.random()) / _LEVELS * LENGTH)
                for level in range(_LEVELS)
                for x, y in _points_in_lung(rng, side, (level + 0.5) / _LEVELS, (4.0, 200.0))[:_ENDS_PER_LEVEL]
            ]
            _branch(tubes, root, ends, airway=root[1] < 0)
    return tubes


def place_opacities(rng: np.random.Generator, count: int, levels: Sequence[float]) -> list[Opacity]:
    """Return `count` opacities, mostly low, at the back and near the pleura, where those of COVID-19 usually lie.

    Each is centred on one of `levels`, the t of the slices, so that none is missed.
    """
    opacities = []
    for number in range(count):
        side = (RIGHT, LEFT)[number % 2]
        wish = 0.95 - 0.72 * rng.random() * rng.random()
        t = min(levels, key=lambda level: abs(level - wish))
        # Of three points near the ribs, the one furthest back. At these levels 20 of the 400 tries qualify or more.
        x, y = max(_points_in_lung(rng, side, t, (3.0, 18.0))[:3], key=lambda point: point[1])
        radii = (11 + 15 * rng.random(), 9 + 13 * rng.random(), 14 + 20 * rng.random())
        glass, dense = -640 + 240 * rng.random(), rng.random() < 0.45
        core = -70 + 110 * rng.random()
        opacities.append(Opacity((x, y, t * LENGTH), radii, glass, core if dense else None))
    return opacities


def draw_vessels(hu: Array, x: Array, y: Array, z: float, lung: Array, tubes: Sequence[Tube]) -> None:
    """Draw in place what the level `z` cuts of the vessels and their bronchi, inside the lung only.

    `hu` is H×W, the columns `x` are 1×W, the rows `y` H×1, all in mm; `lung` is its share of each pixel, 0–1, H×W.
    """
    pixel = float(x[0, 1] - x[0, 0])
    for tube in tubes:
        (x0, y0, z0), (x1, y1, z1) = tube.start, tube.end
        reach = max(tube.radii)
        if not min(z0, z1) - reach - _HALF_SLAB < z < max(z0, z1) + reach + _HALF_SLAB:
            continue
        # A bronchus runs in front of its artery, as wide as the artery itself.
        margin = 3.2 * reach + 2 * pixel if tube.airway else reach + 2 * pixel
        columns = _window(x[0], min(x0, x1) - margin, max(x0, x1) + margin)
        rows = _window(y[:, 0], min(y0, y1) - margin, max(y0, y1) + margin)
        part, near_x, near_y, share = hu[rows, columns], x[:, columns], y[rows], lung[rows, columns]
        if tube.airway:
            bronchus = _tube_distance(near_x, near_y + 1.9 * reach, z, tube, 0.85)
            mix(part, -400.0, share * cover(bronchus - 0.7, pixel))
            mix(part, -980.0, share * cover(bronchus, pixel))
        # What is thinner than a pixel shows as a fainter pixel.
        vessel = share * cover(_tube_distance(near_x, near_y, z, tube, 1.0), max(pixel, 0.9))
        part += np.maximum(_BLOOD - part, 0.0) * vessel


def draw_opacities(
    hu: Array, x: Array, y: Array, z: float, lung: Array, opacities: Sequence[Opacity],
    noises: tuple[SmoothNoise, SmoothNoise],
) -> NDArray[np.bool_]:  # fmt: skip
    """Draw the opacities at level `z`, in the lung only, and return where they would be without it, bool H×W.

    Arguments as of `draw_vessels`; a coarse and a fine field roughen the edges, the fine one mottles the inside too.
    """
    mask = np.zeros(hu.shape, bool)
    rough: Array | None = None
    for opacity in opacities:
        (cx, cy, cz), (rx, ry, rz) = opacity.centre, opacity.radii
        if abs(z - cz) >= 1.6 * rz:
            continue
        if rough is None:
            fine = noises[1].at(x, y, z)
            rough = 1.1 * (noises[0].at(x, y, z) - 0.5) + 0.5 * (fine - 0.5)
        dx, dy, dz = (x - cx) / rx, (y - cy) / ry, (z - cz) / rz
        depth = 1 - np.sqrt(dx * dx + dy * dy + dz * dz) + rough  # positive inside
        glass = lung * smoothstep(depth / 0.4 + 0.5)
        mix(hu, np.maximum(opacity.glass + 150 * (fine - 0.5), hu), glass)
        if opacity.core is not None:
            core = lung * smoothstep((depth - 0.42) / 0.24 + 0.5)
            mix(hu, np.maximum(opacity.core + 50 * (fine - 0.5), hu), core)
        mask |= depth > 0
    return mask


def _points_in_lung(
    rng: np.random.Generator, side: int, t: float, depth: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return random points of one lung at level `t`, at least depth[0] mm inside it, at most depth[1] from the ribs."""
    tries = rng.random((2, 400), dtype=np.float32)
    x = side * tries[0] * (FIELD_OF_VIEW / 2 - 40)
    y = (tries[1] - 0.5) * (FIELD_OF_VIEW / 2)
    chest = outlines(x, y, t)
    chosen = (-chest.lungs[side] >= depth[0]) & (-chest.cage <= depth[1])
    return [(float(a), float(b)) for a, b in zip(x[chosen], y[chosen], strict=True)]


def _branch(tubes: list[Tube], start: Point, ends: list[Point], *, airway: bool) -> None:
    """Grow a tree from `start` to all `ends`: go part of the way to their middle, halve them, go on."""
    count = len(ends)
    width = _width(count)
    if count == 1:
        tubes.append(Tube(start, ends[0], (width, 0.25), airway=False))
        return
    # fsum, because the rounding of other sums depends on the versions of Python and numpy.
    middle = [math.fsum(end[axis] for end in ends) / count for axis in range(3)]
    knot = tuple(start[axis] + 0.45 * (middle[axis] - start[axis]) for axis in range(3))
    fork: Point = (knot[0], knot[1], knot[2])
    tubes.append(Tube(start, fork, (width, (width + _width(count / 2)) / 2), airway=airway and count > 12))
    spread = [max(end[axis] for end in ends) - min(end[axis] for end in ends) for axis in range(3)]
    longest = spread.index(max(spread))
    ordered = sorted(ends, key=lambda end: end[longest])
    _branch(tubes, fork, ordered[: count // 2], airway=airway)
    _branch(tubes, fork, ordered[count // 2 :], airway=airway)


def _width(ends: float) -> float:
    """Return the radius (mm) of a vessel that feeds so many ends: ends^(3/8), near Murray's law."""
    root = math.sqrt(math.sqrt(math.sqrt(ends)))
    return 0.45 * root * root * root


def _window(positions: Array, low: float, high: float) -> slice:
    """Return the slice of the rising `positions` that lie between `low` and `high`."""
    return slice(int(np.searchsorted(positions, low)), int(np.searchsorted(positions, high)))


def _tube_distance(x: Array, y: Array, z: float, tube: Tube, scale: float) -> Array:
    """Return the distance (mm) of the points (x, y, z) to the surface of a tube `scale` times as thick."""
    (x0, y0, z0), (x1, y1, z1) = tube.start, tube.end
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    along = np.clip(((x - x0) * dx + (y - y0) * dy + (z - z0) * dz) / max(dx * dx + dy * dy + dz * dz, 1e-6), 0.0, 1.0)
    ax, ay = x - x0 - along * dx, y - y0 - along * dy
    az = np.maximum(np.abs(z - z0 - along * dz) - _HALF_SLAB, 0.0)
    radius = scale * (tube.radii[0] + (tube.radii[1] - tube.radii[0]) * along)
    distance: Array = np.sqrt(ax * ax + ay * ay + az * az) - radius
    return distance
