"""read_members against its oracle, values and gradients."""

from __future__ import annotations

import pytest
import torch
from ops_helpers import needs_cuda, on_threads

from aesg.exceptions import AESGMemoryError
from aesg.ops import read_members
from aesg.ops.reference import read_members_ref


def case(batch: int = 70, heads: int = 3, members: int = 10, dim: int = 24, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    energies = torch.rand(batch, members, generator=generator)
    energies[torch.rand(batch, members, generator=generator) < 0.4] = 0.0
    energies[0], energies[1, 0] = 0.0, 1e-38
    vectors, queries = draw(batch, members, dim), draw(batch, dim)
    vectors[2, 0], queries[3] = 0.0, 0.0
    return [
        2 * draw(batch, heads, dim),
        queries,
        -torch.rand(heads, generator=generator) * 8,
        vectors,
        energies,
    ]


@pytest.mark.parametrize(
    "shape", [(70, 3, 10, 24), (1, 1, 1, 1), (5, 4, 10, 64), (0, 2, 3, 16), (3, 2, 5, 19)]
)
def test_values_and_gradients_of_the_oracle(shape) -> None:
    arguments = case(*shape) if shape[0] > 3 else [part[: shape[0]] for part in case(8, *shape[1:])]
    arguments[2] = arguments[2] if shape[0] > 3 else case(8, *shape[1:])[2]
    got = [part.clone().requires_grad_(i != 3) for i, part in enumerate(arguments)]
    wanted = [part.double().requires_grad_(i != 3) for i, part in enumerate(arguments)]
    slopes = [torch.randn_like(part) for part in read_members(*arguments)]
    results = []
    for function, inputs in ((read_members, got), (read_members_ref, wanted)):
        outputs = function(*inputs)
        sum((out * slope).sum() for out, slope in zip(outputs, slopes, strict=True)).backward()
        results.append(outputs)
    for mine, oracle in zip(*results, strict=True):
        torch.testing.assert_close(mine.double(), oracle, rtol=1e-4, atol=1e-5)
    held = [0, 2, 4] if shape[0] > 3 else [0, 1, 2, 4]
    for i in held:  # a zero query has a direction for no formula
        present = arguments[4] > 1e-30 if i == 4 else torch.ones_like(arguments[i], dtype=torch.bool)
        torch.testing.assert_close(
            got[i].grad.double()[present], wanted[i].grad[present], rtol=2e-4, atol=2e-5
        )
    assert all(torch.isfinite(part.grad).all() for i, part in enumerate(got) if i != 3)


def test_an_empty_context_adds_nothing() -> None:
    arguments = case()
    found, mean = read_members(*arguments)
    assert not found[0].any() and not mean[0].any()


def test_the_same_bits_for_any_number_of_threads() -> None:
    results = on_threads((1, 2, 5), lambda: read_members(*case()))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_opcheck() -> None:
    arguments = [part.requires_grad_(i != 3) for i, part in enumerate(case(6))]
    torch.library.opcheck(torch.ops.aesg.read_members.default, tuple(arguments))


@pytest.mark.parametrize("which", range(5))
def test_wrong_arguments(which: int) -> None:
    arguments = case()
    for wrong in (arguments[which].double(), arguments[which][..., :-1]):
        changed = list(arguments)
        changed[which] = wrong
        with pytest.raises(AESGMemoryError):
            read_members(*changed)


@needs_cuda
@pytest.mark.parametrize("shape", [(70, 3, 10, 24), (5, 4, 10, 64), (4096, 4, 10, 64), (6, 2, 1024, 19)])
def test_cuda_equals_cpu(shape) -> None:
    """The mean and all gradients bit for bit. Shares within 1e-5 of their own size, as each logarithm and
    exponential may end one unit in the last place apart and the logarithm of the least energy is 87."""
    inputs = case(*shape)
    there = [part.cuda() for part in inputs]
    found, mean, shares = torch.ops.aesg.read_members(*inputs)
    got_found, got_mean, got_shares = torch.ops.aesg.read_members(*there)
    assert torch.equal(got_mean.cpu(), mean)
    torch.testing.assert_close(got_shares.cpu(), shares, rtol=1e-5, atol=1e-37)
    torch.testing.assert_close(got_found.cpu(), found, rtol=1e-5, atol=1e-5)
    slopes = [torch.randn_like(found), torch.randn_like(mean)]
    want = torch.ops.aesg.read_members_backward(*slopes, shares, *inputs)
    got = torch.ops.aesg.read_members_backward(*(part.cuda() for part in (*slopes, shares)), *there)
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one.cpu(), other)
