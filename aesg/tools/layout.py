"""Where to draw concepts: like ones near each other, regions apart. Letters: n concepts, D, R regions."""

from __future__ import annotations

import numpy as np

SPREAD = 0.42  # radius of a region's disc, in units of the distance that its share of the plane gives it
RELAXATIONS = 60
WIDEST = 256  # wider vectors are projected to so many random directions first, which keeps distances


def place(vectors: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Positions [n, 2] f64, about within [-1, 1], of concepts [n, D] in regions [n] (0: none).

    Two levels of principal axes: region centres by the two of the centres, relaxed until their discs hardly
    overlap; in a disc, members by the two of the region, radially evened. Deterministic.
    O(n D min(D, 256) + R^2).
    """
    n = len(vectors)
    if n == 0:
        return np.zeros((0, 2))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    if units.shape[1] > WIDEST:
        directions = np.random.default_rng(0).standard_normal((units.shape[1], WIDEST), dtype=np.float32)
        units = units @ directions / np.sqrt(WIDEST)
    names, member, counts = np.unique(regions, return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), units.shape[1]))
    np.add.at(sums, member, units)
    centres = sums / counts[:, None]
    radii = np.sqrt(counts / n)
    middle = _relaxed(_plane(centres), radii) if len(names) > 1 else np.zeros((1, 2))
    at = np.empty((n, 2))
    for region in range(len(names)):
        rows = np.flatnonzero(member == region)
        at[rows] = middle[region] + SPREAD * 2 * radii[region] * _disc(_plane(units[rows] - centres[region]))
    reach = np.abs(at - at.mean(axis=0)).max()
    return (at - at.mean(axis=0)) / (reach if reach > 0 else 1.0)


def _plane(points: np.ndarray) -> np.ndarray:
    """Their coordinates [m, 2] along the two principal axes; signs fixed, so that runs agree."""
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], 0) < 0, -1.0, 1.0)
    flat = centred @ axes
    return flat if flat.shape[1] == 2 else np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def _disc(points: np.ndarray) -> np.ndarray:
    """The same directions, distances evened so that they fill the unit disc: the k-th nearest of m lies at
    sqrt(k / m)."""
    m = len(points)
    if m == 1:
        return np.zeros((1, 2))
    angle = np.arctan2(points[:, 1], points[:, 0])
    distance = np.hypot(points[:, 0], points[:, 1])
    rank = np.empty(m)
    rank[np.argsort(distance, kind="stable")] = np.arange(m)
    radius = np.sqrt((rank + 0.5) / m)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _relaxed(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Centres pushed apart until their discs hardly touch; large ones give way less."""
    spread = np.abs(centres).max()
    at = centres / (spread if spread > 0 else 1.0) * 1.5
    # Equal centres have no direction to part in: a spiral gives each its own.
    turn = np.arange(len(at)) * 2.399963
    at = at + 1e-3 * np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.sqrt(np.arange(len(at)))[:, None]
    need = radii[:, None] + radii[None]
    for _ in range(RELAXATIONS):
        gap = at[:, None] - at[None]  # [R, R, 2]
        distance = np.maximum(np.linalg.norm(gap, axis=2), 1e-9)
        overlap = np.maximum(need - distance, 0.0)
        np.fill_diagonal(overlap, 0.0)
        give = radii[None] ** 2 / (radii[:, None] ** 2 + radii[None] ** 2)
        at = at + ((overlap * give / distance)[:, :, None] * gap).sum(axis=1) * 0.5
        at *= 0.995  # what has room may come closer
    return at
