"""Cells of tables that people open in a spreadsheet."""

from __future__ import annotations

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def cell(value: Any) -> Any:
    """Return a cell that no spreadsheet computes: text that looks like a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return "'" + value
    return value


def value_of(text: str) -> str:
    """Return what `cell` made a text of: without the apostrophe, where one hides a formula."""
    hidden = text[1:]
    return hidden if text[:1] == "'" and hidden.startswith(FORMULA) and not _is_number(hidden) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
