"""StreamLoader: every token once, in order, and streams begin where texts do."""

import pytest
import torch

from aesg.data import StreamLoader
from aesg.exceptions import AESGTrainingError


def texts(*lengths):
    return [torch.arange(length) + 1000 * (i + 1) for i, length in enumerate(lengths)]


def read(loader):
    """For each text begun, the inputs and targets that were read of it, as the rows tell."""
    found, rows = [], {}
    for batch in loader:
        for b in range(len(batch.begins)):
            if batch.begins[b]:
                rows[b] = ([], [])
                found.append(rows[b])
            keep = batch.targets[b] != -100
            rows[b][0].extend(batch.inputs[b][keep].tolist())
            rows[b][1].extend(batch.targets[b][keep].tolist())
    return [pair for pair in found if pair[0]]


def test_every_token_once_and_in_order():
    data = texts(37, 5, 100, 2, 64, 9)
    pieces = read(StreamLoader(data, batch_size=3, chunk=8))
    assert sorted(p[0][0] for p in pieces) == [1000 * (i + 1) for i in range(6)]
    for inputs, targets in pieces:
        text = data[inputs[0] // 1000 - 1].tolist()
        assert inputs == text[:-1]
        assert targets == text[1:]


def test_len_is_the_number_of_batches():
    for drop_last in (False, True):
        loader = StreamLoader(texts(37, 5, 100, 64, 9), 2, 8, drop_last=drop_last)
        assert len(loader) == len(list(loader))


def test_drop_last_never_leaves_a_row_empty():
    loader = StreamLoader(texts(37, 5, 100, 64, 9), 2, 8, drop_last=True)
    assert all((batch.targets != -100).any(dim=1).all() for batch in loader)


def test_shuffle_repeats_with_the_seed_and_changes_with_the_pass():
    def firsts(loader):
        return [batch.inputs[0, 0].item() for batch in loader]

    a, b = (StreamLoader(texts(*[9] * 30), 1, 8, shuffle=True, seed=4) for _ in range(2))
    first = firsts(a)
    assert first == firsts(b)
    assert first != firsts(a)
    assert first != firsts(StreamLoader(texts(*[9] * 30), 1, 8, shuffle=True, seed=5))


def test_goes_on_from_a_saved_place():
    whole = list(StreamLoader(texts(37, 5, 100, 64, 9), 2, 8, shuffle=True))
    first = StreamLoader(texts(37, 5, 100, 64, 9), 2, 8, shuffle=True)
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    second = StreamLoader(texts(37, 5, 100, 64, 9), 2, 8, shuffle=True)
    second.load_state_dict(first.state_dict())
    rest = list(second)
    assert len(rest) == len(whole) - 3
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(rest, whole[3:], strict=True))


def test_bytes_and_max_steps():
    batches = list(StreamLoader([b"hello world", b"ab"], 2, 4, max_steps=2))
    assert len(batches) == 2
    assert bytes(batches[0].inputs[0].tolist()) == b"hell"
    assert batches[0].targets[1].tolist() == [ord("b"), -100, -100, -100]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([b"abc"], 0), "batch_size must be >= 1, got 0"),
        (([b"abc"], 1, 0), "chunk must be >= 1, got 0"),
        (([b"a", b""], 1), "at least 1 texts of two tokens or more, got 0"),
        (([torch.zeros(3, 2)], 1), r"\[3, 2\]"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(AESGTrainingError, match=message):
        StreamLoader(*arguments)
