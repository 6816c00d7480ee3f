"""What the documents name exists."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"^\| (?P<what>[^|]+) \| (?P<happens>[^|]+) \| (?P<tests>`[^|]+`) \|$", re.MULTILINE)


@lru_cache
def named_in(module: str) -> frozenset[str]:
    """Return the names of the tests in a module; empty where there is none."""
    path = ROOT / "tests" / f"test_{module}.py"
    if not path.is_file():
        return frozenset()
    found = (
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    )
    return frozenset(node.name for node in found if node.name.startswith("test_"))


def test_every_group_of_inputs_has_tests_that_exist() -> None:
    rows = LINE.findall((ROOT / "docs/inputs.md").read_text(encoding="utf-8"))
    assert len(rows) >= 35
    missing = []
    for what, _, tests in rows:
        for module, test in (name.split("::") for name in re.findall(r"`([^`]+)`", tests)):
            if test not in named_in(module):
                missing.append(f"{what}: {module}::{test}")
    assert missing == []


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (document, target)
        for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    ]
    assert len(links) > 10
    broken = [f"{document.name}: {target}" for document, target in links if not (document.parent / target).exists()]
    assert broken == []
