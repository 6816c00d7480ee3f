"""What stands for a UID in logs and names of files: the same for all of a folder, and nothing without its key."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from jcs_ct.core.errors import OutputError
from jcs_ct.service.pseudonyms import KEY_FILE, Pseudonyms

if TYPE_CHECKING:
    from pathlib import Path

UID = "1.2.840.99999.1"


def test_the_same_for_the_same_and_only_with_the_key(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with ThreadPoolExecutor(8) as pool:  # that start at once: one key is made
        made = set(pool.map(lambda _: Pseudonyms(here).of("study", UID), range(32)))
    assert len(made) == 1
    assert Pseudonyms(there).of("study", UID) not in made
    assert Pseudonyms(here).of("image", UID) not in made
    assert Pseudonyms(here).of("study" + UID) != Pseudonyms(here).of("study", UID)
    for plain in (hashlib.sha256, hashlib.sha1, hashlib.md5):
        assert plain(UID.encode()).hexdigest()[:32] not in made
    assert [path.name for path in here.iterdir()] == [KEY_FILE]
    if os.name == "posix":
        assert (here / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_named(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(OutputError, match="is not a key of 32 bytes"):
        Pseudonyms(tmp_path)
