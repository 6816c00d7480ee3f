"""What follows from the records of slices: the most affected of them, and what makes a verdict doubtful."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from jcs_ct.core.warning import CodedWarning
from jcs_ct.imaging.slice_check import MISORIENTED
from jcs_ct.outputs.report.content import build_report, segmenter_of, verdict_text
from jcs_ct.outputs.report.words import score_text
from jcs_ct.study.case import PictureCase
from jcs_ct.study.flow import Clock
from jcs_ct.study.packed import PackedMap
from jcs_ct.study.result import SliceResult, StudyResult
from jcs_ct.study.rules import Verdict
from jcs_ct.study.settings import Settings, UsedNetwork
from weights_help import card_for

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = PackedMap((4, 4))


def slices(shares: Sequence[float | None], **more: Any) -> tuple[SliceResult, ...]:
    one = SliceResult(1, "a", None, 0.25, False, None, None, None, (), NOTHING, NOTHING)
    return tuple(replace(one, index=i, lesion_share=share, **more) for i, share in enumerate(shares, 1))


def study(found: Sequence[SliceResult], **more: Any) -> StudyResult:
    network = UsedNetwork(card_for("jcs-lite"), 0.5, 0.4, "torch")
    values: dict[str, Any] = {
        "case": PictureCase("a", "a", "pictures", (), (), None), "settings": Settings(),
        "screen": network, "segmenter": network,
        "verdict": Verdict("top-k", 0.25, 0.5, positive=False), "slices": tuple(found), "burden": None,
        "warnings": (), "seconds": 1.234, "clock": Clock(),
    }  # fmt: skip
    return StudyResult(**(values | more))


def test_the_most_affected_slices_lie_apart() -> None:
    shares = [0.0] * 100
    for index, share in {10: 0.5, 11: 0.6, 14: 0.4, 17: 0.3, 40: 0.2, 60: 0.1, 80: 0.05, 99: 0.01}.items():
        shares[index - 1] = share
    assert study(slices(shares)).most_affected() == [11, 17, 40, 60, 80]  # 10 and 14 are nearer than five slices
    assert study(slices([None, 0.0, 0.1])).most_affected() == [3]


@pytest.mark.parametrize(
    ("flagged", "flag", "expected"),
    [
        (0, "", []),
        (9, "too dark", []),
        (10, "too dark", ["10 of 20 slices do not look like axial chest slices in a lung window: too dark"]),
        (4, MISORIENTED["turned"], []),
        (5, MISORIENTED["turned"], [f"of 20 slices 5 look wrong: {MISORIENTED['turned']}"]),
    ],
)
def test_flags_of_slices_make_a_study_doubtful(flagged: int, flag: str, expected: list[str]) -> None:
    found = slices([None] * 20)
    marked = [replace(one, flags=(flag,) if one.index <= flagged else ()) for one in found]
    assert study(marked).doubts() == expected


def test_few_slices_and_coded_warnings_make_a_study_doubtful() -> None:
    unseen = [replace(one, probability=None) for one in slices([None] * 30)]
    assert study([*unseen, *slices([None] * 10)]).doubts() == []
    assert study([*unseen, *slices([None])]).doubts()[0].startswith("only one slice was looked at")
    warnings = (CodedWarning("gaps", "a gap"), CodedWarning("gaps", "a gap"), "thin slices", CodedWarning("note", "x"))
    assert study(slices([None] * 12), warnings=warnings).doubts() == ["a gap"]


@pytest.mark.parametrize(
    ("score", "limit", "text"),
    [(0.5, 0.5, "0.50"), (0.4996, 0.5, "0.4996"), (0.2, 0.5, "0.20"), (0.49999999, 0.5, "0.500000")],
)
def test_a_score_is_told_from_its_limit(score: float, limit: float, text: str) -> None:
    assert score_text(score, limit) == text


def test_the_report_says_what_the_result_says() -> None:
    found = study(slices([0.1, None, 0.3]), warnings=(CodedWarning("gaps", "a gap"),))
    report = build_report(found)
    assert verdict_text(found).startswith("This study shows no signs of COVID-19: probability 0.25 ")
    assert verdict_text(found).endswith("threshold 0.50; 0 of 3 slices positive.")
    assert report["verdict"]["reasons"] == found.doubts()
    few = "only 3 slices were looked at; a patient's verdict needs the whole chest"
    assert report["cautions"] == [{"code": "gaps", "text": "a gap"}, {"code": "few-slices", "text": few}]
    assert (report["segmenter"], report["seconds"], report["input"]["shape"]) == (None, 1.23, [4, 4])
    other = UsedNetwork(card_for("jcs-single"), None, 0.3, "native")
    separate = segmenter_of(study(slices([0.1]), segmenter=other))
    assert separate is not None
    assert separate["architecture"] == "jcs-single"
