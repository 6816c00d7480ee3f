"""What cannot be learned or scored, for every training command: refused, or warned of, before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from datasets_help import lesion, save
from jcs_ct import models
from jcs_ct.core.errors import JcsError
from jcs_ct.datasets.slices import open_labels
from jcs_ct.training.lite.config import LiteConfig
from jcs_ct.training.lite.corpus import open_sets
from jcs_ct.training.lite.folds import inspect_run
from jcs_ct.training.lite.outlook import with_lesions
from jcs_ct.training.parts import parts_of, verify
from resume_changes import cells, data_of, every
from training_help import small, specs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


def said(command: str, root: Path) -> str:
    """Return what a command says before its first step: why it is refused, its warning, or nothing."""
    task, *given = command.split(" ")
    fold = int(given[1]) if "--fold" in given else None
    try:
        if task != "lite":
            config = small(task, root / "table.csv", network="tiny-c" if task == "classify" else "tiny-s", fold=fold)
            return verify(config, *parts_of(config)).warning
        without = tuple(given[3:] if "--without" in given else ())
        lite = LiteConfig((str(root / "table.csv"),), fold=fold, without=without)
        sets = open_sets(lite, divided=fold is not None)
        lesions = with_lesions([s for d in sets for s in d.samples])
        return "; ".join(inspect_run(lite, sets, lesions)[0])
    except JcsError as error:
        return f"refused: {error.message}" if error.exit_status == 2 and error.hint else repr(error)


def emptied(*numbers: int) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for i in numbers:
            save(root / f"m{i}.png", lesion(0) * 0)
        open_labels.cache_clear()

    return change


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for one in changes:
            one(root)

    return change


SPLIT, FOLD = ("segment", "classify", "joint"), ("segment --fold 4", "classify --fold 4", "joint --fold 4")
LITE = "lite --fold 4"
ONE_LABEL = "has nothing to learn: all 6 slices to train on have the label 1 (COVID-19): one class"
NO_LESION = "has nothing to learn: no lesion is in the 6 masks of the slices to train on"
UNSCORED = "warning: the validation score is not defined, because "
HELD_LABEL = f"{UNSCORED}all 2 slices to validate on have the label 1 (COVID-19): one class"
HELD_LESION = f"{UNSCORED}no lesion is in the 2 masks of the slices to validate on"
LITE_LABEL = "warning: the probability learns nothing: all 6 slices to train on have the label 1 (COVID-19): one class"
LITE_AUC = "warning: the held-out auc is not defined, because no source has labels of both classes among the slices"
LITE_LESION = "warning: the lesion maps learn nothing: no lesion is in the 6 masks of the slices to train on"
LITE_DICE = "warning: the held-out dice is not defined, because no lesion is in the 2 masks of the slices that are held"
IN_BOTH = "group p0: is in training (2 slices) and in validation (1 slice)"
ones = {f"s{i}": "1" for i in range(6)}
CASES: dict[str, tuple[Callable[[Path], None], dict[str, str]]] = {
    "nothing is wrong": (lambda _root: None, {}),
    "one class to train on": (
        cells("label", **ones),
        {"classify": f"refused: {ONE_LABEL}", "classify --fold 4": f"refused: {ONE_LABEL}", LITE: LITE_LABEL},
    ),
    "empty masks only": (
        emptied(*range(6)),
        {c: f"refused: {NO_LESION}" for c in (*SPLIT, *FOLD) if "classify" not in c} | {LITE: LITE_LESION},
    ),
    "one class and empty masks only": (
        both(cells("label", **ones), emptied(*range(6))),
        {c: f"refused: {NO_LESION if 'classify' not in c else ONE_LABEL}" for c in (*SPLIT, *FOLD)}
        | {LITE: f"refused: {ONE_LABEL}, and no lesion is in the 6 masks of them"},
    ),
    "no label at all": (
        every("label", lambda _: ""),
        dict.fromkeys(("classify", "classify --fold 4"), "refused: has no label (table.csv:2) (and 7 more problems")
        | {LITE: "warning: the probability learns nothing: all 6 slices to train on have no label; " + LITE_AUC},
    ),
    "one class to validate on": (
        cells("label", s6="1", s7="1"),
        {"classify": HELD_LABEL, "classify --fold 4": HELD_LABEL, LITE: LITE_AUC},
    ),
    "no lesion to validate on": (
        emptied(6, 7),
        {c: HELD_LESION for c in (*SPLIT, *FOLD) if "classify" not in c} | {LITE: LITE_DICE},
    ),
    "nothing in the training part": (
        every("split", lambda _: "val"),
        dict.fromkeys(SPLIT, "refused: has no split called train, and no --fold was given"),
    ),
    "nothing in the other folds": (
        every("fold", lambda _: "4"),
        dict.fromkeys(FOLD, "refused: leaves nothing to train on") | {LITE: "refused: nothing is left to train on"},
    ),
    "no such fold": (
        every("fold", lambda _: "1"),
        dict.fromkeys((*FOLD, LITE), "refused: has no fold 4; its folds: 1"),
    ),
    "a group in both parts": (
        cells("group", s6="p0"),
        dict.fromkeys((*SPLIT, *FOLD), f"refused: cannot be trained on, 1 fault: {IN_BOTH}")
        | {LITE: "refused: fold 4 cuts 1 group: p0"},
    ),
    "sources left out": (
        lambda _root: None,
        {"lite --fold 4 --without a b": "refused: has slices of the sources a, b alone, and --without leaves them out"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_command_says_it_before_the_first_step(case: str, tmp_path: Path) -> None:
    change, expected = CASES[case]
    root = data_of(tmp_path / "d")
    change(root)
    for command in dict.fromkeys((*SPLIT, *FOLD, LITE, *expected)):
        text, wanted = said(command, root), expected.get(command, "")
        assert text.startswith(wanted) if wanted else not text.startswith("refused"), (command, text)
        if case == "nothing is wrong" and command != LITE:
            assert text == "", command
