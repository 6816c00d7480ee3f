"""The paths for GPUs, as far as a processor can run them: float16, CUDA graphs, and a dry run of CUDA's own rules.

The dry run needs no GPU: PyTorch's fake tensors claim to be on CUDA and go through its dispatcher, where autocast
decides about types, but hold no values. What needs a GPU is at the end and skipped without one.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from jcs_ct.inference import graphs, torch_engine
from jcs_ct.inference import half as halves
from jcs_ct.inference.fold import OUTPUTS, Inference
from jcs_ct.inference.graphs import Captured, Graphs
from jcs_ct.inference.half import InHalf
from jcs_ct.inference.parity import check_arrays, compare
from jcs_ct.inference.torch_engine import PlainEngine, TunedEngine, strict_float32
from jcs_ct.models import model_spec
from runtime_help import expected, far, noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

NETWORKS = ("jcs-single", "jcs-joint", "jcs-classifier", "jcs-lite")
DELICATE = {"exp", "log", "amax"}  # of the pooling of jcs-lite
WAITING = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal"}  # the processor would wait for a value


class Recorder:
    """Stands for `graphs.capture`: fixed memory, and a replay that computes again from what is in it."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.replays = 0

    def __call__(self, forward: graphs.Forward, inputs: Sequence[Tensor]) -> Captured:
        self.recorded.append(tuple(inputs[0].shape))
        static = [t.clone() for t in inputs]
        outputs = [t.clone() for t in forward(*static)]

        def replay() -> None:
            self.replays += 1
            for fixed, fresh in zip(outputs, forward(*static), strict=True):
                fixed.copy_(fresh)

        return Captured(static, outputs, replay)


