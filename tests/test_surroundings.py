"""Where little is there: the same numbers and nothing else printed, or one line (tools/surroundings.py: at length)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("surroundings", ROOT / "tools" / "surroundings.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["surroundings"] = found
    spec.loader.exec_module(found)
    return found


tool: Any = module()
CHEAP = {
    "HOME is a file",
    "HOME does not exist",
    "LANG=C",
    "a locale that is not installed",
    "no PATH, no TERM",
    "closed stdout",
    "closed stderr",
    "64 open files",
    "variables of a scheduler: SLURM, two tasks",
    "no network, not even loopback",
    "a uid that no one knows, no HOME",
}
"""Those that the others say little more than."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("surroundings")
    for part in (folder, *folder.parents[:2]):
        part.chmod(0o755)  # another user is to reach it
    tool.data(folder / "data")
    return folder, tool.run(tool.SURROUNDINGS[0], "classify", folder / "data", folder / "plain")


def test_the_tool_knows_what_was_asked_for() -> None:
    names = " / ".join(s.name for s in tool.SURROUNDINGS)
    assert {s.name for s in tool.SURROUNDINGS} >= CHEAP
    assert names.count("variables of a scheduler") == 13
    for word in ("read-only root", "cgroup", "affinity", "/dev/shm", "uid", "no network", "LANG=C", "closed stdout"):
        assert word in names


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces, signals and locales of Linux")
@pytest.mark.parametrize("name", sorted(CHEAP))
def test_it_is_as_everywhere_or_one_line(name: str, plain: tuple[Path, Any], tmp_path: Path) -> None:
    folder, ran = plain
    assert (ran.status, bool(ran.digest)) == (0, True), ran.said
    surrounding = next(s for s in tool.SURROUNDINGS if s.name == name)
    if cannot := tool.possible(surrounding):
        pytest.skip(cannot)
    for part in (tmp_path, *tmp_path.parents[:2]):
        part.chmod(0o755)
    found = tool.run(surrounding, "classify", folder / "data", tmp_path / "out")
    assert tool.verdict(found, ran, surrounding) == "as everywhere"


def test_what_is_wrong_is_seen() -> None:
    plain, here = tool.Ran(0, "jcs: 1 done", "a"), tool.SURROUNDINGS[0]
    assert tool.verdict(plain, plain, here) == "as everywhere"
    for status, said, digest in (
        (0, "jcs: 1 done", "b"),  # other numbers
        (0, "jcs: 1 done\nlibrary: a line of its own", "a"),
        (1, "jcs: error: unexpected KeyError: 'HOME'", ""),
        (2, "jcs: error: one\njcs: error: two", ""),
        (2, "Traceback\njcs: error: one", ""),
        (139, "", ""),
    ):
        assert tool.verdict(tool.Ran(status, said, digest), plain, here).startswith("WRONG: ")
    assert tool.verdict(tool.Ran(2, "jcs: error: x: no room (do this)", ""), plain, here) == "x: no room (do this)"
    assert tool.strange(tool.Ran(0, 'jcs: a\n{\n  "b": 1\n}\njcs: c\n', "")) == []
