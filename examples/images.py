"""A classifier of pictures with a memory at its bottleneck; the pictures are drawn here."""

import torch
from common import example

from aesg import AESGCNNClassifier, AESGTrainer
from aesg.tools import Explainer

NAMES = ("disc", "square", "cross", "ring")
SIZE = 32


def picture(shape: int, generator: torch.Generator) -> torch.Tensor:
    """[3, SIZE, SIZE]: one shape somewhere, in some colour, on noise."""
    colour, (y, x) = torch.rand(3, 1, 1, generator=generator), torch.rand(2, generator=generator) * 12 + 10
    rows, columns = torch.arange(SIZE)[:, None] - y, torch.arange(SIZE)[None] - x
    distance, square = (rows**2 + columns**2).sqrt(), torch.maximum(rows.abs(), columns.abs())
    masks = (
        distance < 7,
        square < 6,
        (rows.abs() < 2) & (columns.abs() < 8) | (columns.abs() < 2) & (rows.abs() < 8),
        (distance > 5) & (distance < 8),
    )
    background = 0.25 * torch.rand(3, SIZE, SIZE, generator=generator)
    return torch.where(masks[shape], 0.4 + 0.6 * colour, background)


with example(__doc__) as (short, directory):
    generator = torch.Generator().manual_seed(0)
    count, epochs = (120, 2) if short else (800, 6)
    data = [(picture(n % 4, generator), torch.tensor(n % 4)) for n in range(count + 200)]
    train, held_out = data[:count], data[count:]

    model = AESGCNNClassifier.small(num_classes=4, storage_dir=directory / "memory")
    trainer = AESGTrainer(model, batch_size=20, seed=0)
    for epoch, loss in enumerate(trainer.fit(train, epochs), 1):
        print(f"epoch {epoch}: loss {loss:.3f}")
    print(f"held out: {trainer.evaluate(held_out, metrics=True)}")

    guesses = trainer.predict(torch.stack([image for image, _ in held_out])).argmax(dim=1)
    truth = torch.tensor([int(label) for _, label in held_out])
    print("\nrows: what it is, columns: what it was taken for")
    print(" " * 8 + "".join(f"{name:>8}" for name in NAMES))
    for shape, name in enumerate(NAMES):
        row = torch.bincount(guesses[truth == shape], minlength=4)
        print(f"{name:<8}" + "".join(f"{n:>8}" for n in row.tolist()))

    hubs = Explainer(model.memory).find_hubs(3)
    print(f"\nmemory: {model.memory.storage.active_count} concepts; best connected:")
    for hub in hubs:
        print(f"  concept {hub['id']}: {hub['degree']} edges, used {hub['use_frequency']} times")
    model.memory.close()
