"""torch.compile takes every model whole, and the compiled model answers and learns as the plain one."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo

from .zoo import ALL, IMAGES, Make, build, fill, inputs, loss


def small_inputs(name: str, seed: int) -> torch.Tensor:
    x = inputs(name, 2, seed)
    return x if name in IMAGES else x[:, :3]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    # torch itself refuses nn.GRU and nn.LSTM, with a memory or without, unless told to take them.
    with torch._dynamo.config.patch(allow_rnn=True):
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", ALL)
def test_one_graph_equal_to_eager(name: str, training: bool, make_memory: Make) -> None:
    results = []
    for number, compiled in enumerate((False, True)):
        memory = fill(make_memory(str(number), novelty_birth_threshold=1, novelty_explanation_threshold=0.9))
        model = build(name, memory).train(training)
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        found = []
        for step in range(2):  # the second asks what the first gave birth to
            output = run(small_inputs(name, step))
            found.append(output.detach())
            if training:
                model.zero_grad()
                loss(output).backward()
                found += [p.grad for p in model.parameters() if p.grad is not None]
            memory.update_topology()
        counts = {key: memory.stats()[key] for key in ("queries", "births", "active", "edges", "candidates")}
        # Compared up to rounding: torch takes another LSTM kernel when it compiles.
        found += [torch.tensor(memory.stats()["mean_explanation"])]
        found += [torch.from_numpy(memory.storage.nodes["vector"][: counts["active"]])]
        results.append((found, counts))
        memory.close()
    (eager, counts), (compiled_, counts_) = results
    assert counts == counts_ and counts["births"] > 60 and counts["queries"] > 0
    assert len(eager) == len(compiled_)
    for one, other in zip(eager, compiled_, strict=True):
        torch.testing.assert_close(one, other)


def test_attached_packs_break_the_graph_and_answer_all_the_same(make_memory: Make, tmp_path) -> None:
    memory = fill(make_memory())
    memory.export_pack(tmp_path / "some.aesgpack")
    memory.set_mode("INFERENCE")
    model = build("AESGDecoderLM", memory).eval()
    compiled = torch.compile(model, backend="aot_eager")
    x = small_inputs("AESGDecoderLM", 0)
    alone = compiled(x)
    memory.attach_pack(memory.load_pack(tmp_path / "some.aesgpack"), 100)
    memory.reset_state()
    expected = model(x)
    memory.reset_state()
    torch.testing.assert_close(compiled(x), expected)
    memory.detach_pack(next(iter(memory.pack_manager.get_attached_packs())))
    memory.reset_state()
    torch.testing.assert_close(compiled(x), alone)
