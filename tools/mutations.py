"""Does a test fail when a check is dropped? Drops one after the other, and runs the test that should see it.

    python tools/mutations.py [--only WORDS] [--write docs/mutations.md]

The checks stand in `tools/mutations.json`. One is dropped in memory: its module is compiled from its source with one
piece changed, and its functions get the code of the changed ones, whoever imported them. The exit status is 1 where a
test passes without its check, or fails with it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import json
import sys
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


class Mutation(NamedTuple):
    """One check without which a test must fail.

    Attributes:
        check: In words.
        module: Where it stands.
        before: Its source, or a piece of it, which stands there once.
        after: What is there without it.
        test: The file and the name of the test, as pytest takes them.
    """

    check: str
    module: str
    before: str
    after: str
    test: str


MUTATIONS = [Mutation(**entry) for entry in json.loads((ROOT / "tools" / "mutations.json").read_text(encoding="utf-8"))]


@contextlib.contextmanager
def dropped(mutation: Mutation) -> Iterator[None]:
    """Run the block without a check."""
    module = importlib.import_module(mutation.module)
    source = inspect.getsource(module)
    if source.count(mutation.before) != 1:
        raise SystemExit(
            f"{mutation.check}: {mutation.before!r} stands {source.count(mutation.before)} times in {module.__name__}"
        )
    space: dict[str, Any] = {
        "__name__": module.__name__,
        "__package__": module.__package__,
        "__file__": module.__file__,
    }
    other = type(module)(module.__name__)
    space["__builtins__"] = __builtins__
    other.__dict__.update(space)
    sys.modules[module.__name__] = other  # data classes look themselves up there
    try:
        changed = source.replace(mutation.before, mutation.after)
        exec(compile(changed, str(module.__file__), "exec"), other.__dict__)  # our own source
    finally:
        sys.modules[module.__name__] = module
    pairs = list(_functions(module, other))
    before = [ours.__code__ for ours, _ in pairs]
    try:
        for ours, theirs in pairs:
            ours.__code__ = theirs.__code__
        yield
    finally:
        for (ours, _), code in zip(pairs, before, strict=True):
            ours.__code__ = code


def _functions(module: ModuleType, other: ModuleType) -> Iterator[tuple[FunctionType, FunctionType]]:
    """Yield the functions and methods of a module, each with that of the changed one."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        theirs = getattr(other, name, None)
        if isinstance(value, FunctionType) and isinstance(theirs, FunctionType):
            yield value, theirs
        elif isinstance(value, type) and isinstance(theirs, type):
            for part, method in vars(value).items():
                their = vars(theirs).get(part)
                if isinstance(method, FunctionType) and isinstance(their, FunctionType) and not part.startswith("__"):
                    yield method, their


def passes(test: str) -> bool:
    """Run a test in this process; return whether it passes. What pytest prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore", str(ROOT / "tests" / test)])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise SystemExit(f"{test}: pytest ends with {status!r}")
    return status == pytest.ExitCode.OK


def table() -> str:
    """Return the page."""
    lines = [
        "# What fails without a check",
        "",
        "`python tools/mutations.py` drops each check in turn and runs the test beside it, which has to fail.",
        "",
        "| check | where | test |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {m.check} | `{m.module}` | `tests/{m.test}` |" for m in MUTATIONS]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Drop every check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="checks with these words")
    parser.add_argument("--every", type=int, default=1, help="only every N-th check")
    parser.add_argument("--write", type=Path, help="write the table")
    options = parser.parse_args()
    survived = 0
    for mutation in (m for m in MUTATIONS[:: options.every] if options.only in m.check):
        if not passes(mutation.test):
            print(f"FAILS ANYWAY  {mutation.check}: {mutation.test}")
            survived += 1
            continue
        with dropped(mutation):
            unseen = passes(mutation.test)
        survived += unseen
        print(f"{'NOT SEEN' if unseen else 'seen    '}  {mutation.check}: {mutation.test}", flush=True)
    if options.write is not None:
        kept = options.write.read_text(encoding="utf-8").partition("\n# ")[2] if options.write.exists() else ""
        options.write.write_text(table() + (f"\n# {kept}" if kept else ""), encoding="utf-8")
    return int(survived > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(main())
