"""The comparison of top-k results notices every kind of difference it is there for."""

import pytest
import torch
from ops_helpers import as_stored, assert_same_top_k, blocks_of, grouped

VALUES = torch.tensor([[0.5, 0.9, 0.5, 0.1]])
WANT = (torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[1, 0, 2]]))


def test_order_among_equals_does_not_matter():
    assert_same_top_k((WANT[0], torch.tensor([[1, 2, 0]])), WANT, VALUES)


@pytest.mark.parametrize(
    "values, indices",
    [
        ([[0.9, 0.5, 0.4]], [[1, 0, 2]]),  # a wrong value
        ([[0.9, 0.5, 0.5]], [[1, 0, 3]]),  # an index without that value
        ([[0.9, 0.5, 0.5]], [[1, 0, 0]]),  # one index twice
        ([[0.9, 0.5, 0.0]], [[1, 0, -1]]),  # one result missing
    ],
)
def test_differences_are_seen(values, indices):
    with pytest.raises(AssertionError):
        assert_same_top_k((torch.tensor(values), torch.tensor(indices)), WANT, VALUES)


def test_grouped_has_the_same_rows_but_is_strided():
    column = torch.arange(3000.0).reshape(1500, 2)
    view = grouped(column)
    assert view.shape == (2, 1024, 2) and not view.is_contiguous()
    assert torch.equal(view.flatten(0, 1)[:1500], column)


def test_stored_blocks_share_a_cache_line():
    graph = as_stored(blocks_of(3, [(0, 1, 0.5), (0, 2, 0.25)]))
    assert graph.targets.stride() == (40960, 16, 1)
    assert graph.strengths.data_ptr() - graph.targets.data_ptr() == 28
    assert graph.next_block.data_ptr() - graph.targets.data_ptr() == 56
