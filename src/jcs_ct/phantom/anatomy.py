"""The phantom's chest: where its organs are at each level, and their Hounsfield units.

The reference frame is a field of view of 358.4 mm that fills the picture: x runs to the patient's left (the
right of the image), y to the back, both from the centre; the level t runs from 0 above the apices of the lungs
to 1 below their bases, 270 mm in all. It is an adult's chest without contrast medium, arms raised out of the
field, in breath-hold. Sizes and positions are rounded from ordinary chest CT; nobody's data went into them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.phantom.shapes import along, capsule, cover, mix, squircle, union, without

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.phantom.shapes import SmoothNoise

    Array = NDArray[np.floating]  # single precision throughout

FIELD_OF_VIEW = 358.4
LENGTH = 270.0
RIGHT, LEFT = -1, 1
"""Sides of the patient, as the sign of x."""

_AIR, _FAT, _MUSCLE, _BLOOD, _LIVER, _CORTEX, _MARROW = -1000.0, -100.0, 50.0, 42.0, 58.0, 620.0, 190.0
_BACK = 108.0  # the skin of the back lies here at every level, on the table
_CARINA = 0.40

_BODY_WIDTH = ((0.0, 134.0), (0.2, 150.0), (0.5, 160.0), (1.0, 162.0))
_BODY_DEPTH = ((0.0, 80.0), (0.2, 96.0), (0.45, 107.0), (1.0, 111.0))
_CAGE_WIDTH = ((0.0, 46.0), (0.05, 70.0), (0.15, 96.0), (0.35, 120.0), (0.6, 131.0), (1.0, 135.0))
_CAGE_DEPTH = ((0.0, 20.0), (0.05, 38.0), (0.15, 61.0), (0.35, 80.0), (0.6, 87.0), (1.0, 88.0))
_CAGE_MIDDLE = ((0.0, 26.0), (0.05, 21.0), (0.15, 14.0), (0.35, 8.0), (0.6, 3.0), (1.0, 1.0))
_MIDDLE_WIDTH = ((0.0, 27.0), (0.2, 29.0), (0.4, 35.0), (0.6, 33.0), (1.0, 30.0))


@dataclass(frozen=True)
class Chest:
    """The outlines of one level that later steps need: distances in mm, H×W, and the lungs by side."""

    cage: Array
    lungs: dict[int, Array]


def body(x: Array, y: Array, t: float, inset: float = 0.0) -> Array:
    """Return the distance to the skin at level `t`; `inset` (mm) moves the outline inwards."""
    width, depth = along(t, _BODY_WIDTH), along(t, _BODY_DEPTH)
    return squircle(x, y, (0.0, _BACK - depth), (width - inset, depth - inset), 0.3)


def outlines(x: Array, y: Array, t: float) -> Chest:
    """Return the inner chest wall and both lungs at level `t`, for positions of any (broadcast) shape."""
    middle = along(t, _CAGE_MIDDLE)
    cage = squircle(x, y, (0.0, middle), (along(t, _CAGE_WIDTH), along(t, _CAGE_DEPTH)), 0.08)
    inside = without(cage, _mediastinum(x, y, t), 9.0)
    lungs = {}
    for side in (RIGHT, LEFT):
        lung = np.maximum(inside, -side * x)  # the mediastinum covers the midline, so this only names the side
        lungs[side] = without(lung, _dome(x, y, t, side), 7.0)
    return Chest(cage, lungs)


def tissue(x: Array, y: Array, t: float, chest: Chest, grain: SmoothNoise) -> Array:
    """Return the Hounsfield units of one level without its lungs' contents and without noise, float32 H×W.

    The columns `x` are 1×W and the rows `y` H×1, in mm; the level `t` is 0–1; `grain` is the texture of fat and muscle.
    """
    pixel = float(x[0, 1] - x[0, 0])
    hu = np.full(chest.cage.shape, _AIR, np.float32)
    texture = grain.at(x, y, t * LENGTH)
    _draw_table(hu, x, y, pixel)
    _draw_shell(hu, x, y, t, chest, texture, pixel)
    _draw_bones(hu, x, y, t, chest, pixel)
    mix(hu, _FAT + 20 * texture, cover(chest.cage, pixel))
    _draw_mediastinum(hu, x, y, t, pixel)
    _draw_spine(hu, x, y, t, pixel)
    # Dependent lung is denser: −880 HU in front, about −800 at the back.
    parenchyma = -852 + 0.45 * y + 26 * (texture - 0.5)
    for lung in chest.lungs.values():
        mix(hu, parenchyma, cover(lung, pixel))
    _draw_airways(hu, x, y, t, pixel)
    return hu


def _mediastinum(x: Array, y: Array, t: float) -> Array:
    """Return the distance to all that parts the lungs: great vessels, heart, spine, hila."""
    shape = squircle(x, y, (1.0, -2.0), (along(t, _MIDDLE_WIDTH), 52.0), 0.3)
    low = along(t, ((0.45, 0.0), (0.7, 1.0)))  # behind the lower breastbone fat lies before the heart
    shape = union(shape, squircle(x, y, (2 + 10 * low, -60.0), (7 + 22 * low, 46.0)), 14.0)
    shape = union(shape, squircle(x, y, (0.0, 56.0), (21.0, 46.0), 0.0), 14.0)
    if t > 0.3:
        shape = union(shape, squircle(x, y, (21.0, 36.0), (15.0, 15.0)), 5.0)  # the descending aorta
    hilum = 1 - abs(t - 0.5) / 0.12
    if hilum > 0:
        for side in (RIGHT, LEFT):
            shape = union(shape, squircle(x, y, (side * 33.0, 2.0), (6 + 10 * hilum, 8 + 12 * hilum)), 8.0)
    if t > 0.46:
        shape = union(shape, _heart(x, y, t), 8.0)
    return shape


def _heart(x: Array, y: Array, t: float) -> Array:
    """Return the distance to the heart, whose long axis points to the patient's left front."""
    swell = along(t, ((0.46, 0.62), (0.62, 0.92), (0.8, 1.0), (1.0, 0.92)))
    across, forward = x - 20.0, y + 26.0
    return squircle(
        0.88 * across - 0.47 * forward, 0.47 * across + 0.88 * forward, (0.0, 0.0), (66 * swell, 47 * swell)
    )


