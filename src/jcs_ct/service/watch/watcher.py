"""The watcher: looks what has changed, sends what is complete to the workers, and brings SEG and SR back.

Each step may be repeated: whoever is killed between two of them finds the first done, and does the second. What is
asked of the archive is asked again; what was computed lies in the record; what is sent is made once, kept until it was
found in the archive, and has UIDs that follow from the version's key, so that sending it twice leaves one.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from jcs_ct.core.digests import digest_of_all
from jcs_ct.core.errors import InputError, JcsError, OutputError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.service.files import STUDY, Folders, sync
from jcs_ct.service.intake import enter
from jcs_ct.service.watch.orthanc import AwayError, Image, Orthanc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from jcs_ct.service.log import Log
    from jcs_ct.service.pseudonyms import Pseudonyms
    from jcs_ct.service.record import Study
    from jcs_ct.service.settings import Limits
    from jcs_ct.service.watch.ledger import Ledger, Version, Watched

WHO = "watch"  # in the audit table
MOST_FAILED = 3  # studies of one round that cannot be read or sent back, until the round ends: each costs `patience`
MOST_PAUSE = 60  # times the first pause between two tries to send a version back


class _PutOffError(AwayError):
    """A version could not be sent back; when it is tried again stands in the ledger."""


@dataclass(frozen=True)
class Habits:
    """How a watcher goes about it.

    Attributes:
        settle: Seconds for which the images of a study must not have changed.
        rescan: Seconds after which all studies are looked through again.
        backlog: Whether studies that were in the archive at the very first start are looked at.
        retry: Seconds after which a result that could not be sent back is sent again; more and more of them.
    """

    settle: float = 60.0
    rescan: float = 24 * 3600.0
    backlog: bool = True
    retry: float = 1.0


@dataclass
class Watcher:
    """Watches one archive.

    Attributes:
        archive: Studies come from there.
        target: Results go there; the same one as a rule.
        settings: Digest of weights and settings.
        names: What stands for the archive's names of studies.
        stopped: Whether to end between two steps.
    """

    archive: Orthanc
    target: Orthanc
    ledger: Ledger
    folders: Folders
    limits: Limits
    settings: str
    log: Log
    names: Pseudonyms
    habits: Habits
    stopped: Callable[[], bool]
    source: str = field(init=False)
    _scanned: bool = False
    _failed: dict[str, tuple[int, float]] = field(init=False, default_factory=dict)  # how often, and not before when

    def __post_init__(self) -> None:
        """Name the archive: two watchers may share a database."""
        self.source = hashlib.sha256(self.archive.url.encode()).hexdigest()

    def round(self) -> None:
        """Do what there is to do; what was done stays done. A study that cannot be read holds up no other.

        Raises:
            AwayError: The archive does not answer, or not for several studies.
        """
        self._follow()
        self._each((watched, partial(self._look, watched)) for watched in self.ledger.dirty(self.source))
        versions = self.ledger.open_versions(self.source)
        self._each((watched, partial(self._advance, version, watched)) for version, watched in versions)

    def _each(self, steps: Iterable[tuple[Watched, Callable[[], None]]]) -> None:
        """Take a step with each study; with one that failed again and again, less and less often."""
        failed = 0
        for watched, step in steps:
            times, not_before = self._failed.get(watched.study, (0, 0.0))
            if self.stopped():
                return
            if time.monotonic() < not_before:
                continue
            try:
                step()
            except AwayError as error:
                failed += 1
                if not isinstance(error, _PutOffError):
                    self._failed[watched.study] = times + 1, time.monotonic() + self._pause(times)
                    facts = {"name": self.names.of(watched.study), "error": error.line()}
                    self.log.line("watch", what="cannot be read yet", **facts)
                if failed == MOST_FAILED:  # as a rule it is not the studies; and others come first in the next round
                    raise
            else:
                self._failed.pop(watched.study, None)

    def _pause(self, times: int) -> float:
        """Return the seconds until something is tried again that has failed before, so many times."""
        return self.habits.retry * min(2.0 ** min(times, 20), MOST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311

    def _follow(self) -> None:
        """Read what has changed; at the start and once a day look through all studies, since events get lost."""
        known = self.ledger.cursor(self.source)
        last = 0 if known is None else known[0]
        done = False
        while not done and not self.stopped():
            page = self.archive.changes(last)
            if page.last < last:  # another database at the same address: from its beginning
                self.log.line("watch", what="changes begin anew")
                page, self._scanned = self.archive.changes(0), False
            first = known is None and not self.habits.backlog
            self.ledger.follow(self.source, () if first else page.studies, page.last)
            last, done = page.last, page.done
        scanned = None if known is None else known[1]
        if not self._scanned or scanned is None or self.ledger.now() - scanned > self.habits.rescan:
            for found in self.archive.studies():
                self.ledger.compare(self.source, found, dirty=scanned is not None or self.habits.backlog)
            self.ledger.scanned(self.source)
            self._scanned = True

    def _look(self, watched: Watched) -> None:
        """See whether a study in which something has happened is complete, and has images that are new."""
        found = self.archive.study(watched.study)
        if found is None:
            self.ledger.settle(watched, "")
            return
        stable, updated = found
        if not stable:
            return
        images = self.archive.images(watched.study)
        outline = _outline(images)
        if outline != watched.outline:
            self.ledger.outlined(watched, outline)
            return
        if not images or self.ledger.has_version(watched, outline):  # what came is no image, or our own
            self.ledger.settle(watched, updated)
        elif self.ledger.now() - (watched.changed or 0.0) >= self.habits.settle and self._room():
            self._submit(watched, updated, images, outline)

    def _room(self) -> bool:
        free = self.folders.free_share() >= self.limits.free_share
        return free and self.ledger.counts().get("waiting", 0) < self.limits.queue

    def _submit(self, watched: Watched, updated: str, images: list[Image], outline: str) -> None:
        """Fetch a study's images and give them to the workers."""
        upload = uuid.uuid4().hex
        folder = self.folders.incoming(upload)
        try:
            (folder / STUDY).mkdir(parents=True)
            digests = []
            for number, image in enumerate(images, 1):
                if self.stopped():
                    return
                digests.append(self.archive.fetch(image, folder / STUDY / f"{number:06d}.dcm"))
            digest, size = digest_of_all(digests), sum(image.size for image in images)
            study, _ = enter(self.folders, self.ledger, upload, digest, self.settings, len(images), size)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        key = hashlib.sha256(f"{watched.study}\0{digest}\0{self.settings}".encode()).hexdigest()
        facts = {"key": key, "digest": digest, "settings": self.settings, "outline": outline, "job": study.id}
        if self.ledger.begin(watched, updated, facts):
            self.log.audit(WHO, "submit", study)
            self.log.line("watch", what="submitted", name=self.names.of(watched.study), study=study.id)

    def _advance(self, version: Version, watched: Watched) -> None:
        """Bring a version one step further."""
        study = self.ledger.get(version.job)
        if study is None:
            self._end(version, watched, "dropped", "was deleted")
        elif version.later > self.ledger.now():
            return
        elif version.state == "pushing":
            self._push(version, watched, study)
        elif study.state == "failed":
            self._end(version, watched, "failed", study.error or "failed")
        elif study.state == "done":
            try:
                self._prepare(version, watched, study)
            except (InputError, OutputError) as error:  # deleted in this moment, or the disk is full: others go on
                self._put_off(version, error)

    def _prepare(self, version: Version, watched: Watched, study: Study) -> None:
        """Make SEG and SR of a version, once: from here on their bytes are the same whenever they are sent."""
        from jcs_ct.outputs.dicom.versions import as_version

        made = self.folders.attempt(study) / STUDY
        seg = made / "seg.dcm" if (made / "seg.dcm").is_file() else None
        if not (made / "sr.dcm").is_file():
            self._end(version, watched, "failed", "has no SR, since its images cannot be referred to")
            return
        before = self.ledger.previous(version)
        replaced = None if before is None else (before.key, bool(before.seg))
        folder = self._outgoing(version)
        segmentation, report = as_version(seg, made / "sr.dcm", version.key, version.version, replaced)
        for name, data in (("seg", segmentation), ("sr", report)):
            if data is not None:
                write_whole(folder / name, data, overwrite=True)
                sync(folder / name)
        sync(folder)
        sync(folder.parent)
        self.ledger.move(version, "pushing", seg=seg is not None, after=None if before is None else before.number)

    def _push(self, version: Version, watched: Watched, study: Study) -> None:
        """Send what the archive does not have yet, and look whether it is there."""
        from jcs_ct.outputs.dicom.versions import place

        if self.archive.study(watched.study) is None:  # it would come back as a study without images
            self._end(version, watched, "dropped", "is gone from the archive")
            return
        try:
            for what in ("seg", "sr") if version.seg else ("sr",):
                where = place(version.key, what)
                if self.target.has(where.sop, where.series):
                    continue
                self.target.store((self._outgoing(version) / what).read_bytes())
                if not self.target.has(where.sop, where.series):
                    raise AwayError(f"{self.target.url} has stored a result, and does not find it")
        except AwayError as error:
            self._put_off(version, error)
            raise _PutOffError(error.message, hint=error.hint) from error
        self.log.audit(WHO, "sent back", study)
        self._end(version, watched, "done", None)

    def _put_off(self, version: Version, error: JcsError) -> None:
        self.ledger.put_off(version, self._pause(version.tries), error.line())
        self.log.line("watch", what="not sent back yet", study=version.job, error=error.line())

    def _end(self, version: Version, watched: Watched, state: str, why: str | None) -> None:
        self.ledger.move(version, state, error=why)
        shutil.rmtree(self._outgoing(version), ignore_errors=True)
        name = self.names.of(watched.study)
        facts = {"name": name, "study": version.job, "version": str(version.version), "error": why}
        self.log.line("watch", what=state, **facts)

    def _outgoing(self, version: Version) -> Path:
        return self.folders.outgoing(str(version.number))


def _outline(images: list[Image]) -> str:
    """Return a digest of what the archive says of a study's images; their bytes are not read for it."""
    facts = [(image.uid, image.size, image.file) for image in images]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
