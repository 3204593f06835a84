"""The exception hierarchy: subsystems, the limit of messages, pickling."""

import pickle

import pytest

from aesg import exceptions
from aesg.exceptions import AESGError

SUBSYSTEMS = {
    "AESGConfigError": "config",
    "AESGMemoryError": "memory",
    "AESGNavigationError": "navigation",
    "AESGTrainingError": "trainer",
    "AESGStorageError": "storage",
}


@pytest.mark.parametrize(("name", "subsystem"), SUBSYSTEMS.items())
def test_each_is_an_aesg_error_of_its_subsystem(name, subsystem):
    error = getattr(exceptions, name)("what came")
    assert isinstance(error, AESGError)
    assert (error.message, error.subsystem, str(error)) == ("what came", subsystem, "what came")
    assert getattr(exceptions, name)("x", "other").subsystem == "other"


def test_messages_are_cut_at_500_characters():
    assert AESGError("x" * 500, "config").message == "x" * 500
    assert AESGError("x" * 501, "config").message == "x" * 500


def test_pickling_keeps_both():
    error = pickle.loads(pickle.dumps(exceptions.AESGStorageError("a", "b")))
    assert (type(error), error.message, error.subsystem) == (exceptions.AESGStorageError, "a", "b")
