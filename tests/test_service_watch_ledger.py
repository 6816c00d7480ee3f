"""What the watcher knows, on both databases: cursor and dirty studies move together; one version of the same images."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("sqlalchemy")

import postgres_help
from jcs_ct.service.settings import sqlite_in
from jcs_ct.service.watch.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, THERE = "a" * 64, "b" * 64
FACTS = {"key": "k", "digest": "d" * 64, "settings": "s" * 64, "outline": "o" * 64, "job": "j"}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=postgres_help.installed)])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    folder = tmp_path_factory.mktemp("ledger")
    if request.param == "sqlite":
        with closing(Ledger(sqlite_in(folder))) as ledger:
            ledger.prepare()
            yield ledger
        return
    with postgres_help.running(folder / "cluster") as server, closing(Ledger(server.url)) as ledger:
        ledger.prepare()
        yield ledger


def studies(ledger: Ledger, source: str = HERE) -> list[str]:
    return [watched.study for watched in ledger.dirty(source)]


def test_cursor_and_studies_move_together_or_not_at_all(ledger: Ledger) -> None:
    assert ledger.cursor(HERE) is None
    ledger.follow(HERE, ["one"], 10)
    assert (ledger.cursor(HERE), studies(ledger)) == ((10, None), ["one"])
    with pytest.raises(Exception, match=r"too large|out of range"):
        ledger.follow(HERE, ["two"], 2**70)  # the cursor cannot be written: so the study is not marked
    assert (ledger.cursor(HERE), studies(ledger)) == ((10, None), ["one"])
    ledger.follow(THERE, ["one", "three"], 3)
    assert (studies(ledger), studies(ledger, THERE)) == (["one"], ["one", "three"])
    ledger.scanned(HERE)
    cursor = ledger.cursor(HERE)
    assert cursor is not None
    assert abs((cursor[1] or 0) - ledger.now()) < 60


def test_what_changed_is_marked_once(ledger: Ledger) -> None:
    (watched,) = ledger.dirty(HERE)
    ledger.outlined(watched, FACTS["outline"])
    ledger.settle(watched, "20260101T000000")
    assert studies(ledger) == []
    ledger.compare(HERE, {"one": "20260101T000000"})
    assert studies(ledger) == []
    ledger.compare(HERE, {"one": "20260102T000000", "new": "20260101T000000"})
    assert studies(ledger) == ["one", "new"]
    ledger.compare(HERE, {"old": "20250101T000000"}, dirty=False)
    assert studies(ledger) == ["one", "new"]


def test_versions(ledger: Ledger) -> None:
    one, new = ledger.dirty(HERE)
    assert not ledger.has_version(one, FACTS["outline"])
    assert ledger.begin(one, "", FACTS)
    assert ledger.has_version(one, FACTS["outline"])
    assert not ledger.begin(one, "", FACTS | {"outline": "p"})  # on its way already
    assert ledger.begin(one, "", FACTS | {"digest": "e" * 64})
    assert ledger.begin(new, "", FACTS)
    found = ledger.open_versions(HERE)
    assert [(version.version, watched.study) for version, watched in found] == [(1, "one"), (1, "new")]  # oldest first
    first = found[0][0]
    ledger.put_off(first, 100.0, "away")
    (first, _), _ = ledger.open_versions(HERE)
    assert (first.tries, first.error, first.later > ledger.now() + 50) == (1, "away", True)
    ledger.move(first, "done", seg=True, error=None)
    (second, _), _ = ledger.open_versions(HERE)
    assert second.version == 2
    before = ledger.previous(second)
    assert before is not None
    assert (before.number, before.seg) == (first.number, True)
    assert ledger.previous(first) is None
    assert ledger.begin(one, "", FACTS)  # sent again after it was done: once more
    assert ledger.open_numbers() >= {first.number, second.number}
    assert ledger.sent_back() == {"waiting": 3}
