"""project_out and project_out_inv_norm_: the oracles' answers, every layout, gradients, what they refuse."""

import pytest
import torch
from ops_helpers import grouped, needs_cuda

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.ops import project_out, project_out_inv_norm_
from aesg.ops.reference import project_out_inv_norm_ref_, project_out_ref

SHAPES = [(0, 3), (1, 1), (7, 5), (300, 33), (1100, 64), (3, 1024)]


def case(n, dim, seed=0):
    """Vectors with a large common part, some of them nothing else, and its direction."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(
        torch.randn(dim, generator=generator, dtype=torch.float64), dim=0
    )
    vectors = torch.randn(n, dim, generator=generator) + 5 * direction.float()
    vectors[3::7] = (3 * direction).float()
    vectors[5::7] = 0.0
    return vectors, direction


@pytest.mark.parametrize("n, dim", SHAPES)
def test_near_the_oracle(n, dim):
    vectors, direction = case(n, dim)
    got, want = project_out(vectors, direction), project_out_ref(vectors, direction)
    assert got.dtype == torch.float32 and torch.allclose(got, want, rtol=1e-6, atol=1e-9)
    assert torch.equal(got == 0, want == 0)
    slots = torch.randperm(n + 9)[:n]
    lengths, expected = torch.full((n + 9,), 7.0), torch.full((n + 9,), 7.0)
    project_out_inv_norm_(lengths, vectors, slots, direction)
    project_out_inv_norm_ref_(expected, vectors, slots, direction)
    assert torch.allclose(lengths, expected, rtol=1e-6)
    assert int((lengths == 7.0).sum()) == 9


def test_by_hand():
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    vectors = torch.tensor([[3.0, 4.0], [4.0, -3.0], [0.6, 0.8], [0.0, 0.0]])
    assert project_out(vectors, direction).tolist() == [[0, 0], [4, -3], [0, 0], [0, 0]]
    assert torch.equal(project_out(vectors, torch.zeros(2, dtype=torch.float64)), vectors)


def test_the_lengths_have_the_bits_of_the_graph():
    vectors, direction = case(500, 48)
    lengths = torch.empty(500)
    project_out_inv_norm_(lengths, vectors, torch.arange(500), direction)
    assert torch.equal(
        lengths, torch.from_numpy(_core.inverse_norms_without(direction.numpy(), vectors.numpy()))
    )


def test_what_is_almost_nothing_but_common_counts_as_nothing():
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)
    vectors = torch.tensor([[1.0, 0.9e-6], [1.0, 1.1e-6]])
    assert project_out(vectors, direction).tolist() == [[0.0, 0.0], [0.0, vectors[1, 1].item()]]
    lengths = torch.zeros(2)
    project_out_inv_norm_(lengths, vectors, torch.arange(2), direction)
    assert lengths[0] == 0.0 and lengths[1] == pytest.approx(1 / 1.1e-6, rel=1e-6)


def test_leading_dimensions_views_and_groups():
    vectors, direction = case(60, 6)
    want = project_out(vectors, direction)
    assert torch.equal(project_out(vectors.view(3, 4, 5, 6), direction), want.view(3, 4, 5, 6))
    assert torch.equal(project_out(vectors[0], direction), want[0])
    wide = torch.zeros(60, 12)
    wide[:, ::2] = vectors
    assert torch.equal(project_out(wide[:, ::2], torch.stack([direction] * 2, 1)[:, 0]), want)
    slots = torch.randperm(2000)[:60]
    flat, groups = torch.zeros(2048), grouped(torch.zeros(2048))
    for column in (flat, groups):
        project_out_inv_norm_(column, wide[:, ::2], slots, direction)
    assert torch.equal(groups.reshape(-1), flat) and int((flat != 0).sum()) > 30


def test_slots_outside_are_left_out():
    vectors, direction = case(5, 4)
    lengths, expected = torch.zeros(9), torch.zeros(9)
    project_out_inv_norm_(lengths, vectors, torch.tensor([-1, 8, 9, -(2**62), 2**62]), direction)
    project_out_inv_norm_(expected, vectors[1:2], torch.tensor([8]), direction)
    assert torch.equal(lengths, expected) and lengths[8] > 0


def test_not_finite_stays_so():
    vectors, direction = case(4, 3)
    vectors[0, 1], vectors[1, 2] = float("nan"), float("inf")
    rest = project_out(vectors, direction)
    assert not rest[:2].isfinite().all(dim=1).any() and rest[2:].isfinite().all()


def test_gradient():
    vectors, direction = case(12, 7)
    weights = torch.randn(12, 7)
    grads = []
    for op in (project_out, project_out_ref):
        asked = vectors.clone().requires_grad_()
        (op(asked, direction) * weights).sum().backward()
        grads.append(asked.grad)
    assert torch.allclose(*grads, atol=1e-6)
    assert not grads[0][3].any() and not grads[0][5].any()  # nothing of their own: nothing to move
    (grad,) = torch.autograd.grad(project_out(asked, direction).sum(), asked)  # an expanded gradient
    assert grad.shape == (12, 7)


def test_opcheck_and_compile():
    vectors, direction = case(20, 4)
    torch.library.opcheck(
        torch.ops.aesg.project_out.default, (vectors[:3].clone().requires_grad_(), direction)
    )
    lengths = torch.zeros(30)
    torch.library.opcheck(
        torch.ops.aesg.project_out_inv_norm_.default, (lengths, vectors, torch.arange(20), direction)
    )
    compiled = torch.compile(project_out, fullgraph=True, backend="aot_eager")
    asked = vectors.view(4, 5, 4).clone().requires_grad_()
    got = compiled(asked, direction)
    assert torch.equal(got, project_out(vectors, direction).view(4, 5, 4))
    assert torch.autograd.grad(got.sum(), asked)[0].shape == asked.shape


F64 = torch.float64


@pytest.mark.parametrize(
    "text, vectors, direction",
    [
        ("vectors: expected float32, got float64", torch.zeros(3, 2, dtype=F64), torch.zeros(2, dtype=F64)),
        ("direction: expected float64, got float32", torch.zeros(3, 2), torch.zeros(2)),
        (r"vectors: expected shape \[n, D\], got \[\]", torch.tensor(1.0), torch.zeros(1, dtype=F64)),
        ("direction: expected 2 values", torch.zeros(3, 2), torch.zeros(3, dtype=F64)),
        (r"direction: expected shape \[D\]", torch.zeros(3, 2), torch.zeros(1, 2, dtype=F64)),
        ("expected all on cpu", torch.zeros(3, 2), torch.zeros(2, dtype=F64, device="meta")),
    ],
)
def test_bad_input(text, vectors, direction):
    with pytest.raises(AESGMemoryError, match=text):
        project_out(vectors, direction)
    if vectors.dtype == torch.float32:
        with pytest.raises(AESGMemoryError, match=text):
            project_out_inv_norm_(torch.zeros(3), vectors, torch.arange(3), direction)


@pytest.mark.parametrize(
    "text, inv_norm, slots",
    [
        ("slots: expected 3 values", torch.zeros(9), torch.arange(2)),
        ("slots: expected int64", torch.zeros(9), torch.zeros(3)),
        ("inv_norm: expected float32", torch.zeros(9, dtype=F64), torch.arange(3)),
        ("inv_norm: expected groups of 1024", torch.zeros(2, 9), torch.arange(3)),
        ("inv_norm: expected contiguous", torch.zeros(9, 2)[:, 0], torch.arange(3)),
    ],
)
def test_bad_lengths(text, inv_norm, slots):
    vectors, direction = case(3, 2)
    with pytest.raises(AESGMemoryError, match=text):
        project_out_inv_norm_(inv_norm, vectors, slots, direction)


@needs_cuda
@pytest.mark.parametrize("n, dim", [*SHAPES, (70_000, 20)])
def test_cuda_has_the_bits_of_the_cpu(n, dim):
    vectors, direction = case(n, dim)
    there = project_out(vectors.cuda(), direction.cuda())
    assert torch.equal(there.cpu(), project_out(vectors, direction))
    slots, lengths = torch.randperm(n + 9)[:n], torch.zeros(n + 9)
    there = lengths.cuda()
    project_out_inv_norm_(there, vectors.cuda(), slots.cuda(), direction.cuda())
    project_out_inv_norm_(lengths, vectors, slots, direction)
    assert torch.equal(there.cpu(), lengths)
    if n > 1:
        asked = vectors.cuda().requires_grad_()
        weights = torch.randn(n, dim)
        project_out(asked, direction.cuda()).backward(weights.cuda())
        here = vectors.clone().requires_grad_()
        project_out(here, direction).backward(weights)
        assert torch.equal(asked.grad.cpu(), here.grad)
