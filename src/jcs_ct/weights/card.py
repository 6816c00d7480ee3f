"""The card of a set of weights: what a file of tensors is, where it came from, how it has to be used. No torch here.

A card is the JSON beside `NAME.safetensors`. It is written last: tensors without a card are never used. Beside both may
lie `NAME.hashes`, hashes of the slices that the weights were trained on (`jcs_ct.weights.store.find_hashes`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA_VERSION = 1
LARGEST_CARD = 1 << 20  # bytes; a card has about 1 kB

_REIMPORT = "import the weights again: jcs models import FILE"
DESCRIBE = frozenset(
    {"name", "source_file", "source_kind", "source_sha256", "source_url", "imported_at", "jcs_ct_version"}
    | {"threshold_from", "licence", "citation", "notes", "trained_on", "schema_version"}
)
"""Fields of a card that no number of a result depends on."""


@dataclass(frozen=True)
class WeightsCard:
    """What is known about a set of weights.

    Attributes:
        name: What users call it (`--model NAME`).
        architecture: Key of `jcs_ct.models.MODELS`.
        source_file: Name of the file the tensors came from, without its folder.
        source_kind: "official checkpoint", "ImageNet backbone", "training run" …
        source_sha256: SHA-256 of that file.
        source_url: Where it was downloaded, or None.
        weights_sha256: SHA-256 of the file that holds the tensors now.
        imported_at: ISO 8601, UTC.
        jcs_ct_version: Version of the package that wrote the card.
        recipe: Name of the preprocessing recipe (`jcs_ct.imaging.recipes`).
        classes: Names of the output's classes in their order; empty for a backbone.
        threshold: Probability from which a class counts as present; None for a backbone.
        threshold_from: Where the threshold comes from.
        licence: Licence of the weights, as far as it is known.
        citation: What to cite.
        bn_eps_folded: What was added to the running variances of frozen batch norms (0: nothing).
        notes: What a user should know, a line each.
        temperature: What the logit of COVID-19 is divided by, so that its probability is calibrated.
        covid_threshold: Probability from which COVID-19 counts as present, where `threshold` is that of lesions.
        mirror: Whether the mirror image of a slice is looked at too (`jcs_ct.models.mirror`).
        patient: Slope and intercept of the patient rule top-k (`jcs_ct.study.rules.TopK`), as fitted for these weights.
        whole_study: The patient rule fitted on whole studies, see `jcs_ct.study.whole_study.WholeStudy.to_dict`.
        trained_on: What the weights learned from: sets, and how many slices of each; "" where nobody has said.
        schema_version: Version of this layout.
    """

    name: str
    architecture: str
    source_file: str
    source_kind: str
    source_sha256: str
    source_url: str | None
    weights_sha256: str
    imported_at: str
    jcs_ct_version: str
    recipe: str
    classes: tuple[str, ...]
    threshold: float | None
    threshold_from: str
    licence: str
    citation: str
    bn_eps_folded: float
    notes: tuple[str, ...] = ()
    temperature: float = 1.0
    covid_threshold: float | None = None
    mirror: bool = False
    patient: tuple[float, float] | None = None
    whole_study: dict[str, Any] | None = None
    trained_on: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return the card as the text of its file."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON values, the schema version first."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        plain = {name: usual for name, usual in _OPTIONAL.items() if values[name] == usual}
        return {"schema_version": values.pop("schema_version")} | {k: v for k, v in values.items() if k not in plain}

    def fit(self) -> str:
        """Return a digest of all that the numbers of a result depend on, 16 hexadecimal digits."""
        values = {name: value for name, value in asdict(self).items() if name not in DESCRIBE}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_json(cls, text: str | bytes, *, path: Path | str | None = None) -> WeightsCard:
        """Read a card, checking every field; `path` is what an error calls it.

        Raises:
            WeightsError: No JSON object, an unknown schema version, or a field that is missing, unknown or wrong.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise WeightsError("is not valid JSON", path=path, hint=_REIMPORT) from error
        if not isinstance(values, dict):
            raise WeightsError("holds no card: a JSON object was expected", path=path, hint=_REIMPORT)
        version = values.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise WeightsError(
                f"has card version {version!r:.40}, this jcs-ct reads {SCHEMA_VERSION}",
                path=path,
                hint="update jcs-ct, or " + _REIMPORT,
            )
        known = {field.name for field in fields(cls)}
        for problem, names in (
            ("lacks", known - values.keys() - _OPTIONAL.keys()),
            ("has unknown fields:", values.keys() - known),
        ):
            if names:
                raise WeightsError(f"{problem} {', '.join(sorted(names)[:5]):.200}", path=path, hint=_REIMPORT)
        for name, value in values.items():
            if not _CHECKS.get(name, _is_text)(value):
                raise WeightsError(f"has a wrong value in {name!r}: {value!r:.60}", path=path, hint=_REIMPORT)
        lists = ("classes", "notes", *(["patient"] if values.get("patient") is not None else []))
        return cls(**values | {name: tuple(values[name]) for name in lists})

    @classmethod
    def read(cls, path: Path) -> WeightsCard:
        """Read the card in a file. Raises WeightsError as `from_json` does, and when it cannot be read."""
        try:
            if path.stat().st_size > LARGEST_CARD:
                raise WeightsError(f"is larger than {LARGEST_CARD} bytes, no card is", path=path, hint=_REIMPORT)
            return cls.from_json(path.read_bytes(), path=path)
        except OSError as error:
            raise WeightsError(f"cannot be read: {error.strerror}", path=path, hint="check the file") from error


_OPTIONAL = {
    field.name: field.default
    for field in fields(WeightsCard)
    if field.default is not MISSING and field.name not in ("notes", "schema_version")
}
"""Left out of a file where they say nothing: with their default."""


def _is_number(value: object, low: float = -1e300, high: float = 1e300) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high  # NaN is not


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


_CHECKS: dict[str, Callable[[Any], bool]] = {  # every other field is a string
    "classes": _are_texts,
    "notes": _are_texts,
    "source_sha256": _is_sha256,
    "weights_sha256": _is_sha256,
    "source_url": lambda value: value is None or _is_text(value),
    "threshold": lambda value: value is None or _is_number(value, 0, 1),
    "covid_threshold": lambda value: value is None or _is_number(value, 0, 1),
    "bn_eps_folded": lambda value: _is_number(value, 0, 1),
    "temperature": lambda value: _is_number(value) and 0 < value < 1000,
    "mirror": lambda value: isinstance(value, bool),
    "patient": lambda value: (
        value is None or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)))
    ),
    "whole_study": lambda value: value is None or isinstance(value, dict),  # its numbers are checked where it is used
    "schema_version": lambda value: isinstance(value, int),
}
