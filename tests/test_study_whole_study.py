"""The patient rule fitted on whole studies: against scikit-learn, against numbers by hand, and where it has a place."""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from jcs_ct.app.in_memory import case_of_object
from jcs_ct.cli.common import PATIENT_RULES
from jcs_ct.core.errors import UsageError, WeightsError
from jcs_ct.inference import apply
from jcs_ct.outputs.report.content import build_report
from jcs_ct.study.rules import TopK
from jcs_ct.study.scan import scan_study
from jcs_ct.study.settings import RULE_NAMES, Networks, Settings, rule_fit, rule_for
from jcs_ct.study.whole_study import FEATURES, LEAST_SHARE, NAME, Evidence, WholeStudy, values_of
from jcs_ct.weights import WeightsCard
from report_help import check
from study_help import BandNetwork, mark, mark_all, mark_screened, marked_volume, small_phantom
from weights_help import card_for

ROOT = Path(__file__).resolve().parent.parent

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAIR = ("affected", "highest")


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("study_rule", ROOT / "tools/study_rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


study_rule = _tool()


def studies(seed: int = 3, number: int = 24) -> tuple[list[list[float]], list[int]]:
    """Return values of the pair and labels that overlap, twice as many without the disease."""
    rng = np.random.default_rng(seed)
    labels = [int(i % 3 == 0) for i in range(number)]
    return [[0.001 * 10 ** (1.2 * y + 0.6 * rng.normal()), float(expit(y + rng.normal()))] for y in labels], labels


def test_the_fit_is_that_of_scikit_learn() -> None:
    values, labels = studies()
    rule = WholeStudy.fit(values, labels, PAIR, confidence=0.8, prior=1.5)
    rows = np.array([[np.log10(max(a, LEAST_SHARE)), np.log(h / (1 - h))] for a, h in values])
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    theirs = LogisticRegression(C=1.5**2, class_weight="balanced", tol=1e-10).fit(scaled, labels)
    assert_allclose(rule.weights[1:], theirs.coef_[0], atol=0.02)  # theirs leaves the intercept without a prior
    assert rule.weights[0] == pytest.approx(theirs.intercept_[0], abs=0.02)
    assert_allclose([rule.judge(v).score for v in values], theirs.predict_proba(scaled)[:, 1], atol=0.01)


def test_the_interval_is_that_of_the_curvature() -> None:
    values, labels = studies()
    rule = WholeStudy.fit(values, labels, PAIR, confidence=0.8)
    rows = np.array([[1.0, *rule._standard(v)] for v in values])
    truth, weights = np.array(labels), np.array(rule.weights)
    share = np.where(truth == 1, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))

    def loss(w: Any) -> float:
        z = rows @ w
        return float(np.sum(share * (np.logaddexp(0, z) - truth * z)) + 0.5 * (w[0] ** 2 / 100 + w[1] ** 2 + w[2] ** 2))

    step, unit = 1e-3, np.eye(3)
    hessian = [
        [
            (
                loss(weights + step * (unit[i] + unit[j]))
                - loss(weights + step * (unit[i] - unit[j]))
                - loss(weights - step * (unit[i] - unit[j]))
                + loss(weights - step * (unit[i] + unit[j]))
            )
            / (4 * step**2)
            for j in range(3)
        ]
        for i in range(3)
    ]
    assert_allclose(np.linalg.inv(hessian), rule.covariance, rtol=1e-3)
    found = rule.judge(values[0])
    middle, reach = rows[0] @ weights, 1.2815516 * np.sqrt(rows[0] @ np.array(rule.covariance) @ rows[0])
    assert found.interval == pytest.approx((expit(middle - reach), expit(middle + reach)), rel=1e-5)
    assert sum(term.effect for term in found.terms) + weights[0] == pytest.approx(middle)


def made(middle: float, deviation: float) -> WholeStudy:
    """Return a rule whose log-odds are `middle`, give or take `deviation`, whatever the study."""
    covariance = ((deviation**2, 0.0), (0.0, 0.0))
    return WholeStudy(("affected",), (0.0,), (1.0,), (middle, 0.0), covariance, 0.8, 0.5, 16, 9)


