"""A slice and its mirror image: together in, and means of both out."""

from __future__ import annotations

import numpy as np

from jcs_ct.models.mirror import merged, with_mirrors


def test_mirrors_follow_the_slices() -> None:
    batch = [np.arange(6, dtype=np.float32).reshape(1, 2, 3) + 10 * i for i in range(2)]
    found = with_mirrors(batch)
    assert found.shape == (4, 1, 2, 3)
    assert np.array_equal(found[:2], np.stack(batch))
    assert found[2, 0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert found[3, 0].tolist() == [[12, 11, 10], [15, 14, 13]]


def test_what_both_give_is_averaged_and_turned_back() -> None:
    logits = np.array([1, 2, 3, 6], np.float32)
    rows = np.array([[[0, 2]], [[4, 6]], [[8, 0]], [[2, 4]]], np.float32)
    found, evidence, maps = merged(logits, rows, rows[:, None])
    assert found.tolist() == [2, 4]
    assert evidence.tolist() == [[[0, 5]], [[4, 4]]]
    assert np.array_equal(maps[:, 0], evidence)


def test_a_mirrored_batch_of_what_is_even_changes_nothing() -> None:
    even = np.array([[[[1, 3, 1]]]], np.float32)
    twice = np.concatenate([even, even])
    assert np.array_equal(merged(twice[:, 0, 0, 0], twice[:, 0], twice)[2], even)
