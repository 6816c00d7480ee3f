"""The weights of this machine: `JCS_HOME/weights/NAME.safetensors`, each with its card `NAME.json`.

Names, places and lists; nothing here needs PyTorch. Reading and writing the tensors: `jcs_ct.weights.loading`.
Beside them may lie `NAME.hashes`, hashes of the slices that they were trained on. The card does not name them, so that
they can be added to weights that are there; what the file holds is a matter of `jcs_ct.datasets.training_slices`.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from jcs_ct.core.digests import digest_of
from jcs_ct.core.errors import InputError, OutputError, UsageError, WeightsError
from jcs_ct.weights.card import WeightsCard
from jcs_ct.weights.catalogue import CATALOGUE

SHIPPED = "jcs-lite"  # the weights that come with the package
SHIPPED_TITLE = "COVID-19 probability, attention and lesions in one pass; comes with jcs-ct"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows keeps these for itself


@dataclass(frozen=True)
class Stored:
    """One set of weights in the store.

    Attributes:
        name: What users call it.
        path: The safetensors file.
        size: Its bytes.
        card: Its card, or None when that cannot be used.
        problem: Why the card cannot be used, on one line.
    """

    name: str
    path: Path
    size: int
    card: WeightsCard | None
    problem: str | None = None


def home() -> Path:
    """Return the folder of everything this package keeps: `JCS_HOME`, by default the platform's cache folder."""
    chosen = os.environ.get("JCS_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("jcs-ct", appauthor=False)


def weights_folder() -> Path:
    """Return the folder of the imported weights. It need not exist."""
    return home() / "weights"


def check_name(name: str) -> str:
    """Return `name` when weights can be called so on every platform. Raises UsageError otherwise."""
    taken = name.lower().endswith((*SUFFIXES, ".json")) or name.endswith(".") or _DEVICES.fullmatch(name)
    if taken or not _NAME.fullmatch(name):
        raise UsageError(
            f"weights cannot be called {name!r:.80}",
            hint="use up to 64 letters, digits, '-', '_' and '.', no path and no extension",
        )
    return name


def name_from_file(path: Path) -> str:
    """Return a name for weights, made from a file's name."""
    stem = path.name
    while (suffix := Path(stem).suffix.lower()) in SUFFIXES:
        stem = stem[: -len(suffix)]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64].rstrip("-._")
    return stem if stem and not _DEVICES.fullmatch(stem) and not stem.endswith(".json") else "imported"


def list_stored() -> list[Stored]:
    """Return what the package ships, then what the store holds, by name.

    A card that cannot be used is reported in its place and raises nothing.
    """
    found = []
    for path in (*filter(Path.exists, [shipped()]), *sorted(weights_folder().glob("*.safetensors"))):
        name = path.name.removesuffix(".safetensors")
        if name.startswith(".") or (name == SHIPPED and path != shipped()):  # a write that has not finished; hidden
            continue
        try:
            found.append(Stored(name, path, path.stat().st_size, WeightsCard.read(path.with_suffix(".json"))))
        except WeightsError as error:
            found.append(Stored(name, path, path.stat().st_size, None, error.line()))
    return found


def find_stored(name: str) -> Stored | None:
    """Return the weights called `name` in the store, or None."""
    return next((stored for stored in list_stored() if stored.name == name), None)


def check_free(name: str, *, overwrite: bool) -> None:
    """Raise OutputError when the name is taken. Tensors without a card are debris of a crash and do not count."""
    card = weights_folder() / f"{name}.json"
    if name == SHIPPED:
        raise OutputError(f"{name!r} is the name of the weights that come with jcs-ct", hint="use another --name")
    if card.exists() and not overwrite:
        raise OutputError(
            f"weights called {name!r} exist already", path=card, hint="use --overwrite, or another --name"
        )


def remove(name: str) -> int:
    """Remove weights and their card from the store; return the bytes that are free now.

    Raises WeightsError where there are none of this name, OutputError where they come with the package, or stay.
    """
    if check_name(name) == SHIPPED:
        raise OutputError(f"{name!r} comes with jcs-ct and is not in the store", hint="there is nothing to remove")
    stored = find_stored(name)
    if stored is None:
        raise unknown_name(name)
    try:
        stored.path.with_suffix(".json").unlink(missing_ok=True)  # without a card the rest is debris
        stored.path.unlink(missing_ok=True)
        hashes_path(stored.path).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be removed: {error.strerror}", path=stored.path, hint="check the folder") from error
    return stored.size


def locate(name_or_file: str | Path) -> Path:
    """Return the file meant by a name in the store or by a path; a stored name goes before a file of the same name.

    Raises WeightsError where it is neither; the line says how to get it, or which names are known.
    """
    path = Path(name_or_file)
    if isinstance(name_or_file, Path) or len(path.parts) > 1 or path.suffix.lower() in SUFFIXES:
        return path.expanduser()
    if name_or_file == SHIPPED and shipped().exists():
        return shipped()
    stored = weights_folder() / f"{name_or_file}.safetensors"
    if _NAME.fullmatch(name_or_file) and stored.exists():
        return stored
    if path.is_file():
        return path
    raise unknown_name(name_or_file)


def hashes_path(weights: Path) -> Path:
    """Return where the hashes of the training slices of a weights file lie. The file need not exist."""
    return weights.with_suffix(".hashes")


def find_hashes(model: str | Path, card: WeightsCard) -> Path | None:
    """Return the file of hashes that belongs to weights, given how they were opened and their card; None without one.

    Weights are known by the checksum on their card, so that a copy under another name, or an exported network, finds
    the hashes of its original.
    """
    known = card.weights_sha256
    files = [stored.path for stored in list_stored() if stored.card and stored.card.weights_sha256 == known]
    with suppress(WeightsError):  # an exported network, a folder
        files.insert(0, locate(model))
    return next((path for path in map(hashes_path, files) if path.is_file()), None)


def shipped() -> Path:
    """Return the file of the weights that come with the package."""
    return Path(__file__).parent.parent / "assets" / f"{SHIPPED}.safetensors"


def unknown_name(name: str) -> WeightsError:
    """Return the error for a name that is not in the store: how to get it when it is known, or the known names."""
    entry = CATALOGUE.get(name)
    if entry is not None:
        how = f"run: jcs models download {name}" if entry.url else entry.by_hand()
        return WeightsError(f"the weights {name!r} are not on this machine yet", hint=how)
    here = ", ".join(stored.name for stored in list_stored()) or "none"
    return WeightsError(
        f"no weights are called {name!r:.80}",
        hint=f"on this machine: {here}; known: {', '.join(CATALOGUE)}; or give a file",
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises WeightsError when it cannot be read."""
    try:
        return digest_of(path)
    except InputError as error:
        raise WeightsError(error.message, path=path, hint=error.hint) from error
