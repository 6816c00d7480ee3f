"""Reading in several processes: what stands in their way is named in one line."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.datasets import inspection


def test_shared_memory_without_room_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import _multiprocessing  # type: ignore[import-not-found]

    importlib.import_module("multiprocessing.synchronize")  # it reads more of that module than this

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_multiprocessing, "SemLock", full)
    with pytest.raises(UsageError, match=r"/dev/shm\) cannot be used: No space left on device \(--workers 1 reads"):
        list(inspection.inspect_all([], workers=2))


def test_a_reader_that_is_killed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "inspect", os._exit)
    files: Any = [3]
    with pytest.raises(JcsError, match=r"a process that reads was killed.*\(--workers 1"):
        list(inspection.inspect_all(files, workers=2))
