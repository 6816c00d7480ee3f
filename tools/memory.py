"""Peak memory of `jcs segment` on many slices against few: `python tools/memory.py --model NAME [--few 20 --many 200]`.

Slices are phantoms made on the spot. Prints both peaks and their ratio; the second must stay within 10 % of the first,
or memory grows with the number of slices.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def peak(folder: Path, out: Path, model: str) -> int:
    """Run `jcs segment` and return its peak resident memory in KiB (as the kernel counted it for the child)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jcs_ct", "segment", str(folder), "-o", str(out), "--model", model, "--quiet"]
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"jcs segment ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=200)
    options = parser.parse_args()
    from jcs_ct.phantom import make_phantom, write_pngs

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        peaks = []
        for count in (options.few, options.many):
            write_pngs(make_phantom(slices=count), root / str(count))
            # The true masks lie in a folder of their own below; only the slices are segmented.
            (root / str(count) / "masks").rename(root / f"masks-{count}")
            peaks.append(peak(root / str(count), root / f"out-{count}", options.model))
            print(f"{count} slices: {peaks[-1] / 1024:.0f} MiB", flush=True)
        print(f"ratio {peaks[1] / peaks[0]:.3f} (at most 1.1)")
        sys.exit(peaks[1] > 1.1 * peaks[0])


if __name__ == "__main__":
    main()
