"""What a device answered, brought to the host, where everything is learnt: in one transfer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aesg.exceptions import AESGNavigationError
from aesg.memory.calls import NOTHING, Answer, Found, Query


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies on the CPU of tensors of one device, i64 and f32 in any order: one kernel packs them, and one
    transfer brings them. Waits for the device.
    """
    wide = [place for place, tensor in enumerate(tensors) if tensor.dtype == torch.int64]
    order = wide + [place for place in range(len(tensors)) if place not in wide]  # so that each is aligned
    packed = torch.cat([tensors[place].contiguous().view(torch.int32).reshape(-1) for place in order]).cpu()
    copies, start = list(tensors), 0
    for place in order:
        like = tensors[place]
        size = like.numel() * like.element_size() // 4
        copies[place] = packed[start : start + size].view(like.dtype).view(like.shape)
        start += size
    return copies


def taken_over(query: Query, found: Found, answers: Sequence[Answer]) -> tuple[Query, Found, list[Answer]]:
    """A query answered on a device by the memory alone, and its answer, as learning and the streams read
    them: on the host, without the members' vectors.

    Raises AESGNavigationError for queries that are not finite, of which a device says nothing by itself.
    """
    rows, seeds, similarities, members, energies = on_host(
        (query.rows, found.seeds, found.similarities, found.members, found.energies)
    )
    if not bool(torch.isfinite(rows).all()):
        raise AESGNavigationError("queries: expected finite values, got NaN or infinity")
    own = answers[0].found
    activated = own._replace(
        seeds=seeds,
        similarities=similarities,
        members=members,
        energies=energies,
        vectors=NOTHING,
        seed_vectors=NOTHING,
        jacobian=own.jacobian.cpu(),  # empty
    )
    return (
        query._replace(rows=rows),
        Found(seeds, similarities, members, energies, similarities.select(1, 0)),
        [Answer(answers[0].source, activated, energies)],
    )
