"""Links of README and documents to the web: `python tools/check_links.py`. It needs a network, so that no test runs it.

Links between documents are a test (`tests/test_documents.py`), and those within the site are checked when it is built.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"https?://[^\s<>()\"'`\]]+[^\s<>()\"'`\].,;:]")
EXAMPLES = ("localhost", "127.0.0.1", "example")
SECONDS = 20


def main() -> None:
    """Ask for every address once; name those that do not answer."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "CITATION.cff"]
    where: dict[str, str] = {}
    for page in pages:
        for address in LINK.findall(page.read_text(encoding="utf-8")):
            if not any(word in address for word in EXAMPLES):
                where.setdefault(address, page.relative_to(ROOT).as_posix())
    faults = [f"{page}: {address}: {problem}" for address, page in where.items() if (problem := problem_of(address))]
    print(*faults, f"{len(where)} addresses, {len(faults)} do not answer", sep="\n")
    sys.exit(bool(faults))


def problem_of(address: str) -> str:
    """Return why a page cannot be had, or ""."""
    try:
        answer = requests.get(address, timeout=SECONDS, stream=True, headers={"User-Agent": "jcs-ct link check"})
    except requests.RequestException as error:
        return type(error).__name__
    return "" if answer.ok or answer.status_code in {403, 429} else f"status {answer.status_code}"


if __name__ == "__main__":
    main()
