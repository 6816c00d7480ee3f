"""Small data sets to train jcs-lite on, and what its folds leave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jcs_ct.phantom import make_phantom, write_pngs
from jcs_ct.training.lite.config import LiteConfig

if TYPE_CHECKING:
    from pathlib import Path


def lite_data(root: Path) -> tuple[str, str]:
    """Phantom slices with masks, in two folds; others with labels, of two sources and several groups."""
    paths = write_pngs(make_phantom(slices=6, size=96), root / "written")
    for path in paths:
        for kind, source in (("images", path), ("masks", path.parent / "masks" / path.name)):
            (root / "masked" / kind).mkdir(parents=True, exist_ok=True)
            (root / "masked" / kind / path.name).write_bytes(source.read_bytes())
    names = [path.stem for path in paths]
    (root / "masked" / "folds.json").write_text(json.dumps({"folds": [names[2:4], names[:2] + names[4:]]}))
    (root / "labelled").mkdir()
    lines = ["file,label,group,source"]
    for i in range(12):
        Image.open(paths[i % 6]).rotate(3 * i).save(root / "labelled" / f"l{i}.png")
        lines.append(f"l{i}.png,{i % 2},g{i // 2 * 2 + i % 2},{'ab'[i // 6]}")
    (root / "labelled" / "labels.csv").write_text("\n".join(lines) + "\n")
    return str(root / "masked"), str(root / "labelled")


def small(data: tuple[str, ...], **given: Any) -> LiteConfig:
    """A configuration of a tiny run."""
    usual: dict[str, Any] = {"fold": 1, "folds": 2, "steps": 4, "labelled": 2, "lesions": 2, "quiet": 1, "every": 2}
    return LiteConfig(data, **usual | given)


def rows_of(seed: int) -> list[dict[str, Any]]:
    """What a fold leaves in its table: 40 slices with labels, of two sources, and one with a mask."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i in range(40):
        label = i % 2
        row: dict[str, Any] = {"file": f"{seed}-{i}", "source": "ab"[i // 20], "group": f"{seed}g{i // 2}"}
        rows.append(row | {"label": label, "logit": float(rng.normal(label, 1)), "dice": ""})
    counts = {"tp": 80, "fp": 20, "fn": 20, "tn": 880, "pointing": 1, "energy": 0.5}
    mask = {"file": f"{seed}-m", "source": "", "group": "", "label": "", "logit": 0.0, "dice": 0.8}
    return [*rows, mask | counts]
