"""What is kept for the processes to come."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchy.disk import Shelf

ROOT = Path(__file__).parents[1]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "kept", capacity=4000)


def only_file(shelf: Shelf) -> Path:
    ((path, _),) = shelf.files()
    return path


def test_what_is_kept_is_read_by_others(shelf: Shelf) -> None:
    assert shelf.read("key") is None
    shelf.write("key", b"content")
    other = Shelf(shelf.folder)
    assert other.read("key") == b"content"
    assert other.read("another key") is None
    other.write("key", b"")
    assert shelf.read("key") == b""
    assert shelf.trouble == other.trouble == ""


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "empty"])
def test_what_is_damaged_counts_as_missing_and_is_replaced(shelf: Shelf, damage: str) -> None:
    shelf.write("key", bytes(100))
    file = only_file(shelf)
    content = file.read_bytes()
    damaged = {"cut": content[:-1], "longer": content + b"x", "empty": b""}
    file.write_bytes(damaged.get(damage, content[:-3] + b"x" + content[-2:]))
    assert shelf.read("key") is None
    shelf.write("key", bytes(100))
    assert shelf.read("key") == bytes(100)


def test_a_file_in_another_ones_place_counts_as_missing(shelf: Shelf) -> None:
    shelf.write("key", b"content")
    file = only_file(shelf)
    content = file.read_bytes()
    shelf.write("other", b"its own")
    (other,) = {path for path, _ in shelf.files()} - {file}
    other.write_bytes(content)
    assert shelf.read("other") is None and shelf.read("key") == b"content"


def test_what_others_may_have_written_is_not_trusted(shelf: Shelf) -> None:
    shelf.write("key", b"content")
    file = only_file(shelf)
    file.chmod(0o666)
    assert shelf.read("key") is None
    file.chmod(0o600)
    assert shelf.read("key") == b"content"
    shelf.folder.chmod(0o777)
    assert shelf.read("key") is None and "others can write" in shelf.trouble
    shelf.write("more", b"content")
    assert only_file(shelf) == file
    shelf.folder.chmod(0o700)
    elsewhere = file.rename(shelf.folder.parent / "elsewhere")
    file.symlink_to(elsewhere)
    assert shelf.read("key") is None
    file.unlink()
    shelf.folder.rename(shelf.folder.parent / "moved")
    shelf.folder.symlink_to(shelf.folder.parent / "moved")
    (shelf.folder.parent / "moved" / file.name).write_bytes(elsewhere.read_bytes())
    assert Shelf(shelf.folder).read("key") is None  # a link is no folder of the user's


def test_where_nothing_can_be_kept_nothing_is_and_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    shelf = Shelf(tmp_path / "file" / "kept")
    shelf.write("key", b"content")
    assert shelf.read("key") is None
    assert "file" in shelf.trouble
    shelf.clear()


def test_what_has_not_been_used_for_longest_goes_first(shelf: Shelf) -> None:
    for number in range(3):
        shelf.write(f"old {number}", bytes(900))
    files = [path for path, _ in shelf.files()]
    long_ago = time.time() - 7200
    for path in files:
        os.utime(path, (long_ago, long_ago))
    assert shelf.read("old 1") is not None  # used again
    for number in range(2):
        shelf.write(f"new {number}", bytes(900))
    assert sum(status.st_size for _, status in shelf.files()) <= shelf.capacity
    assert shelf.read("old 0") is None and shelf.read("old 2") is None
    assert all(shelf.read(key) is not None for key in ("old 1", "new 0", "new 1"))


def test_what_nobody_has_finished_goes_too(shelf: Shelf) -> None:
    shelf.write("key", b"content")
    dead, young = shelf.folder / ".dead", shelf.folder / ".young"
    for file in (dead, young):
        file.write_bytes(b"half")
    os.utime(dead, (0, 0))
    Shelf(shelf.folder).write("other", b"content")
    assert not dead.exists() and young.exists()
    shelf.clear()
    assert list(shelf.files()) == []


def test_an_interrupt_when_a_file_has_got_its_name_is_not_lost(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(*names: str) -> None:
        replace(*names)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shelf.write("key", b"content")
    assert shelf.read("key") == b"content"


def test_processes_that_write_at_once_leave_whole_files(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from torchy.disk import Shelf\n"
        f"shelf = Shelf(Path({str(tmp_path / 'kept')!r}), capacity=200_000)\n"
        "for i in range(300):\n"
        "    shelf.write(str(i % 7), bytes([i % 7]) * 10_000)\n"
        "    found = shelf.read(str(i % 5))\n"
        "    assert found in (None, bytes([i % 5]) * 10_000), i\n"
        "assert not shelf.trouble, shelf.trouble\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    shelf = Shelf(tmp_path / "kept")
    assert shelf.read("3") == bytes([3]) * 10_000
    assert not [path for path, _ in shelf.files() if path.name.startswith(".")]


def test_the_command_shows_what_is_kept_and_clears_it(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "kernels")
    shelf.write("key", bytes(1 << 20))
    (tmp_path / "walker-0.so").write_bytes(bytes(2 << 20))
    (tmp_path / "walker-0.sha256").write_text("digest")
    command = [sys.executable, "-m", "torchy", "cache", "--cache-dir", str(tmp_path)]

    def told(*more: str) -> str:
        return subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True).stdout

    assert "1, 2.0 MiB" in told() and "kernels: 1, 1.0 MiB of at most 64 MiB" in told()
    assert "cleared" in told("--clear")
    assert shelf.read("key") is None and not list(tmp_path.glob("walker-*"))
    assert "kernels: 0" in told()
