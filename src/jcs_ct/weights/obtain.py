"""Weights of the catalogue: fetched or taken from a file, checked, imported.

Whoever has no network gets one line that says what to fetch by hand and how to go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.core.errors import DownloadError
from jcs_ct.weights import store
from jcs_ct.weights.catalogue import Entry, find_entry
from jcs_ct.weights.download import LARGEST, fetch, public_address

if TYPE_CHECKING:
    from jcs_ct.weights.card import WeightsCard
    from jcs_ct.weights.download import Progress


def downloads_folder() -> Path:
    """Return the folder of unfinished downloads. It need not exist."""
    return store.home() / "downloads"


def obtain(
    name: str,
    *,
    source: str | None = None,
    proxy: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WeightsCard:
    """Fetch weights of the catalogue and import them; without `overwrite`, those that are there need no request.

    `source` is a file that was fetched by hand, or another address; `proxy` and `progress` are as in `fetch`.

    Raises:
        UsageError: The catalogue has no such name.
        DownloadError: No address, no network, a server's refusal, or a wrong checksum; the line says what to do
            by hand.
        WeightsError: The file is not what the catalogue says.
        OutputError: The store cannot be written.
    """
    from jcs_ct.weights.loading import import_file

    entry = find_entry(name)
    there = store.find_stored(name)
    if there is not None and there.card is not None and not overwrite:
        return there.card
    url, source_file = (source, None) if source and "://" in source else (entry.url, source)
    if source_file:
        path = Path(source_file).expanduser()
        digest = store.sha256_of(path)
        if entry.checksums and not digest.startswith(entry.checksums):
            wanted = " or ".join(checksum[:12] for checksum in entry.checksums)
            raise DownloadError(
                f"is not {entry.name}: its SHA-256 begins {digest[:12]}, {wanted} was expected",
                path=path,
                hint="fetch it again, or, if you trust it: jcs models import FILE",
            )
    elif url is None:
        raise DownloadError(f"{name} cannot be fetched without a browser", hint=entry.by_hand())
    else:
        path = _fetched(entry, url, proxy, progress)
    card = import_file(
        path,
        name=name,
        architecture=entry.architecture,
        licence=entry.licence,
        source_url=None if source_file or url is None else public_address(url),
        overwrite=True,
    )
    if not source_file:
        path.unlink(missing_ok=True)  # half a gigabyte that nothing needs any more
    return card


def _fetched(entry: Entry, url: str, proxy: str | None, progress: Progress | None) -> Path:
    """Return the entry's file, downloaded and checked."""
    target = downloads_folder() / (entry.files[0].filename if entry.files else f"{entry.name}.pth")
    by_hand = (
        f"fetch {public_address(url)} by hand, then run: jcs models download {entry.name} --from FILE; "
        f"or save it as {target} and run this again"
    )
    largest = 2 * entry.size if entry.size else LARGEST
    return fetch(
        url, target, checksums=entry.checksums, by_hand=by_hand, proxy=proxy, largest=largest, progress=progress
    )
