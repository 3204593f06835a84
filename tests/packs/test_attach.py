"""Attached packs: searched and spread through with the memory, ranked by priority, gone without a trace."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aesg import AESGMemory
from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.ops.reference import seed_search_ref, spread_activation_ref
from aesg.packs import MAX_ATTACHED_PACKS, MemoryPack, PackState, read_pack
from tests.packs.filling import DIM, Make, fill, queries
from tests.packs.packmaker import bytes_of, some_columns


def answer(memory: AESGMemory, query: Tensor) -> list[Any]:
    memory.reset_state()
    context = memory.retrieve(query)
    return [context.indices, context.weights, context.vectors, context.explanation, context.paths]


def equal(one: list[Any], other: list[Any]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True)
    )


def expected(
    memory: AESGMemory, attached: list[tuple[MemoryPack, float]], query: Tensor
) -> tuple[Tensor, Tensor]:
    """Energies and members by the oracles of the ops and plain sorting, one query after another."""
    config, storage = memory.config, memory.storage
    count = storage.node_count
    blocks = storage.edge_blocks()
    graphs: list[dict[str, Tensor]] = [
        {
            "vectors": storage.column("vector").reshape(-1, DIM)[:count],
            "first_block": blocks.first_block.reshape(-1)[:count],
            "targets": blocks.targets.reshape(-1, 7),
            "strengths": blocks.strengths.reshape(-1, 7),
            "next_block": blocks.next_block.reshape(-1),
            "active": storage.column("is_active").reshape(-1)[:count],
            "regions": storage.column("region_id").reshape(-1)[:count],
        }
    ]
    for pack, _ in attached:
        names = ("vectors", "first_block", "targets", "strengths", "next_block", "active", "regions")
        graphs.append({name: getattr(pack.tensors, name) for name in names})
    shares = [1.0, *(share for _, share in attached)]
    all_energies, all_members = [], []
    for row in query:
        found: list[tuple[float, int, int]] = []
        bar = 0.0
        for origin, (graph, share) in enumerate(zip(graphs, shares, strict=True)):
            scores, seeds = seed_search_ref(
                row[None], graph["vectors"], config.seed_top_k, active=graph["active"]
            )
            if origin == 0:
                bar = float(scores[0, 0])
            strong = scores >= config.seed_relative_similarity * max(bar, float(scores[0, 0]))
            scores, seeds = torch.where(strong, scores, 0.0), torch.where(strong, seeds, -1)
            energies, members = spread_activation_ref(
                seeds,
                scores,
                graph["first_block"],
                graph["targets"],
                graph["strengths"],
                graph["next_block"],
                graph["active"],
                regions=graph["regions"],
                hops=config.spreading_activation_steps,
                decay=config.spreading_activation_decay,
                facilitation=config.region_facilitation_multiplier,
                source_floor=config.source_energy_floor,
                transfer_floor=config.transfer_floor,
                k=config.context_size,
            )
            for energy, slot in zip(energies[0].tolist(), members[0].tolist(), strict=True):
                if slot >= 0:
                    found.append((energy * share, origin, slot))
        found.sort(key=lambda member: (-np.float32(member[0]), member[1], member[2]))
        found = found[: config.context_size]
        pad = config.context_size - len(found)
        all_energies.append([f[0] for f in found] + [0.0] * pad)
        all_members.append([(f[1] << 32) + f[2] for f in found] + [-1] * pad)
    return torch.tensor(all_energies), torch.tensor(all_members)


def test_answers_are_those_of_all_graphs_ranked_by_share(home: AESGMemory, packs: list[MemoryPack]) -> None:
    shares = [90 / 200, 60 / 200, 50 / 200]
    for pack, priority in zip(packs, (90, 60, 50), strict=True):
        home.attach_pack(pack, priority=priority)
    query = torch.cat([queries(30), *(pack.tensors.vectors[:3] for pack in packs)])
    context = home.retrieve(query)
    energies, members = expected(home, list(zip(packs, shares, strict=True)), query)
    assert torch.equal(context.indices, members)
    torch.testing.assert_close(context.weights, energies, rtol=1e-6, atol=1e-6)
    assert set(context.origins[context.mask].tolist()) == {0, 1, 2, 3}


def test_every_member_says_where_it_came_from(home: AESGMemory, packs: list[MemoryPack]) -> None:
    for pack in packs:
        home.attach_pack(pack)
    context = home.retrieve(queries())
    assert context.origin_names == ("memory", "medical", "chemistry", "general")
    assert context.origins.shape == context.slots.shape == context.indices.shape
    for origin, slot, vector, there in zip(
        context.origins.reshape(-1).tolist(),
        context.slots.reshape(-1).tolist(),
        context.vectors.reshape(-1, DIM),
        context.mask.reshape(-1).tolist(),
        strict=True,
    ):
        if not there:
            assert origin == slot == -1 and not vector.any()
        elif origin == 0:
            assert torch.equal(vector, home.graph.get_node_vector(slot))
        else:
            assert torch.equal(vector, packs[origin - 1].tensors.vectors[slot])
    # Slots of the memory stay what they were; nothing of a pack can be taken for one.
    assert all(index < 2**31 or index >= 2**32 for index in context.activated_nodes)
    assert context.concept_vectors is not None and len(context.concept_vectors) == len(
        context.activated_nodes
    )


def test_paths_stay_inside_one_graph(home: AESGMemory, packs: list[MemoryPack]) -> None:
    home.attach_pack(packs[0])
    context = home.retrieve(queries())
    longer = 0
    for indices, paths in zip(context.indices.tolist(), context.paths, strict=True):
        for index, path in zip(indices, paths, strict=False):
            assert path[-1] == index and len({step >> 32 for step in path}) == 1
            if index >> 32 == 1 and len(path) > 1:
                longer += 1
                edges = packs[0].columns.edges()
                pairs = set(zip(edges.source.tolist(), edges.target.tolist(), strict=True))
                steps = [step & (2**32 - 1) for step in path]
                assert all(pair in pairs for pair in pairwise(steps))
    assert longer > 0


def test_detaching_gives_the_former_answers_bit_for_bit(home: AESGMemory, packs: list[MemoryPack]) -> None:
    query = queries()
    before = answer(home, query)
    for pack in packs:
        home.attach_pack(pack, priority=80)
    assert not equal(answer(home, query), before)
    for pack in packs:
        home.detach_pack(pack.name)
    assert equal(answer(home, query), before)


def test_a_stream_goes_on_after_detaching_as_if_no_pack_had_been_there(
    make_memory: Make, packs: list[MemoryPack]
) -> None:
    """Priming carries over from call to call; what a pack answered in between leaves nothing behind."""
    answers = []
    for name in ("with", "without"):
        memory = make_memory(name, vector_dim=DIM)
        fill(memory, 60, seed=1)
        memory.set_mode("INFERENCE")
        memory.retrieve(queries(seed=4))
        if name == "with":
            memory.attach_pack(packs[0])
            memory.retrieve(queries(seed=5))
            memory.detach_pack("medical")
        else:
            memory.retrieve(queries(seed=5))
        context = memory.retrieve(queries(seed=6))
        answers.append([context.indices, context.weights, context.vectors])
    assert equal(*answers)


def test_a_pack_primes_its_own_streams(home: AESGMemory, packs: list[MemoryPack]) -> None:
    home.attach_pack(packs[0])
    query, far = packs[0].tensors.vectors[:1], -packs[0].tensors.vectors[:1]
    alone = home.retrieve(far).weights.clone()
    home.reset_state()
    home.retrieve(query)
    primed = home.retrieve(far)
    assert (primed.indices == (1 << 32)).any() and not torch.equal(primed.weights, alone)
    home.reset_state()
    assert torch.equal(home.retrieve(far).weights, alone)


def test_what_the_memory_answers_itself_does_not_depend_on_packs(
    home: AESGMemory, packs: list[MemoryPack]
) -> None:
    query = queries()
    before = home.retrieve(query)
    own = [
        dict(zip(i, w, strict=True))
        for i, w in zip(before.indices.tolist(), before.weights.tolist(), strict=True)
    ]
    home.reset_state()
    home.attach_pack(packs[0])
    after = home.retrieve(query)
    for row, (indices, weights) in enumerate(
        zip(after.indices.tolist(), after.weights.tolist(), strict=True)
    ):
        for index, weight in zip(indices, weights, strict=True):
            if 0 <= index < 2**32:
                assert own[row][index] == weight


def test_weak_likenesses_of_a_pack_do_not_crowd_what_the_memory_knows(
    make_memory: Make, tmp_path: Path
) -> None:
    home, other = make_memory("a", vector_dim=DIM), make_memory("b", vector_dim=DIM)
    axes = torch.eye(DIM)
    home.graph.add_concepts(axes[:1])
    other.graph.add_concepts(axes[:1] * 0.3 + axes[1:2])  # cosine 0.29
    other.export_pack(tmp_path / "p.aesgpack")
    home.set_mode("INFERENCE")
    home.attach_pack(home.load_pack(tmp_path / "p.aesgpack"))
    context = home.retrieve(axes[0])
    assert context.indices[context.mask].tolist() == [0]
    assert home.retrieve(axes[1]).origins.tolist()[0] == 1  # where the memory knows nothing, the pack answers


def test_shares_are_those_of_the_reference(home: AESGMemory, packs: list[MemoryPack]) -> None:
    for pack, priority in zip(packs, (90, 60, 20), strict=True):
        home.attach_pack(pack, priority=priority)
    weights = home.pack_manager.get_pack_weights()
    assert [round(100 * share) for share in weights.values()] == [53, 35, 12]
    assert (
        list(weights) == ["medical", "chemistry", "general"] == list(home.pack_manager.get_attached_packs())
    )
    home.attach_pack(packs[2], priority=150 // 5)
    assert home.pack_manager.get_pack_weights()["general"] == 30 / 180
    assert packs[2].priority == 30 and packs[2].state is PackState.ATTACHED


def test_priority_zero_answers_nothing(home: AESGMemory, packs: list[MemoryPack]) -> None:
    query = queries()
    before = answer(home, query)
    home.attach_pack(packs[0], priority=0)
    assert home.pack_manager.get_pack_weights() == {"medical": 0.0}
    assert equal(answer(home, query), before)


@pytest.mark.parametrize("priority", [-1, 101, 50.0, True, "50", None, float("nan")])
def test_priorities_outside_0_to_100_are_refused(
    home: AESGMemory, packs: list[MemoryPack], priority: Any
) -> None:
    with pytest.raises(AESGMemoryError, match=r"Priority: expected an integer in 0\.\.100"):
        home.attach_pack(packs[0], priority=priority)
    assert home.pack_manager.get_attached_packs() == {} and packs[0].state is PackState.LOADED


def test_sixteen_packs_and_no_more(home: AESGMemory, packs: list[MemoryPack]) -> None:
    for number in range(MAX_ATTACHED_PACKS):
        home.attach_pack(packs[0], priority=10, name=f"p{number}")
    with pytest.raises(AESGMemoryError, match="Maximum 16 packs"):
        home.attach_pack(packs[0], priority=10, name="p16")
    home.attach_pack(packs[0], priority=20, name="p3")  # one that is attached changes its priority
    assert home.retrieve(queries()).mask.any()
    for number in range(MAX_ATTACHED_PACKS):
        home.detach_pack(f"p{number}")
    assert packs[0].state is PackState.LOADED


def test_detaching_what_is_not_attached(home: AESGMemory, packs: list[MemoryPack]) -> None:
    home.attach_pack(packs[0])
    home.detach_pack("medical")
    with pytest.raises(AESGMemoryError, match="Pack 'medical' is not attached") as caught:
        home.detach_pack("medical")
    assert caught.value.subsystem == "memory"
    for name in (None, 3, ["medical"]):
        with pytest.raises(AESGMemoryError, match="is not attached"):
            home.detach_pack(name)  # type: ignore[arg-type]


def test_two_packs_of_one_name(home: AESGMemory, packs: list[MemoryPack], tmp_path: Path) -> None:
    home.attach_pack(packs[0])
    other = home.load_pack(tmp_path / "general.aesgpack", name="medical")
    with pytest.raises(AESGMemoryError, match="Another pack named 'medical'"):
        home.attach_pack(other)
    for name in ("", "a\nb", 5):
        with pytest.raises(AESGStorageError, match=r"expected a name of 1\.\.255 printable characters"):
            home.attach_pack(other, name=name)  # type: ignore[arg-type]
    home.attach_pack(other, name="medical 2")
    assert list(home.pack_manager.get_attached_packs()) == ["medical", "medical 2"]
    again = home.load_pack(tmp_path / "medical.aesgpack")
    home.attach_pack(again, priority=7)  # the same pack, read once more
    assert len(home.pack_manager.get_attached_packs()) == 2


def test_another_dimension_is_refused(home: AESGMemory, tmp_path: Path) -> None:
    (tmp_path / "x.aesgpack").write_bytes(bytes_of(some_columns(dim=4), 1))
    message = "Pack vector_dim mismatch: pack has 4, memory expects 16"
    with pytest.raises(AESGStorageError, match=message):
        home.load_pack(tmp_path / "x.aesgpack")
    with pytest.raises(AESGStorageError, match=message):
        home.attach_pack(read_pack(tmp_path / "x.aesgpack"))
    with pytest.raises(AESGMemoryError, match="expected a MemoryPack"):
        home.attach_pack("x.aesgpack")  # type: ignore[arg-type]


def test_an_empty_memory_answers_from_a_pack_and_learns_nothing_it_knows(
    make_memory: Make, packs: list[MemoryPack]
) -> None:
    memory = make_memory("empty", vector_dim=DIM)
    memory.attach_pack(packs[0])
    known = packs[0].tensors.vectors[:3].clone()
    context = memory.retrieve(known)
    assert context.slots[:, 0].tolist() == [0, 1, 2] and context.explanation.min() > 0.999
    assert memory.storage.node_count == 0


def test_packs_never_change_and_only_the_memory_learns(make_memory: Make, packs: list[MemoryPack]) -> None:
    memory = make_memory("learning", vector_dim=DIM, spreading_activation_steps=1)
    vectors = fill(memory, 60, seed=1)
    pack = packs[1]
    before = {name: getattr(pack.tensors, name).clone() for name in vars(pack.tensors)}
    memory.attach_pack(pack)
    for step in range(8):
        memory.retrieve(torch.cat([vectors[step : step + 4], pack.tensors.vectors[step : step + 4]]))
        memory.update_topology()
    assert memory.check() == []
    assert all(torch.equal(getattr(pack.tensors, name), values) for name, values in before.items())
    assert memory.storage.nodes["use_frequency"][:].sum() > 0


def test_weights_of_pack_members_are_differentiable(home: AESGMemory, packs: list[MemoryPack]) -> None:
    home.attach_pack(packs[0])
    query = packs[0].tensors.vectors[:4].clone() + 0.1
    query.requires_grad_()
    context = home.retrieve(query)
    assert (context.origins[:, 0] == 1).all()
    context.weights.sum().backward()
    assert query.grad is not None and (query.grad.abs().sum(1) > 0).all()
    for row in range(4):  # the same slope as taken by differences
        direction = torch.zeros_like(query)
        direction[row] = query.grad[row] / query.grad[row].norm()
        totals = []
        for sign in (1, -1):
            home.reset_state()
            totals.append(home.retrieve(query.detach() + sign * 1e-3 * direction).weights.double().sum())
        slope = (totals[0] - totals[1]) / 2e-3
        torch.testing.assert_close(slope.float(), query.grad[row].norm(), rtol=0.1, atol=0.02)


def test_steps_and_single_queries(home: AESGMemory, packs: list[MemoryPack]) -> None:
    home.attach_pack(packs[0])
    query = queries(6)
    flat = answer(home, query)
    home.reset_state()
    steps = home.retrieve(query.reshape(2, 3, DIM))
    assert torch.equal(steps.indices.reshape(6, -1), flat[0])
    home.reset_state()
    assert torch.equal(home.retrieve(query[4], batch_idx=9).indices, flat[0][4])


def test_hand_made_packs_attach_too(home: AESGMemory, packs: list[MemoryPack]) -> None:
    made = MemoryPack(
        name="mine", version="1.0", vector_dim=DIM, nodes=packs[0].nodes, edges=packs[0].edges, checksum=""
    )
    home.attach_pack(made, 40)
    mine = answer(home, queries())
    home.detach_pack("mine")
    home.attach_pack(packs[0], 40)
    assert equal(mine, answer(home, queries()))
    bad = packs[0].nodes.copy()
    bad["vector"][3, 2] = np.nan
    worse = MemoryPack("worse", "1.0", DIM, bad, packs[0].edges, "")
    with pytest.raises(AESGStorageError, match="others in concept 3"):
        home.attach_pack(worse)
    assert "worse" not in home.pack_manager.get_attached_packs()
