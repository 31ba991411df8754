"""The compiler, and the cache of what it has compiled."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rnnfarm_cpu import cache, compiler
from rnnfarm_cpu.cache import load_library, private_folder
from rnnfarm_cpu.compiler import find_compiler
from rnnfarm_cpu.processor import Target, this_target

from rnnfarm.errors import DeviceError
from rnnfarm.kernels import progress

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")
SOURCE = "long answer(void) { return 42; }"


def answer(folder: Path, source: str = SOURCE) -> tuple[int, cache.Library]:
    found = find_compiler()
    assert found is not None
    library = load_library(source, this_target(), found, folder)
    library.handle.answer.restype = ctypes.c_long
    return library.handle.answer(), library


@needs_compiler
def test_compiled_once(tmp_path: Path) -> None:
    value, first = answer(tmp_path)
    assert (value, first.compiled, first.checked) == (42, True, False)
    start = time.perf_counter()
    value, second = answer(tmp_path)
    assert time.perf_counter() - start < 1
    assert (value, second.compiled, second.path) == (42, False, first.path)
    assert answer(tmp_path, SOURCE.replace("42", "43"))[0] == 43
    assert not list(tmp_path.glob(".*")), "temporary files remain"


@needs_compiler
def test_what_a_program_is_kept_for(tmp_path: Path) -> None:
    """Another source, other flags, another compiler or processor is another program."""
    target, found = this_target(), find_compiler()
    assert found is not None
    others = [
        cache._key(SOURCE + " ", target, found),
        cache._key(SOURCE, target, compiler.Compiler(found.command, "another")),
        cache._key(SOURCE, Target("plain", 16, 16, ("-O1",), target.processor), found),
        cache._key(SOURCE, Target(*vars(target).values()), found),
        cache._key(SOURCE, Target("plain", 16, 16, target.flags, "another"), found),
    ]
    assert len(set(others)) == 5
    assert cache._key(SOURCE, target, found) == others[3]


@needs_compiler
def test_a_damaged_program_is_compiled_again(tmp_path: Path) -> None:
    path = answer(tmp_path)[1].path
    whole = path.read_bytes()
    facts = path.with_suffix(".json")
    damages = {
        "cut off": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "empty": lambda: path.write_bytes(b""),
        "other bytes": lambda: path.write_bytes(whole[:-8] + b"garbage!"),
        "gone": path.unlink,
        "facts gone": facts.unlink,
        "facts no JSON": lambda: facts.write_text("{"),
        "facts of another shape": lambda: facts.write_text("[]"),
    }
    for what, damage in damages.items():
        # Under another name first: this process has the old file in its memory.
        fresh = tmp_path / "whole"
        fresh.write_bytes(path.read_bytes())
        os.replace(fresh, path)
        damage()
        value, library = answer(tmp_path)
        assert (value, library.compiled) == (42, True), what
        assert answer(tmp_path)[1].compiled is False, what


@needs_compiler
def test_the_self_check_is_remembered(tmp_path: Path) -> None:
    answer(tmp_path)[1].mark_checked()
    assert answer(tmp_path)[1].checked
    path = answer(tmp_path)[1].path
    path.with_suffix(".json").write_text(json.dumps({"sha256": "0", "checked": True}))
    assert not answer(tmp_path)[1].checked


@needs_compiler
def test_the_self_check_vouches_for_nothing_but_what_was_loaded(tmp_path: Path) -> None:
    library = answer(tmp_path)[1]
    data = library.path.read_bytes()
    fresh = tmp_path / "whole"
    fresh.write_bytes(data[: len(data) // 2 + 300])
    os.replace(fresh, library.path)
    library.mark_checked()
    value, again = answer(tmp_path)
    assert (value, again.compiled, again.checked) == (42, True, False)
    again.path.unlink()
    again.mark_checked()  # nothing to remember it beside, and no error


def fake(path: Path, body: str) -> compiler.Compiler:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return compiler.Compiler((str(path),), "")


def test_a_compiler_that_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"wrote no library"):
        load_library(SOURCE, this_target(), fake(tmp_path / "cc", "exit 0"), tmp_path)


def test_a_compiler_that_hangs_is_waited_for_and_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for until somebody interrupts."""
    lines: list[str] = []
    pid_file = tmp_path / "pid"

    def interrupt(line: str) -> None:
        lines.append(line)
        if pid_file.exists() and pid_file.read_text().strip():
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "EVERY", 0.05)
    monkeypatch.setattr(progress, "_listeners", [interrupt])
    hanging = fake(tmp_path / "cc", f"sleep 300 & echo $! > {pid_file}; wait")
    with pytest.raises(KeyboardInterrupt), progress.compiling("layer1"):
        load_library(SOURCE, this_target(), hanging, tmp_path)
    assert lines
    assert all(line.startswith("compiling layer1, ") for line in lines)
    assert not list(tmp_path.glob(".*"))
    pid = pid_file.read_text().strip()
    for _ in range(500):
        state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
        if state.stdout.strip()[:1] in ("", "Z"):
            return
        time.sleep(0.02)
    pytest.fail("the compiler's child runs on")


