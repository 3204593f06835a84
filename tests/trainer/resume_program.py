"""A training program for the tests of exact resume, with the real memory; run as a process, it can be killed.

Arguments: folder, steps after which it kills itself (0: never), checkpoint to resume from or "".
Writes what it ends with to `<folder>/result.pt`, through `ending`.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from aesg.architectures import AESGDecoderLM
from aesg.architectures.base import token_config
from aesg.data import StreamLoader
from aesg.memory.controller import AESGMemory
from aesg.trainer import AESGTrainer, Callback, Checkpoint, EarlyStopping

V, EPOCHS = 20, 3


def tokens(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


def data(kind: str):
    """Four or so batches a pass, in a new order each pass."""
    if kind == "streams":
        return StreamLoader([tokens(n, seed=n) for n in (19, 9, 14, 12)], 2, 6, shuffle=True)
    x = tokens(8, 2, 8)
    if kind == "loader":  # nobody's state: its order comes from the global generator
        return DataLoader(TensorDataset(x[:, 0], x[:, 1]), batch_size=2, shuffle=True)
    if kind == "workers":
        return DataLoader(TensorDataset(x[:, 0], x[:, 1]), batch_size=2, shuffle=True, num_workers=1)
    return [tuple(pair) for pair in x]


class Steps(Callback):
    """Losses and draws of generators, batch by batch."""

    def __init__(self) -> None:
        self.losses, self.draws = [], []

    def on_batch_end(self, batch, logs):
        self.losses.append(logs["loss"])
        self.draws.append((float(torch.rand(())), float(np.random.rand())))

    def state_dict(self):
        return {"losses": self.losses, "draws": self.draws}

    def load_state_dict(self, state):
        self.losses, self.draws = state["losses"], state["draws"]


class Kill(Callback):
    """Ends the process at once, as a power cut would, after so many batches and what was saved then."""

    last = True

    def __init__(self, after: int) -> None:
        self.after = after

    def on_batch_end(self, batch, logs):
        if logs["trainer"].global_step == self.after:
            os.kill(os.getpid(), signal.SIGKILL)


class Dropping(nn.Module):
    """A language model whose weights' path draws random numbers in every forward pass."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.inner = AESGDecoderLM(V, 32, 1, AESGMemory(directory, token_config(16), clock=lambda: 1.7e9))
        self.memory = self.inner.memory
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.inner(ids))


def new_trainer(folder: Path, kill_after: int = 0, every: int | None = 1, seed: int = 0) -> AESGTrainer:
    torch.manual_seed(seed)
    checkpoint = Checkpoint(path=folder / "checkpoints", keep=2, save_every_steps=every)
    model = Dropping(folder / "memory")
    return AESGTrainer(
        model,
        callbacks=[checkpoint, Kill(kill_after), Steps(), EarlyStopping(patience=50)],
        batch_size=2,
        gradient_accumulation=3,
        gradient_clip=1.0,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
        scheduler_interval="step",
        seed=7,
    )


def ending(trainer: AESGTrainer, losses: list[float]) -> dict:
    """All that must be equal, as tensors and plain values."""
    memory = trainer.memory
    memory.save()
    storage = memory.storage
    columns = ("vector", "id", "inv_norm", "use_frequency", "relevance", "age", "region_id", "is_active")
    steps = next(each for each in trainer.callbacks if isinstance(each, Steps))
    return {
        "epoch": (trainer.epoch, trainer.global_step, trainer.best_loss),
        "epoch_losses": losses,
        "losses": steps.losses,
        "draws": steps.draws,
        "weights": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "rate": trainer.optimizer.param_groups[0]["lr"],
        "random": torch.get_rng_state(),
        "columns": {name: storage.column(name).clone() for name in columns},
        "edges": [each.clone() for each in storage.edge_blocks()],
        "events": memory.logger.get_history().array.tolist(),
        "state": {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in storage.read_state().items()},
    }


def differences(ours, theirs, where: str = "") -> list[str]:
    """Names of what is not equal bit for bit."""
    if isinstance(ours, dict):
        if not isinstance(theirs, dict) or ours.keys() != theirs.keys():
            return [f"{where} (keys)"]
        return [line for name in ours for line in differences(ours[name], theirs[name], f"{where}/{name}")]
    if isinstance(ours, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [where]
    if isinstance(ours, (list, tuple)) and any(isinstance(each, torch.Tensor) for each in ours):
        return [line for i, each in enumerate(ours) for line in differences(each, theirs[i], f"{where}/{i}")]
    return [] if ours == theirs else [where]


def main() -> None:
    folder, kill_after, checkpoint, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    trainer = new_trainer(folder, kill_after)
    first = trainer.resume(checkpoint) if checkpoint else 0
    losses = trainer.fit(data(kind), epochs=EPOCHS - first, validation_data=data("list")[:2])
    torch.save(ending(trainer, losses), folder / "result.pt")
    trainer.memory.close()


if __name__ == "__main__":
    main()
