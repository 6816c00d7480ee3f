"""A MONAI bundle: TorchScript, and the two configurations that MONAI's `verify` commands and MONAI Label read.

The bundle gives one tensor, as MONAI's inferers expect: logits of lesion of a segmenter or of `jcs-lite`, logits of the
classes of a classifier. Its input is what a recipe of this package makes of a slice (the README in it says which).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jcs_ct.core.version import __version__
from jcs_ct.imaging.recipes import MEAN, STD
from jcs_ct.inference.script_engine import write_script

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jcs_ct.inference.fused import FusedNetwork
    from jcs_ct.weights import WeightsCard

DISCLAIMER = "A research tool, not a medical device: it must not be used to diagnose or treat anyone."


def main_output(names: Sequence[str]) -> str:
    """Return which output a bundle gives: the lesion map of a network that has one, else the first."""
    return "lesion" if "lesion" in names else names[0]


class MainOutput(torch.nn.Module):
    """A network with its `main_output` alone."""

    def __init__(self, network: FusedNetwork) -> None:
        super().__init__()
        self.network = network
        self.output = main_output(network.spec.outputs)
        self.index = network.spec.outputs.index(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to N×1×H×W logits of lesion, or N×2 logits of classes."""
        outputs: tuple[Tensor, ...] = self.network(x)
        return outputs[self.index]


def write_bundle(
    folder: Path, card: WeightsCard, shape: tuple[int, int], network: MainOutput, example: Sequence[Tensor]
) -> None:
    """Write the bundle into an empty folder.

    Args:
        folder: Where.
        card: Of the weights.
        shape: (rows, columns) the weights were trained at.
        network: What to write.
        example: One input.

    Raises:
        RuntimeFailedError: The network cannot be traced.
    """
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    write_script(network, example, folder / "models/model.ts")
    channels, classes = int(example[0].shape[1]), network.output == "logits"
    for name, content in (
        ("metadata", _metadata(card, shape, channels, classes=classes)),
        ("inference", _inference(shape, classes=classes)),
    ):
        text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
        (folder / "configs" / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "docs/README.md").write_text(_readme(card, shape, channels), encoding="utf-8")


def _metadata(card: WeightsCard, shape: tuple[int, int], channels: int, *, classes: bool) -> dict[str, Any]:
    low, high = (-1.0, 1.0) if channels == 1 else (float((-MEAN / STD).min()), float(((1 - MEAN) / STD).max()))
    output = {
        "type": "probabilities",
        "format": "classification" if classes else "segmentation",
        "num_channels": 2 if classes else 1,
        "spatial_shape": [] if classes else list(shape),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "other", "1": "COVID-19"} if classes else {"0": "lesion (logit)"},
    }
    picture = {
        "type": "image",
        "format": "magnitude",
        "modality": "CT",
        "num_channels": channels,
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": [round(low, 4), round(high, 4)],
        "is_patch_data": False,
        "channel_def": {str(i): "lung-windowed axial slice" for i in range(channels)},
    }
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": __version__,
        "changelog": {__version__: "exported by jcs-ct"},
        "monai_version": "1.4.0",
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": "1.26.0",
        "required_packages_version": {},
        "task": "Classification of COVID-19" if classes else "Segmentation of COVID-19 lesions",
        "description": f"{card.name} ({card.architecture}) on axial chest CT slices. {DISCLAIMER}",
        "authors": "jcs-ct",
        "copyright": "see the licence of the weights",
        "licence": card.licence,
        "references": [card.citation],
        "intended_use": DISCLAIMER,
        "weights_sha256": card.weights_sha256,
        "network_data_format": {"inputs": {"image": picture}, "outputs": {"pred": output}},
    }


def _inference(shape: tuple[int, int], *, classes: bool) -> dict[str, Any]:
    final: list[dict[str, Any]] = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True}
        if classes
        else {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_ext": ".nii.gz"},
    ]
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "size": list(shape),
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.to(@device).eval()",
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.npy'))]",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": False},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": final[: 1 if classes else 2]},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def _readme(card: WeightsCard, shape: tuple[int, int], channels: int) -> str:
    return f"""# {card.name}

{DISCLAIMER}

{card.architecture}, weights SHA-256 `{card.weights_sha256}`, licence: {card.licence}.

Input: float32, batch × {channels} × rows × columns (trained at {shape[0]} × {shape[1]}), as the recipe `{card.recipe}`
of jcs-ct makes it of a lung-windowed axial slice (`jcs_ct.imaging.recipes.prepare`). Put such arrays, {channels} × rows
× columns each, as `.npy` into `data/`. Output: logits; the configuration applies the sigmoid (a classifier: softmax,
index 1 is COVID-19). `manifest.json` holds the checksums and how far the exported network is from the original.

    python -m monai.bundle run --config_file configs/inference.json --bundle_root .
"""
