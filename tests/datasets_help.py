"""Small data sets of random pictures, each like no other, as the slices of different patients are."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def picture(seed: int, rows: int = 96, columns: int = 80) -> NDArray[np.uint8]:
    """A body-like disc with structure of every coarseness in it: uint8, rows × columns."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    field = np.zeros((rows, columns))
    for size in (4, 8, 16):
        cells = Image.fromarray(rng.normal(size=(size, size)).astype(np.float32))
        field += np.asarray(cells.resize((columns, rows), Image.Resampling.BICUBIC))
    body = down**2 / 0.9 + across**2 / 0.8 < 1
    return np.where(body, (110 + 40 * field).clip(20, 250), 5).astype(np.uint8)


def lesion(seed: int, rows: int = 96, columns: int = 80) -> NDArray[np.uint8]:
    """A mask, 0 and 255: one rectangle."""
    top, left = np.random.default_rng(seed).integers(10, 40, 2)
    mask = np.zeros((rows, columns), dtype=np.uint8)
    mask[top : top + 20, left : left + 15] = 255
    return mask


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def folders(root: Path, count: int = 6) -> Path:
    """`images/s00.png` … with `masks/s00.png` …"""
    for i in range(count):
        save(root / "images" / f"s{i:02d}.png", picture(i))
        save(root / "masks" / f"s{i:02d}.png", lesion(i))
    return root


def lists(root: Path, train: int = 4, test: int = 2) -> Path:
    """The same with `train.txt` and `test.txt`, without overlap."""
    folders(root, train + test)
    lines = [f"images/s{i:02d}.png masks/s{i:02d}.png" for i in range(train + test)]
    (root / "train.txt").write_text("".join(f"{line}\n" for line in lines[:train]))
    (root / "test.txt").write_text("".join(f"{line}\n" for line in lines[train:]))
    return root


def manifest(root: Path, groups: int = 6, each: int = 2) -> Path:
    """`labels.csv` with `images/`: every group has one label; two sources; split by group."""
    rows = ["file,label,group,source,split"]
    for g in range(groups):
        for k in range(each):
            name = f"g{g}_{k}.png"
            save(root / "images" / name, picture(100 + g * each + k))
            rows.append(f"{name},{g % 2},g{g},{'ab'[g // 2 % 2]},{'test' if g >= groups - 2 else 'train'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def damage(path: Path) -> None:
    """Cut a file in half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def release_lists(real: Path, root: Path, train: int = 79, test: int = 20) -> Path:
    """The release's lists for CT100 as they are: the test list is the beginning of the training list."""
    images = sorted((real / "ct100" / "images").iterdir())[:train]
    lines = [f'"{p}" "{p.parent.parent / "masks" / p.name.replace("_im_", "_mask_")}"' for p in images]
    (root / "train.txt").write_text("".join(f"{line}\n" for line in lines))
    (root / "test.txt").write_text("".join(f"{line}\n" for line in lines[:test]))
    return root