def doubled(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(2 * t for t in tensors)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines check float16 on small pictures; a processor takes seconds for large ones."""
    monkeypatch.setattr(halves, "SHAPES", ((32, 48), (64, 80)))


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let float16 pass."""
    monkeypatch.setattr(torch_engine, "half_passes", lambda *_: (True, "not checked"))


def test_a_graph_is_recorded_when_a_shape_comes_again() -> None:
    record = Recorder()
    run = Graphs(doubled, record)
    for value in (1.0, 2.0, 3.0):
        (found,) = run(torch.full((2, 3), value))
        assert torch.equal(found, torch.full((2, 3), 2 * value)), "the input of this call, not of the recording"
        assert len(record.recorded) == (value > 1)
    assert record.replays == 2
    run(torch.ones(2, 4))
    assert record.recorded == [(2, 3)], "a shape seen only once is not recorded"
    (double,) = run(torch.ones(2, 3, dtype=torch.float64))
    assert double.dtype == torch.float64, "another type is another graph"


def test_results_of_a_graph_are_copies_and_inputs_are_left_alone() -> None:
    run = Graphs(doubled, Recorder())
    first = torch.ones(2, 2)
    kept = [run(first)[0] for _ in range(3)]
    run(torch.full((2, 2), 7.0))
    assert all(torch.equal(t, torch.full((2, 2), 2.0)) for t in kept)
    assert torch.equal(first, torch.ones(2, 2))


def test_few_graphs_are_kept_and_the_last_used_stay() -> None:
    record = Recorder()
    run = Graphs(doubled, record, kept=2)
    a, b, c = (torch.ones(n) for n in (1, 2, 3))
    for x in (a, a, b, b, a, c, c):  # b was not used for longest
        run(x)
    assert record.recorded == [(1,), (2,), (3,)]
    replays = record.replays
    run(a), run(c)
    assert (record.replays, len(record.recorded)) == (replays + 2, 3)
    run(b)
    assert len(record.recorded) == 3, "what had to go counts as new: three shapes in turn are not recorded each time"
    run(b)
    assert record.recorded[3:] == [(2,)]
    for n in range(10, 10 + 3 * graphs.NOTED):
        run(torch.ones(n))
    assert len(run._seen) <= graphs.NOTED


def test_what_cannot_be_recorded_runs_without_and_says_why() -> None:
    def refuse(*_: object) -> Captured:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nand more")

    run = Graphs(doubled, refuse)
    for _ in range(3):
        assert torch.equal(run(torch.ones(2))[0], torch.full((2,), 2.0))
    assert run.trouble == "CUDA out of memory. Tried to allocate"

    def wrong(*_: object) -> Captured:
        raise ZeroDivisionError

    run = Graphs(doubled, wrong)
    run(torch.ones(2))
    with pytest.raises(ZeroDivisionError):  # a mistake of ours is not hidden
        run(torch.ones(2))


@pytest.mark.parametrize("fails", [False, True])
def test_recording_warms_up_beside_and_returns_to_its_stream(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `capture` asks of CUDA, in order; the real library leaves its stream set when a recording fails."""
    calls: list[str] = []

    def stream(name: str) -> Any:
        return SimpleNamespace(name=name, wait_stream=lambda other: calls.append(f"{name} waits for {other.name}"))

    current = stream("current")

    @contextmanager
    def recording(graph: Any, capture_error_mode: str) -> Iterator[None]:
        calls.append(f"record {capture_error_mode}")
        yield
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        calls.append("recorded")

    for name, value in {
        "current_stream": lambda: current,
        "Stream": lambda: stream("side"),
        "stream": lambda _: nullcontext(),
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: calls.append("replay")),
        "graph": recording,
        "set_stream": lambda s: calls.append(f"set {s.name}"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def forward(x: Tensor) -> tuple[Tensor]:
        calls.append("pass")
        return (x + 1,)

    example = torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="capturing") if fails else nullcontext():
        captured = graphs.capture(forward, [example])
    passes = ["pass"] * graphs.WARM_UP
    start = ["side waits for current", *passes, "current waits for side", "record thread_local", "pass"]
    assert calls == [*start, *([] if fails else ["recorded"]), "set current"]
    if not fails:
        assert captured.inputs[0].data_ptr() != example.data_ptr()
        assert captured.inputs[0].is_contiguous(memory_format=torch.channels_last)
        captured.replay()
        assert calls[-1] == "replay"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tuned_engine_with_graphs_gives_the_same_numbers(name: str, filled: Callable[..., nn.Module]) -> None:
    record = Recorder()
    tuned = TunedEngine(filled(name), "cpu", record=record)
    array = noise(1 if name == "jcs-lite" else 3, 1, 48, 64)
    other = array[:, :, ::-1]
    first, again, third = (tuned.run([a]) for a in (array, other, array))
    assert record.recorded == [array.shape]
    assert far(expected(filled(name), np.ascontiguousarray(other)), again) < 2e-5
    assert far(first, third) == 0
    assert tuned.facts["precision"] == "float32"
    assert tuned.facts["CUDA graphs"] == "from the second run of a shape, 4 at most"


def test_an_engine_says_that_graphs_are_off(filled: Callable[..., nn.Module]) -> None:
    def refuse(*_: object) -> Captured:
        raise RuntimeError("CUDA error: operation not permitted")

    tuned = TunedEngine(filled("jcs-lite"), "cpu", record=refuse)
    array = noise(1, 1, 48, 64)
    for _ in range(2):
        assert far(expected(filled("jcs-lite"), array), tuned.run([array])) < 2e-5
    assert tuned.facts["CUDA graphs"] == "off: CUDA error: operation not permitted"


@pytest.mark.parametrize(
    ("name", "inputs", "limit"),
    [
        ("jcs-single", "image", 0.02),
        ("jcs-joint", "image", 0.02),
        ("jcs-classifier", "image", 0.02),
        ("jcs-lite", "image", 0.1),  # the depthwise convolutions of a processor add up in float16
        ("jcs-joint", "features", 0.02),
    ],
)
def test_every_network_runs_in_half_precision(
    name: str, inputs: str, limit: float, filled: Callable[..., nn.Module], forced: None
) -> None:
    network = filled(name, inputs)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    tuned = TunedEngine(network, "cpu", half=True)
    for shape in ((64, 64), (96, 128)):
        arrays = check_arrays(model_spec(name), shape, inputs)
        found = tuned.run(arrays)
        assert all(values.dtype == np.float32 for values in found)
        plain = PlainEngine(network, "cpu").run(arrays)
        assert 1e-7 < far(plain, found) < limit, "close, and not float32 under another name"
    assert tuned.facts["precision"] == "float16 convolutions, float32 outputs"
    assert tuned.facts["float16"] == "passed its check: not checked"
    assert "repeated in float32" not in tuned.facts
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert all(p.dtype == torch.float32 for p in tuned.network.parameters()), "float32 stays at hand"


def test_nothing_is_in_half_precision_unasked(filled: Callable[..., nn.Module]) -> None:
    tuned = TunedEngine(filled("jcs-lite"), "cpu")
    assert not tuned.half
    assert not {"float16", "CUDA graphs"} & tuned.facts.keys()


@pytest.mark.parametrize("inputs", ["image", "features"])
def test_half_precision_has_to_pass_its_check(inputs: str, filled: Callable[..., nn.Module], small: None) -> None:
    """The check is real: with limits of any size it passes, with none it does not, and then float32 runs."""
    network = filled("jcs-single", inputs)
    array = np.abs(noise(64 if inputs == "features" else 3, 1, 40, 48))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jcs_ct.inference.parity.PIXELS", 0.5)
        assert TunedEngine(network, "cpu", half=True).half
        patch.setattr("jcs_ct.inference.parity.PROBABILITY", 1e-7)
        tuned = TunedEngine(network, "cpu", half=True)
    assert not tuned.half
    assert tuned.facts["precision"] == "float32"
    assert tuned.facts["float16"].startswith("left out: probabilities differ by")
    assert far(expected(network, array), tuned.run([array])) < 2e-5


def test_the_worst_of_all_checked_sizes_counts(filled: Callable[..., nn.Module], small: None) -> None:
    network = Inference(filled("jcs-lite"))
    calls: list[tuple[int, ...]] = []

    def half(x: Tensor) -> tuple[Tensor, ...]:
        calls.append(tuple(x.shape[2:]))
        found: tuple[Tensor, ...] = network(x)
        return tuple(t + (float("nan") if len(calls) == 1 else 0) for t in found)

    ok, text = halves.half_passes(network, network, half, torch.from_numpy)
    assert not ok
    assert "nan" in text
    assert calls == list(halves.SHAPES)
    assert halves.half_passes(network, network, half, torch.from_numpy)[0]
    assert not any(m._forward_hooks for m in network.modules()), "nothing is left behind"


def test_large_values_keep_float16_out(filled: Callable[..., nn.Module], small: None) -> None:
    """Results may look well when a value in the middle was infinite: ReLU makes a 0 of −∞, ReLU6 a 6 of +∞."""
    network = copy.deepcopy(filled("jcs-classifier"))
    with torch.no_grad():
        network.get_submodule("bn1").weight.mul_(3e3)  # type: ignore[operator]
    tuned = TunedEngine(network, "cpu", half=True)
    assert not tuned.half
    assert "are too near its largest, 6.6e+04" in tuned.facts["float16"]


def test_a_network_of_no_table_stays_in_float32(filled: Callable[..., nn.Module]) -> None:
    network = copy.deepcopy(filled("jcs-lite"))
    network.__class__ = type("Another", (type(network),), {"__module__": "elsewhere"})
    assert (
        TunedEngine(network, "cpu", half=True).facts["float16"] == "left out: there is no check for elsewhere:Another"
    )


@pytest.mark.parametrize("record", [None, Recorder()])
def test_what_is_not_finite_is_computed_again_in_float32(
    record: Recorder | None, filled: Callable[..., nn.Module], forced: None
) -> None:
    network = filled("jcs-classifier")
    tuned = TunedEngine(network, "cpu", half=True, record=record)
    array = noise(3, 1, 48, 64)
    large = array * np.float32(1e5)  # beyond float16 from the first layer on
    ordinary = tuned.run([array])
    assert tuned.repeats == 0
    for times in (1, 2):
        assert far(TunedEngine(network, "cpu").run([large]), tuned.run([large])) == 0
        assert tuned.facts["repeated in float32"].startswith(f"{times} batches")
    assert far(ordinary, tuned.run([array])) == 0, "the next batch is on its own"
    assert tuned.repeats == 2
    array[0, 0, 0, 0] = np.nan
    assert np.isnan(tuned.run([array])[0]).any(), "what is not finite in float32 either comes out as it is"


def test_means_over_float16_neither_overflow_nor_drift() -> None:
    """Channel attention takes them; the sum of these is 8e7, and 0.1 would stop growing at 256 in float16."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for value in (900.0, 0.1):
            x = torch.full((1, 2, 300, 300), value, dtype=torch.float16, device=device)
            with torch.autocast(device, dtype=torch.float16):
                assert torch.equal(x.mean(dim=(2, 3)), x[:, :, 0, 0])


def test_float32_on_cuda_is_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = getattr(torch.backends.cudnn, "conv", None)
    if conv is not None:
        before = conv.fp32_precision
        with strict_float32(torch.device("cuda")):
            assert conv.fp32_precision == "ieee"
            with strict_float32(torch.device("cuda")):
                pass
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == before
        with strict_float32(torch.device("cpu")):
            assert conv.fp32_precision == before
    old = SimpleNamespace(allow_tf32=True)  # PyTorch before 2.9
    monkeypatch.setattr(torch.backends, "cudnn", old)
    with strict_float32(torch.device("cuda")):
        assert not old.allow_tf32
    assert old.allow_tf32


class Types(TorchDispatchMode):
    """Notes the types that come into every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, list[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen.setdefault(name, []).extend(a.dtype for a in args[:1] if isinstance(a, torch.Tensor))
        return func(*args, **(kwargs or {}))


def on_fake_cuda(network: nn.Module) -> None:
    """Replace parameters by fake ones on CUDA."""
    for module in network.modules():
        for name, p in module._parameters.items():
            if p is not None:
                fake = torch.empty(p.shape, dtype=p.dtype, device="cuda")
                module._parameters[name] = nn.Parameter(fake, requires_grad=False)
        assert not module._buffers, "folding leaves none"


def index(tensor: Tensor, places: tuple[slice | int | None, ...]) -> Tensor:
    """`tensor[places]` without the part of PyTorch's indexing that a build for processors lacks for CUDA."""
    dimension = 0
    for place in places:
        if isinstance(place, int):
            tensor = tensor.select(dimension, place)
            continue
        assert place in (None, slice(None)), "not needed so far"
        tensor = tensor.unsqueeze(dimension) if place is None else tensor
        dimension += 1
    return tensor


def cuda_seems_there(patch: pytest.MonkeyPatch) -> AbstractContextManager[Any]:
    """Let autocast believe in CUDA, and make tensors that are on it."""
    patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    patch.setattr(FakeTensor, "__getitem__", index)
    return FakeTensorMode()


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs for real below")
@pytest.mark.parametrize("name", NETWORKS)
def test_dry_run_by_the_rules_of_cuda(
    name: str, filled: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types as CUDA's autocast has them, and nothing that a graph cannot record: a value to wait for.

    Convolutions are in float16 but for those that make outputs; pooling before outputs is in float32.
    """
    network = Inference(filled(name))
    heads = {"jcs-single": 1, "jcs-joint": 1, "jcs-classifier": 1, "jcs-lite": 2}[name]
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    unused = {"jcs-single": 4, "jcs-joint": 4, "jcs-classifier": 0, "jcs-lite": 2}[name]  # heads of deep supervision
    (array,) = check_arrays(model_spec(name), (64, 80))
    half = InHalf(network, "cuda")
    stored = [m.weight.dtype for m in half.modules() if isinstance(m, nn.Conv2d)]
    assert stored.count(torch.float16) == convolutions - heads, "converted once, not at every pass"
    with torch.inference_mode(), cuda_seems_there(monkeypatch):
        on_fake_cuda(half)
        x = torch.empty(array.shape, device="cuda")
        with Types() as types:
            found = half(x)
    assert all(t.dtype == torch.float32 and t.device.type == "cuda" for t in found)
    seen = types.seen
    assert seen["conv2d"].count(torch.float32) == heads
    assert seen["conv2d"].count(torch.float16) == convolutions - heads - unused
    assert not WAITING & seen.keys()
    for operation in DELICATE & seen.keys():
        assert set(seen[operation]) == {torch.float32}, operation
    assert (seen.keys() >= DELICATE) == (name == "jcs-lite")
    if name == "jcs-classifier":
        assert seen["mean"] == [torch.float32]
        assert seen["linear"] == [torch.float32]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NETWORKS)
def test_tuned_on_cuda_computes_what_plain_does(name: str, filled: Callable[..., nn.Module]) -> None:
    spec, network = model_spec(name), copy.deepcopy(filled(name))
    example = check_arrays(spec, (96, 128), batch=2)
    at_home = PlainEngine(network, "cpu").run(example)
    tuned = TunedEngine(network.to("cuda"), "cuda")
    plain = PlainEngine(network, "cuda")
    for shape in ((96, 128), (256, 320), (96, 128)):
        arrays = check_arrays(spec, shape, batch=2)
        for run in range(3):  # without a graph, recorded, replayed
            found = tuned.run(arrays)
            parity = compare(OUTPUTS[spec.task], plain.run(arrays), found)
            assert parity.ok, f"{shape}, run {run}: {parity.text()}, {tuned.facts}"
            assert all(values.dtype == np.float32 for values in found)
    assert far(at_home, plain.run(example)) < 1e-3, "TF32 is off"
    assert tuned.facts["CUDA graphs"] == "from the second run of a shape, 4 at most", tuned.facts
    assert "repeated in float32" not in tuned.facts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_on_cuda_replay_what_runs_without(
    name: str, filled: Callable[..., nn.Module], forced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float16 whether or not it passes, six shapes in turn, so that graphs are dropped as well."""
    tuned = TunedEngine(copy.deepcopy(filled(name)).to("cuda"), "cuda", half=True)
    assert tuned._graphs is not None
    for _ in range(3):
        for columns in range(64, 160, 16):
            array = noise(1 if name == "jcs-lite" else 3, 1, 64, columns)
            with torch.inference_mode():
                alone = [t.cpu().numpy() for t in tuned._graphs._forward(tuned._upload(array))]
            assert far(alone, tuned.run([array])) < 1e-3
    assert not tuned._graphs.trouble
    assert 0 < len(tuned._graphs._graphs) <= graphs.KEPT
    if name == "jcs-classifier":
        assert np.isfinite(tuned.run([noise(3, 1, 64, 64) * np.float32(1e5)])[0]).all()
        assert tuned.repeats == 1
