"""Your own training loop: modes, consolidation, saving and reopening, without AESGTrainer."""

import torch
from common import example
from torch import nn

from aesg import AESGGRUText

VOCABULARY = 50


def batch(
    sentences: torch.Tensor, size: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences [B, T] and the tokens that follow."""
    drawn = sentences[torch.randint(len(sentences), (size,), generator=generator)]
    return drawn[:, :-1], drawn[:, 1:]


with example(__doc__) as (short, directory):
    generator = torch.Generator().manual_seed(0)
    sentences = torch.randint(VOCABULARY, (20, 13), generator=generator)
    steps = 20 if short else 150
    model = AESGGRUText.small(vocab_size=VOCABULARY, storage_dir=directory / "memory")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    memory = model.memory
    memory.set_mode("TRAIN")
    for step in range(1, steps + 1):
        model.train()
        inputs, targets = batch(sentences, 16, generator)
        memory.reset_state()  # these sentences have nothing to do with the last ones
        logits = model(inputs)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        memory.update_topology()  # ages, forgets, and reorganises when its time has come
        if step % (steps // 5) == 0:
            stats = memory.stats()
            print(
                f"step {step:>4}  loss {loss.item():.3f}  {stats['active']:>4} concepts  "
                f"{stats['edges']:>5} edges  {stats['births']} born, {stats['prunes']} pruned"
            )
    memory.save()  # from here on it survives whatever happens

    model.eval()
    memory.set_mode("INFERENCE")  # asks, and changes nothing
    inputs, targets = batch(sentences, 64, generator)
    memory.reset_state()
    with torch.no_grad():
        right = (model(inputs).argmax(dim=-1) == targets).float().mean()
    print(f"next token right: {float(right):.0%}")

    weights, count = model.state_dict(), memory.storage.active_count
    memory.close()
    again = AESGGRUText.small(vocab_size=VOCABULARY, storage_dir=directory / "memory")
    again.load_state_dict(weights)
    again.eval()
    again.memory.set_mode("INFERENCE")
    with torch.no_grad():
        same = (again(inputs).argmax(dim=-1) == targets).float().mean()
    found = again.memory.storage.active_count
    print(f"reopened: {found} of {count} concepts, next token right: {float(same):.0%}")
    again.memory.close()