@pytest.mark.parametrize(
    ("middle", "deviation", "call"),
    [
        (1.0, 0.5, "positive"),
        (1.0, 1.0, "indeterminate"),
        (-1.0, 0.5, "negative"),
        (-1.0, 1.0, "indeterminate"),
        (0.0, 0.0, "positive"),  # exactly at the limit, and sure of it
        (-1e-9, 0.0, "negative"),
    ],
)
def test_where_the_interval_crosses_the_limit_nothing_is_called(middle: float, deviation: float, call: str) -> None:
    found = made(middle, deviation).judge([0.1])
    assert found.call == call
    assert found.positive == (call == "positive")
    assert found.score == pytest.approx(expit(middle))


def test_values_of_a_study_by_hand() -> None:
    p = [0.1] * 16 + [0.9, 0.8, 0.6, 0.6]
    study = Evidence(p, [one >= 0.5 for one in p], 0.07)
    assert values_of(study, tuple(FEATURES)) == pytest.approx([0.07, expit((np.log(9) + np.log(4)) / 2), 0.2])
    assert made(0.5, 0.0)(study) == made(0.5, 0.0).judge([0.07])


def test_a_rule_survives_its_card() -> None:
    values, labels = studies()
    rule = WholeStudy.fit(values, labels, PAIR, confidence=0.8)
    card = card_for("jcs-lite", whole_study=rule.to_dict())
    again = type(card).from_json(card.to_json())
    assert again == card
    assert again.whole_study is not None
    assert WholeStudy.from_dict(again.whole_study) == rule
    assert rule_fit(again) != rule_fit(card_for("jcs-lite"))
    assert "whole_study" not in json.loads(card_for("jcs-lite").to_json())


