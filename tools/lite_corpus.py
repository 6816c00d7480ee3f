"""Write the table of slices that `jcs-lite` is trained on: every public set at hand, in four folds by patient.

    python tools/lite_corpus.py DATA OUT

DATA holds the folders that docs/data.md names. OUT becomes `corpus.csv` (a manifest, see `jcs_ct.datasets.manifest`)
and the masks of `mosmed` slices as pictures. A patient, a study or a block of slices lies in one fold, in all sets.
Beside it `masked.csv` has those with lesions: all of CT100 and `mosmed`, every sixth of the series of `coronacases` and
`radiopaedia`, since neighbours are much alike.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.slices import open_labels, open_volume
from jcs_ct.datasets.split import make_folds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COLUMNS = ("file", "slice", "mask", "empty", "label", "group", "source", "fold")
FOLDS_OF_PATIENTS = (  # three patients each, lesions of every extent in each
    ("coronacases_001", "coronacases_004", "rp_10"),
    ("coronacases_003", "coronacases_007", "rp_14"),
    ("coronacases_005", "rp_27", "rp_36"),
    ("coronacases_008", "coronacases_010", "rp_40"),
)
FOLD_OF = {patient: k for k, patients in enumerate(FOLDS_OF_PATIENTS, 1) for patient in patients}
STUDIES = {  # without the disease; no lesion is marked in them unless `UNKNOWN` says that nothing is known
    "dicom/covidctmd_normal001": ("covidctmd", 1),
    "dicom/lidc_0001_partial": ("lidc", 1),
    "dicom/covidctmd_cap001": ("covidctmd", 2),
    "nifti/id001-128x128x64.nii.gz": ("id", 2),
    "dicom/lungdx_a0002": ("lungdx", 3),
    "dicom/covidctmd_p001": ("covidctmd", 3),
    "dicom/acrin_001_partial": ("acrin", 4),
    "nifti/id002-128x128x64.nii.gz": ("id", 4),
}
Row = dict[str, Any]


def ct100(data: Path) -> list[Row]:
    """Pictures with masks, in the folds that MiniSeg publishes."""
    folder = data / "ct100"
    folds = json.loads((folder / "folds.json").read_text(encoding="utf-8"))["folds"]
    rows = []
    for k, names in enumerate(folds, 1):
        for name in names:
            image, mask = folder / f"images/{name}.png", folder / f"masks/{name.replace('im', 'mask')}.png"
            rows.append({"file": image, "mask": mask, "label": 1, "source": "ct100", "group": name, "fold": k})
    return rows


def coronacases(data: Path) -> list[Row]:
    """Volumes of slices with lesions, and of slices without them."""
    rows = []
    for path in sorted((data / "coronacases").glob("*_ct.nii.gz")):
        patient = path.name[:15]
        empty = "_empty_" in path.name
        mask = path.with_name(path.name.replace("_ct.", "_lesion."))
        rows += [
            {"file": path, "slice": i, "mask": "" if empty else mask, "empty": int(empty), "label": int(not empty),
             "source": "coronacases", "group": patient, "fold": FOLD_OF[patient]}
            for i in range(len(open_volume(str(path))))
        ]  # fmt: skip
    return rows


def radiopaedia(data: Path) -> list[Row]:
    """Pictures with masks; two series of one patient share a group."""
    rows = []
    for path in sorted((data / "radiopaedia/images").glob("*.png")):
        group = "_".join(path.stem.split("_")[:2])
        rows.append(
            {"file": path, "mask": data / "radiopaedia/masks" / path.name, "label": 1, "source": "radiopaedia",
             "group": group, "fold": FOLD_OF[group]}
        )  # fmt: skip
    return rows


def labelled(data: Path, out: Path) -> list[Row]:
    """Pictures with labels, in folds by group; `mosmed` slices with a mask have it, an empty one makes them healthy."""
    dataset = open_dataset(data / "ct_classification", None)
    fold_of = {s.path: k for k, fold in enumerate(make_folds(dataset, 4, seed=0).folds, 1) for s in fold}
    with (data / "mosmed_masks/slices.csv").open(encoding="utf-8") as file:
        masks = {row["file"]: row for row in csv.DictReader(file)}
    rows = []
    for sample in dataset.samples:
        if sample.source in {"nor", "other"}:
            continue
        row: Row = {"file": sample.path, "label": sample.label, "source": sample.source, "group": sample.group}
        row |= {"fold": fold_of[sample.path], "empty": int(sample.source == "mosmed" and sample.label == 0)}
        known = masks.get(sample.path.name)
        if known:
            with Image.open(sample.path) as picture:
                size = picture.size
            stored = open_labels(str(data / "mosmed_masks" / known["mask"]))
            plane = stored[len(stored) - 1 - int(known["slice"])]  # canonical slices count from the head
            lesion = Image.fromarray((plane > 0).astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
            values = (np.asarray(lesion) >= 128).astype(np.uint8) * 255
            row |= {"empty": 1, "label": 0}
            if values.any():
                target = out / "masks" / f"{sample.path.stem}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(target)
                row |= {"mask": target, "empty": 0, "label": 1}
        rows.append(row)
    return rows


def studies(data: Path) -> list[Row]:
    """Whole and partial studies without COVID-19, and one with it whose slices are labelled."""
    infection: dict[tuple[str, str], int] = {}
    with (data / "dicom/covidctmd_slice_labels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            infection[row["study"], row["file"]] = int(row["infection"])
    rows = []
    for name, (source, fold) in STUDIES.items():
        path = data / name
        series = open_volume(str(path))
        for i in range(len(series)):
            origin = series.sources[i].path.name if series.kind == "dicom" else ""
            infected = infection.get((path.name, origin), 0)
            rows.append(
                {"file": path, "slice": i, "empty": int(not infected), "source": source, "group": path.name,
                 "label": int(infected and path.name == "covidctmd_p001"), "fold": fold}
            )  # fmt: skip
    return rows


def main(data: Path, out: Path) -> None:
    """Write the table."""
    out.mkdir(parents=True, exist_ok=True)
    data, out = data.resolve(), out.resolve()
    rows = [*ct100(data), *coronacases(data), *radiopaedia(data), *labelled(data, out), *studies(data)]
    write(out / "corpus.csv", rows)
    write(out / "masked.csv", thinned(row for row in rows if row.get("mask")))


def thinned(rows: Iterable[Row], step: int = 6) -> Iterator[Row]:
    """Yield every picture of its own, and of each series every so many slices."""
    seen: Counter[Any] = Counter()
    for row in rows:
        series = row["file"] if "slice" in row else row["group"]
        if row["source"] in {"ct100", "mosmed"} or seen[series] % step == 0:
            yield row
        seen[series] += 1


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a table, and say how long it is."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path}: {len(rows)} slices")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
