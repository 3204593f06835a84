"""Every error the library raises on purpose. Catch `AESGError` for all, a subclass for one subsystem."""

from __future__ import annotations

MAX_MESSAGE_LENGTH = 500


class AESGError(Exception):
    """Base of all errors of this library.

    `message` is cut at 500 characters (reference, "Exception handling"); `subsystem` is one of
    "config", "memory", "navigation", "trainer", "storage".
    """

    default_subsystem = "aesg"

    def __init__(self, message: str, subsystem: str | None = None) -> None:
        self.message = str(message)[:MAX_MESSAGE_LENGTH]
        self.subsystem = self.default_subsystem if subsystem is None else subsystem
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type[AESGError], tuple[str, str]]:
        return type(self), (self.message, self.subsystem)


class AESGConfigError(AESGError):
    """A configuration value or constructor argument that cannot work."""

    default_subsystem = "config"


class AESGMemoryError(AESGError):
    """A memory operation that was asked for with wrong arguments or in a forbidding mode."""

    default_subsystem = "memory"


class AESGNavigationError(AESGError):
    """A query that cannot be searched for or spread from."""

    default_subsystem = "navigation"


class AESGTrainingError(AESGError):
    """Training data, options or a loss that the trainer cannot use."""

    default_subsystem = "trainer"


class AESGStorageError(AESGError):
    """A file, directory, pack or checkpoint that cannot be read, trusted or written."""

    default_subsystem = "storage"
