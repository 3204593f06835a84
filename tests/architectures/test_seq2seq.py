"""AESGSeq2Seq: teacher forcing, greedy and beam decoding, what the trainer hands it."""

from __future__ import annotations

import itertools

import pytest
import torch

from aesg.architectures import AESGSeq2Seq
from aesg.exceptions import AESGConfigError, AESGMemoryError
from aesg.trainer import AESGTrainer
from tests.architectures.zoo import Make, fill


def model_of(memory, vocab: int = 7, layers: int = 2, seed: int = 0) -> AESGSeq2Seq:
    torch.manual_seed(seed)
    model = AESGSeq2Seq(vocab, 16, layers, memory).eval()
    torch.nn.init.normal_(model.output_proj.weight)  # clear winners
    return model


def frozen(make_memory: Make, name: str = "memory"):
    memory = fill(make_memory(name))
    memory.set_mode("INFERENCE")
    return memory


SOURCE = torch.tensor([[1, 2, 3, 4], [6, 5, 4, 3], [0, 0, 1, 1]])


def test_targets_may_be_longer_or_shorter_than_sources(make_memory: Make) -> None:
    model = model_of(frozen(make_memory))
    for length in (1, 4, 9):
        assert model(SOURCE, torch.zeros(3, length, dtype=torch.long)).shape == (3, length, 7)
    assert model(SOURCE).shape == (3, 4, 7)
    assert model(SOURCE, max_length=6).shape == (3, 6, 7)


def test_a_target_token_changes_later_logits_only(make_memory: Make) -> None:
    model, target = model_of(frozen(make_memory)), SOURCE.flip(1)
    changed = target.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 7
    a, b = model(SOURCE, target), model(SOURCE, changed)
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.equal(a[:, 3], b[:, 3])


@pytest.mark.parametrize("with_memory", [False, True])
def test_greedy_is_teacher_forcing_with_its_own_tokens(with_memory, make_memory: Make) -> None:
    model = model_of(frozen(make_memory) if with_memory else None)
    greedy = model(SOURCE)
    tokens = greedy.argmax(-1)
    torch.testing.assert_close(model(SOURCE, tokens), greedy, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.decode(SOURCE), tokens)


def questions(memory) -> list[torch.Tensor]:
    """What the memory is asked from now on."""
    asked, retrieve = [], memory.retrieve
    memory.retrieve = lambda query, **further: asked.append(query.detach()) or retrieve(query, **further)
    return asked


def test_a_given_target_costs_one_retrieval_and_asks_what_its_steps_ask(make_memory: Make) -> None:
    memory = frozen(make_memory)
    model, source = model_of(memory), torch.randint(0, 7, (3, 11))
    asked = questions(memory)
    tokens = model(source, max_length=12).argmax(-1)
    steps = torch.cat(asked, dim=1)
    assert steps.shape == (3, 12, 16) and len(asked) == 12
    asked.clear()
    model(source, tokens)
    assert len(asked) == 1
    torch.testing.assert_close(asked[0], steps, rtol=1e-5, atol=1e-5)


def test_source_and_target_ask_as_one_text(make_memory: Make) -> None:
    """Every step asks with the eight tokens before the one it predicts, of the source or of the target."""
    memory = frozen(make_memory)
    model, source, target = model_of(memory), torch.randint(0, 7, (1, 11)), torch.randint(0, 7, (1, 10))
    said, decoder = [], model.decoder.forward
    model.decoder.forward = lambda *args, **kept: said.append(kept["said"]) or decoder(*args, **kept)
    model(source, target)
    text = torch.cat((source, target), dim=1)
    for step in range(10):
        window = text[:, step + 3 : step + 11]
        expected = model.codes(window, memory.config.query_context)[:, -1]
        torch.testing.assert_close(said[0][:, step], expected)


