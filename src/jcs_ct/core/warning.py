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
    "flat-areas": "areas of one value within the body: masked or painted over",
    "mixed-patients": "images of several patients",
    "mixed-studies": "images of one series in several studies",
    "mixed-references": "images whose positions count from different points",
    "mixed-scanners": "images of several scanners in one series",
    "offset": "the values are shifted against Hounsfield units",
    "scale": "air is at its Hounsfield units and soft tissue is not: a wrong slope",
    "cut-off-air": "air is not at its Hounsfield units and soft tissue is: thin values were cut off",
    "drift": "the values drift from the first slice to the last",
    "wrapped": "values that wrapped round: bone came out as air",
    "level-jump": "the values of neighbouring slices are shifted against each other",
    "rescale-jump": "a rescale in the header that makes the values jump",
    "padding": "padding values within the body",
    "child": "a child, or a body of a child's size",
    "body-size": "a body larger than adults have",
    "lung-volume": "lungs of a size that adults do not have",
    "lung-density": "lungs that are thinner or denser than lungs are",
    "lung-share": "lungs that do not fit the body around them",
    "lung-height": "lungs lower or higher than those of adults",
    "head-feet": "head and feet are exchanged",
    "one-lung": "one lung is missing or was not found",
    "no-lung": "no lung where some is expected",
    "flagged-slices": "many slices do not look like axial chest slices in a lung window",
    "inverted": "pictures with black and white exchanged",
    "turned": "pictures that are turned or upside down",
    "mixed-pictures": "pictures of several people in one folder",
    "copies": "pictures that are copies of others",
    "unread-slices": "slices that could not be read",
}
"""Codes of warnings that make a verdict unreliable, and what they mean."""
INFORMING: dict[str, str] = {
    "no-lung-seen": "no lung in the three slices that are looked at first",
    "other-part": "the header says another part of the body",
    "slice-distance": "slices of 5 to 8 mm",
    "unseen-between": "slices thinner than their distance",
    "header-tilt": "the header says that the gantry was tilted, the positions do not",
    "oblique-header": "slices a little off axial",
    "two-affines": "sform and qform of a NIfTI file differ a little",
    "derived": "slices that are not as the scanner made them",
    "lossy": "compressed with loss",
    "burnt-in-text": "the header says that the images hold burned-in text",
    "monochrome1": "the header says that values are shown inverted",
    "no-modality": "the header does not say that it is CT",
    "no-rescale": "the header has no slope or intercept",
    "no-unit": "the header does not say what the values are",
    "padding-value": "padding has a value of tissue, around the body only",
    "mixed-kernels": "several kernels in one series",
    "mixed-kvp": "several tube voltages in one series",
    "mixed-thickness": "several slice thicknesses in one series",
    "mixed-bits": "stored values of several forms in one series",
    "mixed-rescale": "a rescale that changes from slice to slice",
    "dropped-images": "images that were left out on demand",
    "joined-series": "series of one slice each that were joined",
    "series-passed-over": "series that were tried first and show no lungs",
    "exif-orientation": "an orientation in EXIF, which is ignored",
    "alpha": "transparent pixels",
    "16-bit": "16 bits, of which 8 are used",
    "coloured": "a coloured picture",
    "two-levels": "a picture of two grey values",
    "decoder": "a remark of the decoder",
    "black-lungs": "a slice with black lungs",
    "no-lungs-in-slice": "a slice without lungs",
    "few-greys": "a slice of few grey values",
    "rough": "a slice as rough as noise",
    "dark": "a slice that is nearly all dark",
    "low-contrast": "a slice of little contrast",
    "scattered": "a slice whose dark regions are scattered",
    "one-sided": "a slice whose dark regions lie on one side",
    "trained-on": "the study is part of the network's training data: the result says nothing of new patients",
}
"""Codes of all other warnings; those of a slice count together as "flagged-slices". A test finds no code besides."""


class CodedWarning(str):
    """A line of text with a code: a key of `UNRELIABLE` or of `INFORMING`."""

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
