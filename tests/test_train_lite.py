"""Training of `jcs-lite`: a run that is cut goes on exactly, folds hold out what they say, calibration is honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from jcs_ct.core.errors import UsageError
from jcs_ct.datasets.samples import Sample
from jcs_ct.datasets.slices import read_sample
from jcs_ct.models.lite import LiteNetwork
from jcs_ct.phantom import make_phantom
from jcs_ct.training.lite.augment import jitter, random_view, recurved, vary_appearance, windowed
from jcs_ct.training.lite.build import finish
from jcs_ct.training.lite.calibrate import balanced_threshold, calibrate, fit_scaling
from jcs_ct.training.lite.collect import collect
from jcs_ct.training.lite.config import LiteConfig
from jcs_ct.training.lite.corpus import divide
from jcs_ct.training.lite.data import LiteSlices, LiteSteps, balanced_shares
from jcs_ct.training.lite.encoder import load_imagenet
from jcs_ct.training.lite.module import lesion_loss, loudest
from jcs_ct.training.lite.score import read_table, summary, table
from jcs_ct.training.lite.sources import probe
from jcs_ct.weights import load
from lite_help import lite_data, rows_of, small
from weights_help import card_for


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return lite_data(tmp_path_factory.mktemp("lite"))


def test_a_fold_is_held_out_of_every_data_set(data: tuple[str, str]) -> None:
    corpus = divide(small(data))
    assert len(corpus.samples) + len(corpus.held) == 18
    assert len([s for s in corpus.held if s.mask is not None]) == 2
    assert len(corpus.lesions) == 4
    groups = [{s.group for s in part if s.mask is None} for part in (corpus.samples, corpus.held)]
    assert groups[0].isdisjoint(groups[1])
    everything = divide(small(data, fold=None))
    assert (len(everything.samples), len(everything.held)) == (18, 0)
    assert {s.source for s in divide(small((data[1],), without=("b",))).samples} == {"a"}
    with pytest.raises(UsageError, match="has no fold 3; its folds: 1, 2"):
        divide(small((data[1],), fold=3))


def test_slices_and_steps_depend_on_seed_and_step_alone(data: tuple[str, str]) -> None:
    config = small(data)
    corpus = divide(config)
    steps = list(LiteSteps(corpus, config))
    assert [len(step) for step in steps] == [4] * 4  # none is known to be empty
    assert all(step[place][0] in corpus.labelled for step in steps for place in (0, 1))
    assert all(step[place][0] in corpus.lesions for step in steps for place in (2, 3))
    resumed = LiteSteps(corpus, config)
    resumed.start = 2
    assert list(resumed) == steps[2:]
    lesion, plain = corpus.lesions[0], corpus.labelled[0]
    one, other = (LiteSlices(corpus.samples, 0, 0)[(lesion, 1, 3)] for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["image"].shape == (1, 256, 320)
    assert LiteSlices(corpus.samples, 0, 2)[(lesion, 1, 3)]["image"].shape == (1, 192, 240)
    assert float(LiteSlices(corpus.samples, 0, 0)[(plain, 0, 0)]["mask"].max()) == -1


def test_a_volume_teaches_with_its_masks_and_its_empty_slices(tmp_path: Path) -> None:
    study = make_phantom(slices=8, size=64, spacing=(19.0, 5.6, 5.6))
    affine = np.diag([-5.6, -5.6, -19.0, 1.0])
    for name, values in (("ct", study.hu), ("mask", study.lesions.astype(np.uint8))):
        image: Any = nibabel.Nifti1Image
        nibabel.save(image(values.transpose(2, 1, 0), affine), tmp_path / f"{name}.nii")
    lesion = np.asarray(study.lesions.any(axis=(1, 2)))
    lines = ["file,slice,mask,empty,label,group,source"]
    lines += [
        f"ct.nii,{i},{'mask.nii' if has else ''},{int(not has)},{int(has)},p1,a" for i, has in enumerate(list(lesion))
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    corpus = divide(LiteConfig((str(tmp_path / "table.csv"),)))
    assert len(corpus.lesions) == lesion.sum()
    assert len(corpus.quiet) == 8 - lesion.sum()
    slices = LiteSlices(corpus.samples, 0, 0)
    for i, sample in enumerate(corpus.samples):
        image, mask, spacing = read_sample(sample)
        np.testing.assert_array_equal(image, study.hu[i])
        np.testing.assert_array_equal(mask, study.lesions[i] > 0)
        assert spacing == pytest.approx((5.6, 5.6))
        item = slices[(i, 0, 0)]
        assert float(item["mask"].min()) >= 0
        assert float(item["label"]) == float(lesion[i])


def test_a_large_patient_does_not_drown_a_small_one() -> None:
    samples = [Sample(Path(f"a{i}"), group="big" if i < 90 else "small", source="s") for i in range(100)]
    samples += [Sample(Path(f"b{i}"), group=f"g{i}", source="t") for i in range(4)]
    weights = balanced_shares(samples)
    assert weights.sum() == pytest.approx(1)
    assert weights[:90].sum() == pytest.approx(weights[90:100].sum())
    assert weights[:100].sum() / weights[100:].sum() == pytest.approx((200 / 16) ** 0.25)


def test_both_labels_of_a_source_are_drawn_and_few_patients_are_not_learned_by_heart() -> None:
    samples = [Sample(Path(f"a{i}"), group=f"g{i}", source="public", label=int(i < 80)) for i in range(160)]
    samples += [Sample(Path(f"b{i}"), group="one", source="study", label=0) for i in range(60)]
    weights = balanced_shares(samples)
    assert weights[:80].sum() == pytest.approx(weights[80:160].sum())
    assert weights[80:160].sum() / weights[160:].sum() == pytest.approx((80 * 80 / 60) ** 0.25)


def test_augmentation_stays_in_the_slice() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (256, 320)).astype(np.uint8)
    mask = (picture > 128).astype(np.uint8) * np.uint8(255)
    for _ in range(50):
        top, left, rows, columns = box = jitter((10, 20, 60, 70), (90, 100), rng)
        assert min(rows, columns) > 20
        assert (top, left, rows, columns) == (0, 0, 90, 100) or (abs(top - 10) < 25 and abs(left - 20) < 25)
        seen, lesion = random_view(picture, mask, box, (64, 80), rng)
        assert seen.shape == (64, 80)
        assert lesion is not None
        assert lesion.shape == (64, 80)
        assert random_view(picture, None, box, (64, 80), rng)[1] is None
        assert vary_appearance(picture, rng).shape == picture.shape
    steps = np.arange(256, dtype=np.uint8)[None]
    assert (np.diff(recurved(steps, rng).astype(int)) >= 0).all()
    hu = np.arange(-1400, 300, dtype=np.int16)[None]
    assert (np.diff(windowed(hu, rng).astype(int)) >= 0).all()


def test_imagenet_weights_fill_the_encoder() -> None:
    network = LiteNetwork()
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    load_imagenet(network.encoder)
    after = network.encoder.state_dict()
    same = [name for name in before if name.endswith("weight") and torch.equal(before[name], after[name])]
    assert same == []


def test_the_loss_is_small_for_the_right_map_and_copes_with_empty_ones() -> None:
    mask = torch.zeros(2, 16, 16)
    mask[0, 4:9, 4:9] = 1
    right = (mask * 40 - 20)[:, None].expand(2, 4, 16, 16)
    assert float(lesion_loss(right, mask, 1.0)) < 1e-3
    assert float(lesion_loss(-right, mask, 1.0)) > 3
    marked = right.clone()
    marked[1, :, :8] = 20  # half of the empty slice
    assert float(lesion_loss(marked, mask, 1.0)) > float(lesion_loss(marked, mask, 0.1)) > 0.1


def test_calibration_finds_the_temperature_it_was_given() -> None:
    rng = np.random.default_rng(0)
    folds = []
    for _ in range(4):
        true = rng.normal(0, 2, 3000)
        folds.append((true * 3.0 + 1.5, (rng.random(3000) < expit(true)).astype(float)))
    assert fit_scaling(*folds[0]) == pytest.approx((3, -0.5), rel=0.15)
    found = calibrate(folds)
    assert (found.temperature, found.offset) == pytest.approx((3, -0.5), rel=0.1)
    assert found.error < 0.03 < found.raw_error
    assert found.sensitivity == pytest.approx(found.specificity, abs=0.002)


def test_folds_are_put_together(tmp_path: Path) -> None:
    folds = [rows_of(seed) for seed in range(3)]
    scores = collect(folds)
    part = [r for f in folds for r in f if r["source"] == "a"]
    expected = roc_auc_score([r["label"] for r in part], [r["logit"] for r in part])
    assert scores["auc_a"]["value"] == pytest.approx(expected)
    assert scores["auc_a"]["low"] < expected < scores["auc_a"]["high"]
    assert [scores["dice"][end] for end in ("value", "low")] == pytest.approx([0.8, 0.8])
    assert scores["precision"]["value"] == pytest.approx(0.8)
    assert summary(folds[0])["pooled_dice"] == pytest.approx(0.8)
    (tmp_path / "held_out.csv").write_bytes(table(folds[0]))
    assert summary(read_table(tmp_path / "held_out.csv")) == pytest.approx(summary(folds[0]))
    network = LiteNetwork().state_dict()
    card = finish(tmp_path, folds, (dict(network), card_for("jcs-lite", covid_threshold=0.5)), print)
    tensors, stored = load(tmp_path / "best.safetensors")
    assert stored.covid_threshold == card.covid_threshold != 0.5
    assert any(note.startswith("held out, Dice per image: 0.800") for note in stored.notes)
    assert (tmp_path / "best.safetensors").stat().st_size <= 14e6
    name = "fusion.mix.conv.weight"
    torch.testing.assert_close(tensors[name], network[name], rtol=1e-3, atol=1e-6)


def test_the_probe_tells_sources_that_differ_and_no_others() -> None:
    rng = np.random.default_rng(0)
    origins = [("ab"[i % 2], f"g{i // 4}") for i in range(200)]
    noise = rng.normal(size=(200, 8)).astype(np.float32)
    told = np.array([[s == "a"] for s, _ in origins], np.float32)
    assert probe(np.concatenate([noise, told], axis=1), origins) == pytest.approx(1.0)
    assert probe(noise, origins) == pytest.approx(0.5, abs=0.12)
    assert probe(noise, [(s, s) for s, _ in origins]) is None


def test_the_loudest_pixels_of_an_empty_slice_are_heard() -> None:
    logits = torch.full((2, 64, 80), -4.0)
    logits[1, 8:12, 8:12] = 4.0  # four cells of 1,280: more than 0.2 %
    found = loudest(logits)
    assert float(found[0]) == pytest.approx(-4)
    assert float(found[1]) > 2


def test_the_threshold_is_where_both_errors_are_equal() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1.0])
    threshold = balanced_threshold(p, labels)
    found = p >= threshold
    assert found[labels == 1].mean() == (~found[labels == 0]).mean() == 0.75
