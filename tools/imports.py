"""Draw which package of jcs_ct imports which into ARCHITECTURE.md, between its marks.

    python tools/imports.py            # write it
    python tools/imports.py --check    # exit status 1 where it is not current (a test runs this)

The graph is grimp's, with late imports and those for types only. An arrow is left out where others lead there too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grimp

PAGE = Path(__file__).resolve().parent.parent / "ARCHITECTURE.md"
BEGIN, END = "<!-- imports: written by tools/imports.py -->\n", "<!-- end of imports -->\n"


def package_imports() -> dict[str, set[str]]:
    """Return which package imports which others."""
    graph = grimp.build_graph("jcs_ct", cache_dir=None)
    packages = sorted(graph.find_children("jcs_ct"))
    for package in packages:
        graph.squash_module(package)
    return {
        name.removeprefix("jcs_ct."): {
            other.removeprefix("jcs_ct.")
            for other in graph.find_modules_directly_imported_by(name)
            if other in packages and other != name
        }
        for name in packages
        if name != "jcs_ct.__main__"
    }


def reduced(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports without those that follow from others. Fails on a circle, which has no order."""

    def reached(name: str) -> set[str]:
        return imports[name].union(*map(reached, imports[name]))

    return {name: found - set().union(*map(reached, found)) for name, found in imports.items()}


def picture() -> str:
    """Return the block of the page."""
    direct = reduced(package_imports())
    lines = [f"  {name} --> {other}" for name in sorted(direct) for other in sorted(direct[name])]
    return "\n".join(["```mermaid", "graph RL", *lines, "```", ""])


def main() -> int:
    """Write or check the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    current = f"{before}{BEGIN}{picture()}{END}{after}"
    if "--check" in sys.argv[1:]:
        if current != text:
            print("ARCHITECTURE.md does not show the imports as they are: run python tools/imports.py", file=sys.stderr)
        return int(current != text)
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
