"""Every array of the golden file: what the official networks compute, number for number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from jcs_ct.imaging.recipes import RECIPES, prepare, resize_map
from jcs_ct.inference.attention import attention_of_slice, class_answer
from jcs_ct.inference.golden import check, fill_array
from jcs_ct.inference.golden import golden as shipped
from jcs_ct.io.features import dequantise, quantise
from jcs_ct.metrics import release_iou, release_mae
from jcs_ct.training.losses import f_measure_loss, release_loss
from jcs_ct.training.schedule import poly_lr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    Golden = dict[str, NDArray[Any]]
    Filled = Callable[..., nn.Module]

MATCHED = {  # which test below matches which arrays; the first test holds this against the file
    "input": {"image"},
    "backbones": {
        f"{b}_stage{i}_{what}" for b in ("vgg", "res2net") for i in range(1, 6) for what in ("mean", "shape")
    },
    "maps": {"single_maps", "joint_maps", "classifier_logits"},
    "features": {
        "vgg_feats_mean",
        "res2net_feats_mean",
        "vgg_feats_uint8",
        "res2net_feats_uint8",
        "classifier_feats_uint8",
        "joint_maps_from_features",
        "classifier_logits_from_features",
    },
    "grad-cam": {"gradcam_layer4_class1_raw", "gradcam_224"},
    "training": {
        "loss_target",
        "single_loss",
        "floss",
        "single_grad_norm_cls1",
        "single_grad_norm_vgg_conv3_1",
        "poly_lr",
    },
    "evaluator": {"evaluator_probs", "evaluator_masks", "evaluator_iou", "evaluator_mae"},
    "recipes": {"segmentation_input_352", "classification_input_224"},
}


def image(golden: Golden) -> torch.Tensor:
    return torch.from_numpy(golden["image"])


def test_no_array_is_left_out(golden: Golden) -> None:
    assert set().union(*MATCHED.values()) == set(golden)


def test_the_self_check_ships_the_same_numbers(golden: Golden) -> None:
    for name, array in shipped().items():
        np.testing.assert_array_equal(array, golden[name])


def test_fill_is_the_published_function() -> None:
    # Three values written down from an independent run guard against a changed generator.
    assert fill_array("fc.weight", (2, 2048)).dtype == np.float32
    assert fill_array("a.running_var", (4,)).min() >= 0.5
    np.testing.assert_array_equal(fill_array("x.bias", (3,)), fill_array("x.bias", (3,)))
    assert not np.array_equal(fill_array("x.bias", (3,)), fill_array("x.bias", (3,), salt=1))


@pytest.mark.parametrize("name", ["jcs-single", "jcs-joint", "jcs-classifier"])
def test_names_and_shapes_are_the_official_ones(
    name: str, filled: Filled, official_shapes: dict[str, dict[str, tuple[int, ...]]]
) -> None:
    for inputs in ("image", "features"):
        ours = {k: tuple(v.shape) for k, v in filled(name, inputs).state_dict().items()}
        assert ours == official_shapes[name]


def test_backbone_stages(golden: Golden, filled: Filled) -> None:
    joint: Any = filled("jcs-joint")
    with torch.inference_mode():
        outputs = {"vgg": joint.vgg16(image(golden)), "res2net": joint.res2net(image(golden))}
    for backbone, stages in outputs.items():
        for i, stage in enumerate(stages, 1):
            assert tuple(stage.shape) == tuple(golden[f"{backbone}_stage{i}_shape"])
            np.testing.assert_allclose(
                stage.mean(dim=(2, 3)).numpy(), golden[f"{backbone}_stage{i}_mean"], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize(("name", "key"), [("jcs-single", "single_maps"), ("jcs-joint", "joint_maps")])
def test_maps(name: str, key: str, golden: Golden, filled: Filled) -> None:
    with torch.inference_mode():
        logits = filled(name)(image(golden))
    np.testing.assert_allclose(logits.sigmoid().numpy(), golden[key], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits[:, 0].sigmoid().numpy(), golden[key][:, 0], rtol=0, atol=1e-5)


def test_classifier_logits(golden: Golden, filled: Filled) -> None:
    with torch.inference_mode():
        logits = filled("jcs-classifier")(image(golden)).numpy()
    np.testing.assert_allclose(logits, golden["classifier_logits"], rtol=1e-4)


def test_stage_one_features(golden: Golden, filled: Filled) -> None:
    joint: Any = filled("jcs-joint")
    classifier: Any = filled("jcs-classifier")
    with torch.inference_mode():
        both = {"vgg": joint.vgg16.stage_one(image(golden)), "res2net": joint.res2net.stage_one(image(golden))}
        own = classifier.stage_one(image(golden)[:1])
    for which, features in both.items():
        np.testing.assert_allclose(features.mean(dim=(2, 3)).numpy(), golden[f"{which}_feats_mean"], rtol=1e-4)
        assert_nearly_identical(quantise(features[:1].numpy()), golden[f"{which}_feats_uint8"])
    assert_nearly_identical(quantise(own.numpy()), golden["classifier_feats_uint8"])


def assert_nearly_identical(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
    assert ours.shape == theirs.shape
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3


def test_from_features(golden: Golden, filled: Filled) -> None:
    vgg, res2net, own = (
        torch.from_numpy(dequantise(golden[k]))
        for k in ("vgg_feats_uint8", "res2net_feats_uint8", "classifier_feats_uint8")
    )
    with torch.inference_mode():
        maps = filled("jcs-joint", "features")(vgg, res2net).sigmoid().numpy()
        logits = filled("jcs-classifier", "features")(own).numpy()
    np.testing.assert_allclose(maps, golden["joint_maps_from_features"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits, golden["classifier_logits_from_features"], rtol=1e-4)


@pytest.mark.parametrize("name", ["jcs-single", "jcs-joint", "jcs-classifier"])
def test_exact_features_give_what_the_image_gives(name: str, golden: Golden, filled: Filled) -> None:
    from_image, from_features = filled(name), filled(name, "features")
    model: Any = from_image
    x = image(golden)
    with torch.inference_mode():
        if name == "jcs-classifier":
            features = [model.stage_one(x)]
        else:
            features = [model.vgg16.stage_one(x)]
            features += [model.res2net.stage_one(x)] if name == "jcs-joint" else []
        torch.testing.assert_close(from_features(*features), from_image(x), rtol=1e-6, atol=1e-6)


def test_grad_cam(golden: Golden, filled: Filled) -> None:
    found = attention_of_slice(filled("jcs-classifier"), [image(golden)[:1]], "layer4", class_answer(1))
    np.testing.assert_allclose(found.raw, golden["gradcam_layer4_class1_raw"], rtol=1e-4)
    np.testing.assert_allclose(
        found.scaled(resize_map(found.raw, (224, 224))), golden["gradcam_224"], rtol=0, atol=1e-5
    )


def test_losses_and_gradients(golden: Golden, filled: Filled) -> None:
    model, target = filled("jcs-single"), torch.from_numpy(golden["loss_target"])
    logits = model(image(golden))
    loss = release_loss(logits, target)
    assert float(loss.detach()) == pytest.approx(float(golden["single_loss"]), abs=1e-5)
    assert float(f_measure_loss(logits.detach(), target)) == pytest.approx(float(golden["floss"]), abs=1e-5)
    parameters = [model.get_parameter("cls1.weight"), model.get_parameter("vgg16.conv3_1.conv.weight")]
    cls1, conv3_1 = torch.autograd.grad(loss, parameters)
    assert float(cls1.norm()) == pytest.approx(float(golden["single_grad_norm_cls1"]), rel=1e-4)
    assert float(conv3_1.norm()) == pytest.approx(float(golden["single_grad_norm_vgg_conv3_1"]), rel=1e-4)


def test_learning_rates_are_exact(golden: Golden) -> None:
    ours = [poly_lr(i, 60 * 79, 79) for i in range(60 * 79)]
    np.testing.assert_allclose(ours, golden["poly_lr"], rtol=1e-14, atol=0)


def test_release_evaluator(golden: Golden) -> None:
    scored = golden["evaluator_probs"], golden["evaluator_masks"]
    assert release_iou(*scored) == pytest.approx(float(golden["evaluator_iou"]), abs=1e-6)
    assert release_mae(*scored) == pytest.approx(float(golden["evaluator_mae"]), abs=1e-6)


def test_recipes_on_the_real_slice(golden: Golden, real_data: Path) -> None:
    from PIL import Image

    pixels = np.asarray(Image.open(real_data / "ct100/images/tr_im_0001.png").convert("RGB"))
    segmentation, _ = prepare(pixels, RECIPES["release-segmentation"].at(352))
    classification, _ = prepare(pixels, RECIPES["release-classification"])
    np.testing.assert_allclose(segmentation[:, ::8, ::8], golden["segmentation_input_352"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(classification[:, ::8, ::8], golden["classification_input_224"], rtol=0, atol=1e-5)


def test_self_check_passes_and_would_fail(monkeypatch: pytest.MonkeyPatch, golden: Golden, filled: Filled) -> None:
    import jcs_ct.inference.golden as module

    assert [p.network for p in check() if p.ok] == ["jcs-single", "jcs-joint", "jcs-classifier"]
    wrong = {**golden, "single_maps": golden["single_maps"] + np.float32(2e-5)}
    monkeypatch.setattr(module, "golden", lambda: wrong)
    monkeypatch.setattr(module, "filled_model", filled)  # the same weights, drawn once
    assert [p.ok for p in check()] == [False, True, True]
