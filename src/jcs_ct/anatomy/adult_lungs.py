"""Do the lungs that were found fit an adult, and the body around them?

The limits, and what stands for them. Real volumes are the 16 of `docs/methods.md`; only adults were tested.

| what | real volumes | limit |
| --- | --- | --- |
| both lungs | 1.6 to 7.7 l | 1 to 10 l |
| median of the lungs | −889 to −709 HU | −960 to −400 HU |
| lungs, of the body in the slices | 0.11 to 0.40 | 0.04 to 0.60 |
| height of the lungs | 160 to 330 mm | 100 to 420 mm |
| smaller lung, of the larger one | 0.5 and more | 0.12 |
| lung in the first and the last slice, of the widest | up to 0.13; 0.48 to 0.63 where apices are missing | 0.6 |

Adults have a total lung capacity of 4 to 8 l (European Coal and Steel Community, 1993), and few are scanned at full
breath. Below −950 HU lung is emphysema (Gevenois 1996), above −500 HU it is poorly aerated (Gattinoni 2001). The other
limits leave the room that real volumes have, on both sides.

Lungs lie within the body by the way they are sought: only air with tissue all around it is taken (`anatomy.lungs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jcs_ct.core.warning import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

LUNGS_ML = (1000.0, 10_000.0)
MEDIAN_HU = (-960.0, -400.0)
SHARE = (0.04, 0.60)
HEIGHT_MM = (100.0, 420.0)
ONE_LUNG = 0.12  # of the other lung
CUT_SHORT = 0.6  # of the largest cross-section


class LungFacts(NamedTuple):
    """What is known of the lungs of a volume.

    Attributes:
        ml: Right and left lung.
        median_hu: Of all that was taken for lung.
        height_mm: Along the body, of the slices that show lung.
        areas_mm2: Lung in each slice, head to feet; empty where that is not known.
        head_last: Whether the head is surely at the last slice.
    """

    ml: Sequence[float]
    median_hu: float
    height_mm: float
    areas_mm2: Sequence[float] = ()
    head_last: bool = False


def lung_warnings(lungs: LungFacts, body_ml: float) -> list[CodedWarning]:
    """Return what speaks against the lungs of a whole chest.

    Args:
        lungs: What was found.
        body_ml: Body in all slices, lungs included.
    """
    found = []
    both, share = sum(lungs.ml), sum(lungs.ml) / max(1.0, body_ml)
    for code, value, (low, high), shown, who in (
        ("lung-volume", both, LUNGS_ML, "lungs of {:.0f} ml", "adults have {:.0f} to {:.0f} ml"),
        ("lung-density", lungs.median_hu, MEDIAN_HU, "lungs of {:.0f} HU in the median",
         "lungs have {:.0f} to {:.0f} HU"),
        ("lung-share", 100 * share, (100 * SHARE[0], 100 * SHARE[1]), "lungs that take {:.0f} % of the body",
         "{:.0f} to {:.0f} % are usual"),
        ("lung-height", lungs.height_mm, HEIGHT_MM, "lungs that are {:.0f} mm high",
         "those of adults are {:.0f} to {:.0f} mm"),
    ):  # fmt: skip
        if not low <= value <= high:
            text = f"{shown.format(value)}; {who.format(low, high)}, and only adults were tested"
            found.append(CodedWarning(code, text))
    if min(lungs.ml) < ONE_LUNG * max(lungs.ml):
        side = "right" if lungs.ml[0] < lungs.ml[1] else "left"
        found.append(CodedWarning("one-lung", f"hardly any {side} lung was found ({min(lungs.ml):.0f} ml)"))
    if lungs.head_last:
        text = "head and feet are exchanged: the trachea lies at the last slices, and the lungs are narrower there"
        found.append(CodedWarning("head-feet", text))
    if len(lungs.areas_mm2):
        widest = max(lungs.areas_mm2)
        ends = (("first", lungs.areas_mm2[0]), ("last", lungs.areas_mm2[-1]))
        cut = [f"the {which} slice with {area / 100:.0f} cm²" for which, area in ends if area > CUT_SHORT * widest]
        if cut:
            text = f"partial chest: the lungs go on beyond {' and '.join(cut)}; {widest / 100:.0f} cm² at their widest"
            found.append(CodedWarning("partial-chest", text))
    return found
