"""How well the source of a slice can be told from the network's features: what it might know of the hospital.

A linear probe (logistic regression) on the features below the evidence map, mean and maximum over the slice, fitted and
scored by group on slices that the network never saw. Chance is one over the number of sources.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from jcs_ct.datasets.slices import read_sample
from jcs_ct.imaging.recipes import grey_as_rgb, prepare, recipe
from jcs_ct.models.lite import LiteNetwork
from jcs_ct.training.lite.config import LiteConfig
from jcs_ct.training.lite.corpus import divide
from jcs_ct.weights import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Sample

MOST = 200  # slices of a source in a fold: enough for a figure with two digits


def source_accuracy(out: Path, say: Callable[[str], None]) -> dict[str, float]:
    """Return "balanced_accuracy", the mean over the folds' networks, and "chance"; empty with fewer than two sources.

    `out` holds the runs `fold_1` …, finished.
    """
    found, sources = [], 0
    for folder in sorted(out.glob("fold_*")):
        if not (folder / "best.safetensors").exists():
            continue
        config = LiteConfig.from_json((folder / "config.json").read_text(encoding="utf-8"))
        held = _some([s for s in divide(config).held if s.mask is None and not s.empty], config.seed)
        sources = len({s.source for s in held})
        if sources < 2:
            return {}
        network = LiteNetwork()
        network.load_state_dict(load(folder / "best.safetensors")[0])
        score = probe(features(network.eval(), held), [(s.source or "", s.group or s.path.name) for s in held])
        if score is None:
            continue
        found.append(score)
        say(f"{folder.name}: its features tell {sources} sources with balanced accuracy {found[-1]:.3f}")
    return {"balanced_accuracy": float(np.mean(found)), "chance": 1 / sources} if found else {}


def features(network: LiteNetwork, samples: Sequence[Sample]) -> NDArray[np.float32]:
    """Return mean and maximum over the slice of the 96 features below the evidence map: slices × 192."""
    how, rows, seen = recipe("lung-field"), [], []
    handle = network.context.register_forward_hook(lambda _m, _i, output: seen.append(output))
    try:
        for sample in samples:
            values, _ = prepare(grey_as_rgb(read_sample(sample).grey), how)
            with torch.inference_mode():
                network(torch.from_numpy(values)[None])
            maps = seen.pop()[0]
            rows.append(torch.cat([maps.mean(dim=(1, 2)), maps.amax(dim=(1, 2))]).numpy())
    finally:
        handle.remove()
    return np.stack(rows)


def _some(samples: Sequence[Sample], seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    chosen: list[Sample] = []
    for source in sorted({s.source or "" for s in samples}):
        part = [s for s in samples if (s.source or "") == source]
        chosen += [part[i] for i in sorted(rng.permutation(len(part))[:MOST])]
    return chosen


def probe(values: NDArray[np.float32], origins: Sequence[tuple[str, str]]) -> float | None:
    """Return the balanced accuracy, in [0, 1], of telling the source from features, cross-validated by group.

    `values` are slices × features, `origins` (source, group) of each. None where a source has fewer than two groups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = np.array([source for source, _ in origins])
    groups = np.array([json.dumps(origin) for origin in origins])
    parts = min(5, *(len({g for t, g in zip(truth, groups, strict=True) if t == source}) for source in set(truth)))
    if parts < 2:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced", C=0.1))
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=0)
    return float(balanced_accuracy_score(truth, cross_val_predict(model, values, truth, groups=groups, cv=folds)))
