"""Some 250 generated faults, and what becomes of each: refused, not reliable, put right, or silently wrong.

    python tools/faults.py docs/faults.md [--every N] [--keep FOLDER]

A phantom chest is written as DICOM, NIfTI and pictures, damaged in one way at one place (`tools/fault_kinds.py`), and
diagnosed with `jcs-lite`. *Right* is a refusal, a verdict that is called unreliable for a reason that the clean study
does not have, or the numbers of the clean study: lungs within 3 %, lesions within 6 % or 8 ml (pictures: 6 % or 0.01
of a slice in sum), probability within 0.05. The exit status is 1 where one is silently wrong, or where the clean study
is called unreliable. A slice that was seen before is not computed again, so that all take some minutes on one core.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fault_kinds import SIZE, another, faults, phantom, pictures_of, write_dicom, write_nifti, write_pictures

import jcs_ct
from jcs_ct.core.errors import JcsError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.inference.network import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fault_kinds import Fault

Report = dict[str, Any]
KEPT = "\n## Small faults"
"""What stands behind this in the page was measured on real studies, and is kept."""
RIGHT, REFUSED, UNRELIABLE, WRONG = "right numbers", "refused", "not reliable", "SILENTLY WRONG"


def remember_passes() -> None:
    """Let networks answer again what they answered before, for the very same values."""
    known: dict[bytes, Any] = {}
    compute = Network.passes

    @wraps(compute)
    def passes(self: Network, batch: Sequence[Any]) -> list[Any]:
        keys = [values.tobytes() for values in batch]
        new = [i for i, key in enumerate(keys) if key not in known]
        for i, found in zip(new, compute(self, [batch[i] for i in new]) if new else [], strict=True):
            known[keys[i]] = found
        return [known[key] for key in keys]

    Network.passes = passes  # type: ignore[method-assign]


def look(path: Path, diagnoser: jcs_ct.Diagnoser) -> Report | str:
    """Return the report of a study, or why it was refused. What nobody foresaw is no refusal, and ends this program."""
    try:
        return diagnoser(path, allow_gaps=True).report
    except JcsError as error:
        return error.message


def outcome(clean: Report, faulty: Report | str, *, lost: bool) -> tuple[str, str]:
    """Return what became of a fault, and the words or numbers that show it."""
    if isinstance(faulty, str):
        return REFUSED, faulty
    known = {_plain(reason) for reason in clean["verdict"]["reasons"]}
    new = [reason for reason in faulty["verdict"]["reasons"] if _plain(reason) not in known]
    if new:
        return UNRELIABLE, new[0]
    before, after = _lesion(clean), _lesion(faulty)
    room = max(0.06 * before, 8.0 if clean["burden"] else 0.01)
    p = faulty["verdict"]["score"] - clean["verdict"]["score"]
    lungs = [float((report["burden"] or {}).get("lung_ml") or 1.0) for report in (clean, faulty)]
    same = abs(p) <= 0.05 and abs(before - after) <= room and abs(lungs[0] - lungs[1]) <= 0.03 * lungs[0]
    text = f"probability {p:+.2f}, lesions {after - before:+.2f}, lungs {lungs[1] - lungs[0]:+.0f} ml"
    return (RIGHT if same and not lost else WRONG), text


def _plain(reason: str) -> str:
    return re.sub(r"[\d.,–]+", "#", reason)


def _lesion(report: Report) -> float:
    """Return the lesions: of a volume in ml, of pictures in clean slices, since a frame makes pictures larger."""
    if report["burden"]:
        return float(report["burden"]["lesion_ml"])
    rows, columns = report["input"]["shape"] or (SIZE, SIZE)
    return sum(s["lesion_share"] or 0.0 for s in report["slices"]) * rows * columns / SIZE**2


Row = tuple["Fault", str, str]


def run(top: Path, every: int) -> tuple[dict[str, Report], list[Row]]:
    """Return the reports of the clean studies, and what became of every `every`-th fault."""
    remember_passes()
    diagnoser = jcs_ct.Diagnoser(device="cpu", runtime="torch-tuned")
    hu, other = phantom(0), another()
    clean: dict[str, Report] = {}
    for form, path in (
        ("DICOM", write_dicom(top / "clean-dicom", hu)),
        ("NIfTI", write_nifti(top / "clean.nii", hu)),
        ("pictures", write_pictures(top / "clean-pictures", pictures_of(hu))),
    ):
        report = look(path, diagnoser)
        if isinstance(report, str):
            raise SystemExit(f"the clean study was refused as {form}: {report}")
        clean[form] = report
    rows = []
    for number, fault in enumerate(faults(hu, other, top)):
        if number % every == 0:
            how, text = outcome(clean[fault.form], look(fault.path, diagnoser), lost=fault.lost)
            rows.append((fault, how, text))
            print(f"{how}: {fault.kind}, {fault.what}, {fault.form}: {text}", flush=True)
    return clean, rows


def table(clean: dict[str, Report], rows: Sequence[Row], seconds: float) -> str:
    """Return the page."""
    counts = Counter(how for _, how, _ in rows)
    kinds = {fault.kind for fault, _, _ in rows}
    said = ", ".join(f"{how} {counts[how]}" for how in (RIGHT, REFUSED, UNRELIABLE, WRONG))
    lines = [
        "# Generated faults",
        "",
        f"`python tools/faults.py docs/faults.md`, {date.today()}, {seconds / 60:.0f} minutes, {os.cpu_count()} cores.",
        "",
        *(__doc__ or "").split("\n\n")[2].strip().splitlines(),
        "",
        f"**{len(rows)} faults of {len(kinds)} kinds: {said}.** The clean studies: "
        + "; ".join(f"{form} {_numbers(report)}" for form, report in clean.items())
        + ".",
        "",
        "| fault | where | format | outcome | said, or the difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for fault, how, text in rows:
        shown = text.replace("|", "/").replace(str(fault.path), "STUDY")
        shown = shown if len(shown) <= 120 else f"{shown[:119]}…"
        lines.append(f"| {fault.kind} | {fault.what} | {fault.form} | {how} | {shown} |")
    return "\n".join(lines) + "\n"


def _numbers(report: Report) -> str:
    verdict, burden = report["verdict"], report["burden"]
    volumes = f", lungs {burden['lung_ml']:.0f} ml, lesions {burden['lesion_ml']:.0f} ml" if burden else ""
    state = "reliable" if verdict["reliable"] else f"not reliable ({'; '.join(verdict['reasons'])})"
    return f"{state}, probability {verdict['score']:.2f}{volumes}"


def main() -> int:
    """Run, write the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every N-th fault")
    parser.add_argument("--keep", type=Path, help="folder for the studies, to look at")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        clean, rows = run(options.keep or Path(scratch), options.every)
    page = table(clean, rows, time.perf_counter() - started)
    if options.out.exists():
        page += "".join(options.out.read_text(encoding="utf-8").partition(KEPT)[1:])
    write_whole(options.out, page.encode(), overwrite=True)
    wrong = [fault for fault, how, _ in rows if how == WRONG]
    doubted = [form for form, report in clean.items() if not report["verdict"]["reliable"]]
    print(f"{len(rows)} faults, {len(wrong)} silently wrong; clean studies called unreliable: {doubted or 'none'}")
    return int(bool(wrong or doubted))


if __name__ == "__main__":
    sys.exit(main())
