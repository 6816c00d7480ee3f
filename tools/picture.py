"""The picture of the README: a phantom's report, and one of its slices with the lesions found below it.

    jcs demo -o demo-out && python tools/picture.py demo-out docs/picture.jpg

The report is looked at in Chromium, which has to be installed. No patient is in the picture: both are of the phantom.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1200, 424  # of the window of the browser: down to the end of the verdict


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="what `jcs demo` wrote")
    parser.add_argument("picture", type=Path, help="the file to write (.jpg)")
    options = parser.parse_args()
    case = options.demo / "diagnosis" / "phantom-with-lesions"
    overlays = sorted((case / "overlays").glob("*.png"))
    if not overlays:
        sys.exit(f"picture: {case} holds no overlays; make it with: jcs demo -o {options.demo} --overwrite")
    report = photographed(case / "report.html")
    overlay = Image.open(overlays[0]).convert("RGB")
    stacked(report, overlay).save(options.picture, quality=80, optimize=True)
    print(f"{options.picture}: {options.picture.stat().st_size / 1000:.0f} kB")


def photographed(page: Path) -> Image.Image:
    """Return the top of a page as Chromium shows it, H×W×3."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("picture: no Chromium here (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.png"
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        command += [
            "--virtual-time-budget=8000",
            f"--user-data-dir={folder}/profile",
            f"--screenshot={file}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if not file.exists():
            sys.exit(f"picture: Chromium wrote nothing: {done.stderr[-300:]}")
        return Image.open(file).convert("RGB")


def stacked(above: Image.Image, below: Image.Image) -> Image.Image:
    """Return two pictures, the lower one scaled to the width of the upper one."""
    height = round(below.height * above.width / below.width)
    joined = Image.new("RGB", (above.width, above.height + height))
    joined.paste(above, (0, 0))
    joined.paste(below.resize((above.width, height), Image.Resampling.LANCZOS), (0, above.height))
    return joined


if __name__ == "__main__":
    main()
