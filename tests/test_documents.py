"""What the documents name exists."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = re.compile(r"(?:^|&& )jcs +(\w(?:(?! && )[^\n])*)", re.MULTILINE)
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
        for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    ]
    assert len(links) > 10
    broken = [f"{document.name}: {target}" for document, target in links if not (document.parent / target).exists()]
    assert broken == []


def test_commands_in_the_documents_exist() -> None:
    """Every `jcs …` of README and documents names a command, and options that this command has."""
    import click

    from jcs_ct.cli import jcs

    wrong, seen = [], 0
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        if document.name == "CHANGELOG.md":  # it also tells of what is gone
            continue
        for line in COMMAND.findall(document.read_text(encoding="utf-8")):
            words = line.split("  #")[0].split()
            command: click.Command | None = jcs
            while isinstance(command, click.Group) and words and not words[0].startswith("-"):
                command = command.get_command(click.Context(command), words.pop(0))
            known = {"--help", "-h"} | {
                name for one in (command.params if command else []) for name in (*one.opts, *one.secondary_opts)
            }
            given = [word.strip("[]").split("=")[0] for word in words if word.lstrip("[").startswith("-")]
            seen += 1
            if command is None or not set(given) <= known:
                wrong.append(f"{document.name}: jcs {line}: {sorted(set(given) - known)}")
    assert seen > 40
    assert wrong == []
