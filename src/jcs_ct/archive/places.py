"""Places in object stores and on disks behind one face: the only module that knows fsspec.

Credentials and endpoints are found where the store's own tools find them (for S3: profile, role, `AWS_…`). What a store
raises differs with every kind, so whatever comes becomes one line here.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.core.installing import install_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Return whether an argument names a place in a store: "s3://bucket/folder"."""
    return _URL.match(text) is not None


@dataclass(frozen=True)
class Stored:
    """A file in a store.

    Attributes:
        path: As the store calls it.
        size: Bytes.
        mark: Changes when its content does: ETag, else the time of change.
    """

    path: str
    size: int
    mark: str


@dataclass(frozen=True)
class Place:
    """A folder or a file of a store.

    Attributes:
        url: As a user writes it, without "/" at the end.
        path: As the store calls it.
        local: It lies on a disk of this machine.
        store: fsspec's file system.
    """

    url: str
    path: str
    local: bool
    store: Any = field(repr=False)

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.url}/{name}", f"{self.path.rstrip('/')}/{name}", self.local, self.store)

    @property
    def above(self) -> Place:
        """The folder that it lies in."""
        return Place(self.url.rpartition("/")[0], self.path.rpartition("/")[0], self.local, self.store)

    def is_file(self) -> bool:
        """Return whether it is one file. Raises InputError where nothing is there."""
        with _reading(self.url):
            return bool(self.store.info(self.path)["type"] == "file")

    def exists(self) -> bool:
        """Return whether anything is there. Raises InputError where the store cannot be asked."""
        with _reading(self.url):
            return bool(self.store.exists(self.path))

    def entries(self) -> tuple[list[str], list[str]]:
        """Return the names of the folders and of the files in a folder. Raises InputError."""
        with _reading(self.url):
            found = self.store.ls(self.path, detail=True)
        named = [(one["name"].rstrip("/").rpartition("/")[2], one) for one in found]
        own = self.path.rstrip("/")
        named = [(name, one) for name, one in named if one["name"].rstrip("/") != own]  # S3's marker of an empty folder
        folders = sorted(name for name, one in named if one["type"] == "directory")
        return folders, sorted(name for name, one in named if one["type"] != "directory")

    def files(self) -> list[Stored]:
        """Return all files below, or the one file. Raises InputError."""
        with _reading(self.url):
            found = self.store.find(self.path, detail=True)
        return [
            Stored(path, int(one["size"] or 0), str(one.get("ETag") or one.get("mtime") or one.get("created") or ""))
            for path, one in sorted(found.items())
            if not path.endswith("/")
        ]

    def fetch(self, files: Sequence[str], targets: Sequence[Path]) -> None:
        """Copy files of the store to a disk. Raises InputError."""
        with _reading(self.url):
            self.store.get(list(files), [str(target) for target in targets])

    def read(self) -> bytes | None:
        """Return what a file holds, None where there is none. Raises InputError."""
        with _reading(self.url):
            try:
                content: bytes = self.store.cat_file(self.path)
            except FileNotFoundError:
                return None
            return content

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return what some files of a folder hold, several at a time. Raises InputError."""
        paths = {(self / name).path: name for name in names}
        if not paths:
            return {}
        with _reading(self.url):
            found = self.store.cat(list(paths))
        if isinstance(found, bytes):  # of one
            return {next(iter(paths.values())): found}
        return {paths[path]: content for path, content in found.items()}

    def write(self, content: bytes) -> None:
        """Write a file, in place of one that is there. Raises OutputError."""
        with _writing(self.url):
            if self.local:
                self.store.makedirs(self.path.rpartition("/")[0], exist_ok=True)
            self.store.pipe_file(self.path, content)

    def create(self, content: bytes) -> bool:
        """Write a file where there is none; return False where there is one. Raises OutputError."""
        with _writing(self.url):
            try:
                self.store.pipe_file(self.path, content, mode="create")
            except FileExistsError:
                return False
            return True

    def put(self, files: Sequence[Path], names: Sequence[str]) -> None:
        """Copy files of a disk into this folder. Raises OutputError."""
        with _writing(self.url):
            self.store.put([str(file) for file in files], [(self / name).path for name in names])

    def remove(self, *, recursive: bool = False) -> None:
        """Remove a file, or all below; nothing happens where nothing is there. Raises OutputError."""
        with _writing(self.url):
            if self.store.exists(self.path):
                self.store.rm(self.path, recursive=recursive)


def open_place(text: str) -> Place:
    """Return the place that a URL or a path names; nothing is asked of the store yet.

    Raises:
        UsageError: fsspec, or what it needs for this kind of URL, is not installed; or no store is of this kind.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise UsageError(f"{text}: URLs need fsspec, which is not installed", hint=install_command("cloud")) from error
    try:
        store, path = url_to_fs(text, use_listings_cache=False)
    except ImportError as error:
        raise UsageError(f"{text}: {error}", hint=install_command("cloud")) from error
    except ValueError as error:
        raise UsageError(f"{text}: {error}", hint="s3://bucket/folder is one") from error
    local = "file" in ((store.protocol,) if isinstance(store.protocol, str) else store.protocol)
    url = (path if local else text).rstrip("/")
    return Place(url, path.rstrip("/"), local, store)


@contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError("does not exist", path=url, hint="check the bucket and the name") from error
    except Exception as error:  # see the module
        raise InputError(f"cannot be read: {_text(error)}", path=url, hint="check access, endpoint and name") from error


@contextmanager
def _writing(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # see the module
        raise OutputError(f"cannot be written: {_text(error)}", path=url, hint="check access and endpoint") from error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]
