"""Facts A->B, B->C, ... told in pairs: recall over hops, latest value, and the controls beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory

DIM = 64
CHAIN = 4  # concepts of one chain A->B->C->D, so three facts each
TOLD = 10  # times each fact is told: a concept is born by three, its facts are learnt from then on
BATCH = 64  # streams told at once
RIGHT = 0.8  # a context member this like the wanted vector is that concept; two at random never are
CONFIG = AESGConfig(vector_dim=DIM)


def unit_vectors(n: int, generator: torch.Generator) -> Tensor:
    """n random directions [n, DIM]."""
    return nn.functional.normalize(torch.randn(n, DIM, generator=generator), dim=1)


def noisy(vectors: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Each unit vector with a random one of mean square length `noise`^2 added: their cosine is about
    1 / sqrt(1 + noise^2).
    """
    return vectors + noise / DIM**0.5 * torch.randn(vectors.shape, generator=generator)


def chains(facts: int) -> tuple[int, Tensor]:
    """Number of concepts, and `facts` pairs [F, 2] of them that form chains of CHAIN concepts."""
    links = torch.arange(facts)
    first = links // (CHAIN - 1) * CHAIN + links % (CHAIN - 1)
    return int(first[-1]) + 2, torch.stack([first, first + 1], dim=1)


def tell(
    memory: AESGMemory, vectors: Tensor, pairs: Tensor, times: int, noise: float, generator: torch.Generator
) -> None:
    """Tells every pair `times` times in random order, each as a stream of two steps of its own, where the
    memory is.
    """
    for _ in range(times):
        for chunk in pairs[torch.randperm(len(pairs), generator=generator)].split(BATCH):
            memory.reset_state()
            memory.retrieve(noisy(vectors[chunk], noise, generator).to(memory.device))
            memory.update_topology()
    memory.reset_state()


def asked(memory: AESGMemory, hops: int) -> AESGMemory:
    """A second view of the same graph, on the same device, that only reads, with so many hops."""
    config = replace(memory.config, spreading_activation_steps=hops, memory_mode="INFERENCE", priming=0.0)
    return AESGMemory(memory.directory, config, memory.device)


def members_of(memory: AESGMemory, queries: Tensor, hops: int) -> Tensor:
    """The vectors [Q, K, D] of the contexts of queries [Q, D]. 0 hops: the nearest concepts, as many as a
    context holds, which the host looks for.
    """
    if hops:
        return asked(memory, hops).retrieve(queries.to(memory.device)).vectors.cpu()
    _, slots = memory.graph.search(queries, memory.config.context_size, -1.0)
    return memory.graph.gather(slots)


def recall(memory: AESGMemory, queries: Tensor, wanted: Tensor, hops: int) -> float:
    """Share of queries [Q, D] with a concept like `wanted` [Q, D] among what `members_of` finds."""
    likeness = torch.cosine_similarity(members_of(memory, queries, hops), wanted[:, None], dim=2)
    return float((likeness.max(dim=1).values >= RIGHT).float().mean())


def shuffle_contents(memory: AESGMemory, generator: torch.Generator) -> None:
    """Gives every living concept another's vector: edges and counts stay."""
    slots = torch.nonzero(memory.storage.column("is_active").reshape(-1))[:, 0]
    vectors = memory.graph.gather(slots)[torch.randperm(len(slots), generator=generator)]
    for slot, vector in zip(slots.tolist(), vectors, strict=True):
        memory.update_concept(slot, vector)


