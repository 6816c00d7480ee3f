"""What a study came to: a value with everything that its files are made of."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.study.flow import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.outputs.report.frames import EncodedFrame
    from jcs_ct.study.case import Case
    from jcs_ct.study.rules import Verdict


class PackedMaps:
    """Maps of the slices of a study, packed as they come: about a hundredth of their size in memory.

    Args:
        shapes: (rows, columns) of each slice; maps that were never set are zeros.
        bits: Keep booleans; else values in [0, 1], in steps of 1/255.
    """

    def __init__(self, shapes: list[tuple[int, int]], *, bits: bool) -> None:
        self.shapes, self.bits = shapes, bits
        self._packed: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.shapes)

    def set(self, index: int, values: NDArray[Any]) -> None:
        """Keep the map of a slice: bool, or floating in [0, 1]."""
        plain = np.packbits(values) if self.bits else np.rint(values * np.float32(255)).astype(np.uint8)
        self._packed[index] = zlib.compress(plain.tobytes(), 1)

    def levels(self, index: int) -> NDArray[np.uint8]:
        """Return a map as uint8: 0 and 1, or 0 … 255."""
        shape = self.shapes[index]
        if index not in self._packed:
            return np.zeros(shape, np.uint8)
        plain = np.frombuffer(zlib.decompress(self._packed[index]), np.uint8)
        if self.bits:
            plain = np.unpackbits(plain, count=shape[0] * shape[1])
        return plain.reshape(shape)

    def volume(self) -> NDArray[np.uint8]:
        """Return all maps: uint8, slice × row × column. Needs slices of one shape."""
        return np.stack([self.levels(i) for i in range(len(self))])


@dataclass(frozen=True)
class SliceResult:
    """One slice. Areas are None for pictures, whose scale is not known.

    Attributes:
        index: From 1, nearest the head.
        name: Stem of a picture; empty for a volume, whose file names might say too much.
        z_mm: Position along the patient's axis.
        probability: Of COVID-19, in [0, 1]; None where the slice was not looked at (no lung in it).
        positive: Whether the probability reaches the threshold of the weights.
        lung_mm2: Lung in the slice.
        lesion_mm2: Lesion in the slice.
        lesion_share: Of the lung (pictures: of the picture), in [0, 1].
        flags: What speaks against the slice.
    """

    index: int
    name: str
    z_mm: float | None
    probability: float | None
    positive: bool
    lung_mm2: float | None
    lesion_mm2: float | None
    lesion_share: float | None
    flags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, numbers rounded to what they are worth."""
        numbers = {
            "z_mm": 3, "probability": 6, "lung_mm2": 2, "lesion_mm2": 2, "lesion_share": 6,
        }  # fmt: skip
        values: dict[str, Any] = dict(vars(self)) | {"flags": list(self.flags)}
        return {k: round(v, numbers[k]) if k in numbers and v is not None else v for k, v in values.items()}


@dataclass(frozen=True)
class CaseResult:
    """The result of one study.

    Attributes:
        case: What was looked at.
        verdict: The patient's verdict.
        slices: A result for each slice.
        report: What `report.json` holds, but for the names of other files.
        lesions: Lesion masks on the grid of the slices.
        lungs: Labels: 0, 1 right, 2 left; None for pictures.
        attention: Attention of each slice, in [0, 1].
        frames: Pictures for the report; empty if none was asked for.
        clock: Seconds by stage.
    """

    case: Case
    verdict: Verdict
    slices: tuple[SliceResult, ...]
    report: dict[str, Any]
    lesions: PackedMaps = field(repr=False)
    lungs: PackedLabels | None = field(repr=False)
    attention: PackedMaps = field(repr=False)
    frames: tuple[EncodedFrame, ...] = field(default=(), repr=False)
    clock: Clock = field(default_factory=Clock, repr=False)

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    @property
    def lesion(self) -> NDArray[np.uint8]:
        """The lesion mask: uint8 0 or 1, slice × row × column (head to feet, front to back, right to left)."""
        return self.lesions.volume()

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write all files into the folder `out/NAME`, which appears whole or not at all; return it.

        Raises:
            OutputError: It exists, or cannot be written.
        """
        from pathlib import Path as _Path

        from jcs_ct.study.files import save_case

        with self.clock("write"):
            return save_case(self, _Path(out), overwrite=overwrite)


class PackedLabels(PackedMaps):
    """Labels 0 … 255 of the slices of a study, packed as they come."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__(shapes, bits=False)

    def set(self, index: int, values: NDArray[Any]) -> None:
        """Keep the labels of a slice: uint8."""
        self._packed[index] = zlib.compress(np.ascontiguousarray(values, np.uint8).tobytes(), 1)
