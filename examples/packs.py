"""Knowledge as a file: what one memory learnt, attached to another that never saw it, and detached again."""

import torch
from common import example

from aesg import AESGConfig, AESGMemory

DIM = 64


def learn(memory: AESGMemory, facts: torch.Tensor) -> None:
    """Facts [F, 2, DIM], each a question and what follows it, told until they are known."""
    for _ in range(6):
        memory.reset_state()
        memory.retrieve(facts)
        memory.update_topology()
    memory.reset_state()


def known(memory: AESGMemory, facts: torch.Tensor) -> float:
    """Share of questions whose answer is in the context."""
    memory.reset_state()
    context = memory.retrieve(facts[:, 0])
    return float(
        (torch.cosine_similarity(context.vectors, facts[:, 1:], dim=-1) > 0.9).any(dim=1).float().mean()
    )


with example(__doc__) as (short, directory):
    count = 50 if short else 500
    medicine, chemistry = torch.randn(2, count, 2, DIM)
    with AESGMemory(directory / "expert", AESGConfig(vector_dim=DIM)) as expert:
        learn(expert, medicine)
        pack_file = directory / "medicine.aesgpack"
        expert.export_pack(pack_file)
        size = pack_file.stat().st_size
        print(f"an expert knows {known(expert, medicine):.0%} of medicine; its pack is {size:,} bytes")

    with AESGMemory(directory / "mine", AESGConfig(vector_dim=DIM)) as mine:
        learn(mine, chemistry)
        mine.set_mode("INFERENCE")

        def tell(when: str) -> None:
            shares = (f"{known(mine, facts):>4.0%}" for facts in (chemistry, medicine))
            print("{:<22} chemistry {}   medicine {}".format(when, *shares))

        tell("my memory alone")
        mine.reset_state()
        before = mine.retrieve(chemistry[:, 0])
        pack = mine.load_pack(pack_file)
        mine.attach_pack(pack, priority=80)
        tell("with the pack")
        mine.reset_state()
        answer = mine.retrieve(medicine[0, 0])
        origins = [answer.origin_names[origin] for origin in answer.origins.tolist() if origin >= 0]
        print(f"{'':<22} one answer came from: {', '.join(sorted(set(origins)))}")
        mine.detach_pack(pack.name)
        tell("detached")
        mine.reset_state()
        after = mine.retrieve(chemistry[:, 0])
        same = torch.equal(before.indices, after.indices) and torch.equal(before.weights, after.weights)
        print(f"{'':<22} answers as before, bit for bit: {same}")
