"""Transfer syntaxes: which are read, by which plug-in of pydicom, and what a message calls the others.

This package installs python-gdcm (JPEG, JPEG Lossless, JPEG-LS, JPEG 2000) and pylibjpeg-openjpeg (High-Throughput
JPEG 2000); pydicom itself decodes RLE. Import it late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from jcs_ct.core.errors import InputError

if TYPE_CHECKING:
    from jcs_ct.io.files.sources import Source

PLAIN = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian})
"""Those whose pixels are words as they are."""
_PRIVATE = {UID("1.2.840.113619.5.2"): "GE's private transfer syntax (pixels in big endian, the header in little)"}
_NEWER = {  # than the dictionary of pydicom 3.0
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
_HTJ2K = {f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)}


def require_decoder(source: Source, syntax: UID) -> None:
    """Raise InputError where a file's pixels cannot be decoded: by its syntax's name, and what to do."""
    if syntax in _PRIVATE:
        message = f"is stored in {_PRIVATE[syntax]}, which is not read here"
        raise InputError(message, path=source.label, hint="export it as Explicit VR Little Endian")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        message = f"is compressed in a way that is not read here ({syntax_name(syntax)})"
        raise InputError(message, path=source.label, hint="export it uncompressed") from error
    if not decoder.is_available:
        message = f"is compressed ({syntax_name(syntax)}), and no plug-in that decodes it is installed"
        install = "pip install pylibjpeg pylibjpeg-openjpeg" if syntax in _HTJ2K else "pip install python-gdcm"
        raise InputError(message, path=source.label, hint=f"{install}, or export it uncompressed")


def syntax_name(syntax: UID) -> str:
    """Return what a message calls a transfer syntax. UIDs that nobody knows are not repeated."""
    if syntax in _NEWER:
        return _NEWER[syntax]
    return syntax.name if syntax.is_transfer_syntax else "unknown transfer syntax"
