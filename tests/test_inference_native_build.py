"""Kernels are compiled once on a machine; every problem with that is named; and `--runtime native` is chosen."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jcs_ct.core.errors import OutputError, UsageError, WeightsError
from jcs_ct.inference import Network, choice, records
from jcs_ct.inference.golden import self_check_network
from jcs_ct.inference.native import build
from jcs_ct.inference.native import engine as native
from jcs_ct.inference.native.engine import NativeEngine
from jcs_ct.inference.runtimes import RuntimeFailedError, find_runtime
from jcs_ct.weights.store import home
from native_help import require_compiler
from runtime_help import expected, far, lite, many, noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

FAKE = """
import os, pathlib, shutil, sys, time
here = pathlib.Path(__file__)
if "--version" in sys.argv:
    sys.exit(print("fake compiler 1.0"))
with here.with_suffix(".log").open("a") as log:
    log.write("compiled\\n")
if here.with_suffix(".broken").exists():
    sys.exit("stdio.h: no such file")
time.sleep(1.5 * here.with_suffix(".slow").exists())
made = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
shutil.copyfile({kernels!r}, made)
with made.open("ab") as file:
    file.write(os.urandom(8))  # as of a compiler whose output is never twice the same
"""


class Compiler:
    """Pretends to compile: copies kernels that were compiled before."""

    def __init__(self, file: Path, kernels: Path) -> None:
        self.file = file
        file.write_text(FAKE.format(kernels=str(kernels)))

    @property
    def runs(self) -> int:
        log = self.file.with_suffix(".log")
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "home"))


@pytest.fixture
def fake(kernels_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """A compiler that takes no time, and counts."""
    (kernels,) = kernels_home.glob("native/*/*.so")
    made = Compiler(tmp_path / "fake.py", kernels)
    monkeypatch.setenv("CC", f"{sys.executable} {made.file}")
    return made


@cache
def weights() -> Network:
    return self_check_network("jcs-single", "cpu")


def single(runtime: str, said: list[str] | None = None, slices: int = 1) -> Network:
    """`jcs-single` with deterministic weights on a runtime, checked at a small size."""
    made = weights()
    card = replace(made.card, recipe="release-segmentation@64")
    return many(Network(made._tensors, card, made.device, runtime, None if said is None else said.append), slices)


def compiled() -> list[Path]:
    return sorted((home() / "native").glob("*/*.so"))


def test_no_compiler_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda _name: None)
    for cc, path in (("", ""), ("no-such-compiler -O2", None)):
        with monkeypatch.context() as patch:
            patch.setenv("CC", cc)
            if path is not None:
                patch.setenv("PATH", path)
            with pytest.raises(UsageError, match=r'needs a C compiler.*pip install .*\[native\]"'):
                find_runtime("native").need()
            with pytest.raises(RuntimeFailedError, match=r'no C compiler.*pip install .*\[native\]"'):
                build.library()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="needs a C compiler"):
        single("native").start()
    said: list[str] = []
    assert single("auto", said, choice.COSTS["openvino"]["heavy"].preparing - 1).start().name == "torch-tuned"
    assert not any("native" in line for line in said)
    monkeypatch.setattr(build, "find_spec", lambda _name: True)
    assert build.compiler() == (sys.executable, "-m", "ziglang", "cc")
    assert find_runtime("native").missing is None


def test_a_compiler_that_fails_is_named_and_tried_again(fake: Compiler) -> None:
    broken = fake.file.with_suffix(".broken")
    broken.touch()
    with pytest.raises(RuntimeFailedError, match=r"cannot compile the kernels: stdio.h: no such file") as failed:
        build.library()
    assert "set CC to another compiler" in failed.value.line()
    assert failed.value.exit_status == 2
    with pytest.raises(RuntimeFailedError, match=r"native did not pass its check.*stdio.h"):
        single("native").start()
    said: list[str] = []
    assert single("auto", said, choice.COSTS["native"]["heavy"].preparing).start().name == "torch-tuned"
    assert any("native is left out" in line and "stdio.h" in line for line in said)
    broken.unlink()  # headers were installed: the compiler says the same version
    assert single("native").start().name == "native"
    assert not list((home() / "native").glob("*/tmp*")), "nothing is left over"


def test_what_fails_without_a_word_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(RuntimeFailedError, match=r"false cannot compile the kernels: it says nothing"):
        build.library()


def test_kernels_are_compiled_once(fake: Compiler) -> None:
    assert build.library().compiler == "fake compiler 1.0"
    assert build.library().compiler == "fake compiler 1.0"
    assert fake.runs == 1
    assert len(compiled()) == 1


@pytest.mark.parametrize("what", ["machine", "_processor_features", "_source_digest", "_compiler_version"])
def test_another_processor_source_or_compiler_has_other_kernels(
    what: str, fake: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.library()
    with monkeypatch.context() as patch:
        patch.setattr(build, what, lambda *_: "another")
        build.library()
    assert fake.runs == 2
    assert len({file.parent for file in compiled()}) == 2
    build.library()
    assert fake.runs == 2


def test_an_edited_library_is_named_and_not_loaded(fake: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    assert single("native").start().name == "native"
    (file,) = compiled()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()  # this process has it loaded
    file.write_bytes(data)
    monkeypatch.setattr(build, "Library", lambda *_: pytest.fail("loaded"))
    for runtime in ("native", "auto"):
        record = next((home() / "runtimes").glob("*-native/record.json")).parent
        records.write(record, replace(read(record), seconds=0.1, plain_seconds=1.0))
        with pytest.raises(RuntimeFailedError, match=r"\.so: was changed since it was compiled") as failed:
            single(runtime).start()
        assert f"remove the folder {file.parent}" in failed.value.line()
    file.unlink()
    with pytest.raises(RuntimeFailedError, match="is gone"):
        build.library()


def read(where: Path) -> records.ParityRecord:
    record = records.read(where)
    assert record is not None
    return record


def test_other_kernels_are_refused(tmp_path: Path) -> None:
    require_compiler()
    command = build.compiler()
    assert command is not None
    (tmp_path / "other.c").write_text("int jcs_run(void) { return 0; }\nunsigned long jcs_size(void) { return 8; }\n")
    (tmp_path / "none.c").write_text("int nothing(void) { return 0; }\n")
    for name, problem in (("other", "holds other kernels"), ("none", "cannot be loaded"), ("text", "cannot be loaded")):
        file = tmp_path / f"{name}.so"
        file.write_text("no library")
        if name != "text":
            parts = [*command, "-shared", "-fPIC", str(tmp_path / f"{name}.c"), "-o", str(file)]
            subprocess.run(parts, check=True, capture_output=True)
        with pytest.raises(RuntimeFailedError, match=problem) as failed:
            build.Library(file, "compiler")
        assert f"remove the folder {tmp_path}" in failed.value.line()


def test_processes_that_compile_at_the_same_time_do_not_meet(fake: Compiler) -> None:
    fake.file.with_suffix(".slow").touch()
    code = "from jcs_ct.inference.native.build import library\nprint(library().compiler)"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in started] == ["fake compiler 1.0"] * 2
    runs = fake.runs
    assert runs in (1, 2), "one may have come late"
    build.library()
    assert fake.runs == runs


def test_a_home_that_cannot_be_written_is_named(
    fake: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"file/native/.*cannot be compiled there"):
        build.library()
    said: list[str] = []
    assert single("auto", said, choice.COSTS["native"]["heavy"].preparing).start().name == "torch-tuned"
    assert any("native is left out" in line and "cannot be compiled there" in line for line in said)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="about AVX-512")
@pytest.mark.parametrize(("option", "target"), [("-mno-avx512f", "-march=native"), ("", "-march=x86-64")])
def test_kernels_without_avx512(
    option: str, target: str, filled: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_compiler()
    command = [*(build.compiler() or ()), *option.split()]
    said = [*command, target, "-dM", "-E", str(build.SOURCE / "kernels.h")]
    macros = subprocess.run(said, check=False, capture_output=True, text=True)
    if macros.returncode:
        pytest.skip("this compiler calls it otherwise")
    assert "#define ROWS 4\n" in macros.stdout, "other kernels than those of AVX-512 are tested"
    monkeypatch.setenv("CC", " ".join(command))
    monkeypatch.setattr(build, "NATIVE_FLAGS", (target,))
    array, network = noise(3, 1, 49, 67), filled("jcs-single")
    assert far(expected(network, array), NativeEngine(network, build.library(), 2).run([array])) < 2e-5


def test_native_is_taken_when_it_is_named(fake: Compiler) -> None:
    said: list[str] = []
    network, image = single("native", said), noise(3, 1, 64, 64)[0]
    found = network.logits([image])
    assert said == ["the kernels of native are compiled and checked for jcs-single (self-check), once on this machine"]
    assert network.runtime == "native"
    assert found.shape == (1, 64, 64)
    assert np.abs(found[0] - single("torch").logits([image])[0]).max() < 1e-4
    again = single("native", said)
    assert np.array_equal(again.logits([image]), found)
    assert len(said) == 1
    assert fake.runs == 1
    image[1, 30, 30] = np.nan
    with pytest.raises(WeightsError, match="not finite"):
        again.logits([image])
    with pytest.raises(UsageError, match="native does not run jcs-lite"):
        lite("native").start()


def test_auto_compiles_when_enough_is_to_come(fake: Compiler) -> None:
    enough = choice.COSTS["native"]["heavy"].preparing
    said: list[str] = []
    assert single("auto", said, enough - 1).start().name == "torch-tuned"
    assert fake.runs == 0
    assert single("auto", said, enough).start().name in ("native", "torch-tuned"), "as fast as it was in its check"
    assert "the kernels of native are compiled and checked for jcs-single" in said[1]
    assert fake.runs == 1
    (where,) = (home() / "runtimes").glob("*-native")
    records.write(where, replace(read(where), seconds=0.25, plain_seconds=1.0))
    assert single("auto", said).start().name == "native", "it is there: nothing is to be paid back"
    assert "runtime native for jcs-single" in said[-1]
    records.write(where, replace(read(where), seconds=1.5, plain_seconds=1.0))
    assert single("auto", said, enough).start().name == "torch-tuned"
    assert any("native is left out: it is not faster than torch here" in line for line in said)


def test_kernels_that_are_wrong_are_an_error_when_named_and_left_out_by_auto(
    fake: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = native.NativeEngine.run

    def wrong(self: NativeEngine, arrays: Any) -> Any:
        return [values + np.float32(1.5) for values in real(self, arrays)]

    monkeypatch.setattr(native.NativeEngine, "run", wrong)
    with pytest.raises(RuntimeFailedError, match=r"native did not pass its check for jcs-single.*differ by"):
        single("native").start()
    said: list[str] = []
    assert single("auto", said, 50).start().name == "torch-tuned"
    assert any("native is left out, it did not pass its check" in line for line in said)
