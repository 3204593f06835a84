"""A memory inside your own module: an LSTM that may look up what it met in earlier sequences.

Each sequence ends with a key whose value was never part of that sequence: only something that outlives
sequences can know it. The weights cannot have learnt it either: keys get new values all the time.
"""

import torch
from common import example
from torch import Tensor, nn

from aesg import AESGConfig, AESGMemory

DIM, VALUES = 32, 8


class LSTMWithMemory(nn.Module):
    """[B, T, DIM] -> logits [B, VALUES]; `memory=None` leaves out the looking up and nothing else."""

    def __init__(self, memory: AESGMemory | None) -> None:
        super().__init__()
        self.memory = memory
        self.lstm = nn.LSTM(DIM, 64, batch_first=True)
        self.head = nn.Linear(64 + DIM, VALUES)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(x)
        found = torch.zeros(len(x), DIM)
        if self.memory is not None:
            context = self.memory.retrieve(x[:, -1])  # one query a sample: its key
            # What followed the key: members that are not the key itself, the strongest first.
            likeness = torch.cosine_similarity(context.vectors, x[:, -1:], dim=-1)
            weights = context.weights * (likeness < 0.7)
            found = (weights.unsqueeze(-1) * context.vectors).sum(dim=1)
        return self.head(torch.cat([hidden[:, -1], found], dim=1))


def tell(memory: AESGMemory, keys: Tensor, values: Tensor) -> None:
    """Each pair as a stream of its own: key, then value."""
    memory.reset_state()
    memory.retrieve(torch.stack([keys, values], dim=1))
    memory.update_topology()
    memory.reset_state()


with example(__doc__) as (short, directory):
    keys = nn.functional.normalize(torch.randn(64, DIM), dim=1)
    symbols = nn.functional.normalize(torch.randn(VALUES, DIM), dim=1)
    config = AESGConfig(vector_dim=DIM, novelty_birth_threshold=1, spreading_activation_steps=1)
    rounds = 30 if short else 200
    for name in ("with memory", "without"):
        torch.manual_seed(0)
        memory = AESGMemory(directory / "memory", config) if name == "with memory" else None
        model = LSTMWithMemory(memory)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        right = []
        for _ in range(rounds):
            answers = torch.randint(VALUES, (64,))  # all keys get new values ...
            if memory is not None:
                for _told in range(2):
                    tell(memory, keys, symbols[answers])  # ... which the memory is told
                memory.set_mode("INFERENCE")
            noise = 0.1 * torch.randn(64, 5, DIM)
            sequences = torch.cat([noise, keys[:, None]], dim=1)
            logits = model(sequences)
            loss = nn.functional.cross_entropy(logits, answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right.append(float((logits.argmax(dim=1) == answers).float().mean()))
            if memory is not None:
                memory.set_mode("TRAIN")
                memory.reset_state()
        last = sum(right[-10:]) / 10
        print(f"{name:<12} {last:.0%} of the latest values known (chance {1 / VALUES:.0%})")
        if memory is not None:
            print(f"{'':<12} {memory.storage.active_count} concepts, {memory.storage.edge_count} edges")
            memory.close()
