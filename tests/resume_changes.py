"""Changes to a data set between the start of a run and `--resume`, and what each training command says of them.

    python tests/resume_changes.py > docs/resume.csv

`tests/test_training_resume_changes.py` checks the table in the documents against this.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from datasets_help import lesion, picture, save
from jcs_ct.core.errors import JcsError
from jcs_ct.training.fingerprint import Fingerprint, compare_with_start
from jcs_ct.training.lite.config import LiteConfig
from jcs_ct.training.lite.corpus import divide, open_sets
from jcs_ct.training.lite.corpus import fingerprint_of as fingerprint_of_lite
from jcs_ct.training.parts import fingerprint_of, parts_of
from training_help import small

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = ("file", "mask", "label", "group", "source", "split", "fold")
Rows = list[dict[str, str]]


def data_of(root: Path) -> Path:
    """Eight slices with everything that a table can say of them: two of a group, four folds, six to train on."""
    for i in range(8):
        save(root / f"s{i}.png", picture(i))
        save(root / f"m{i}.png", lesion(i))
    write(root, rows_of())
    return root


def rows_of() -> Rows:
    """Return the rows of the table that `data_of` writes."""
    return [
        {
            "file": f"s{i}.png",
            "mask": f"m{i}.png",
            "label": str(i % 2),
            "group": f"p{i // 2}",
            "source": "ab"[i % 2],
            "split": "train" if i < 6 else "val",
            "fold": str(i // 2 + 1),
        }
        for i in range(8)
    ]


def write(root: Path, rows: Rows, columns: tuple[str, ...] = COLUMNS, **dialect: Any) -> None:
    """Write the table."""
    encoding = dialect.pop("encoding", "utf-8")
    with (root / "table.csv").open("w", newline="", encoding=encoding) as file:
        out = csv.DictWriter(file, columns, **dialect)
        out.writeheader()
        out.writerows(rows)


def cells(column: str, **values: str) -> Callable[[Path], None]:
    """Set cells of a column: `cells("label", s0="1")`."""

    def change(root: Path) -> None:
        rows = rows_of()
        for row in rows:
            row[column] = values.get(row["file"].removesuffix(".png"), row[column])
        write(root, rows)

    return change


def every(column: str, value: Callable[[str], str]) -> Callable[[Path], None]:
    """Change all cells of a column."""

    def change(root: Path) -> None:
        write(root, [row | {column: value(row[column])} for row in rows_of()])

    return change


def swap(column: str, *pairs: tuple[int, int]) -> Callable[[Path], None]:
    """Exchange cells of rows."""

    def change(root: Path) -> None:
        rows = rows_of()
        for one, other in pairs:
            rows[one][column], rows[other][column] = rows[other][column], rows[one][column]
        write(root, rows)

    return change


def only(*rows: int) -> Callable[[Path], None]:
    """Keep rows, in this order."""
    return lambda root: write(root, [rows_of()[i] for i in rows])


def other_bytes(name: str) -> Callable[[Path], None]:
    """Add a byte behind the end of a PNG, which its pixels do not depend on."""

    def change(root: Path) -> None:
        with (root / name).open("ab") as file:
            file.write(b"\0")

    return change


def saved_again(*names: str) -> Callable[[Path], None]:
    """Write pictures anew with the same pixels."""

    def change(root: Path) -> None:
        for name in names:
            with Image.open(root / name) as held:
                held.load()
            held.save(root / name, compress_level=0)

    return change


def more(**cell: str) -> Callable[[Path], None]:
    """Add a slice."""

    def change(root: Path) -> None:
        save(root / "s8.png", picture(8))
        save(root / "m8.png", lesion(8))
        write(root, [*rows_of(), rows_of()[0] | {"file": "s8.png", "mask": "m8.png", "group": "p8"} | cell])

    return change


def renamed(name: Callable[[int, str], str], *columns: str) -> Callable[[Path], None]:
    """Move the files of columns within the folder: (row, old name) → new name."""

    def change(root: Path) -> None:
        rows = rows_of()
        for i, row in enumerate(rows):
            for column in columns or ("file", "mask"):
                new = name(i, row[column])
                (root / new).parent.mkdir(exist_ok=True)
                (root / row[column]).rename(root / new)
                row[column] = new
        write(root, rows)

    return change


def exchanged(one: str, other: str) -> Callable[[Path], None]:
    """Exchange what two files hold."""

    def change(root: Path) -> None:
        (root / one).rename(root / "x")
        (root / other).rename(root / one)
        (root / "x").rename(root / other)

    return change


def elsewhere(root: Path) -> Path:
    """Copy the folder, and take the first one away."""
    copy = shutil.copytree(root, root.parent / "elsewhere" / "d2")
    shutil.rmtree(root)
    return Path(copy)


def linked(root: Path) -> Path:
    """Reach the folder by a link."""
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


def touched(root: Path) -> None:
    for path in root.iterdir():
        os.utime(path, (1, 1))


def another_column(root: Path) -> None:
    write(root, [row | {"note": "x"} for row in rows_of()], (*COLUMNS, "note"))


def picture_of(root: Path) -> None:
    save(root / "s2.png", picture(99))


def stray(root: Path) -> None:
    save(root / "s9.png", picture(9))


def copied(root: Path) -> None:
    shutil.copy(root / "s2.png", root / "s3.png")


def emptied(root: Path) -> None:
    save(root / "m1.png", lesion(1) * 0)


def nothing(_root: Path) -> None:
    """Change nothing."""


COMMANDS = ("segment", "segment --fold 1", "classify", "joint", "lite --fold 1")
ALL, NONE = "RRRRR", "....."
"""A letter for each of `COMMANDS`: R is refused, a point goes on."""


@dataclass(frozen=True)
class Change:
    """A change between start and `--resume`.

    Attributes:
        kind: What it touches.
        what: In words.
        apply: Does it; returns the folder, where that is another one now.
        verdicts: A letter for each of `COMMANDS`.
        why: The reason.
    """

    kind: str
    what: str
    apply: Callable[[Path], Path | None]
    verdicts: str
    why: str


PIXELS, TRUTH = "the steps would see another slice", "the steps would be taught something else"
SCORE = "the score would be of something else"
DIVISION, SAMPLING = "slices trained on would be scored", "groups and sources decide how slices are drawn and scored"
NOWHERE, STEPS = "no slice of the run changes", "the order of the steps is another"
BYTES, SAME = "bytes are compared, not pixels", "the table says the same"
NAMES, PLACES, NAMED = "names do not count", "places do not count", "columns have names"
SPLITS = "the run divides by split; one of a fold takes no notice of it"
FOLDS = "the run divides by fold; one without --fold takes no notice of it"

CHANGES = (
    Change("nothing", "nothing", nothing, NONE, NOWHERE),
    Change("file", "another picture under the name", picture_of, ALL, PIXELS),
    Change("file", "the picture of a slice held back", lambda r: save(r / "s7.png", picture(77)) and None, ALL, SCORE),
    Change("file", "two pictures exchanged", exchanged("s2.png", "s3.png"), ALL, TRUTH),
    Change("file", "one picture is a copy of another", copied, ALL, PIXELS),
    Change("file", "a slice taken out of the table", only(0, 1, 2, 3, 4, 6, 7), ALL, STEPS),
    Change("file", "three slices taken out", only(0, 1, 2, 6, 7), ALL, STEPS),
    Change("file", "a slice more", more(), ALL, STEPS),
    Change("file", "a slice listed twice", only(0, 1, 2, 3, 4, 5, 6, 7, 3), ALL, "it would be seen twice as often"),
    Change("file", "a slice more that belongs to no part", more(split="test", fold=""), NONE, NOWHERE),
    Change("file", "a file in the folder that no row names", stray, NONE, NOWHERE),
    Change("byte", "a byte behind the end of a picture", other_bytes("s1.png"), ALL, BYTES),
    Change("byte", "the same of a slice held back", other_bytes("s7.png"), ALL, BYTES),
    Change("byte", "a picture saved again, pixels the same", saved_again("s2.png"), ALL, BYTES),
    Change("byte", "dates of all files", touched, NONE, "only what files hold counts"),
    Change("label", "a label", cells("label", s4="1"), ALL, TRUTH),
    Change("label", "a label of a slice held back", cells("label", s7="0"), ALL, SCORE),
    Change("label", "two labels exchanged", swap("label", (2, 3)), ALL, TRUTH),
    Change("label", "all labels turned", every("label", lambda v: str(1 - int(v))), ALL, TRUTH),
    Change("label", "a label taken out", cells("label", s4=""), ALL, TRUTH),
    Change("label", "labels in words", every("label", lambda v: ("negative", "COVID")[int(v)]), NONE, SAME),
    Change("mask", "a byte behind the end of a mask", other_bytes("m3.png"), ALL, BYTES),
    Change("mask", "the mask of a slice held back", other_bytes("m6.png"), ALL, SCORE),
    Change("mask", "two masks exchanged", swap("mask", (2, 3)), ALL, TRUTH),
    Change("mask", "a mask without its lesion", emptied, ALL, TRUTH),
    Change("mask", "a mask taken out", cells("mask", s4=""), ALL, TRUTH),
    Change("mask", "all masks saved again", saved_again(*(f"m{i}.png" for i in range(8))), ALL, "bytes are compared"),
    Change("mask", "masks under other names", renamed(lambda i, _: f"lesion{i}.png", "mask"), NONE, NAMES),
    Change("part", "a slice from training to validation", cells("split", s5="val"), "R.RR.", SPLITS),
    Change("part", "a slice from validation to training", cells("split", s6="train"), "R.RR.", SPLITS),
    Change("part", "two slices exchanged", swap("split", (5, 6)), "R.RR.", DIVISION),
    Change("part", "a training slice held out of all", cells("split", s3="test"), "R.RR.", SPLITS),
    Change("part", "no validation any more", cells("split", s6="test", s7="test"), "R.RR.", SPLITS),
    Change("group", "another patient", cells("group", s4="p9"), ALL, SAMPLING),
    Change("group", "all patients called otherwise", every("group", lambda v: f"patient {v}"), ALL, SAMPLING),
    Change("group", "no patients any more", every("group", lambda _: ""), ALL, SAMPLING),
    Change("group", "another source", cells("source", s4="c"), ALL, SAMPLING),
    Change("fold", "two patients exchange their folds", swap("fold", (0, 2), (1, 3)), ".R..R", FOLDS),
    Change("fold", "the same of folds to train on", swap("fold", (4, 6), (5, 7)), ".R..R", FOLDS),
    Change("fold", "a slice in no fold", cells("fold", s4=""), ".R..R", FOLDS),
    Change("fold", "a patient more in the fold held out", cells("fold", s2="1", s3="1"), ".R..R", FOLDS),
    Change("fold", "folds counted from the end", every("fold", lambda v: str(5 - int(v))), ".R..R", FOLDS),
    Change("order", "rows turned round", only(*range(7, -1, -1)), NONE, "slices stand as at the start"),
    Change("order", "rows shuffled", only(7, 3, 5, 1, 0, 6, 2, 4), NONE, "slices stand as at the start"),
    Change("order", "columns in another order", lambda r: write(r, rows_of(), COLUMNS[::-1]), NONE, NAMED),
    Change("order", "semicolons, a byte order mark, CRLF",
           lambda r: write(r, rows_of(), delimiter=";", encoding="utf-8-sig"), NONE, SAME),
    Change("order", "a column that is not used", another_column, NONE, SAME),
    Change("path", "other names of files", renamed(lambda i, _: f"x{i}.png", "file"), NONE, NAMES),
    Change("path", "a folder for each slice", renamed(lambda i, n: f"d{i}/{n}"), NONE, PLACES),
    Change("path", "extensions in capitals", renamed(lambda _, n: n.upper()), NONE, NAMES),
    Change("path", "names exchanged with the rows", swap("file", (2, 3)), ALL, TRUTH),
    Change("path", "paths in full",
           lambda r: write(r, [row | {c: str(r / row[c]) for c in ("file", "mask")} for row in rows_of()]), NONE,
           PLACES),
    Change("path", "a link to the folder", linked, NONE, PLACES),
    Change("path", "a copy of all of it elsewhere", elsewhere, NONE, PLACES),
)  # fmt: skip


def now_of(command: str, root: Path) -> Fingerprint:
    """Return what a run of a command is on. Raises JcsError where it refuses the data by themselves."""
    task, _, fold = command.partition(" --fold ")
    table, number = root / "table.csv", int(fold) if fold else None
    if task == "lite":
        lite = LiteConfig((str(table),), fold=number)
        datasets = open_sets(lite, divided=True)
        return fingerprint_of_lite(lite, divide(lite, datasets), datasets)
    config = small(task, table, network="tiny-c" if task == "classify" else "tiny-s", fold=number)
    return fingerprint_of(config, *parts_of(config))


def outcome(change: Change, command: str, folder: Path) -> str:
    """Make a change between start and `--resume`; return why it is refused, "" where the run goes on."""
    root, run = data_of(folder / "d"), folder / "run"
    run.mkdir()
    before = now_of(command, root)
    before.write(run)
    root = change.apply(root) or root
    try:
        now = now_of(command, root)
        settled = compare_with_start(run, now, accept=False, say=lambda _: None)
    except JcsError as error:
        return error.message
    if [(e.content, *e.facts) for e in settled.entries] != [(e.content, *e.facts) for e in before.entries]:
        return "the slices stand in another order"
    return ""


def table() -> str:
    """Return the table of the documents: a row for each change."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["kind", "change", *COMMANDS, "why", "what is said"])
    for change in CHANGES:
        said = []
        for command in COMMANDS:
            with tempfile.TemporaryDirectory() as folder:
                said.append(outcome(change, command, Path(folder)))
        shown = next((s for s in said if s), "").removeprefix("was started on something else than is here now: ")
        out.writerow([change.kind, change.what, *("refused" if s else "goes on" for s in said), change.why, shown])
    return text.getvalue()


if __name__ == "__main__":
    from jcs_ct import models
    from training_help import specs

    models.MODELS.update(specs())
    sys.stdout.write(table())
