"""Phantom data sets for the tutorials: `python tools/phantom_data.py FOLDER`. Computed chests, no patients.

FOLDER/studies/p1/ …          a DICOM study of each patient; odd ones have lesions, even ones are healthy
FOLDER/studies.csv            study,label
FOLDER/volumes/images/p1/ …   the same studies, with
FOLDER/volumes/masks/p1.nii.gz    their lesions as drawn
FOLDER/slices/slices.csv      file,label,group,mask of
FOLDER/slices/images/, masks/     PNG slices and their lesions
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from jcs_ct.phantom import PhantomStudy, make_phantom, true_spacing, write_dicom, write_pngs


def main() -> None:
    """Write the data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=6, help="how many (6)")
    parser.add_argument("--slices", type=int, default=36, help="slices of each (36)")
    parser.add_argument("--size", type=int, default=256, help="rows and columns (256)")
    options = parser.parse_args()
    studies, slices = [["study", "label"]], [["file", "label", "group", "mask"]]
    for number in range(1, options.patients + 1):
        name, ill = f"p{number}", number % 2
        spacing = true_spacing(options.slices, options.size)
        study = make_phantom(options.slices, options.size, number, 8 if ill else 0, spacing)
        write_dicom(study, options.folder / "studies" / name)
        write_dicom(study, options.folder / "volumes" / "images" / name)
        write_mask(study, options.folder / "volumes" / "masks" / f"{name}.nii.gz")
        studies.append([name, str(ill)])
        slices += pictures(study, name, options.folder / "slices")
    write_table(options.folder / "studies.csv", studies)
    write_table(options.folder / "slices" / "slices.csv", slices)
    print(f"{options.folder}: {options.patients} phantoms, {len(slices) - 1} slices")


def write_mask(study: PhantomStudy, path: Path) -> None:
    """Write the drawn lesions as NIfTI on the grid of the study."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    for axis in range(3):  # NIfTI counts mm to the right, front and head; the phantom to the left, back and head
        affine[:3, axis] = np.array(study.direction[axis]) * study.spacing[axis] * (-1, -1, 1)
    affine[:3, 3] = np.array(study.origin) * (-1, -1, 1)
    image: Any = nib.Nifti1Image  # nibabel has few types
    nib.save(image(study.lesions.astype(np.uint8), affine), path)


def pictures(study: PhantomStudy, name: str, folder: Path) -> list[list[str]]:
    """Write slices and masks as PNG, and return their rows of the table."""
    rows = []
    for index, path in enumerate(write_pngs(study, folder / "images" / name)):
        mask = folder / "masks" / name / path.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "masks" / path.name).rename(mask)
        lesion = bool(study.lesions[index].any())
        rows.append([f"{name}/{path.name}", str(int(lesion)), name, f"{name}/{path.name}" if lesion else ""])
    (folder / "images" / name / "masks").rmdir()
    return rows


def write_table(path: Path, rows: list[list[str]]) -> None:
    """Write a table with its header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
