"""A byte-level language model with a memory, trained on sources of Python's standard library."""

import math

from common import example
from torch import tensor

from aesg import AESGDecoderLM, AESGTrainer, StreamLoader
from aesg.tools.corpus import load_corpus

with example(__doc__) as (short, directory):
    corpus = load_corpus(None, 200_000 if short else 4_000_000)
    streams, chunk, steps = (4, 64, 15) if short else (16, 128, 300)
    # Files in order, in parallel streams: so the memory learns what follows what.
    train = StreamLoader(corpus.train, streams, chunk, shuffle=True, drop_last=True, max_steps=steps)
    held_out = StreamLoader([text[:1_500] for text in corpus.held_out[:streams]], streams, chunk)

    model = AESGDecoderLM.small(vocab_size=256, storage_dir=directory / "memory")
    trainer = AESGTrainer(model, learning_rate=2e-3, seed=0)
    loss = trainer.fit(train, epochs=1)[-1]
    print(f"trained on {steps * streams * chunk:,} bytes: {loss / math.log(2):.3f} bits a byte")

    with_memory = trainer.evaluate(held_out)["loss"] / math.log(2)
    with model.reads_switched_off():
        without = trainer.evaluate(held_out)["loss"] / math.log(2)
    print(f"held out: {with_memory:.3f} bits a byte; {without:.3f} when the memory is not asked")

    prompt = b"def __init__(self"
    written = model.generate(tensor(list(prompt)), 120, temperature=0.7, top_k=20)
    print("it writes:", bytes(written.tolist()).decode("utf-8", "replace"))

    memory = model.memory
    print(f"memory: {memory.storage.active_count:,} concepts, {memory.storage.edge_count:,} edges")
    trainer.save(directory / "checkpoint")  # weights, optimizer and memory
    memory.close()
