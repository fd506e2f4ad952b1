"""davae.networks.native: compiled once, into the user's cache, or a clear reason why not."""

import os
import stat
import subprocess
import sys

import pytest

from davae.networks import native
from davae.training.davae_task import train

LOAD = "from davae.networks.native import explain_missing; print(explain_missing())"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """Load anew in each test, into a cache of its own, and anew after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(native.SWITCH, raising=False)
    native._find_kernels.cache_clear()
    yield
    native._find_kernels.cache_clear()


@pytest.fixture
def compiler(monkeypatch, require):
    """The compiler of this machine, by its name."""
    monkeypatch.delenv("CC", raising=False)
    require(native.explain_missing() is None, f"no kernels here: {native.explain_missing()}")
    native._find_kernels.cache_clear()


@pytest.fixture
def fake_compiler(monkeypatch, tmp_path):
    """Let CC be a script of the given lines; return the file to which it writes its arguments."""

    def install(lines):
        script, record = tmp_path / "fakecc", tmp_path / "arguments"
        script.write_text(f'#!/bin/sh\necho "$@" >> "{record}"\n{lines}\n')
        script.chmod(stat.S_IRWXU)
        monkeypatch.setenv("CC", str(script))
        return record

    return install


def libraries(folder):
    return sorted(folder.glob("davae/*.so"))


def test_the_switch_turns_the_kernels_off(monkeypatch, tmp_path):
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.explain_missing() == "DAVAE_KERNELS is 0"
    with pytest.raises(native.NoKernelsError, match="DAVAE_KERNELS is 0"):
        native.load_kernels()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["/nonexistent", "no-such-compiler -O1", ""])
def test_a_missing_compiler_is_named(monkeypatch, name):
    monkeypatch.setenv("CC", name)
    assert native.explain_missing() == f"no C compiler: {name or 'CC'} is not installed"


def test_a_failing_compiler_is_quoted(fake_compiler, tmp_path):
    fake_compiler('echo "kernels.c:1: error: no vectors here" >&2; exit 1')
    with pytest.raises(native.NoKernelsError, match=r"fakecc failed: .*no vectors here"):
        native.load_kernels()
    assert not list((tmp_path / "davae").iterdir()), "nothing half made stays"


def test_a_compiler_that_makes_nothing_is_reported(fake_compiler):
    fake_compiler("exit 0")
    assert "No such file" in (native.explain_missing() or "")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_is_reported(compiler, tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    assert "Permission denied" in (native.explain_missing() or "")


def test_a_cache_below_a_file_is_reported(compiler, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    reason = native.explain_missing()
    assert reason is not None and str(tmp_path / "file") in reason


def test_a_damaged_library_is_made_anew(compiler, tmp_path):
    (library,) = libraries(tmp_path)
    library.unlink()  # not overwritten: this process has it mapped
    library.write_bytes(b"no library")
    said = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "None" and library.read_bytes() != b"no library"


@pytest.mark.parametrize("name", ["'", "{file}"])
def test_a_compiler_that_cannot_run_is_a_reason(monkeypatch, tmp_path, name):
    file = tmp_path / "cc"
    file.write_bytes(b"no program")
    file.chmod(stat.S_IRWXU)
    monkeypatch.setenv("CC", name.format(file=file))
    with pytest.raises(native.NoKernelsError, match=r"No closing quotation|Exec format error"):
        native.load_kernels()


def test_a_reason_is_found_once(fake_compiler, tmp_path):
    record = fake_compiler("exit 1")
    assert native.explain_missing() == native.explain_missing()
    assert len(record.read_text().splitlines()) == 2, "its version, and one attempt"


def test_a_library_is_compiled_once(compiler, tmp_path):
    (library,) = libraries(tmp_path)
    made = library.stat().st_mtime_ns
    native.load_kernels()
    assert libraries(tmp_path) == [library] and library.stat().st_mtime_ns == made
    assert list((tmp_path / "davae").iterdir()) == [library], "no temporary folder stays"


def test_the_cache_is_in_the_home_folder_without_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert native._find_cache() == tmp_path / ".cache" / "davae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert native._find_cache() == tmp_path / ".cache" / "davae"


def test_the_fingerprint_tells_apart_all_that_the_code_depends_on(compiler, monkeypatch, fake_compiler):
    prints = [native._fingerprint(["cc"])]
    assert native._fingerprint(["cc"]) == prints[0]
    prints.append(native._fingerprint(["cc", "-m64"]))
    with monkeypatch.context() as patch:
        patch.setattr(native, "FLAGS", (*native.FLAGS, "-g"))
        prints.append(native._fingerprint(["cc"]))
    with monkeypatch.context() as patch:
        patch.setattr(native, "_describe_processor", lambda: "flags: none")
        prints.append(native._fingerprint(["cc"]))
    with monkeypatch.context() as patch:
        patch.setattr(native, "SOURCES", native.SOURCES[:-1])
        prints.append(native._fingerprint(["cc"]))
    for version in ("1.0", "2.0"):
        fake_compiler(f"echo {version}")
        prints.append(native._fingerprint([os.environ["CC"]]))
    assert len(set(prints)) == len(prints)


def test_two_processes_may_compile_at_once(compiler, tmp_path):
    for library in libraries(tmp_path):
        library.unlink()
    running = [
        subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate()[0].strip() for process in running]
    assert said == ["None", "None"] and len(list((tmp_path / "davae").iterdir())) == 1


@pytest.mark.parametrize("variable", [("CC", "false"), (native.SWITCH, "0")], ids=lambda pair: pair[0])
def test_training_goes_on_without_kernels(monkeypatch, tmp_path, tiny_config, prepared, variable):
    monkeypatch.setenv(*variable)
    monkeypatch.setattr(native, "call", None)  # so that a call of a kernel would fail
    train(tiny_config, prepared, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not libraries(tmp_path)