def _dome(x: Array, y: Array, t: float, side: int) -> Array:
    """Return the distance to the diaphragm's dome: liver on the right, spleen and stomach on the left."""
    top = 0.74 if side == RIGHT else 0.80
    if t <= top:
        return np.full(np.broadcast_shapes(x.shape, y.shape), 1e3, np.float32)
    swell = math.sqrt((t - top) / (1 - top))
    radii = (70 * swell, 72 * swell) if side == RIGHT else (64 * swell, 68 * swell)
    return squircle(x, y, (side * 62.0, -6.0), radii, 0.15)


def _draw_table(hu: Array, x: Array, y: Array, pixel: float) -> None:
    """Draw the couch below the back: a bent carbon shell round foam."""
    top = y - (_BACK + 3.0 - 0.0006 * x * x)
    bottom = y - (_BACK + 25.0 - 0.0015 * x * x)
    outer = np.maximum(np.maximum(-top, bottom), np.abs(x) - 148.0)
    mix(hu, -180.0, cover(outer, pixel))
    mix(hu, -935.0, cover(outer + 2.2, pixel))


def _draw_shell(hu: Array, x: Array, y: Array, t: float, chest: Chest, texture: Array, pixel: float) -> None:
    """Draw skin, the fat under it, and the muscles of the wall with the fat between their layers."""
    skin = body(x, y, t)
    mix(hu, 10.0, cover(skin, pixel))
    mix(hu, _FAT - 10 + 24 * texture, cover(skin + 1.8, pixel))
    # Muscle: deep to the fat, thicker beside the spine and over the upper chest, never touching the skin.
    muscle = body(x, y, t, 11.0 + 5.0 * t) + 6 * (texture - 0.5)
    mix(hu, _MUSCLE - 8 + 16 * texture, cover(muscle, pixel))
    layer = np.abs(chest.cage - 15.5 - 3 * texture) - 1.3
    mix(hu, _FAT, 0.85 * cover(np.maximum(layer, muscle), pixel))
    mix(hu, 15 + 30 * texture, cover(chest.cage - 12.5, pixel))  # intercostal muscle


def _draw_bones(hu: Array, x: Array, y: Array, t: float, chest: Chest, pixel: float) -> None:
    """Draw ribs, sternum, shoulder blades and collar bones."""
    # A rib falls by 0.6 mm for every mm it comes forward and by 0.4 mm sideways: a level cuts several.
    phase = np.mod(t * LENGTH + 0.6 * y - 0.4 * np.abs(x), 24.0) - 12.0
    across, lengthwise = (chest.cage - 6.5) / 4.2, phase / 6.5
    rib = (np.sqrt(across * across + lengthwise * lengthwise) - 1) * 4.2
    rib = np.maximum(rib, 24.0 - np.abs(x))  # in front they end at the sternum, behind at the spine
    cartilage = cover((y + 52.0).astype(np.float32), 16.0)
    _draw_bone(hu, rib, pixel, 1.5, cortex=_CORTEX - (_CORTEX - 130) * cartilage, marrow=_MARROW - 70 * cartilage)
    if 0.12 < t < 0.8:
        front = along(t, _CAGE_MIDDLE) - along(t, _CAGE_DEPTH) - 9.0
        _draw_bone(hu, squircle(x, y, (0.0, front), (19.0 - 8 * t, 5.5), 0.4), pixel, 1.6)
    if t < 0.42:
        for side in (RIGHT, LEFT):
            reach = 98 + 60 * t
            blade = capsule(x, y, (side * (reach - 22), 84.0), (side * (reach + 20), 44.0), 3.6)
            _draw_bone(hu, blade, pixel, 1.4)
            if t < 0.07:
                collar = capsule(x, y, (side * 24.0, -22.0), (side * 72.0, -6.0 + 60 * t), 5.5)
                _draw_bone(hu, collar, pixel, 1.8)