def network_recall(
    vectors: Tensor,
    pairs: Tensor,
    noise: float,
    generator: torch.Generator,
    numbers: int,
    device: str = "cpu",
) -> list[float]:
    """The control without memory: a perceptron with as many numbers, told the same pairs in the same way,
    that maps a vector to what follows; applied once a hop. Right when the target is among the ten nearest.
    """
    hidden = max(8, numbers // (2 * DIM))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        network = nn.Sequential(nn.Linear(DIM, hidden), nn.ReLU(), nn.Linear(hidden, DIM)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(TOLD):
        for chunk in pairs[torch.randperm(len(pairs), generator=generator)].split(BATCH):
            told = noisy(vectors[chunk], noise, generator).to(device)
            loss = 1 - torch.cosine_similarity(network(told[:, 0]), told[:, 1], dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = []
    with torch.no_grad():
        for hops in range(1, CHAIN):
            starts = torch.arange(0, len(vectors) - hops, CHAIN)
            at = noisy(vectors[starts], noise, generator).to(device)
            for _ in range(hops):
                at = network(at)
            nearest = (nn.functional.normalize(at.cpu(), dim=1) @ vectors.T).topk(10).indices
            found.append(float((nearest == (starts + hops)[:, None]).any(dim=1).float().mean()))
    return found


def associative_recall(
    directory: Path,
    facts: int,
    noise: float,
    seed: int,
    threshold: float = CONFIG.novelty_explanation_threshold,
    device: str = "cpu",
) -> dict[str, float]:
    """Recall of the concept 1, 2 and 3 facts away, and of the controls; shares in [0, 1].

    `threshold`: below which likeness an input is novel; it must fit the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    count, pairs = chains(facts)
    vectors = unit_vectors(count, generator)
    figures: dict[str, float] = {}
    config = replace(CONFIG, novelty_explanation_threshold=threshold)
    with AESGMemory(directory, config, device) as memory:
        tell(memory, vectors, pairs, TOLD, noise, generator)
        questions = {}
        for hops in range(1, CHAIN):
            starts = torch.arange(0, count - hops, CHAIN)
            questions[hops] = noisy(vectors[starts], noise, generator), vectors[starts + hops]
            queries, wanted = questions[hops]
            figures[f"{hops} hops"] = recall(memory, queries, wanted, hops)
            figures[f"{hops} hops, nearest neighbours"] = recall(memory, queries, wanted, 0)
            keys = (nn.functional.normalize(queries, dim=1) @ vectors.T).argmax(dim=1)
            figures[f"{hops} hops, exact dictionary"] = float((keys == starts).float().mean())
        figures["concepts per distinct"] = memory.storage.active_count / count
        numbers = memory.storage.active_count * DIM + 2 * memory.storage.edge_count
        shuffle_contents(memory, generator)
        for hops, (queries, wanted) in questions.items():
            figures[f"{hops} hops, shuffled contents"] = recall(memory, queries, wanted, hops)
    found = network_recall(vectors, pairs, noise, generator, numbers, device)
    for hops, value in enumerate(found, start=1):
        figures[f"{hops} hops, network without memory"] = value
    return figures


def latest_value(
    directory: Path, keys: int, noise: float, seed: int, device: str = "cpu"
) -> dict[str, float]:
    """Keys get a value, then another, then a third. Asked after each new value was told once, then after all
    `TOLD` times: share of answers that are the latest, and that are an earlier one.

    The answer is the strongest context member that stands for a value.
    """
    generator = torch.Generator().manual_seed(seed)
    vectors = unit_vectors(2 * keys, generator)  # keys first, then the values they share
    values = torch.empty(0, keys, dtype=torch.int64)
    right, stale, nearest, shuffled = [], [], [], []
    with AESGMemory(directory, CONFIG, device) as memory:
        for phase in range(3):
            step = torch.randint(1, keys, (keys,), generator=generator)  # never the value before
            latest = torch.arange(keys) if phase == 0 else (values[-1] + step) % keys
            values = torch.cat([values, latest[None]])
            pairs = torch.stack([torch.arange(keys), keys + latest], dim=1)
            for times in (TOLD,) if phase == 0 else (1, TOLD - 1):
                tell(memory, vectors, pairs, times, noise, generator)
                if phase:
                    queries = noisy(vectors[:keys], noise, generator)
                    answers = _answers(memory, queries, vectors[keys:])
                    alike = _answers(memory, queries, vectors[keys:], hops=0)
                    nearest.append(float((alike == latest).float().mean()))
                    earlier = (values[:-1] == answers).any(dim=0) & (answers != latest)
                    right.append(float((answers == latest).float().mean()))
                    stale.append(float(earlier.float().mean()))
        shuffle_contents(memory, generator)
        shuffled.append(float((_answers(memory, queries, vectors[keys:]) == latest).float().mean()))
    return {
        "latest, nearest neighbours": sum(nearest) / len(nearest),
        "latest, shuffled contents": shuffled[0],
        "latest, told once": sum(right[::2]) / 2,
        "stale, told once": sum(stale[::2]) / 2,
        f"latest, told {TOLD} times": sum(right[1::2]) / 2,
        f"stale, told {TOLD} times": sum(stale[1::2]) / 2,
    }


def _answers(memory: AESGMemory, queries: Tensor, values: Tensor, hops: int = 1) -> Tensor:
    """The value [Q] of the strongest member, as `members_of` finds them, like one; -1 where there is none."""
    members = members_of(memory, queries, hops)
    likeness, nearest = torch.einsum("qkd,vd->qkv", nn.functional.normalize(members, dim=2), values).max(
        dim=2
    )
    is_value = likeness >= RIGHT
    first = is_value.float().argmax(dim=1, keepdim=True)
    return torch.where(is_value.any(dim=1), nearest.gather(1, first)[:, 0], -1)
