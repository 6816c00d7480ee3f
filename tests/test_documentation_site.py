"""The documentation site builds without a warning, needs nothing from elsewhere, and holds every page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"(https?:|//)|<link[^>]+href=\"(?:https?:|//)(?![^>]*canonical)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    if any(find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings", "mkdocs_click")):
        if os.environ.get("CI"):
            pytest.fail("mkdocs is missing, which the extra docs installs")
        pytest.skip("needs the extra docs: python tools/setup.py --dev")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in text] == []
    for page in pages:
        name = "index.html" if page == "index.md" else f"{page.removesuffix('.md')}/index.html"
        assert (site / name).is_file(), page


def test_a_reader_needs_no_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert [page.name for page in pages if LOADED.search(page.read_text(encoding="utf-8"))] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"(@import|url\()\s*[\"']?(https?:|//)", styles)


def test_the_reference_names_commands_and_classes(site: Path) -> None:
    commands = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    for text in ("--allow-gaps", "--freeze", "jcs models import", "jcs-doctor"):
        assert text in commands, text
    interface = (site / "reference/api/index.html").read_text(encoding="utf-8")
    for text in ("Diagnoser", "progress", "to_dict", "create_model"):
        assert text in interface, text