@pytest.mark.parametrize(
    "change",
    [
        {"features": ["affected", "age"]},
        {"mean": [0.0]},
        {"deviation": [1.0, 0.0]},
        {"weights": [0.0, float("nan"), 1.0]},
        {"covariance": [[1.0, 0.0], [0.0, 1.0]]},
        {"covariance": [[-1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]},
        {"confidence": 1.0},
        {"limit": 0},
        {"studies": None},
        {"weights": "three"},
    ],
)
def test_a_broken_rule_is_refused(change: dict[str, Any]) -> None:
    values, labels = studies()
    with pytest.raises(WeightsError, match="whole-study rule"):
        WholeStudy.from_dict(WholeStudy.fit(values, labels, PAIR, confidence=0.8).to_dict() | change)


def test_too_few_studies_and_unknown_features_are_refused() -> None:
    with pytest.raises(UsageError, match="two studies of each class"):
        WholeStudy.fit([[0.1, 0.5]] * 4, [1, 0, 0, 0], PAIR, confidence=0.8)
    with pytest.raises(UsageError, match="known: affected, highest, extent"):
        WholeStudy.fit([[0.1]] * 4, [1, 1, 0, 0], ("age",), confidence=0.8)
    with pytest.raises(UsageError, match="known: whole-study, release-count"):
        rule_for("majority", None)


@pytest.fixture
def volume(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.int16]:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    monkeypatch.setattr(apply, "screen_slice", mark_screened)
    monkeypatch.setattr(apply, "segment", lambda image, network: mark(image, network).lesion)
    return marked_volume(small_phantom())[0]


def looked_at(
    volume: NDArray[np.int16], segment: Any = "always", rule: WholeStudy | None = None, name: str = "whole-study"
) -> Any:
    network: Any = BandNetwork()
    network.card = replace(network.card, whole_study=None if rule is None else rule.to_dict())
    case = case_of_object(volume, spacing=small_phantom().spacing)
    return scan_study(case, Networks(network, network), Settings(name, segment, frames=False))


def test_a_volume_is_judged_by_the_fitted_rule(volume: NDArray[np.int16]) -> None:
    rule = made(0.4, 1.0)
    found = looked_at(volume, rule=rule)
    probabilities = [one.probability for one in found.scored]
    evidence = Evidence(probabilities, [one.positive for one in found.scored], found.burden.both.share)
    assert found.verdict == rule(evidence)
    report = build_report(found)
    check(report)
    verdict = report["verdict"]
    assert (verdict["rule"], verdict["call"], verdict["positive"]) == ("whole-study", "indeterminate", False)
    assert verdict["text"].startswith("This study shows opacities, but the model cannot tell")
    assert verdict["terms"][0]["feature"] == "affected"


@pytest.mark.parametrize(
    ("segment", "fitted", "name", "used"),
    [
        ("always", False, "whole-study", "top-k"),  # weights without such a rule
        ("never", True, "whole-study", "top-k"),  # nobody looked for lesions
        ("positive", True, "whole-study", "top-k"),  # the verdict decides whether anybody does
        ("always", True, "top-k", "top-k"),
        ("always", True, "fraction", "fraction"),
    ],
)
def test_else_the_old_rule_stays(volume: NDArray[np.int16], segment: str, fitted: bool, name: str, used: str) -> None:
    found = looked_at(volume, segment, made(0.4, 1.0) if fitted else None, name)
    assert (found.verdict.rule, found.verdict.interval) == (used, None)
    if used == "top-k":
        assert found.verdict == TopK()([one.probability for one in found.scored])


def test_the_shipped_rule_is_that_of_the_table_in_the_documents() -> None:
    with (ROOT / "docs/lite/studies.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    card = WeightsCard.read(ROOT / "src/jcs_ct/assets/jcs-lite.json")
    assert card.whole_study is not None
    shipped, anew = WholeStudy.from_dict(card.whole_study), study_rule.fitted(rows)
    assert (shipped.features, shipped.studies, shipped.positives) == (PAIR, 16, 9)
    for name in ("mean", "deviation", "weights", "covariance"):
        assert_allclose(getattr(anew, name), getattr(shipped, name), atol=1e-4)
    for row, verdict in zip(rows, study_rule.left_out(rows), strict=True):
        assert verdict.score == pytest.approx(float(row["probability"]), abs=6e-4)
        assert verdict.call == row["verdict"]


def test_the_tool_reads_results_and_writes_what_is_scored(tmp_path: Path) -> None:
    for folder, share in (("all", 0.2), ("held", 0.1)):
        for name, p in (("a", 0.9), ("b", 0.7), ("c", 0.3), ("d", 0.2)):
            report = {
                "slices": [{"probability": p, "positive": p >= 0.5}, {"probability": None, "positive": False}],
                "burden": {"share": share * p, "lesion_ml": 5.0, "outside_ml": 0.5, "lung_ml": 3000.0},
                "verdict": {"rule": "top-k", "score": p, "reliable": True},
                "input": {"spacing_mm": [5.0, 0.7, 0.7]},
                "cautions": [{"code": "gaps", "text": "a gap"}],
            }
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "report.json").write_text(json.dumps(report), encoding="utf-8")
    labels, table, card = tmp_path / "labels.csv", tmp_path / "table.csv", tmp_path / "card.json"
    rows = [f"{study},{int(study < 'c')}\n" for study in "abcd"]
    labels.write_text("".join(["study,label\n", *rows]), encoding="utf-8")
    study_rule.main(["table", *map(str, (labels, table, tmp_path / "all", tmp_path / "held"))])
    found = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["affected"] for row in found] == ["0.090000", "0.070000", "0.030000", "0.020000"]
    assert {(row["lesions_by"], row["codes"], row["slices"]) for row in found} == {("held", "gaps", "1")}
    card.write_text(card_for("jcs-lite").to_json(), encoding="utf-8")
    with pytest.raises(UsageError, match="two studies of each class"):  # one of two is left out
        study_rule.main(["fit", str(table), str(card), str(tmp_path / "scores")])
    assert WeightsCard.read(card).whole_study is None


def test_commands_know_every_rule_without_loading_them() -> None:
    assert set(PATIENT_RULES) == set(RULE_NAMES)
    assert PATIENT_RULES[0] == RULE_NAMES[0] == NAME
