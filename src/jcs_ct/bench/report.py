"""The inputs, the tables and the JSON of `jcs bench`."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.core.version import __version__
from jcs_ct.imaging.recipes import prepare, recipe
from jcs_ct.inference.parity import check_shape
from jcs_ct.inference.records import machine
from jcs_ct.io.files.sources import find_sources
from jcs_ct.io.pictures import read_slice
from jcs_ct.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.bench.networks import Row

SCHEMA = "jcs-ct/bench/1"


def parse_size(text: str) -> tuple[int, int, int]:
    """Return (batch, rows, columns) of "512", "256x320" or "16x224x224". Raises UsageError."""
    if not re.fullmatch(r"\d{1,5}([x×]\d{1,5}){0,2}", text) or min(numbers := _numbers(text)) < 1:
        raise UsageError(f"{text!r:.40} is not a size", hint="512, 256x320 or 16x224x224 (batch first), for example")
    if len(numbers) == 1:
        return 1, numbers[0], numbers[0]
    return (1, *numbers) if len(numbers) == 2 else numbers  # type: ignore[return-value]


def default_size(network: str) -> tuple[int, int, int]:
    """Return the (batch, rows, columns) at which a network of the table was trained; of other weights one of 512."""
    if network not in MODELS:
        return 1, 512, 512
    spec = MODELS[network]
    return 16 if spec.classifies_only else 1, *check_shape(spec.recipe)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.split("[x×]", text)))


def pictures(data: Path | None, count: int) -> list[NDArray[np.uint8]]:
    """Return slices to compare on: pictures of a folder, evenly spaced, or of the phantom.

    Args:
        data: A folder of slices, or None.
        count: At most that many.

    Raises:
        InputError: No picture in the folder.
    """
    if data is None:
        from jcs_ct.phantom import lung_window, make_phantom

        study = make_phantom(slices=3 * count, size=256)
        chosen = [lung_window(study.hu[i]) for i in np.linspace(count, 2 * count, count).astype(int)]
        return [np.repeat(grey[:, :, None], 3, axis=2) for grey in chosen]
    found = find_sources([str(data)])
    if not found.sources:
        raise InputError("holds no slice", path=data, hint="give a folder of pictures of slices")
    steps = np.unique(np.linspace(0, len(found.sources) - 1, count).astype(int))
    return [read_slice(found.sources[i]).pixels for i in steps]


def inputs(
    slices: Sequence[NDArray[np.uint8]], how: str, size: tuple[int, int, int]
) -> list[list[NDArray[np.float32]]]:
    """Return what the recipe `how` makes of slices at a size, in batches: N×C×H×W each."""
    batch, rows, columns = size
    side = check_shape(how)
    if (rows, columns) != side:
        how = f"{how.partition('@')[0]}@{recipe(how).size * rows // side[0]}"
    arrays = [prepare(pixels, recipe(how))[0] for pixels in slices]
    if arrays[0].shape[1:] != (rows, columns):
        found = "×".join(map(str, arrays[0].shape[1:]))
        raise UsageError(f"the recipe makes {found} of a slice, not {rows}×{columns}", hint=f"--sizes {found}")
    count = max(1, len(arrays) // batch)
    return [[np.stack([arrays[(i * batch + k) % len(arrays)] for k in range(batch)])] for i in range(count)]


def to_json(rows: Sequence[Row], matrix: float, data: str) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "schema": SCHEMA,
        "jcs_ct_version": __version__,
        "torch": torch.__version__,
        "machine": machine(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "matrix_gflops": matrix / 1e9,
        "compared_on": data,
        "rows": [row.to_dict() for row in rows],
    }


def to_markdown(rows: Sequence[Row], matrix: float, data: str) -> str:
    """Return a table for people."""
    lines = [
        (
            f"{machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, jcs-ct {__version__}; "
            f"fastest matrix multiplication {matrix / 1e9:.0f} GFLOP/s (float32); compared on {data}."
        ),
        "",
        (
            "| network | input | runtime | s (range) | times faster | probabilities differ | masks agree | peak MiB "
            "| open + first s | of matrix speed |"
        ),
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        begin = f"| {row.network} | {row.size} | {row.runtime} |"
        if row.problem is not None:
            lines.append(f"{begin} {row.problem} | | | | | | |")
            continue
        spread = f"{row.median:.4f} ({min(row.seconds):.4f}–{max(row.seconds):.4f}){'' if row.steady else ' unsteady'}"
        differ, agree = _parity(row)
        lines.append(
            f"{begin} {spread} | {row.ratio:.2f} | {differ} | {agree} | {row.peak / 2**20:.0f} "
            f"| {row.open_seconds:.2f} + {row.first_seconds:.2f} | {100 * row.share:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def _parity(row: Row) -> tuple[str, str]:
    if row.parity is None:
        return "–", "–"
    found = row.parity
    differ = f"{found.probability:.1e}" + (f" (logits {found.logits:.1e})" if found.logits is not None else "")
    agree = "–" if found.pixels is None else f"{100 * found.pixels:.4f} %"
    return differ + ("" if found.ok else " **failed**"), agree
