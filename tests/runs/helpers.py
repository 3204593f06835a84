"""What several tests of the store share."""

from __future__ import annotations

import os
from pathlib import Path

from aesg.runs import Store


def tree(root: Path) -> dict[str, bytes | None]:
    """Every file below a directory with its bytes, everything else with None."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def objects(store: Store) -> list[str]:
    return [sha for sha, _ in store.objects.all()]


def staged(store: Store) -> list[str]:
    return os.listdir(store.objects.staging)


def grow_old(store: Store) -> None:
    """Makes every object look two days old."""
    for _, path in store.objects.all():
        path.chmod(0o644)
        os.utime(path, (0, 0))
        path.chmod(0o444)
