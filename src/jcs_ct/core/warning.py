"""Warnings with codes: what a reader of a result should know, and which of it makes a verdict unreliable.

A warning is a line of text with a code, so that programs need not read sentences. It is a string, since everything
that shows warnings shows lines.
"""

from __future__ import annotations

from typing import Any

UNRELIABLE: dict[str, str] = {
    "partial-chest": "less than a whole chest",
    "few-slices": "too few slices for a patient's verdict",
    "gaps": "slices are missing, or lie at uneven distances",
    "tilt": "the gantry was tilted, or the axes are sheared",
    "oblique": "the slices are not axial",
    "coarse-pixels": "pixels above 1.5 mm: small lesions are not seen",
    "thick-slices": "slices above 8 mm: small lesions are lost in them",
    "foreign-slices": "slices do not continue their neighbours: another patient's, or in another order",
    "blank-slices": "slices within the chest that show nothing",
    "mixed-patients": "images of several patients or studies",
    "offset": "the values are shifted against Hounsfield units",
    "scale": "air is at its Hounsfield units and soft tissue is not: a wrong slope",
    "level-jump": "the values of neighbouring slices are shifted against each other",
    "padding": "padding values within the body",
    "child": "a child, or a body of a child's size",
    "lung-volume": "lungs of a size that adults do not have",
    "one-lung": "one lung is missing or was not found",
    "no-lung": "no lung where some is expected",
    "flagged-slices": "many slices do not look like axial chest slices in a lung window",
    "inverted": "pictures with black and white exchanged",
    "turned": "pictures that are turned or upside down",
    "mixed-pictures": "pictures of several people in one folder",
    "unread-slices": "slices that could not be read",
}
"""Codes of warnings that make a verdict unreliable, and what they mean. All other codes inform only."""

INFORMING: dict[str, str] = {
    "trained-on": "the network was trained on slices of the study: as a test of it the answer is worth nothing",
}
"""Codes that inform only, where a program may want to look for them."""


class CodedWarning(str):
    """A line of text with a code.

    Attributes:
        code: As in `UNRELIABLE`, or another one that informs only.
    """

    __slots__ = ("code",)
    code: str

    def __new__(cls, code: str, text: str) -> CodedWarning:
        """Return the warning."""
        self = super().__new__(cls, text)
        self.code = code
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return what pickle and copy make it of."""
        return self.code, str(self)

    @property
    def unreliable(self) -> bool:
        """Whether a verdict must not be relied on."""
        return self.code in UNRELIABLE


def code_of(text: str) -> str:
    """Return the code of a warning; "note" for a line without one."""
    return text.code if isinstance(text, CodedWarning) else "note"
