"""The file beside the data that keeps a second process out (floor 1).

The data file itself is never opened here while SQLite has it: closing it would drop the locks that
SQLite holds on it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from struct import unpack

from ..errors import StorageInUse, StorageUnusable
from .faults import told

__all__ = ["LockFile", "fingerprint", "machine"]

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: Linux's FS_IOC_GETVERSION: what tells a file from an earlier one with the same inode.
_GET_GENERATION = 0x80087601


class LockFile:
    """``DATA-lock``: locked while the data is in use; says by whom, and how often it was.

    :param path: of the data.
    """

    def __init__(self, path: str) -> None:
        self._data = path
        self._path = path + "-lock"
        self._file: int | None = None

    def acquire(self, *, create: bool = True) -> None:
        """Keep everybody else out.

        :param create: make the file if there is none; otherwise nothing is written, and without a
            file there is nobody to keep out.
        :raises StorageInUse: if somebody is in.
        """
        with told(self._path, "locked"):
            try:
                flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
                self._file = os.open(self._path, flags, 0o600)
            except FileNotFoundError:
                if create:
                    raise
                return
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                noted = self._noted()
                self.release()
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise StorageUnusable(
                        f"{self._path} cannot be locked: {error.strerror}. Keep the data on a file"
                        " system that has locks",
                        path=self._data,
                    ) from error
                raise self._in_use(noted.get("pid", 0)) from None

    def boots(self) -> int:
        """How often the data had been opened when that was noted; 0 if it never was."""
        return self._noted().get("boots", 0)

    def closed(self) -> bool:
        """Were all connections to the data closed by whoever had it last?"""
        return bool(self._noted().get("closed", 0))

    def ended(self) -> bool:
        """Had whoever had the data last noted a proper end in them?"""
        return bool(self._noted().get("ended", 0))

    def note(self, boots: int, *, closed: bool = False, ended: bool = False) -> None:
        """Say who is in, and how often the data was opened; on the disk when this returns.

        :param closed: all connections to the data are closed.
        :param ended: the data themselves say, and that is on the disk, that this use of them ended
            properly.
        """
        assert self._file is not None
        with told(self._path, "written"):
            noted = {"pid": os.getpid(), "boots": boots, "closed": closed, "ended": ended}
            content = json.dumps({name: int(noted[name]) for name in noted}).encode() + b"\n"
            os.pwrite(self._file, content, 0)
            os.ftruncate(self._file, len(content))
            os.fsync(self._file)

    def release(self) -> None:
        """Let others in."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _noted(self) -> dict[str, int]:
        """What the file says; it may be torn, then it says nothing."""
        if self._file is None:
            return {}
        try:
            noted = json.loads(os.pread(self._file, 4096, 0))
        except ValueError:
            return {}
        if not isinstance(noted, dict):
            return {}
        return {name: number for name, number in noted.items() if isinstance(number, int)}

    def _in_use(self, pid: int) -> StorageInUse:
        who = f"process {pid}" if pid else "another process"
        return StorageInUse(
            f"{self._data} is in use by {who}. Stop that one, or give this node data of its own",
            path=self._data,
            pid=pid,
        )


def fingerprint(path: str) -> tuple[int, int | None]:
    """The file's inode, and its generation where the system tells it.

    Both stay when the file is moved inside its file system, and are others for every copy.  Devices
    are left out: their numbers may change when the machine starts.
    """
    with told(path, "opened"):
        file = os.open(path, os.O_RDONLY)
        try:
            inode = os.fstat(file).st_ino
            try:
                (generation,) = unpack("=I", fcntl.ioctl(file, _GET_GENERATION, bytes(8))[:4])
            except OSError:  # not on this system, or not this file system
                return inode, None
            return inode, generation
        finally:
            os.close(file)


def machine() -> str | None:
    """What the system calls its present run; None if it has no name for it."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip() or None
    except OSError:
        return None
