"""Spans of time as a person writes them."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """Return a span of time in words, two units at most.

    >>> duration(95), duration(7500)
    ('2 min', '2 h 05 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def left_after(done: int, total: int, began: float) -> str:
    """Return "; 2 min left" for `done` of `total` equal parts since `began` (`time.monotonic`); "" after the last."""
    left = (time.monotonic() - began) / done * (total - done)
    return f"; {duration(left)} left" if done < total else ""
