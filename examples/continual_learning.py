"""Five tasks one after the other, each seen once, nothing repeated: what is left of the first ones?

A memory of labelled concepts beside a network trained on the same inputs in the same order.
"""

import torch
from common import example
from torch import nn

from aesg import AESGConfig, AESGMemory

DIM, TASKS, CLASSES = 32, 5, 4  # classes a task


def draw(centres: torch.Tensor, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` noisy inputs of the classes given, and which class each is."""
    which = torch.randint(len(centres), (count,), generator=generator)
    return centres[which] + 0.12 * torch.randn(count, DIM, generator=generator), which


def bar(share: float) -> str:
    return f"{'#' * round(10 * share):<10} {share:4.0%}"


with example(__doc__) as (short, directory):
    generator = torch.Generator().manual_seed(0)
    count = 200 if short else 1_000
    centres = nn.functional.normalize(torch.randn(TASKS, CLASSES, DIM, generator=generator), dim=-1)
    test = [draw(centres[task], 200, generator) for task in range(TASKS)]
    network = nn.Sequential(nn.Linear(DIM, 64), nn.ReLU(), nn.Linear(64, TASKS * CLASSES))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    # The label is stored beside the input, so that a concept knows what it was.
    config = AESGConfig(vector_dim=DIM + TASKS * CLASSES, max_concepts=200, spreading_activation_steps=1)
    labels = torch.eye(TASKS * CLASSES)
    with AESGMemory(directory / "memory", config) as memory:

        def remembered(inputs: torch.Tensor) -> torch.Tensor:
            """Classes by the label part of the strongest concept."""
            asked = torch.cat([inputs, torch.zeros(len(inputs), TASKS * CLASSES)], dim=1)
            memory.set_mode("INFERENCE")
            memory.reset_state()
            context = memory.retrieve(asked)
            memory.set_mode("TRAIN")
            memory.reset_state()
            return (context.weights.unsqueeze(-1) * context.vectors[..., DIM:]).sum(dim=1).argmax(dim=1)

        for task in range(TASKS):
            inputs, which = draw(centres[task], count, generator)
            target = which + task * CLASSES
            for chunk in torch.arange(count).split(20):
                memory.reset_state()
                memory.retrieve(torch.cat([inputs[chunk], 0.5 * labels[target[chunk]]], dim=1))
                memory.update_topology()
                loss = nn.functional.cross_entropy(network(inputs[chunk]), target[chunk])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        print(f"after {TASKS} tasks, {count} inputs each, none seen twice:")
        print(f"{'':<8}{'memory':<18}network")
        shares = []
        for task, (inputs, which) in enumerate(test):
            target = which + task * CLASSES
            own = float((remembered(inputs) == target).float().mean())
            other = float((network(inputs).argmax(dim=1) == target).float().mean())
            shares.append((own, other))
            print(f"task {task + 1:<3}{bar(own):<18}{bar(other)}")
        own, other = (sum(part) / TASKS for part in zip(*shares, strict=True))
        print(f"{'all':<8}{bar(own):<18}{bar(other)}")
        print(f"the memory holds {memory.storage.active_count} concepts and may hold {config.max_concepts}")
