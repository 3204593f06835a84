"""Class-incremental digits with at most 100 concepts: ten classes, two at a time, none ever seen again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError
from aesg.memory.controller import AESGMemory

CLASSES, TASKS = 10, 5
BUDGET = 100  # concepts of the memory, examples of the reservoir
EPOCHS = 100  # of the networks beside it, over a part of the pictures
PASSES = 2  # over the inputs of a task, while it lasts
LIKENESS = 0.9  # pictures below this cosine to every concept of their class are novel
TEST_SHARE = 0.3
CONFIG = AESGConfig(
    vector_dim=64 + CLASSES,
    max_concepts=BUDGET,
    # A picture is kept with its label behind it: two of one class have the cosine (c + 1) / 2.
    novelty_explanation_threshold=(LIKENESS + 1) / 2,
    novelty_birth_threshold=4,
    survival_threshold_relevance=0.0,  # rare pictures live too: the budget alone decides
    merge_similarity_threshold=0.99,
    abstraction_enabled=False,  # every concept of the budget stands for pictures
)


def load_digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train pictures [n, 64] of length 1, their labels, test pictures and labels; each class split alike."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise AESGConfigError("The digits need scikit-learn: pip install scikit-learn") from error
    pictures, labels = load(return_X_y=True)
    x = nn.functional.normalize(torch.from_numpy(pictures).float(), dim=1)
    y = torch.from_numpy(labels).long()
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for digit in range(CLASSES):
        rows = torch.nonzero(y == digit)[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        cut = round(TEST_SHARE * len(rows))
        test.append(rows[:cut])
        train.append(rows[cut:])
    one, other = torch.cat(train), torch.cat(test)
    return x[one], y[one], x[other], y[other]


def digits_at_a_budget(directory: Path, seed: int, device: str = "cpu") -> dict[str, float]:
    """Accuracy on all ten classes at the end, of the memory and beside it; shares in [0, 1]."""
    x, y, x_test, y_test = load_digits(seed)
    generator = torch.Generator().manual_seed(seed)
    order = [torch.nonzero((y == 2 * task) | (y == 2 * task + 1))[:, 0] for task in range(TASKS)]
    order = [rows[torch.randperm(len(rows), generator=generator)] for rows in order]

    answers, concepts = _memory_answers(directory, x, y, order, x_test, device)
    figures = {"memory": _share(answers, y_test), "concepts": float(concepts)}
    means = torch.stack([x[y == digit].mean(dim=0) for digit in range(CLASSES)])
    figures["nearest mean"] = _share((x_test @ nn.functional.normalize(means, dim=1).T).argmax(1), y_test)
    kept = _reservoir(torch.cat(order), generator)
    figures["reservoir nearest neighbour"] = _share(y[kept][(x_test @ x[kept].T).argmax(1)], y_test)
    figures["fine-tuning in sequence"] = _share(_network_answers(x, y, order, x_test, seed, device), y_test)
    joint = torch.cat(order)[torch.randperm(len(x), generator=generator)]
    figures["joint training"] = _share(_network_answers(x, y, [joint], x_test, seed, device), y_test)
    return figures


def _memory_answers(
    directory: Path, x: Tensor, y: Tensor, order: list[Tensor], x_test: Tensor, device: str = "cpu"
) -> tuple[Tensor, int]:
    """The label on the nearest concept [n], and how many concepts there were at most after an update."""
    labelled = torch.cat([x, nn.functional.one_hot(y, CLASSES).float()], dim=1)
    most = 0
    with AESGMemory(directory, CONFIG, device) as memory:
        for rows in order:
            for _ in range(PASSES):
                for chunk in rows.split(16):
                    memory.reset_state()  # neighbours in a batch follow no order worth learning
                    memory.retrieve(labelled[chunk].to(device))
                    memory.update_topology()
                    most = max(most, memory.storage.active_count)
        # The nearest concept alone answers: one seed, and no edge carries as much as its floor of 1.
        nearest = replace(
            CONFIG, seed_top_k=1, context_size=1, transfer_floor=1.0, memory_mode="INFERENCE", priming=0.0
        )
        unlabelled = torch.cat([x_test, torch.zeros(len(x_test), CLASSES)], dim=1)
        found = AESGMemory(directory, nearest, device).retrieve(unlabelled.to(device)).vectors.cpu()
    return found[:, 0, -CLASSES:].argmax(dim=1), most


def _reservoir(rows: Tensor, generator: torch.Generator) -> Tensor:
    """BUDGET of the rows, each with the same chance, kept in one pass."""
    kept = rows[:BUDGET].clone()
    for seen in range(BUDGET, len(rows)):
        place = int(torch.randint(seen + 1, (1,), generator=generator))
        if place < BUDGET:
            kept[place] = rows[seen]
    return kept


def _network_answers(
    x: Tensor, y: Tensor, order: list[Tensor], x_test: Tensor, seed: int, device: str
) -> Tensor:
    """A perceptron with as many numbers as the budget, trained on each part of `order` to its end in turn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(64, BUDGET), nn.ReLU(), nn.Linear(BUDGET, CLASSES)).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for rows in order:
            for _ in range(EPOCHS):
                for chunk in rows[torch.randperm(len(rows))].split(64):
                    loss = nn.functional.cross_entropy(network(x[chunk].to(device)), y[chunk].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    with torch.no_grad():
        return network(x_test.to(device)).argmax(dim=1).cpu()


def _share(answers: Tensor, wanted: Tensor) -> float:
    return float((answers == wanted).float().mean())
