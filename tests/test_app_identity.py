"""Names and digests: they follow the bytes and the place of an input, never the order of the inputs."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from jcs_ct.app.gather import gather
from jcs_ct.app.identity import KEY_FILE, hashed_uid, identify, unchanged, with_stable_names
from jcs_ct.phantom import write_pngs
from study_help import small_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.study.case import Case


@pytest.fixture
def studies(tmp_path: Path) -> list[Path]:
    """Three folders of pictures of one name in three places."""
    write_pngs(small_phantom(slices=3, size=64), tmp_path / "one" / "chest")
    shutil.rmtree(tmp_path / "one" / "chest" / "masks")
    for place in ("two", "three"):
        shutil.copytree(tmp_path / "one" / "chest", tmp_path / place / "chest")
    return [tmp_path / place / "chest" for place in ("one", "two", "three")]


def names(paths: list[Path], out: Path) -> dict[Path, str]:
    cases = with_stable_names(gather([str(path) for path in paths]).cases, out)
    return {case.sources[0].path.parent: case.name for case in cases}


def finish(case_name: str, place: Path, out: Path) -> None:
    (out / case_name).mkdir(parents=True)
    (out / case_name / "report.json").write_text(json.dumps({"source": {"path": str(place)}}))


def test_names_do_not_depend_on_the_order_of_the_inputs(studies: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    forward, backward = names(studies, out), names(studies[::-1], out)
    assert forward == backward
    assert len(set(forward.values())) == 3
    assert names(studies[:1], out) == {studies[0]: "chest"}


def test_a_case_finds_its_own_results_whoever_comes_with_it(studies: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for place, name in names(studies[:2], out).items():
        finish(name, place, out)
    together = names(studies, out)
    for place in studies[:2]:
        assert names([place], out)[place] == together[place]


def test_a_plain_name_stays_with_its_first_owner(studies: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish("chest", studies[0], out)
    assert names(studies[:1], out) == {studies[0]: "chest"}
    assert names([studies[1]], out)[studies[1]] != "chest"


def only(path: Path) -> Case:
    (case,) = gather([str(path)]).cases
    return case


def test_the_digest_is_of_the_bytes_and_not_of_the_place(studies: list[Path]) -> None:
    one, two = identify(only(studies[0])), identify(only(studies[1]))
    assert one.digest == two.digest
    assert one.stamp != two.stamp
    assert one.files == 3
    assert unchanged(only(studies[1]), one.to_dict())
    picture = min(studies[1].iterdir())
    picture.write_bytes(max(studies[1].iterdir()).read_bytes())
    assert not unchanged(only(studies[1]), one.to_dict())


def test_pictures_in_another_order_are_another_study(studies: list[Path]) -> None:
    before = identify(only(studies[0])).digest
    first, second, _ = sorted(studies[0].iterdir())
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert identify(only(studies[0])).digest != before


def test_uids_are_hashed_with_a_key_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "a"))
    first = hashed_uid("1.2.3")
    assert first == hashed_uid("1.2.3") != hashed_uid("1.2.4")
    assert (tmp_path / "a" / KEY_FILE).stat().st_mode & 0o077 == 0
    assert hashed_uid("") == ""
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "b"))
    assert hashed_uid("1.2.3") != first
