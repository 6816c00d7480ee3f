"""Files that appear whole or not at all: written beside their destination, then renamed."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.core import unfinished
from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole_file(destination: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `destination`; rename it into place when the block ends without an error.

    Missing parent folders are made. Raises OutputError where `destination` exists and `overwrite` is false, or it is no
    regular file, or the disk or the folder refuses it.
    """
    if destination.parts[:1] == ("-",):
        raise OutputError(
            "names standard output, which is not supported",
            path=destination,
            hint="give a name; use ./- for a file called -",
        )
    try:
        # Through a link to its target, as every tool that opens the file for writing would; one that leads nowhere too.
        destination = Path(os.path.realpath(destination)) if destination.is_symlink() else destination
        if destination.exists() and not destination.is_file():  # a rename would put a file in the place of /dev/null
            what = "a folder" if destination.is_dir() else "a device or a pipe"
            message = f"is {what}, but a file is to be written there"
            raise OutputError(message, path=destination, hint="give another name")
        if destination.exists() and not overwrite:
            raise OutputError("exists already", path=destination, hint="use --overwrite, or another output folder")
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = destination.with_name(f".{destination.name[:40]}.{secrets.token_hex(8)}.part")
        unfinished.register(temporary)
        temporary.touch(exist_ok=False)  # with the user's umask, like any other file
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=destination, hint="check the folder") from error
    try:
        yield temporary
        temporary.replace(destination)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}", path=destination, hint="check the disk"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        unfinished.unregister(temporary)


def write_whole(destination: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write `data` to `destination`, whole or not at all. Raises as `whole_file` does."""
    with whole_file(destination, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)
