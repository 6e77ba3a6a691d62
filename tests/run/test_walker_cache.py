"""The folder where the walker is kept, in all the states that a folder may be in."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from torchy.record import building

ROOT = Path(__file__).parents[2]
SECONDS = 200

# runs a program and prints what it made, and whether ops were recorded
PROGRAM = """
import torch, torchy
with torchy.lazy(cache_dir={folder!r}) as session:
    y = (torch.arange(4.0) * 2 + 1).relu()
    pending = torchy.is_pending(y)
{midst}
print(y.tolist(), pending)
"""


@pytest.fixture(scope="module")
def walker() -> Path:
    """The walker as it has been built for all tests."""
    return building.build()


@pytest.fixture
def folder(tmp_path: Path, walker: Path) -> Path:
    """A cache folder of the test's own, with the walker in it."""
    kept = tmp_path / "cache"
    kept.mkdir()
    for file in (walker, walker.with_suffix(".sha256")):
        shutil.copy(file, kept / file.name)
    return kept


@pytest.fixture
def stub_compiler(tmp_path: Path, walker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that takes no time: it copies the walker, and notes each run in a file."""
    notes = tmp_path / "runs"
    script = tmp_path / "compiler"
    script.write_text(
        f'#!/bin/sh\necho run >> {notes}\nwhile [ "$1" != -o ]; do shift; done\ncp {walker} "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return notes


def run(
    folder: Path, midst: str = "", begin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    program = begin + PROGRAM.format(folder=str(folder), midst=midst)
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def require_right(ran: subprocess.CompletedProcess[str]) -> None:
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "[1.0, 3.0, 5.0, 7.0] True\n"


DAMAGE = {
    "truncated": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "garbage": lambda whole: os.urandom(len(whole)),
    "of another header": lambda whole: b"\x7fELG" + whole[4:],
    "with one bit turned": lambda whole: whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_walker_is_never_loaded_but_built_anew(
    folder: Path, stub_compiler: Path, walker: Path, damage: str
) -> None:
    library = building.library_path(folder)
    library.write_bytes(DAMAGE[damage](walker.read_bytes()))
    assert not building.is_built(folder)
    if damage in ("truncated", "with one bit turned"):
        require_right(run(folder))
    else:
        building.build(folder)
    assert stub_compiler.read_text() == "run\n"
    assert library.read_bytes() == walker.read_bytes()


@pytest.mark.parametrize("digest", [b"", b"\xff\xfe\x00", b"0" * 64, b"a" * 63, None])
def test_a_damaged_digest_is_no_digest(
    folder: Path, stub_compiler: Path, digest: bytes | None
) -> None:
    beside = building.library_path(folder).with_suffix(".sha256")
    if digest is None:
        beside.unlink()
    else:
        beside.write_bytes(digest)
    assert not building.is_built(folder)
    assert building.build(folder) == building.library_path(folder)
    assert stub_compiler.read_text() == "run\n"
    assert building.is_built(folder)


def test_another_walker_in_its_place_is_not_loaded(folder: Path, stub_compiler: Path) -> None:
    """Swapped with an entry for another torch, say: its digest is not the one beside."""
    library = building.library_path(folder)
    library.write_bytes(Path(shutil.which("true") or "/bin/true").read_bytes())
    assert building.build(folder) == library
    assert stub_compiler.exists() and building.is_built(folder)


def test_with_other_flags_it_is_another_walker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = building.library_path(folder)
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-g"))
    assert building.library_path(folder) != before and not building.is_built(folder)


def test_a_folder_in_the_library_s_place_is_told(folder: Path, stub_compiler: Path) -> None:
    library = building.library_path(folder)
    library.unlink()
    library.mkdir()
    with pytest.raises(building.WalkerUnavailable, match=r"cannot keep its walker.*cache_dir"):
        building.build(folder)


def test_a_file_in_the_folder_s_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert not building.is_built(folder)
        with pytest.raises(building.WalkerUnavailable, match=r"cannot keep its walker.*cache_dir"):
            building.build(folder)
    ran = run(tmp_path / "file")
    assert "WalkerUnavailable: Torchy cannot keep its walker" in ran.stderr


def test_a_folder_that_cannot_be_written_serves_what_is_in_it(folder: Path) -> None:
    """Of the walker nothing but the library and its digest is opened: so no lock is taken either."""
    before = {path.name for path in folder.iterdir()}
    folder.chmod(0o555)
    require_right(run(folder, CXX="/nonexistent"))
    made = {path.name for path in folder.iterdir()} - before
    assert made == ({"kernels"} if os.geteuid() == 0 else set())  # who is root writes anywhere


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path, stub_compiler: Path) -> None:
    folder = tmp_path / "cache"

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    code = f"from torchy.record import building; building.build({str(folder)!r})"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=small_files,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 1
    assert "WalkerUnavailable" in ran.stderr
    assert not building.is_built(folder)
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []
    assert building.build(folder) == building.library_path(folder)  # once there is room


def test_the_folder_vanishes_in_mid_session(folder: Path) -> None:
    midst = (
        f"    import shutil; shutil.rmtree({str(folder)!r})\n"
        "    z = (y * 3).tanh(); z.tolist()\n"
        "with torchy.lazy() as session:\n"
        "    pending = torchy.is_pending(y * 2)\n"
    )
    require_right(run(folder, midst))


def test_the_folder_vanishes_while_the_walker_is_built(
    tmp_path: Path, walker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, script = tmp_path / "cache", tmp_path / "compiler"
    script.write_text(f"#!/bin/sh\nrm -rf {folder}\nexit 0\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(building.WalkerUnavailable, match="cannot keep its walker"):
        building.build(folder)
    script.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n' + f'cp {walker} "$2"\n')
    assert building.build(folder).exists()


def test_a_compiler_that_writes_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(building.WalkerUnavailable):
        building.build(tmp_path)
    assert not building.is_built(tmp_path)


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    """Built, whole, and no library all the same: by a compiler for something else, say."""
    folder, script = tmp_path / "cache", tmp_path / "compiler"
    script.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho "no library" > "$2"\n')
    script.chmod(0o755)
    ran = run(folder, CXX=str(script))
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert "WalkerUnavailable: Torchy cannot load its walker" in last and "cache_dir" in last


def test_a_compiler_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        building.build(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert not building.is_built(tmp_path)


def test_two_processes_build_one_walker(tmp_path: Path, stub_compiler: Path) -> None:
    folder = tmp_path / "cache"
    code = f"from torchy.record import building; print(building.build({str(folder)!r}))"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert {process.communicate(timeout=SECONDS)[0].strip() for process in both} == {
        str(building.library_path(folder))
    }
    assert [process.returncode for process in both] == [0, 0]
    assert stub_compiler.read_text() == "run\n"
    assert building.is_built(folder)


@pytest.fixture
def bundled(
    tmp_path: Path, walker: Path, stub_compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A walker that came with the package."""
    monkeypatch.setattr(building, "BUNDLED", tmp_path / "bundled")
    library = building.bundle(tmp_path / "bundled")
    assert library == building.bundled_path() and library.read_bytes() == walker.read_bytes()
    stub_compiler.unlink()
    return library


def test_a_walker_that_came_with_the_package_needs_no_compiler(
    tmp_path: Path, bundled: Path, stub_compiler: Path
) -> None:
    cache = tmp_path / "cache"
    assert building.is_built(cache)
    assert building.build(cache) == bundled
    assert not stub_compiler.exists() and not cache.exists()


@pytest.mark.parametrize(("release", "commit"), [("2.99.1", None), (None, "another commit")])
def test_one_for_another_torch_is_not_taken(
    tmp_path: Path,
    bundled: Path,
    stub_compiler: Path,
    monkeypatch: pytest.MonkeyPatch,
    release: str | None,
    commit: str | None,
) -> None:
    if release:
        monkeypatch.setattr(building.torch, "__version__", release)
    if commit:
        monkeypatch.setattr(building.torch.version, "git_version", commit)
    assert not building.is_built(tmp_path / "cache")
    assert building.build(tmp_path / "cache").parent == tmp_path / "cache"
    assert stub_compiler.read_text() == "run\n"


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_a_damaged_one_is_not_taken(
    tmp_path: Path, bundled: Path, stub_compiler: Path, damage: str
) -> None:
    bundled.write_bytes(DAMAGE[damage](bundled.read_bytes()))
    assert building.build(tmp_path / "cache").parent == tmp_path / "cache"
    assert stub_compiler.read_text() == "run\n"


def test_one_that_lacks_a_symbol_in_this_torch_is_not_taken(
    tmp_path: Path, bundled: Path, stub_compiler: Path
) -> None:
    source = tmp_path / "lacks.c"
    source.write_text("void no_torch_has_this(void); void use(void) { no_torch_has_this(); }")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(bundled), str(source)], check=True, timeout=SECONDS
    )
    digest = hashlib.sha256(bundled.read_bytes()).hexdigest()
    bundled.with_suffix(".sha256").write_text(digest)
    assert building.build(tmp_path / "cache") == bundled  # as long as nobody loads it
    begin = f"import pathlib; from torchy.record import building; building.BUNDLED = pathlib.Path({str(bundled.parent)!r})"
    require_right(run(tmp_path / "cache", begin=begin))
    assert stub_compiler.read_text() == "run\n"
