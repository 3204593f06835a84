"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aesg.exceptions import AESGStorageError

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A path beside `path` to write to; on leaving without an error it takes `path`'s place.

    After an error what was begun is removed and what stood there before stays. Missing folders are made.
    Raises AESGStorageError naming `path` for every OSError and ValueError inside (a format that is none,
    a name that cannot be), and where something else than a regular
    file stands: a device or a named pipe would be gone.
    """
    target = Path(path)
    beside: str | None = None
    try:
        if target.exists() and not target.is_file():
            raise AESGStorageError(f"Failed to write '{target}': expected a regular file or none")
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent
        )
        os.close(descriptor)
        os.chmod(beside, 0o644)
        yield Path(beside)
        os.replace(beside, target)
        beside = None
    except (OSError, ValueError) as error:
        raise AESGStorageError(f"Failed to write '{target}': {error}") from error
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):
                os.unlink(beside)


def write_text(path: PathLike, text: str) -> Path:
    """Writes a text file as a whole. Raises AESGStorageError."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="replace")
    return Path(path)
