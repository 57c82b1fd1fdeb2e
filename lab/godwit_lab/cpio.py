"""Writer for the newc cpio format, the one the kernel unpacks as an initramfs.

Written here because the format is twenty lines and this way needs no root for device nodes, has no
build-machine ids or times in it, and gives equal bytes for equal input.
Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import stat
from pathlib import Path


class CpioWriter:
    """Collects entries in memory and writes them as one archive. Parents are added on demand."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._directories: set[str] = set()
        self._inode = 0

    def directory(self, path: str) -> None:
        """Add a directory and its parents; adding one twice is harmless."""
        path = path.strip("/")
        if not path or path in self._directories:
            return
        self._parent_of(path)
        self._directories.add(path)
        self._entry(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._parent_of(path)
        self._entry(path.strip("/"), stat.S_IFREG | mode, content)

    def copy(self, path: str, source: str | Path, mode: int = 0o755) -> None:
        """Add a file of this machine under another name."""
        self.file(path, Path(source).read_bytes(), mode)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._parent_of(path)
        self._entry(path.strip("/"), stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device, needed for /dev/console before devtmpfs is mounted."""
        self._parent_of(path)
        self._entry(path.strip("/"), stat.S_IFCHR | 0o600, b"", major, minor)

    def write(self, target: Path) -> None:
        """Finish the archive and write it out."""
        self._entry("TRAILER!!!", 0, b"")
        target.write_bytes(b"".join(self._chunks))

    def _parent_of(self, path: str) -> None:
        parent = path.strip("/").rpartition("/")[0]
        if parent:
            self.directory(parent)

    def _entry(self, name: str, mode: int, content: bytes, major: int = 0, minor: int = 0) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, 0, len(content),
                  0, 0, major, minor, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._chunks.append(_padded(header + encoded))
        self._chunks.append(_padded(content))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
