"""Write the hashes of the slices that weights were trained on, from the manifest of the training set.

    python tools/training_hashes.py MANIFEST.csv OUT.hashes

MANIFEST.csv has the column `file`, and `slice` where files are volumes (empty for pictures; 0 is nearest the head). OUT
lies beside the weights: `NAME.hashes` for `NAME.safetensors`. It holds hashes only (`jcs_ct.datasets.training_slices`).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.samples import Sample
from jcs_ct.datasets.training_slices import training_hashes


def read_manifest(path: Path) -> list[Sample]:
    """Return the slices of a manifest, once each."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [(path.parent / row["file"], row.get("slice") or None) for row in csv.DictReader(file)]
    return [Sample(image=name, index=None if k is None else int(k)) for name, k in dict.fromkeys(rows)]


def main() -> None:
    """Read the arguments, read every slice, write the file."""
    manifest, out = map(Path, sys.argv[1:])
    samples = read_manifest(manifest)
    learned = training_hashes(samples)
    write_whole(out, learned.to_bytes(), overwrite=True)
    print(f"{out}: {len(learned):,} distinct slices of {len(samples):,}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
