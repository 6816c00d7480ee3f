"""What the documents name exists."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = re.compile(r"(?:^|&& )jcs +(\w(?:(?! && )[^\n])*)", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


def blocks() -> list[tuple[str, str, str]]:
    """Return (page, language, code) of every block of code."""
    pages = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    return [(page.name, *found) for page in pages for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def test_every_block_of_code_can_be_read() -> None:
    """Tutorials are run (`test_tutorials.py`); here Python compiles, shells parse, and what a block names exists."""
    import jcs_ct

    wrong, seen, shell = [], {"sh": 0, "python": 0}, ""
    for page, language, code in blocks():
        seen[language] = seen.get(language, 0) + 1
        if language == "python":
            tree = ast.parse(code, page)
            names = {
                n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "jcs_ct"
            }
            wrong += [f"{page}: jcs_ct.{name}" for name in names if not hasattr(jcs_ct, name)]
        elif language == "sh":
            shell += f": {page}\n{code}"
        for script in re.findall(r"python3? (tools/\w+\.py)", code.replace("\\", "/")):
            wrong += [f"{page}: {script}"] if not (ROOT / script).is_file() else []
        for target in re.findall(r"^make (\w+)", code, re.MULTILINE):
            wrong += [f"{page}: make {target}"] if f"{target}:" not in (ROOT / "Makefile").read_text() else []
    told = subprocess.run(["bash", "-n"], input=shell, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert seen["sh"] > 25
    assert seen["python"] > 5
    assert wrong == []


def test_links_to_headings_lead_to_one() -> None:
    """Of every page, the root's too, which the site does not hold."""
    broken, seen = [], 0
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            text = (page.parent / target if target else page).read_text(encoding="utf-8")
            known = {
                re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")
                for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            }
            seen += 1
            broken += [f"{page.name}: {target}#{heading}"] if heading not in known else []
    assert seen >= 3
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
