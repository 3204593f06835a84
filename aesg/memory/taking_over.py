"""What a device answered, as learning and the streams read it: there, and later on the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from aesg.exceptions import AESGNavigationError
from aesg.memory.calls import NOTHING, Answer, Call, Found

PARTS = 5


def parts_of(call: Call) -> list[Tensor]:
    """What has to come to the host of a call that the memory alone answered on a device, without gradient."""
    found = call.found
    return [call.query.bare, found.seeds, found.similarities, found.members, found.energies.detach()]


def each_call(copies: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """The `parts_of` of successive calls."""
    return zip(*[iter(copies)] * PARTS, strict=True)


def require_finite(copies: Sequence[Tensor]) -> None:
    """Raises AESGNavigationError for queries that are not finite: of them a device says nothing by itself."""
    if not np.isfinite(copies[0].numpy()).all():  # a twentieth of what torch takes
        raise AESGNavigationError(
            "queries: expected finite values, got NaN or infinity in a call that a device answered: nothing "
            "was learnt from it"
        )


def taken_over(call: Call, copies: Sequence[Tensor]) -> Call:
    """The call with copies of its `parts_of`, on whatever device, without the members' vectors."""
    rows, seeds, similarities, members, energies = copies
    own = call.answers[0]
    activated = own.found._replace(
        seeds=seeds, similarities=similarities, members=members, energies=energies, vectors=NOTHING,
        jacobian=NOTHING, seed_vectors=NOTHING,
    )  # fmt: skip
    return call._replace(
        query=call.query._replace(rows=rows),
        found=Found(seeds, similarities, members, energies, similarities.select(1, 0)),
        answers=[Answer(own.source, activated, energies)],
    )


def outline(call: Call) -> Call:
    """The call without the tensors that its `parts_of` bring, so that waiting for them holds no device
    memory.
    """
    found = Found(*([NOTHING] * len(Found._fields)))
    own = call.answers[0]
    empty = own.found._replace(**dict.fromkeys(own.found._fields, NOTHING))
    return call._replace(
        query=call.query._replace(rows=NOTHING), found=found, answers=[Answer(own.source, empty, NOTHING)]
    )
