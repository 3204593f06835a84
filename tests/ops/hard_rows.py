"""Rows and queries on which a sieve in fewer bits could lose what is to be found."""

import torch

HARD_ROWS = [
    "plain",
    "part of every row",
    "of all lengths",
    "of overflowing lengths",
    "alike",
    "opposed",
    "one coordinate",
    "any inverse norms",
]


def part_of_every_row(rows, dim):
    """Rows that share nearly all of their length, queries without it, and what is left of rows as lengths."""
    common = torch.nn.functional.normalize(torch.randn(dim, dtype=torch.float64), dim=0)
    rest = torch.randn(rows, dim, dtype=torch.float64)
    rest -= (rest @ common)[:, None] * common
    queries = torch.randn(40, dim, dtype=torch.float64)
    queries -= (queries @ common)[:, None] * common
    inv_norm = 1 / rest.norm(dim=1).clamp(min=1e-3)
    return queries.float(), (rest + 3000 * common).float(), inv_norm.float()


def hard_rows(kind, rows, dim):
    queries, vectors = torch.randn(40, dim), torch.randn(rows, dim)
    if kind == "part of every row":
        return part_of_every_row(rows, dim)
    if kind == "of all lengths":
        vectors *= 10.0 ** torch.linspace(-37, 37, rows)[:, None]
    elif kind == "of overflowing lengths":
        vectors *= torch.finfo(torch.float32).max / vectors.abs().amax(dim=1, keepdim=True)
        vectors[::2] *= 1e-3
    elif kind == "alike":
        vectors = vectors[: rows // 50].repeat(50, 1) + 1e-7 * torch.randn(rows // 50 * 50, dim)
        queries = vectors[:40] + 0.01 * torch.randn(40, dim)
    elif kind == "opposed":
        vectors = -(torch.ones(dim) + 0.2 * torch.rand(rows, dim))
        queries = torch.ones(40, dim) + 0.2 * torch.rand(40, dim)
    elif kind == "one coordinate":
        vectors, queries = torch.zeros_like(vectors), torch.zeros_like(queries)
        vectors[torch.arange(rows), torch.arange(rows) % dim] = torch.randn(rows)
        queries[torch.arange(40), torch.arange(40) % dim] = 1.0
    inv_norm = (1 / vectors.double().norm(dim=1)).float()
    if kind == "any inverse norms":
        odd = torch.tensor([0.0, -1.0, -100.0, 1e-38, 1e30, 3e38, float("inf"), float("nan")])
        inv_norm = odd[torch.arange(rows) % 8] * torch.where(torch.rand(rows) < 0.5, 1.0, inv_norm)
        vectors[::5] *= 1e-30
        vectors[1::5] *= 1e18
    return queries, vectors, inv_norm
