"""The published JSON Schema (draft 2020-12) of report.json."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping


def report_schema() -> dict[str, Any]:
    """Return the schema of "jcs-ct/report/1"."""
    schema: dict[str, Any] = json.loads(files(__package__).joinpath("schema.json").read_text(encoding="utf-8"))
    return schema


def check(report: Mapping[str, Any]) -> None:
    """Check a report against the schema; for tests, needs the package jsonschema.

    Raises:
        OutputError: The report breaks the schema; says where and how.
    """
    from jsonschema import Draft202012Validator

    found = sorted(Draft202012Validator(report_schema()).iter_errors(report), key=lambda e: list(e.absolute_path))
    if found:
        where = "/".join(str(step) for step in found[0].absolute_path) or "the report"
        raise OutputError(f"report.json: {where}: {found[0].message}, and {len(found) - 1} more breaches of the schema")
