"""What a file is told by, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises InputError where it cannot be read."""
    try:
        result = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                result.update(block)
        return result.hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path, hint="check the file") from error


def digest_of_all(digests: Iterable[bytes], *, in_order: bool = False) -> str:
    """Return one SHA-256 for the files of an input, given that of each; their order counts where it is said."""
    return hashlib.sha256(b"".join(digests if in_order else sorted(digests))).hexdigest()
