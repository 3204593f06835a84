"""Why a memory answers as it does: a chain of facts, the way of the energy, and what has grown."""

import torch
from common import example

from aesg import AESGConfig, AESGMemory
from aesg.tools import EvolutionTracker, Explainer
from aesg.tools.inspect_cli import report
from aesg.tools.look import look, open_for_looking

CHAIN = ("rain", "river", "lake", "fish", "heron")

with example(__doc__) as (short, directory):
    config = AESGConfig(vector_dim=64, novelty_birth_threshold=1, spreading_activation_steps=4)
    others = 200 if short else 2_000
    words, noise = torch.randn(len(CHAIN), 64), torch.randn(others, 64)
    with AESGMemory(directory / "memory", config) as memory:
        memory.retrieve(noise)
        for _ in range(10):  # each word after the one before, in one stream
            memory.reset_state()
            memory.retrieve(words[None])
            memory.update_topology()
        memory.save()
        explainer = Explainer(memory)
        name = {explainer.trace(word)[0]: word_name for word, word_name in zip(words, CHAIN, strict=True)}

        trace = explainer.trace(words[0])
        print("asked for 'rain', the energy went:")
        for hop, arrivals in enumerate(trace.hops):
            for concept, (energy, source, _) in arrivals.items():
                came = "" if hop == 0 else f" from {name.get(source, source)}"
                print(f"  hop {hop}: {name.get(concept, concept)} {energy:.2f}{came}")
        last = explainer.explain(trace[0])
        print(f"'rain' is concept {last['id']}, used {last['use_frequency']} times, edges out:")
        for edge in last["out"]:
            print(f"  {edge['kind']} to {name.get(edge['id'], edge['id'])}, strength {edge['strength']:.2f}")
        idle = explainer.find_dead_nodes()
        happened = EvolutionTracker(memory.logger).summary()["counts"]
        born, pruned = happened["CREATE"], happened["PRUNE"]
        print(f"{len(idle)} concepts were never used; {born} were born, {pruned} pruned")
    print("\n$ aesg inspect memory")
    with open_for_looking(directory / "memory") as storage:
        print(report(look(storage)))
