"""adapt_data: what people have becomes batches; what cannot is refused."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from aesg.data import ListDataset, StreamLoader, adapt_data
from aesg.exceptions import AESGTrainingError

PAIRS = [(torch.full((2,), float(i)), torch.tensor(i)) for i in range(7)]


def test_a_list_is_batched_in_order():
    batches = list(adapt_data(PAIRS, batch_size=3))
    assert [len(batch[1]) for batch in batches] == [3, 3, 1]
    assert torch.cat([batch[1] for batch in batches]).tolist() == list(range(7))


def test_shuffle_changes_the_order():
    torch.manual_seed(0)
    order = torch.cat([batch[1] for batch in adapt_data(PAIRS, batch_size=3, shuffle=True)]).tolist()
    assert order != list(range(7))
    assert sorted(order) == list(range(7))


def test_loaders_stay_what_they_are():
    loader = DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4)), batch_size=2)
    stream = StreamLoader([b"abc"], 1, 2)
    assert adapt_data(loader) is loader
    assert adapt_data(stream) is stream


def test_datasets_are_wrapped():
    assert len(list(adapt_data(ListDataset(PAIRS), batch_size=2))) == 4
    assert len(list(adapt_data(TensorDataset(torch.zeros(5, 2), torch.zeros(5)), batch_size=2))) == 3


def test_iterable_datasets_are_wrapped():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(PAIRS)

    assert len(list(adapt_data(Stream(), batch_size=2, shuffle=True))) == 4


@pytest.mark.parametrize("empty", [[], (), ListDataset([]), TensorDataset(torch.zeros(0, 2))])
def test_empty_data(empty):
    with pytest.raises(AESGTrainingError) as caught:
        adapt_data(empty)
    assert caught.value.message == "Empty dataset provided. Training requires at least one sample."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], "got int at position 0"),
        ([PAIRS[0], (1, 2, 3)], "got tuple of 3 at position 1"),
        ({"a": 1}, "got dict"),
        ("text", "got str"),
        (5, "got int"),
        (None, "got NoneType"),
        (list, "got the class list"),
    ],
)
def test_what_holds_no_pairs(data, message):
    with pytest.raises(AESGTrainingError, match=message):
        adapt_data(data)
