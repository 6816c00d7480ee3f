"""Images that were received, by study, until the study has been quiet for a while: then it is given to the workers.

Names of folders and files are pseudonyms of UIDs. The folder stays for a day, so that a slice that comes late meets the
others: then all of them are a study anew. Whoever is killed between two steps finds what to do from the files alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jcs_ct.core.digests import digest_of_all
from jcs_ct.core.whole_files import write_whole
from jcs_ct.service.files import STUDY, Folders, sha256_of, sync
from jcs_ct.service.intake import enter

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.service.log import Log
    from jcs_ct.service.pseudonyms import Pseudonyms
    from jcs_ct.service.record import Record
    from jcs_ct.service.settings import Limits

WHO = "node"  # in the audit table
TAKEN = "taken.json"  # beside the images: what became a study of the record
KEPT_SECONDS = 24 * 3600.0


@dataclass
class Arrivals:
    """The images of a node.

    Attributes:
        settings: Digest of weights and settings.
        names: Pseudonyms.
        settle: Seconds for which nothing may have come of a study.
    """

    folders: Folders
    record: Record
    settings: str
    limits: Limits
    log: Log
    names: Pseudonyms
    settle: float
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, study: str, image: str, data: bytes) -> None:
        """Have the disk hold an image (SOPInstanceUID) of a study (StudyInstanceUID), in place of an older one.

        Written beside, fsynced, renamed, the folder fsynced. Raises OSError where the disk refuses it; nothing is left
        then.
        """
        folder = self.folders.arrivals(self.names.of("study", study))
        part = folder.with_name(f".{secrets.token_hex(8)}")
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with self._lock:  # or the folder might be removed meanwhile
                if not folder.exists():
                    folder.mkdir()
                    sync(folder.parent)
                part.replace(folder / f"{self.names.of('image', image)}.dcm")
                sync(folder)
        finally:
            part.unlink(missing_ok=True)

    def pass_on(self) -> None:
        """Give studies that are quiet to the workers; remove those that are old or were deleted.

        Raises:
            RecordError: The database is away. It is done the next time.
            OSError: The disk refuses it, for one study at least; the others were passed on.
        """
        refused: OSError | None = None
        for folder in sorted(path for path in self.folders.arrivals("").iterdir() if not path.name.startswith(".")):
            try:
                self._look(folder)
            except OSError as error:
                refused = refused or error
        if refused is not None:
            raise refused

    def _look(self, folder: Path) -> None:
        images, listing, changed = _listed(folder)
        taken, quiet = _taken(folder), time.time() - changed
        if taken.get("listing") != listing:
            if images and quiet >= self.settle and self.record.counts().get("waiting", 0) < self.limits.queue:
                self._submit(folder, images, listing)
        elif quiet > KEPT_SECONDS or self.record.get(taken.get("study", "")) is None:
            self._remove(folder, listing)

    def tidy(self) -> None:
        """Remove what a node that was killed has left."""
        for path in self.folders.arrivals("").glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _remove(self, folder: Path, listing: str) -> None:
        """Remove a study's folder, unless something has come in this moment."""
        gone = folder.with_name(f".{secrets.token_hex(8)}")
        with self._lock:
            if _listed(folder)[1] != listing:
                return
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _submit(self, folder: Path, images: list[Path], listing: str) -> None:
        upload = uuid.uuid4().hex
        incoming = self.folders.incoming(upload)
        try:
            (incoming / STUDY).mkdir(parents=True)
            digests, size = [], 0
            for number, path in enumerate(images, 1):
                copy = incoming / STUDY / f"{number:06d}.dcm"
                _link(path, copy)
                digests.append(sha256_of(copy))
                size += copy.stat().st_size
            facts = digest_of_all(digests), self.settings, len(images), size
            study, _ = enter(self.folders, self.record, upload, *facts)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        write_whole(folder / TAKEN, json.dumps({"listing": listing, "study": study.id}).encode(), overwrite=True)
        self.log.audit(WHO, "submit", study)


def _listed(folder: Path) -> tuple[list[Path], str, float]:
    """Return a study's images, a digest of their names, sizes and times, and when the last of them came."""
    images = sorted(folder.glob("*.dcm"))
    facts = [(path.name, (status := path.stat()).st_size, status.st_mtime_ns) for path in images]
    listing = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return images, listing, max((changed for _, _, changed in facts), default=0) / 1e9


def _taken(folder: Path) -> dict[str, str]:
    try:
        facts = json.loads((folder / TAKEN).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _link(source: Path, target: Path) -> None:
    """Have a file at another place too, without a copy where the disk can do that: none is ever changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
