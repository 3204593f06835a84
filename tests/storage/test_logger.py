"""The evolution log: byte-compatible events, durable with the commit, lazy history."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.storage import AESGStorage, EventType, EvolutionLogger


@pytest.fixture
def storage(tmp_path):
    with AESGStorage(tmp_path / "m", 4, clock=lambda: 1718728800.9) as opened:
        yield opened


def test_events_are_byte_compatible(storage, tmp_path):
    logger = EvolutionLogger(storage)
    logger.log_event(EventType.CREATE, 4293871, 0, 1.0)
    logger.log_event("MERGE", 2**64 - 1, 5, -0.5)
    logger.log_event(3)
    storage.close()
    expected = b"".join(
        struct.pack("<QB3xQQf", 1718728800, kind, id1, id2, val)
        for kind, id1, id2, val in [(0, 4293871, 0, 1.0), (1, 2**64 - 1, 5, -0.5), (3, 0, 0, 0.0)]
    )
    assert (tmp_path / "m" / "evolution.aesglog").read_bytes() == expected


def test_history_is_a_lazy_sequence_of_dicts(storage):
    logger = EvolutionLogger(storage)
    for i in range(10):
        logger.log_event(EventType.PRUNE if i % 2 else EventType.CREATE, i, 0, i / 4)
    history = logger.get_history()
    assert len(history) == 10
    assert history[1] == {"timestamp": 1718728800, "type": "PRUNE", "id1": 1, "id2": 0, "val": 0.25}
    assert [event["id1"] for event in history[:3]] == [0, 1, 2]
    assert history[-1]["id1"] == 9
    assert [e["type"] for e in history].count("CREATE") == 5
    assert history.array["val"].sum() == sum(range(10)) / 4
    with pytest.raises(ValueError):
        history.array["val"][0] = 3


def test_history_spans_log_journal_and_staged_events(storage):
    logger = EvolutionLogger(storage)
    for i in range(1000):
        logger.log_event(EventType.CREATE, i)
        if i % 300 == 0:
            storage.commit()
        if i == 450:
            storage.core.fold()
    assert logger.get_history().array["id1"].tolist() == list(range(1000))
    storage.commit()
    reader = AESGStorage(storage.directory, read_only=True)
    assert EvolutionLogger(reader).get_history().array["id1"].tolist() == list(range(1000))
    reader.close()


def test_what_was_not_committed_is_not_in_the_log(tmp_path):
    storage = AESGStorage(tmp_path / "m", 4)
    EvolutionLogger(storage).log_event(EventType.CREATE, 1)
    storage.close(commit=False)
    with AESGStorage(tmp_path / "m") as storage:
        assert len(EvolutionLogger(storage).get_history()) == 0


def test_a_logger_of_a_directory(storage, tmp_path):
    EvolutionLogger(storage).log_event(EventType.CREATE, 1)
    storage.commit()
    logger = EvolutionLogger(tmp_path / "m", clock=lambda: 7)
    assert len(logger.get_history()) == 1  # beside the open writer
    storage.close()
    logger.log_event(EventType.SPLIT, 2)
    assert [(e["timestamp"], e["type"]) for e in logger.get_history()] == [
        (1718728800, "CREATE"),
        (7, "SPLIT"),
    ]


@pytest.mark.parametrize("bad", [6, -1, "BIRTH"])
def test_unknown_types_are_refused(storage, bad):
    with pytest.raises(AESGMemoryError, match="expected one of CREATE"):
        EvolutionLogger(storage).log_event(bad)
    assert storage.core.event_count == 0


def test_ids_are_unsigned(storage):
    with pytest.raises(AESGMemoryError, match="id2: expected"):
        EvolutionLogger(storage).log_event(0, 1, -1)


def test_a_changed_bit_is_found_on_reading_and_by_verify(storage, tmp_path):
    logger = EvolutionLogger(storage)
    for i in range(500):
        logger.log_event(EventType.CREATE, i)
    storage.close()
    path = tmp_path / "m" / "evolution.aesglog"
    data = bytearray(path.read_bytes())
    data[9000] ^= 1
    path.write_bytes(data)
    with AESGStorage(tmp_path / "m") as storage:
        with pytest.raises(AESGStorageError, match="damaged"):
            EvolutionLogger(storage).get_history()
        assert any("evolution.aesglog" in finding for finding in storage.verify())


def test_a_torn_tail_is_not_read(storage, tmp_path):
    EvolutionLogger(storage).log_event(EventType.CREATE, 1)
    storage.close()
    with open(tmp_path / "m" / "evolution.aesglog", "ab") as file:
        file.write(b"torn tail of a crash")
    with AESGStorage(tmp_path / "m") as storage:
        EvolutionLogger(storage).log_event(EventType.CREATE, 2)
        assert EvolutionLogger(storage).get_history().array["id1"].tolist() == [1, 2]
    assert (tmp_path / "m" / "evolution.aesglog").stat().st_size == 64
    assert np.fromfile(tmp_path / "m" / "evolution.aesglog", "<u8").size == 8


def test_reading_100_000_events_takes_less_than_40_ms(storage):
    for i in range(100_000):
        storage.core.append_event(i, i % 6, i, 0, 1.0)
    storage.commit()
    storage.core.fold()
    logger, seconds = EvolutionLogger(storage), []
    for _ in range(7):
        start = time.perf_counter()
        array = logger.get_history().array
        seconds.append(time.perf_counter() - start)
    assert (array["id1"] == np.arange(100_000)).all()
    assert min(seconds) < 0.040
