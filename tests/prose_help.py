"""The project's prose as texts that a linter can read: pages, help, messages, the report's sentences."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "jcs_ct"
CATALOGUE = SOURCE / "outputs" / "report" / "locale" / "de.po"
BEFORE = ROOT / "docs" / "words.md"  # its second column quotes what must not be written

_CODE = re.compile(
    r"^ *(```|~~~).*?^ *\1|<!--.*?-->|``[^\n]+?``|`[^`\n]+`|\]\([^)\s]+\)|https?://\S+|</?[a-z][^>\n]*>", re.M | re.S
)
_SPEAKS = re.compile(r"Error$|^Warned$|^(note|notes|say|warn|mark|count|problem|refuse|fail|Remark|echo|append)$")
_WORDS = re.compile(r"[A-Za-z]{2,}[,:]? [a-z]{2,}")


class Text(NamedTuple):
    """A piece of prose: where it stands, and its words; code within it is "CODE"."""

    where: str
    words: str


def pages() -> Iterator[Text]:
    """Yield README, the other pages of the root, and the documents."""
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        if path == BEFORE:
            text = re.sub(r"^(\|[^|]*\|)[^|]*\|", r"\1 |", text, flags=re.M)
        yield Text(path.relative_to(ROOT).as_posix(), without_code(text))


def without_code(text: str) -> str:
    """Return Markdown without code, comments, tags and addresses; lines keep their numbers."""
    return _CODE.sub(lambda found: "\n" * found.group().count("\n") or "CODE", text)


def sentences_of_the_report() -> Iterator[Text]:
    """Yield the English sentences of the page; its catalogues hold all of them, which another test keeps."""
    from babel.messages.pofile import read_po

    with CATALOGUE.open("rb") as file:
        for message in read_po(file):
            for words in [message.id] if isinstance(message.id, str) else message.id:
                yield Text("report", re.sub(r"%\(\w+\)s", "CODE", words))


def helps() -> Iterator[Text]:
    """Yield the help of every command and of each of its options, once."""
    from jcs_ct.cli import jcs

    seen = set()
    for name, command in _commands("jcs", jcs):
        yield Text(f"{name} --help", without_code(command.help or ""))
        for option in command.params:
            words = getattr(option, "help", None)
            if words and words not in seen:
                seen.add(words)
                yield Text(f"{name} {option.opts[0]}", without_code(words))


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for part in command.list_commands(context):
            found = command.get_command(context, part)
            assert found is not None
            yield from _commands(f"{name} {part}", found)


def messages() -> Iterator[Text]:
    """Yield what the program says: arguments of errors, warnings and notes, and every hint; values in it are "CODE"."""
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                said = list(node.args) if _SPEAKS.search(called) else []
                said += [k.value for k in node.keywords if k.arg in ("hint", "help", "expected")]
                for one in said:
                    for words in _strings(one):
                        if _WORDS.search(words):
                            yield Text(f"{where}:{one.lineno}", without_code(words))


def _strings(node: ast.expr) -> Iterator[str]:
    """Yield the texts of an expression: plain, formatted, either side of a choice."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(p.value) if isinstance(p, ast.Constant) else "CODE" for p in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _strings(node.body)
        yield from _strings(node.orelse)
    elif isinstance(node, ast.BinOp):
        yield from _strings(node.left)
        yield from _strings(node.right)
