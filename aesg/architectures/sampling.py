"""Drawing the next token from logits."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch
from torch import Tensor

from aesg.exceptions import AESGConfigError


def check_sampling(
    vocab_size: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    eos: int | None,
    generator: torch.Generator | None = None,
) -> None:
    """Raises AESGConfigError for the first option that is of another type or out of range."""
    given = {"max_new_tokens": max_new_tokens, "top_k": top_k, "eos": eos}
    for name, value in given.items():
        if (value is None and name != "max_new_tokens") or _is(value, Integral):
            continue
        raise AESGConfigError(f"{name} must be an integer, got {value!r}")
    for name, number in (("temperature", temperature), ("top_p", 1.0 if top_p is None else top_p)):
        if not _is(number, Real):
            raise AESGConfigError(f"{name} must be a number, got {number!r}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise AESGConfigError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if max_new_tokens < 0:
        raise AESGConfigError(f"max_new_tokens must be >= 0, got {max_new_tokens}")
    if not (temperature >= 0.0 and math.isfinite(temperature)):
        raise AESGConfigError(f"temperature must be finite and >= 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise AESGConfigError(f"top_k must be >= 1 or None, got {top_k}")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise AESGConfigError(f"top_p must be in (0, 1] or None, got {top_p}")
    if eos is not None and not 0 <= eos < vocab_size:
        raise AESGConfigError(f"eos must be a token id in [0, {vocab_size}) or None, got {eos}")


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token id [B] for each row of logits [B, V]. Temperature 0 takes the likeliest.

    `top_p` is nucleus sampling (Holtzman et al., https://arxiv.org/abs/1904.09751): the likeliest tokens up
    to and including the one with which their probability reaches p.
    """
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        weakest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < weakest, -math.inf)
    if top_p is not None and top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        shares = ordered.softmax(dim=-1)
        beyond = shares.cumsum(dim=-1) - shares >= top_p  # mass before a token already reaches p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -math.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]