@needs_compiler
def test_a_program_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"cannot be loaded .*nowhere"):
        answer(tmp_path, "long nowhere(void); long answer(void) { return nowhere(); }")


def test_no_home(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        assert private_folder.__wrapped__(None).is_dir()
    assert "home directory" in caplog.text


def test_zig_takes_no_more_than_the_target() -> None:
    zig, other = compiler.Compiler(("/bin/zig", "cc"), ""), compiler.Compiler(("/bin/cc",), "")
    named = this_target({"RNNFARM_CPU_TARGET": "avx2"})
    native = Target("avx2", 32, 16, ("-march=native",), "")
    assert "-mcpu=baseline" in zig.flags(named)
    assert "-mcpu=baseline" not in (*zig.flags(native), *other.flags(named))


@needs_compiler
def test_processes_that_compile_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rnnfarm_cpu.cache import load_library\n"
        "from rnnfarm_cpu.compiler import find_compiler\n"
        "from rnnfarm_cpu.processor import this_target\n"
        f"library = load_library({SOURCE!r}, this_target(), find_compiler(), Path(sys.argv[1]))\n"
        "sys.exit(library.handle.answer() - 42)\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(120) for process in started] == [0] * 4
    assert len(list(tmp_path.glob("*.so"))) == 1
    assert not list(tmp_path.glob(".*"))


@needs_compiler
def test_a_source_that_does_not_compile(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"could not compile .*\.c: .*error") as caught:
        answer(tmp_path, "long answer(void) { return 4; ")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.so"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_into(
    mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / f"open{mode:o}"
    folder.mkdir()
    folder.chmod(mode)
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        found = private_folder(str(folder))
    assert found != folder
    assert "others may write into it" in caplog.text
    assert found.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        found = private_folder(str(tmp_path / "file" / "cache"))
    assert found.is_dir()
    assert "RNNFARM_CACHE" in caplog.text


def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = private_folder(str(tmp_path / "a" / "b"))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_where_programs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.default_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/rnnfarm/cpu")
    assert cache.default_folder({}) == Path.home() / ".cache" / "rnnfarm" / "cpu"


def test_the_programs_used_longest_ago_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 2)
    for k in range(5):
        path = tmp_path / f"{k}.so"
        path.touch()
        # 0 and 1 are old, the others of today.
        os.utime(path, (time.time() - (10 - k) * 86_400 * (k < 2),) * 2)
    cache._prune(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2.so", "3.so", "4.so"]


@needs_compiler
def test_cc_names_the_compiler(tmp_path: Path) -> None:
    real = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if real is None:
        pytest.skip("there is only ziglang")
    found = find_compiler({"CC": f"{real} -DNOTHING", "PATH": os.environ["PATH"]})
    assert found is not None
    assert found.command == (real, "-DNOTHING")
    with pytest.raises(DeviceError, match="CC='nocc': nocc is no program on PATH; mend it"):
        find_compiler({"CC": "nocc", "PATH": os.environ["PATH"]})
    with pytest.raises(DeviceError, match=r"CC=.*No closing quotation; mend it"):
        find_compiler({"CC": "'cc", "PATH": os.environ["PATH"]})


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    assert find_compiler({"PATH": str(tmp_path)}) is None


def test_targets() -> None:
    assert this_target({"RNNFARM_CPU_TARGET": "avx2"}).vector_bytes == 32
    assert this_target({"RNNFARM_CPU_TARGET": "plain"}).flags == ()
    with pytest.raises(DeviceError, match=r"RNNFARM_CPU_TARGET='avx3': .*'avx2'"):
        this_target({"RNNFARM_CPU_TARGET": "avx3"})


@pytest.mark.skipif(compiler.find_spec("ziglang") is None, reason="ziglang is not installed")
def test_ziglang(tmp_path: Path) -> None:
    zig = compiler.Compiler((sys.executable, "-m", "ziglang", "cc"), "zig")
    for name in ("avx2", "plain"):
        library = load_library(SOURCE, this_target({"RNNFARM_CPU_TARGET": name}), zig, tmp_path)
        assert library.handle.answer() == 42
