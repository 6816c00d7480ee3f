"""What a service is told when it starts: where things lie, what runs, and its limits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jcs_ct.core.version import __version__

GIB = 2**30


@dataclass(frozen=True)
class DiagnosisSettings:
    """What runs on each study: it decides the results, so its digest is part of a study's key.

    Attributes:
        models: Names or files of the weights; empty: the shipped `jcs-lite`.
        device, runtime: As `jcs diagnose` has them.
        rule: From slices to the patient.
        segment: "always", "positive", "never"; None: the usual one of the networks.
        allow_gaps: Accept volumes with missing slices and warn.
        keep_identity: Whether UIDs stand in the report as they are.
        language: Of report.html.
    """

    models: tuple[str, ...] = ()
    device: str = "auto"
    runtime: str = "auto"
    rule: str = "whole-study"
    segment: str | None = None
    allow_gaps: bool = False
    keep_identity: bool = False
    language: str = "en"

    def digest(self) -> str:
        """Return SHA-256 over the bytes of the weights and all that changes a result; PyTorch is not loaded for it.

        Raises:
            WeightsError: No such weights.
        """
        from jcs_ct.weights.store import SHIPPED, locate, sha256_of

        weights = [sha256_of(locate(name)) for name in (self.models or (SHIPPED,))]
        facts = [weights, self.rule, self.segment, self.allow_gaps, self.keep_identity, self.language, __version__]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Limits:
    """What a service refuses, or ends.

    Attributes:
        upload_bytes: Of one study.
        upload_files: In one form.
        idle_seconds: An upload that sends nothing for so long is cut off.
        queue: Studies that wait; more are answered 429.
        free_share: Of the disk; with less, uploads are answered 503.
        seconds: A study may take.
        memory: Bytes of a worker process, all in.
        attempts: Workers that a study may cost.
        lease_seconds: A worker that does not answer for so long has lost its study.
    """

    upload_bytes: int = 4 * GIB
    upload_files: int = 20_000
    idle_seconds: float = 60.0
    queue: int = 1000
    free_share: float = 0.05
    seconds: float = 1800.0
    memory: int = 8 * GIB
    attempts: int = 3
    lease_seconds: float = 30.0


@dataclass(frozen=True)
class Service:
    """One service: what the server and every worker must know.

    Attributes:
        folder: Uploads, inputs and results; shared by all machines that take part.
        database: URL of the record: `sqlite:///…` or `postgresql://…`.
        diagnosis: What runs on each study.
        limits: What is refused, or ended.
    """

    folder: Path
    database: str
    diagnosis: DiagnosisSettings = DiagnosisSettings()
    limits: Limits = Limits()

    def to_json(self) -> str:
        """Return it as text, for a worker process."""
        return json.dumps(asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Service:
        """Return what `to_json` wrote."""
        facts: dict[str, Any] = json.loads(text)
        diagnosis = DiagnosisSettings(**facts["diagnosis"] | {"models": tuple(facts["diagnosis"]["models"])})
        return cls(Path(facts["folder"]), facts["database"], diagnosis, Limits(**facts["limits"]))


def sqlite_in(folder: Path) -> str:
    """Return the URL of the record that lies in the service's folder."""
    return f"sqlite:///{folder.resolve() / 'record.sqlite'}"
