"""Scores as JSON, Markdown and CSV. An undefined score (NaN) is null, "not defined" and an empty cell.

Why it is not defined stands beside: as "undefined" in JSON, below the table in Markdown, in the column "undefined".
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.evaluate.undefined import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESEARCH = "Research tool, not a medical device."


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: NaN and infinity are None, dataclasses and arrays are unfolded."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return strict JSON (no NaN), indented, UTF-8."""
    return (json.dumps(plain(dict(content)), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        errors="backslashreplace"  # names that are no text, as JSON itself spells them
    )


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a table with the keys of the first row as header; numbers in full precision."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows[0])
    for row in rows:
        cells = (plain(value) for value in row.values())
        table.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue().encode(errors="surrogateescape")


def reservation(content: Mapping[str, Any]) -> str:
    """Return why scores may be too good: the network learned from the slices, or nobody knows; else ""."""
    found = content.get("training_data", {"known": True, "seen": 0, "text": ""})
    return "" if found["known"] and not found["seen"] else str(found["text"])


def slices_seen(content: Mapping[str, Any]) -> str:
    """Return what a report says of its slices: whether the network learned from them, and how many were flagged."""
    if "training_data" not in content:
        return ""
    text, flagged = content["training_data"]["text"], content["guard"]["flagged"]
    what = "do not look like axial chest slices in a lung window, or lie in a volume that is not reliable"
    note = f" {flagged} {what} (named in scores.json)." if flagged else ""
    return (
        f"{text[0].upper()}{text[1:]}.{note}" if not reservation(content) else f"**{text[0].upper()}{text[1:]}.**{note}"
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    line = "| " + " | ".join(header) + " |"
    rule = "| --- |" + " ---: |" * (len(header) - 1)
    return "\n".join(
        [line, rule, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)]
    )


def number(value: float, digits: int = 4) -> str:
    """Return a score as text."""
    return f"{value:.{digits}f}" if math.isfinite(value) else UNDEFINED


def interval(found: Mapping[str, Any], digits: int = 4) -> str:
    """Return "value (low to high)" of an `Interval` as a dictionary; the value alone where there is no interval."""
    text = number(found["value"], digits)
    if math.isfinite(found["low"]):
        text += f" ({number(found['low'], digits)} to {number(found['high'], digits)})"
    return text


def document(title: str, *parts: str) -> bytes:
    """Return a Markdown file of paragraphs and tables."""
    return ("\n\n".join([f"# {title}", *(part for part in parts if part), RESEARCH]) + "\n").encode(errors="replace")
