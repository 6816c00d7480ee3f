"""The training module: its rates, one step against a plain loop, what is frozen, losses, weights to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jcs_ct import models
from jcs_ct.core.errors import UsageError
from jcs_ct.training.losses import release_loss
from jcs_ct.training.messages import quiet_lightning
from jcs_ct.training.module import TrainingModule, initialise
from training_help import small, specs

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


def batch(task: str = "segment", n: int = 2, side: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = (torch.rand(n, side, side, generator=generator) > 0.5).float()
    made = {"input0": torch.randn(n, 3, side, side, generator=generator), "mask": mask, "label": torch.arange(n) % 2}
    return made if task == "segment" else {**made, "mask": -torch.ones_like(mask)}


def test_the_scheduler_sets_the_published_rates(golden: dict[str, NDArray[Any]]) -> None:
    module = TrainingModule(small("segment", "x", epochs=60, batch=1, lr=2.5e-5), 79)
    made = module.configure_optimizers()
    rates = []
    for _ in range(60 * 79):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    np.testing.assert_allclose(rates, golden["poly_lr"], rtol=1e-12, atol=0)


def test_steps_are_those_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    module = TrainingModule(small("segment", "x", lr=1e-3), 3)
    plain = TrainingModule(small("segment", "x", lr=1e-3), 3).network
    plain.load_state_dict(module.network.state_dict())
    batches = [batch(side=side) for side in (16, 18, 20)]
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4)
    plain.train().get_submodule("bn").eval()
    for i, b in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (0.1 + 0.9 * (i + 1) / 200)  # within the warm-up
        optimiser.zero_grad()
        torch.autograd.backward(release_loss(plain(b["input0"]), b["mask"]))
        optimiser.step()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    with quiet_lightning():
        trainer = L.Trainer(accelerator="cpu", max_epochs=1, **quiet)
        loader: Any = torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
        trainer.fit(module, loader)
    for name, values in plain.state_dict().items():
        # Fused Adam rounds by the processor's own order of operations: to the last bits, not always bit for bit.
        torch.testing.assert_close(module.network.state_dict()[name], values, rtol=2e-6, atol=1e-7, msg=name)


def test_statistics_of_batch_norm_do_not_change() -> None:
    module = TrainingModule(small("segment", "x"), 3)
    assert not module.network.get_submodule("bn").training
    module.eval()
    module.train()
    assert module.network.get_submodule("stem").training
    before = module.network.get_buffer("bn.running_mean").clone()
    torch.autograd.backward(module.training_step(batch(), 0))
    assert torch.equal(module.network.get_buffer("bn.running_mean"), before)


def test_freezing_is_by_prefix() -> None:
    module = TrainingModule(small("segment", "x", freeze=("stem",)), 3)
    assert module.apply_freezing() == ["stem.weight", "stem.bias"]
    before = {k: v.clone() for k, v in module.network.state_dict().items()}
    optimiser = module.configure_optimizers()["optimizer"]
    torch.autograd.backward(module.training_step(batch(), 0))
    optimiser.step()
    changed = {k for k, v in module.network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"bn.weight", "bn.bias", "head.weight", "head.bias"}
    for freeze, text in ((("nose",), "begin with stem, bn, head"), (("",), "nothing to train")):
        with pytest.raises(UsageError, match=text):
            TrainingModule(small("segment", "x", freeze=freeze), 3).apply_freezing()


@pytest.mark.parametrize("masks", [0, 1, 2])
def test_pixels_are_supervised_where_there_is_a_mask(masks: int) -> None:
    module = TrainingModule(small("classify", "x", pixel_weight=0.5), 3)
    b = batch("classify", side=21)
    b["mask"][:masks] = 1.0
    logits, features = module.classify([b["input0"]])
    direction = module.network.get_parameter("fc.weight")[1] - module.network.get_parameter("fc.weight")[0]
    cam = torch.einsum("nchw,c->nhw", features, direction)
    expected = F.binary_cross_entropy_with_logits(cam[:masks], torch.ones_like(cam[:masks])) if masks else 0.0
    loss = module.training_step(b, 0)
    assert float((loss - F.cross_entropy(logits, b["label"])).detach()) == pytest.approx(
        0.5 * float(torch.as_tensor(expected).detach()), abs=1e-5
    )
    torch.autograd.backward(loss)
    for p in module.parameters():
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()


def test_mixing_is_of_slices_and_labels_alike() -> None:
    module = TrainingModule(small("classify", "x", mix=0.7, class_weights=True), 3, [0.8, 1.5])
    b = batch("classify", 4)
    partners, share = module.mixing(4)
    assert 0 <= share <= 1
    assert module.mixing(4)[1] == share  # of seed and step alone
    logits = module.network.requires_grad_(False)(share * b["input0"] + (1 - share) * b["input0"][partners])
    logs, weight = logits.log_softmax(dim=1), torch.tensor([0.8, 1.5])
    expected = 0.0
    for i in range(4):
        for label, part in ((b["label"][i], share), (b["label"][partners[i]], 1 - share)):
            expected -= part * float(weight[label] * logs[i, label]) / 4
    assert float(module.training_step(b, 0)) == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    module = TrainingModule(small("segment", "x"), 3)
    nn.init.constant_(module.network.get_parameter("head.bias"), float("nan"))
    with pytest.raises(UsageError, match="not finite at step 1"):
        module.training_step(batch(), 0)


@pytest.mark.parametrize(
    ("source", "name", "prefix"),
    [
        ("vgg16-bn", "jcs-single", "vgg16."),
        ("vgg16-bn", "jcs-joint", "vgg16."),
        ("res2net101-v1b", "jcs-joint", "res2net."),
        ("res2net101-v1b", "jcs-classifier", ""),
        ("jcs-classifier", "jcs-joint", "res2net."),
        ("jcs-single", "jcs-joint", ""),
    ],
)
def test_weights_are_transplanted(source: str, name: str, prefix: str) -> None:
    with torch.device("meta"):
        shapes, target = models.build_model(source).state_dict(), models.build_model(name)
    own = target.state_dict()
    expected = {prefix + k for k, v in shapes.items() if prefix + k in own}
    missing = {k for k in shapes if prefix + k not in own}
    assert missing == ({"fc.weight"} if source == "jcs-classifier" else set())
    taken: dict[str, Any] = {}
    taking: Any = lambda tensors, strict: taken.update(tensors)  # noqa: E731
    target.load_state_dict = taking  # type: ignore[method-assign]
    assert initialise(target, name, source, shapes) == len(expected)
    assert {k for k in expected if own[k].shape == shapes[k.removeprefix(prefix)].shape} == set(taken)


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match=r"do not fit into jcs-classifier.*usable: jcs-classifier, res2net101-v1b"):
        initialise(nn.Identity(), "jcs-classifier", "jcs-single", {})


@pytest.mark.parametrize(
    ("name", "task"), [("jcs-single", "segment"), ("jcs-joint", "joint"), ("jcs-classifier", "classify")]
)
def test_no_parameter_is_left_unused_with_features(name: str, task: str) -> None:
    module = TrainingModule(small(task, "x", network=name, inputs="features"), 3)
    assert module.apply_freezing()
    b = batch(task, 1, 32)
    b["input0"] = torch.randn(1, 64, 32, 32)
    if name == "jcs-joint":
        b["input1"] = torch.randn(1, 64, 16, 16)
    torch.autograd.backward(module.training_step(b, 0))
    assert {k for k, p in module.named_parameters() if p.requires_grad and p.grad is None} == set()
    assert all(p.grad is None for p in module.parameters() if not p.requires_grad)
