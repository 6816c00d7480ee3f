"""AUC of the COVID-19 slices of a study against its other slices and those of other studies, by labels per slice.

    jcs diagnose DICOM/STUDY … -o RESULTS
    python tools/slice_labels.py LABELS.csv DICOM COVID_STUDY=RESULTS/CASE [STUDY=RESULTS/CASE …]

LABELS has the columns study,file,infection; DICOM holds a folder of `.dcm` files for each study. Of the first study
the slices with an infection are the positives; all others, whatever else they show, are not. A slice without lung,
which no network looked at, counts as probability 0.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pydicom

from jcs_ct.metrics import roc_auc


def probabilities(dicom: Path, results: Path) -> dict[str, float]:
    """Return the probability of each file of a study; the slices of a report are in order from the head."""
    heights = {
        file.name: float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2])
        for file in dicom.glob("*.dcm")
    }
    slices = json.loads((results / "report.json").read_text(encoding="utf-8"))["slices"]
    return {
        name: one["probability"] or 0.0
        for name, one in zip(sorted(heights, key=lambda name: -heights[name]), slices, strict=True)
    }


def main(labels: Path, dicom: Path, studies: list[tuple[str, Path]]) -> None:
    """Print the AUC against each kind of other slice, and against all of them."""
    with labels.open(encoding="utf-8") as file:
        infected = {(row["study"], row["file"]) for row in csv.DictReader(file) if row["infection"] == "1"}
    positives: list[float] = []
    others: dict[str, list[float]] = {}
    for number, (study, results) in enumerate(studies):
        for name, probability in probabilities(dicom / study, results).items():
            shows = (study, name) in infected
            if shows and number == 0:
                positives.append(probability)
            else:
                others.setdefault(f"{study}, {'with' if shows else 'without'} infection", []).append(probability)
    for kind, negatives in (others | {"all": [p for found in others.values() for p in found]}).items():
        truth = np.repeat([1, 0], [len(positives), len(negatives)])
        print(f"{kind}: {len(positives)} against {len(negatives)}, AUC {roc_auc(truth, [*positives, *negatives]):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [(a, Path(b)) for a, _, b in (x.partition("=") for x in sys.argv[3:])])