def _draw_spine(hu: Array, x: Array, y: Array, t: float, pixel: float) -> None:
    """Draw one level of the spine: vertebra or disc, canal and cord, the processes."""
    level = (t * LENGTH) % 23.0
    transverse = union(capsule(x, y, (-9.0, 66.0), (-33.0, 74.0), 4.2), capsule(x, y, (9.0, 66.0), (33.0, 74.0), 4.2))
    arch = union(squircle(x, y, (0.0, 69.0), (14.0, 13.0)), capsule(x, y, (0.0, 80.0), (0.0, 97.0), 3.2), 3.0)
    if level > 7:
        arch = union(arch, transverse, 3.0)
    _draw_bone(hu, arch, pixel, 1.8)
    column = squircle(x, y, (0.0, 46.0), (17.5, 14.5), 0.2)
    if level < 4:
        mix(hu, 85.0, cover(column, pixel))
    else:
        _draw_bone(hu, column, pixel, 1.6)
    mix(hu, 8.0, cover(squircle(x, y, (0.0, 69.0), (9.0, 8.0)), pixel))
    mix(hu, 38.0, cover(squircle(x, y, (0.0, 69.0), (5.0, 4.5)), pixel))


def _draw_bone(
    hu: Array, distance: Array, pixel: float, shell: float,
    cortex: float | Array = _CORTEX, marrow: float | Array = _MARROW,
) -> None:  # fmt: skip
    """Draw a bone with a cortex `shell` mm thick."""
    mix(hu, cortex, cover(distance, pixel))
    mix(hu, marrow, cover(distance + shell, pixel))


def _draw_mediastinum(hu: Array, x: Array, y: Array, t: float, pixel: float) -> None:
    """Draw vessels, heart and oesophagus in the fat of the mediastinum, and the organs under the domes."""

    def fill(distance: Array, value: float = _BLOOD) -> None:
        mix(hu, value, cover(distance, pixel))

    fill(squircle(x, y, (5.0, 27.0), (7.0, 5.5)), 30.0)  # oesophagus
    if t < 0.3:
        for centre, radius in (((-14.0, -8.0), 6.5), ((4.0, -16.0), 5.0), ((15.0, -2.0), 5.5)):
            fill(squircle(x, y, centre, (radius, radius)))
    if 0.27 < t < 0.36:
        fill(capsule(x, y, (-4.0, -24.0), (20.0, 32.0), 12.0))  # aortic arch
    if 0.16 < t < 0.56:
        fill(squircle(x, y, (-20.0, -16.0), (9.0, 9.0)))  # superior vena cava
    if 0.33 < t < 0.58:
        fill(squircle(x, y, (-3.0, -28.0), (16.0, 16.0)))  # ascending aorta
    if t > 0.3:
        fill(squircle(x, y, (21.0, 36.0), (12.5, 12.5)))  # descending aorta
    if 0.41 < t < 0.52:
        fill(squircle(x, y, (20.0, -20.0), (14.0, 13.0)))  # pulmonary trunk and its two arteries
        fill(capsule(x, y, (16.0, -10.0), (-34.0, -6.0), 8.5))
        fill(capsule(x, y, (20.0, -14.0), (37.0, 0.0), 8.5))
    hilum = 1 - abs(t - 0.5) / 0.12
    if hilum > 0:
        for side in (RIGHT, LEFT):
            fill(squircle(x, y, (side * 36.0, -2.0), (4 + 6 * hilum, 6 + 8 * hilum)))
    if t > 0.46:
        fill(_heart(x, y, t) + 4.0)  # a rim of fat stays round the heart
    for side, value in ((RIGHT, _LIVER), (LEFT, 48.0)):
        fill(_dome(x, y, t, side) + 1.0, value)


def _draw_airways(hu: Array, x: Array, y: Array, t: float, pixel: float) -> None:
    """Draw the trachea down to the carina, then the two main bronchi on their way to the hila."""
    if t < _CARINA:
        tubes = [squircle(x, y, (0.0, 8.0), (8.5, 8.0 - 1.2 * t))]
    elif t < 0.53:
        below = t - _CARINA
        tubes = [
            squircle(x, y, (side * (8.5 + 190 * below), 8 + 30 * below), (7.8 + 8 * below, 6.6 - 8 * below))
            for side in (RIGHT, LEFT)
        ]
    else:
        return
    for tube in tubes:
        mix(hu, 30.0, cover(tube - 1.6, pixel))
        mix(hu, _AIR, cover(tube, pixel))
