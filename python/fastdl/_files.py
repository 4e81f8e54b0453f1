"""Files that are either the old one or the new one, never half of each."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PathLike = str | os.PathLike[str]


def check_target(path: PathLike, op: str) -> Path:
    """Return the real path of a file to be written, or raise OSError saying why it cannot be."""
    target = Path(os.path.realpath(path))
    if not os.fspath(path) or target.is_dir():
        raise IsADirectoryError(f"{op}: path must be a file, got the folder {os.fspath(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{op}: the folder of {os.fspath(path)!r} must exist; create {target.parent} first"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{op}: the folder {target.parent} must be writable")
    return target


def write_atomically(path: PathLike, write: Callable[[BinaryIO], object], op: str) -> None:
    """Replace a file in one step: temporary file beside it, fsync, rename, fsync of the folder.

    Parameters
    ----------
    path : str or PathLike
        The file to create or replace; a symbolic link is followed.
    write : callable
        Gets the open temporary file and writes the whole content into it.
    op : str
        Named in error texts.

    Raises
    ------
    OSError
        The folder is missing or not writable, or the disk is full. The old file is untouched
        and no temporary file stays behind (a killed process may leave one ``.fastdl-*.tmp``).
    """
    target = check_target(path, op)
    temporary = target.with_name(f".fastdl-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _copy_mode(target, file.fileno())
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _copy_mode(target: Path, descriptor: int) -> None:
    if target.exists() and hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, target.stat().st_mode & 0o7777)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; folders that cannot be opened or synced are skipped."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
