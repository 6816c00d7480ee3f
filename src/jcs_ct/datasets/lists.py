r"""The release's lists: `train.txt` and `test.txt` (also `val.txt`), a picture and its mask per line.

    images/a.png masks/a.png
    "images/slice 2.png" "masks/slice 2.png"

Paths are relative to the list's folder. One that holds a space stands in double quotes, within which `\"` is a quote
and `\\` a backslash, as in a shell; every other backslash is itself. The release's own lists quote nothing, so an
unquoted line with spaces is read too, when exactly one way of dividing it gives two files that exist. Blank lines and
lines that begin with "#" do not count. A `.mat` file in the first place is a file of stage-1 features.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.samples import Reading, Sample, is_features
from jcs_ct.io.files.opening import read_text
from jcs_ct.io.files.sources import MAX_LIST_BYTES, SAVE_LIST

if TYPE_CHECKING:
    from pathlib import Path

LISTS = {"train.txt": "train", "val.txt": "val", "test.txt": "test"}
"""File name → split."""

_TOKEN = re.compile(r'(?:"((?:[^"\\]|\\.)*)"(?=\s|$)|([^\s"]\S*))\s*')
_ESCAPE = re.compile(r'\\(["\\])')
_NEEDS_QUOTES = re.compile(r'[\s"]|^#')
_QUOTE = 'put paths with spaces in double quotes: "images/a b.png" "masks/a b.png"'


def read_lists(paths: dict[Path, str]) -> Reading:
    """Read lists, each into its split. A bad line becomes a problem.

    Raises InputError where a list cannot be read, or is no text.
    """
    samples: list[Sample] = []
    problems: list[InputError] = []
    for path, split in paths.items():
        for number, line in enumerate(read_text(path, MAX_LIST_BYTES, SAVE_LIST).split("\n"), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                first, mask = _divide(line.strip(), path.parent)
            except InputError as problem:
                problems.append(InputError(problem.message, path=f"{path}:{number}", hint=problem.hint))
                continue
            origin = f"{path.name}:{number}"
            image, features = (None, first) if is_features(first) else (first, None)
            samples.append(Sample(image, mask, features, split=split, origin=origin))
    return Reading(tuple(samples), problems=tuple(problems))


def format_line(image: str, mask: str) -> str:
    """Return a line of a list, quoted where it has to be."""
    return f"{_quoted(image)} {_quoted(mask)}"


def _divide(line: str, folder: Path) -> tuple[Path, Path]:
    words = _words(line)
    if words is not None and len(words) == 2:
        return _locate(words[0], folder), _locate(words[1], folder)
    if words is not None and len(words) == 1:
        raise InputError(f"holds one path, {line!r}; a picture and its mask are expected", hint="add the mask")
    gaps = [(match.start(), match.end()) for match in re.finditer(r"\s+", line)]
    both = [(_locate(line[:start], folder), _locate(line[end:], folder)) for start, end in gaps]
    existing = [pair for pair in both if pair[0].is_file() and pair[1].is_file()]
    if len(existing) == 1:
        return existing[0]
    if existing:
        raise InputError(f"can be split in {len(existing)} ways into two files that exist: {line!r}", hint=_QUOTE)
    raise InputError(
        f"{line!r} is not a picture and its mask: however it is divided, one of the two does not exist",
        hint=_QUOTE + "; or a file is missing",
    )


def _words(line: str) -> list[str] | None:
    """Return the words of a line, or None where its quotes do not match."""
    words: list[str] = []
    position = 0
    while position < len(line):
        match = _TOKEN.match(line, position)
        if match is None:
            return None
        quoted, plain = match.groups()
        words.append(plain if quoted is None else _ESCAPE.sub(r"\1", quoted))
        position = match.end()
    return words


def _locate(word: str, folder: Path) -> Path:
    path = folder / word
    if "\\" in word and not path.exists():  # a list that was made on Windows
        other = folder / word.replace("\\", "/")
        return other if other.exists() else path
    return path


def _quoted(path: str) -> str:
    if not _NEEDS_QUOTES.search(path):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
