"""The error family: every problem a user can cause or meet is one of these and fits on one line.

A line names the file, what was found and what was expected, and what to do about it.
Library code raises; only the command line turns an error into an exit status (`exit_status`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike


class JcsError(Exception):
    """Base of all errors of this package.

    >>> print(JcsError("holds no slice, one is expected", path="a.zip", hint="look into it with jcs inspect"))
    a.zip: holds no slice, one is expected (look into it with jcs inspect)

    Args:
        message: What was found, and what was expected.
        path: The file, folder or archive member it is about.
        hint: What to do about it.
    """

    exit_status = 2

    def __init__(self, message: str, *, path: str | PathLike[str] | None = None, hint: str | None = None) -> None:
        self.message, self.path, self.hint = message, None if path is None else str(path), hint
        super().__init__(self.line())

    def line(self) -> str:
        """Return the whole problem on one line."""
        text = f"{self.path}: {self.message}" if self.path is not None else self.message
        if self.hint:
            text += f" ({self.hint})"
        return printable(text)


class UsageError(JcsError):
    """Arguments that cannot be used, or that contradict each other."""


class InputError(JcsError):
    """A file, folder or archive that cannot be used as a slice, a study or a feature file.

    `study` is the UID of the DICOM study that it is about, where several may lie at `path`; no message repeats it.
    """

    def __init__(
        self, message: str, *, path: str | PathLike[str] | None = None, hint: str | None = None, study: str = ""
    ) -> None:
        self.study = study
        super().__init__(message, path=path, hint=hint)


class NoLungsError(InputError):
    """A volume in which no lungs were found; another series of its study may show them."""


class ShapeError(JcsError, ValueError):
    """A tensor or array whose shape, type or values a network or a recipe cannot take."""


class WeightsError(JcsError):
    """Weights that are missing, unsafe, damaged, or belong to another network."""


class OutputError(JcsError):
    """A result that cannot be written, or that would overwrite an older one."""


class DownloadError(JcsError):
    """A download that failed; the hint says what to fetch by hand and where to put it."""


class MemoryRanOutError(JcsError):
    """Work that needs more memory than the process gets."""


@contextmanager
def about(path: str | PathLike[str]) -> Iterator[None]:
    """Have every InputError that names no file, folder or archive member be about this one."""
    try:
        yield
    except InputError as problem:
        if problem.path is not None:
            raise
        raise InputError(problem.message, path=path, hint=problem.hint) from problem.__cause__


def printable(text: str) -> str:
    """Return `text` on one line, without control characters or undecodable bytes (file names may hold them)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an exception of another library, cut to 200 characters."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"


def unforeseen(error: Exception, label: str | None = None) -> JcsError:
    """Return the one line for an exception that nobody foresaw, met while working on `label`."""
    # PyTorch says so in words of its own.
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        hint = "end other programs, or raise the limit: ulimit -v, or that of the container or job"
        return MemoryRanOutError("memory ran out", path=label, hint=hint)
    return JcsError(
        f"failed: {first_line(error)}",
        path=label,
        hint="unexpected; run it again with --verbose and report it",
    )
