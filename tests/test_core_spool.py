"""Arrays that wait on disk come back as they were, also from several threads and from a pickle."""

from __future__ import annotations

import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from jcs_ct.core import spool
from jcs_ct.core.errors import OutputError
from jcs_ct.core.spool import Spool


def arrays() -> dict[int, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {i: rng.integers(-1024, 3071, (9 + i, 7)).astype(np.int16) for i in range(0, 20, 3)}


@pytest.mark.parametrize("limit", [1, 2**20], ids=["file", "memory"])
def test_arrays_come_back(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", limit)
    kept = Spool(arrays())
    kept.put(100, np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2])
    kept.put(0, np.ones((2, 2), np.float32))
    for copy in (kept, pickle.loads(pickle.dumps(kept))):
        with ThreadPoolExecutor(4) as pool:
            found = dict(zip(arrays(), pool.map(copy.get, arrays()), strict=True))
        for number, array in (arrays() | {0: np.ones((2, 2), np.float32)}).items():
            assert found[number].dtype == array.dtype
            assert np.array_equal(found[number], array)
        assert np.array_equal(copy.get(100), [[0, 2], [4, 6], [8, 10]])
        assert 3 in copy
        assert 4 not in copy
        with pytest.raises(KeyError):
            copy.get(4)


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(tempfile.SpooledTemporaryFile):  # type: ignore[type-arg]
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(OutputError, match=r"cannot be kept in .*: No space left on device \(free some space there"):
        Spool().put(0, np.zeros(3))
