"""What is kept on disk, for the processes to come: by content, checked before it is trusted, bounded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MAGIC: Final = b"torchy 1\n"
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_USED_AGAIN: Final = 3600.0  # seconds after which a use is noted
_ABANDONED: Final = 3600.0  # seconds after which what nobody has finished is removed


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all that is kept: the one given, ``$XDG_CACHE_HOME/torchy`` or ``~/.cache/torchy``."""
    if cache_dir is not None:
        return Path(cache_dir)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "torchy"


class Shelf:
    """Contents by key, in files of a folder that nobody but the user can write to.

    Several processes may use it at once. A file is damaged, or another key's, if it does not begin with the digest of key
    and content: it counts as missing then, and is replaced. Where nothing can be kept, nothing is, and ``trouble`` says
    why. What has not been used for longest goes first.

    Parameters
    ----------
    folder
        Made when something is kept first.
    capacity
        Bytes.
    """

    def __init__(self, folder: Path, capacity: int = 64 << 20) -> None:
        self.folder = folder
        self.capacity = capacity
        self.trouble = ""
        self._bytes: int | None = None  # that are kept, about; not known before something is added

    def read(self, key: str) -> bytes | None:
        """Return what is kept for a key, None if that is nothing."""
        path = self._path(key)
        try:
            if not self._is_own(os.lstat(self.folder)):
                self.trouble = f"others can write to {self.folder}: nothing there is trusted"
                return None
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # not kept, mostly
            return None
        with os.fdopen(file, "rb") as opened:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or not self._is_own(status):
                return None
            head, content = opened.read(len(_MAGIC) + 32), opened.read()
            if head != self._head(key, content):
                return None
            if time.time() - status.st_mtime > _USED_AGAIN:
                with contextlib.suppress(OSError):  # it goes earlier, then
                    os.utime(path)
            return content

    def write(self, key: str, content: bytes) -> None:
        """Keep a content, in place of what was kept for the key before."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_own(os.lstat(self.folder)):
                self.trouble = f"others can write to {self.folder}: nothing is kept there"
                return
            file, name = tempfile.mkstemp(dir=self.folder, prefix=".")
            try:
                with os.fdopen(file, "wb") as opened:
                    opened.write(self._head(key, content) + content)
                os.replace(name, self._path(key))
            except BaseException:  # an interrupt, too: it may come when the file has got its name
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
            self._bound(len(content))
        except OSError as error:
            self.trouble = str(error)

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files that are kept, and those that are being written."""
        try:
            entries = list(os.scandir(self.folder))
        except OSError:
            return
        for entry in entries:
            with contextlib.suppress(OSError):  # another process has removed it
                yield Path(entry.path), entry.stat(follow_symlinks=False)

    def clear(self) -> None:
        """Keep nothing any more."""
        for path, _ in self.files():
            path.unlink(missing_ok=True)
        self._bytes = None

    def _bound(self, added: int) -> None:
        if self._bytes is not None:
            self._bytes += added
        if self._bytes is not None and self._bytes <= self.capacity:
            return
        now, kept = time.time(), []
        for path, status in self.files():
            if path.name.startswith("."):
                if now - status.st_mtime > _ABANDONED:
                    path.unlink(missing_ok=True)
            else:
                kept.append((status.st_mtime, status.st_size, path))
        self._bytes = sum(size for _, size, _ in kept)
        if self._bytes <= self.capacity:
            return
        for _, size, path in sorted(kept):
            if self._bytes <= self.capacity * 3 // 4:
                return
            path.unlink(missing_ok=True)
            self._bytes -= size

    def _path(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:32]

    @staticmethod
    def _head(key: str, content: bytes) -> bytes:
        digest = hashlib.sha256(key.encode())
        digest.update(content)
        return _MAGIC + digest.digest()

    @staticmethod
    def _is_own(status: os.stat_result) -> bool:
        return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
