"""The page that documents the API, made from the same OpenAPI description that clients read. It loads one style."""

from __future__ import annotations

from html import escape
from typing import Any

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>jcs-ct: the API</title><link rel="stylesheet" href="/page/page.css"></head><body><main>
"""


def documentation(openapi: dict[str, Any]) -> str:
    """Return the page.

    Args:
        openapi: The description, as FastAPI makes it.
    """
    info = openapi["info"]
    parts = [_HEAD, f"<h1>{escape(info['title'])} {escape(info['version'])}: the API</h1>"]
    parts.append(f"<p>{escape(info['description'])}</p>")
    parts.append('<p>For programs: <a href="/openapi.json">openapi.json</a>. Where tokens are needed, each request has '
                 "the header <code>Authorization: Bearer TOKEN</code>.</p>")  # fmt: skip
    for path, methods in openapi["paths"].items():
        for method, facts in methods.items():
            parts.append(_request(path, method, facts))
    parts.append("<h2>Answers</h2>")
    for name, schema in openapi["components"]["schemas"].items():
        if schema.get("properties") and "Error" not in name:
            parts.append(_schema(name, schema))
    return "".join(parts) + "</main></body></html>"


def _request(path: str, method: str, facts: dict[str, Any]) -> str:
    text = escape(facts.get("description", facts.get("summary", "")))
    rows = []
    for given in facts.get("parameters", ()):
        more = "" if given.get("required") else ", may be left out"
        rows.append(f"<li><code>{escape(given['name'])}</code> in the {escape(given['in'])}{more}</li>")
    kinds = ", ".join(escape(kind) for kind in facts.get("requestBody", {}).get("content", {}))
    body = f"<p>Body: {kinds}</p>" if kinds else ""
    good = ", ".join(status for status in facts["responses"] if status.startswith("2"))
    listed = f"<ul>{''.join(rows)}</ul>" if rows else ""
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{text}</p>{listed}{body}"
        f"<p>Answers {good}, or a line on why not.</p></section>"
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(_kind(facts))}</td>"
        f"<td>{escape(facts.get('description', ''))}</td></tr>"
        for field, facts in schema["properties"].items()
    ]
    head = "<thead><tr><th>field</th><th>type</th><th>meaning</th></tr></thead>"
    table = f"<table>{head}<tbody>{''.join(rows)}</tbody></table>"
    return f"<section><h3>{escape(name)}</h3><p>{escape(schema.get('description', ''))}</p>{table}</section>"


def _kind(facts: dict[str, Any]) -> str:
    if "anyOf" in facts:
        return " or ".join(_kind(one) for one in facts["anyOf"])
    if "$ref" in facts:
        return str(facts["$ref"]).rpartition("/")[2]
    if facts.get("type") == "array":
        return f"list of {_kind(facts['items'])}"
    return str(facts.get("type", ""))