def test_steps_of_a_target_are_learnt_as_a_sequence(make_memory: Make) -> None:
    memory = make_memory(
        novelty_birth_threshold=1, novelty_explanation_threshold=0.95, link_min_similarity=1.0
    )
    model = model_of(memory).train()
    for _ in range(3):
        memory.reset_state()
        model(SOURCE, torch.tensor([[1, 2, 3, 4, 5], [2, 4, 6, 1, 3], [6, 5, 4, 3, 2]]))
    memory.update_topology()
    assert memory.storage.edge_count >= 9


@pytest.mark.parametrize("with_memory", [False, True])
def test_a_full_beam_finds_the_likeliest_of_all_sequences(with_memory, make_memory: Make) -> None:
    model = model_of(frozen(make_memory) if with_memory else None, vocab=3, layers=1)
    source = torch.tensor([[0, 1, 2]])
    targets = torch.tensor(list(itertools.product(range(3), repeat=3)))  # [27, 3]
    with torch.no_grad():
        shares = model(source.expand(27, -1), targets).log_softmax(-1)
    totals = shares.gather(-1, targets[..., None]).sum(dim=(1, 2))
    assert torch.equal(model.decode(source, 3, beam_size=9)[0], targets[totals.argmax()])
    best = [totals[(targets == model.decode(source, 3, beam_size=width)[0]).all(1)] for width in (1, 9)]
    assert best[0] <= best[1]


def test_beams_of_one_sequence_do_not_touch_another(make_memory: Make) -> None:
    model = model_of(frozen(make_memory))
    together = model.decode(SOURCE, 5, beam_size=3)
    for row in range(3):
        assert torch.equal(model.decode(SOURCE[row : row + 1], 5, beam_size=3)[0], together[row])


def test_eos_ends_and_fills_up(make_memory: Make) -> None:
    model = model_of(frozen(make_memory))
    free = model.decode(SOURCE, 6)
    eos = int(free[0, 1])
    ended = model.decode(SOURCE, 6, eos=eos)
    for row in ended:
        first = (row == eos).nonzero()
        if len(first):
            assert (row[int(first[0]) :] == eos).all()
    assert model.decode(SOURCE[:1], 6, eos=eos).shape == (1, 2)


def test_decoding_only_reads(make_memory: Make) -> None:
    memory = fill(make_memory(novelty_birth_threshold=1, novelty_explanation_threshold=1.0))
    model = model_of(memory).train()
    model.decode(SOURCE, beam_size=2)
    assert memory.storage.active_count == 60 and memory.mode.value == "TRAIN" and model.training
    model(SOURCE)
    assert memory.storage.active_count > 60


def test_the_trainer_hands_it_the_target(make_memory: Make) -> None:
    """Reversing sequences can be learnt only by a decoder that sees what it said before."""
    model = model_of(fill(make_memory()), layers=1)
    seen, forward = [], model.forward
    model.forward = lambda *arguments: seen.append(len(arguments)) or forward(*arguments)
    data = [(row, row.flip(0)) for row in torch.randint(0, 7, (32, 4))]
    trainer = AESGTrainer(model, batch_size=16, learning_rate=0.01)
    losses = trainer.fit(data, epochs=4)
    assert set(seen) == {2} and losses[-1] < losses[0]
    trainer.evaluate(data)
    assert set(seen) == {2}
    assert trainer.predict(SOURCE).shape == (3, 4, 7) and seen[-1] == 1


def test_bad_arguments() -> None:
    model = model_of(None)
    with pytest.raises(AESGMemoryError, match=r"as many targets as sources.*\[2, 4\].*\[3, 4\]"):
        model(SOURCE, SOURCE[:2])
    with pytest.raises(AESGMemoryError, match=r"\[0, 7\).*1 to 7"):
        model(SOURCE, SOURCE + 1)
    with pytest.raises(AESGMemoryError, match=r"\[B, T\].*\[4\]"):
        model.decode(SOURCE[0])
    for options in ({"beam_size": 0}, {"max_length": 0}, {"eos": 7}):
        with pytest.raises(AESGConfigError, match=next(iter(options))):
            model.decode(SOURCE, **options)
    with pytest.raises(AESGConfigError, match="max_length must be >= 1"):
        model(SOURCE, max_length=0)
