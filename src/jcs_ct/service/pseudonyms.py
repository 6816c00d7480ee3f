"""Names that tell nobody who a patient is: a hash with a key that never leaves the service's folder."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING

from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

KEY_FILE = "identity.key"


class Pseudonyms:
    """Stand-ins for UIDs and other people's numbers, in logs and names of files.

    All processes that share the folder make the same of the same. Without the key nobody can try out numbers until one
    fits, as with a plain hash.

    Args:
        folder: Of the service; gets the key, for nobody but this user, where it has none.

    Raises:
        OutputError: The key can neither be read nor made.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / KEY_FILE
        try:
            if not path.exists():
                _make(path)
            self._key = path.read_bytes()
        except OSError as error:
            raise OutputError(f"cannot be used: {error.strerror}", path=path, hint="check the folder") from error
        if len(self._key) != 32:
            raise OutputError("is not a key of 32 bytes", path=path, hint="restore it; a new one gives other names")

    def of(self, *words: str) -> str:
        """Return 32 hexadecimal digits that stand for words."""
        text = "\0".join(words).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:32]


def _make(path: Path) -> None:
    """Make a key that is whole from the start; where another process makes one in the same moment, the first stays."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        except OSError:  # no links on this disk
            if not path.exists():
                part.rename(path)
    finally:
        part.unlink(missing_ok=True)
