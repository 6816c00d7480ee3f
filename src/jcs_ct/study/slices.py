"""What a case gives when one of its slices is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.core.types import SliceImage


@dataclass(frozen=True)
class CaseSlice:
    """One slice of a case.

    Attributes:
        image: As the networks see it: lung-windowed, 8 bits.
        hu: int16 Hounsfield units, rows × columns; None for a picture.
    """

    image: SliceImage
    hu: NDArray[np.int16] | None

    @property
    def decoded(self) -> NDArray[Any]:
        """What was decoded of it, and what `jcs_ct.study.case.Case.slice_of` makes it of again."""
        return self.image.pixels if self.hu is None else self.hu


@dataclass(frozen=True)
class Unreadable:
    """A slice that cannot be read, of a case that goes on without it.

    Attributes:
        reason: Why.
    """

    reason: str
