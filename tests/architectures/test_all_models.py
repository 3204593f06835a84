"""What holds for each of the eight models."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest
import torch
from torch import nn

import aesg
from aesg import architectures
from aesg.architectures.base import TEXT_SIZES
from aesg.architectures.image_model import IMAGE_SIZES
from aesg.exceptions import AESGConfigError, AESGStorageError
from aesg.nn import AESG_GRU, AESG_LSTM, AESG_CNNLayer, AESG_TransformerLayer
from tests.architectures.zoo import (
    ALL,
    IMAGES,
    TEXTS,
    Make,
    build,
    fill,
    inputs,
    loss,
    other_first,
    reader_of,
)

every = pytest.mark.parametrize("name", ALL)
variants = pytest.mark.parametrize(
    ("name", "options"), [(name, {}) for name in ALL] + [("AESGTransformer", {"causal": True})]
)


@every
def test_is_exported(name: str) -> None:
    assert getattr(aesg, name) is getattr(architectures, name)


# ---------------------------------------------------------------- every sample for itself


@every
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch", [2, 5])
def test_sample_zero_changes_nothing_in_the_others(name, training, batch, make_memory: Make) -> None:
    """Births included: with a threshold of 1 every unexplained step bears a concept. One memory a pass, all
    equal."""
    outputs = []
    for number, change in enumerate([lambda x: x, other_first]):
        memory = fill(make_memory(str(number), novelty_birth_threshold=1, novelty_explanation_threshold=0.95))
        model = build(name, memory).train(training and name not in IMAGES)  # batch norm mixes pictures
        before = memory.storage.active_count
        outputs.append(model(change(inputs(name, batch))))
        assert memory.storage.active_count > before
    assert torch.equal(outputs[0][1:], outputs[1][1:])
    assert not torch.equal(outputs[0][0], outputs[1][0])


@every
def test_each_sample_is_asked_for(name, make_memory: Make) -> None:
    """The memory sees as many different queries as there are samples (times steps)."""
    memory = fill(make_memory())
    model, seen = build(name, memory).eval(), []
    retrieve = memory.retrieve
    memory.retrieve = lambda query, **further: seen.append(query.detach()) or retrieve(query, **further)
    model(inputs(name, 4))
    rows = torch.cat([query.reshape(4, -1) for query in seen], dim=1)
    assert len(torch.unique(rows, dim=0)) == 4


@every
def test_same_question_same_answer(name, make_memory: Make) -> None:
    """Nothing but the graph carries over from one forward pass to the next."""
    memory = fill(make_memory())
    memory.set_mode("INFERENCE")
    model, x = build(name, memory).eval(), inputs(name)
    assert torch.equal(model(x), model(x))


# ---------------------------------------------------------------- gradients and weights


@variants
def test_gradient_reaches_every_weight(name, options, make_memory: Make) -> None:
    model = build(name, fill(make_memory()), **options)
    loss(model(inputs(name))).backward()
    grads = {key: value.grad for key, value in model.named_parameters()}
    assert any("query_proj" in key for key in grads) and any("abstraction_projection" in key for key in grads)
    dead = [key for key, grad in grads.items() if grad is None or not grad.abs().sum() > 0]
    assert dead == []


@every
def test_gradient_is_finite_on_an_empty_memory(name, make_memory: Make) -> None:
    model = build(name, make_memory())
    loss(model(inputs(name))).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@every
def test_without_memory_it_is_the_same_model(name, make_memory: Make) -> None:
    """Equal weights, equal random numbers afterwards, equal outputs as long as nothing is read."""
    plain, after_plain = build(name, None), torch.rand(1)
    model, after = build(name, make_memory()), torch.rand(1)
    weights = model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in plain.state_dict().items())
    assert {key for key in weights if key not in plain.state_dict()} == {
        key for key in weights if "reader" in key or "memory." in key
    }
    assert torch.equal(after, after_plain)
    x = inputs(name)
    expected = plain.eval()(x)
    torch.testing.assert_close(model.eval()(x), expected, rtol=1e-5, atol=1e-6)  # the memory is empty
    fill(model.memory)
    assert not torch.allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    with model.reads_switched_off():
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)


@every
def test_equal_steps_give_equal_models(name, make_memory: Make) -> None:
    finals = []
    for number in range(2):
        memory = make_memory(str(number), novelty_birth_threshold=1)
        model = build(name, memory)
        optimizer = torch.optim.Adam(model.parameters())
        for step in range(3):
            memory.reset_state()
            optimizer.zero_grad()
            loss(model(inputs(name, seed=step))).backward()
            optimizer.step()
            memory.update_topology()
        finals.append((model.state_dict(), memory.storage.nodes["vector"][: memory.storage.node_count]))
    assert all(torch.equal(finals[0][0][key], finals[1][0][key]) for key in finals[0][0])
    assert (finals[0][1] == finals[1][1]).all()


@every
def test_memory_grows_beyond_one_concept(name, make_memory: Make) -> None:
    """Over three passes of the same 16 samples, with the default rules of birth."""
    memory = make_memory()
    model = build(name, memory, layers=1)
    for _ in range(5):
        model(inputs(name, 16))
        memory.update_topology()
    assert memory.storage.active_count > 3


# ---------------------------------------------------------------- keeping, copying, moving


@every
def test_state_dict_names_everything_once_and_round_trips(name, make_memory: Make, tmp_path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = build(name, fill(make_memory()))
    nn.init.normal_(model.memory.abstraction_projection.weight)
    state = model.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    assert [key for key in state if "abstraction_projection" in key] == [
        "memory.abstraction_projection.weight"
    ]
    save_file(state, tmp_path / "weights.safetensors")
    other = build(name, model.memory, seed=9)
    nn.init.zeros_(model.memory.abstraction_projection.weight)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert all(
        torch.equal(value, other.state_dict()[key]) for key, value in state.items() if "memory." not in key
    )
    assert model.memory.abstraction_projection.weight.abs().sum() > 0
    broken = {key: value for key, value in state.items() if "abstraction_projection" not in key}
    with pytest.raises(RuntimeError, match="abstraction_projection"):
        other.load_state_dict(broken)


@every
def test_deepcopy_shares_the_graph_and_nothing_else(name, make_memory: Make) -> None:
    model, x = build(name, fill(make_memory())).eval(), inputs(name)
    model.memory.set_mode("INFERENCE")
    twin = copy.deepcopy(model)
    assert torch.equal(model(x), twin(x))
    assert twin.memory.storage is model.memory.storage
    assert twin.memory.mode is model.memory.mode
    assert {p.data_ptr() for p in model.parameters()}.isdisjoint({p.data_ptr() for p in twin.parameters()})
    twin.memory.set_mode("TRAIN")
    twin.memory.graph.add_concepts(torch.eye(16)[:1])
    assert model.memory.storage.active_count == 61 and model.memory.mode.value == "INFERENCE"


@every
def test_pickled_model_reads_what_was_learnt(name, make_memory: Make) -> None:
    model, x = build(name, fill(make_memory())).eval(), inputs(name)
    twin = pickle.loads(pickle.dumps(model))
    model.memory.set_mode("INFERENCE")
    assert twin.memory.mode.value == "INFERENCE" and twin.memory.storage.read_only
    assert torch.equal(model(x), twin(x))
    twin.memory.close()


def _answers(pickled: bytes, x: torch.Tensor, queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    queue.put(pickle.loads(pickled)(x).detach().numpy())


def test_pickled_model_answers_in_another_process(make_memory: Make) -> None:
    model, x = build("AESGTransformer", fill(make_memory())).eval(), inputs("AESGTransformer")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_answers, args=(pickle.dumps(model), x, queue))
    worker.start()
    answer = torch.from_numpy(queue.get(timeout=120))
    worker.join(30)
    model.memory.set_mode("INFERENCE")
    torch.testing.assert_close(answer, model(x).detach())


@every
def test_autocast(name, make_memory: Make) -> None:
    model, x = build(name, fill(make_memory())), inputs(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    loss(output).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert reader_of(model).query_proj.weight.grad.abs().sum() > 0
    assert (output.float() - build(name, None)(x)).abs().mean() < 0.5


@every
def test_whole_model_in_a_gradient_checkpoint(name, make_memory: Make) -> None:
    from torch.utils.checkpoint import checkpoint

    memory = fill(make_memory())
    memory.set_mode("INFERENCE")
    model, x = build(name, memory), inputs(name)
    grads = []
    for run in (lambda: model(x), lambda: checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        loss(run()).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, checkpointed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@every
@pytest.mark.parametrize("reentrant", [False, True], ids=["hooks", "reentrant"])
def test_a_gradient_checkpoint_changes_nothing(name, reentrant, make_memory: Make) -> None:
    """While the memory learns: the same gradients, counts, births and concepts as without."""
    from torch.utils.checkpoint import checkpoint

    results = []
    for number, kept in enumerate((True, False)):
        memory = fill(make_memory(str(number), novelty_birth_threshold=1, novelty_explanation_threshold=0.9))
        model = build(name, memory)
        gradients = []
        for step in range(2):
            x = inputs(name, seed=step)
            if reentrant:  # it asks for an input that wants gradients; this one is as good as none
                run = lambda x, _, model=model: model(x)  # noqa: E731
                arguments = (x, torch.zeros((), requires_grad=True))
            else:
                run, arguments = model, (x,)
            output = run(*arguments) if kept else checkpoint(run, *arguments, use_reentrant=reentrant)
            model.zero_grad()
            loss(output).backward()
            gradients += [p.grad.clone() for p in model.parameters() if p.grad is not None]
            memory.update_topology()
        stats = memory.stats()
        counts = [stats[key] for key in ("queries", "births", "active", "edges", "candidates")]
        used = memory.storage.nodes["use_frequency"][: stats["concepts"]]
        results.append((gradients, counts, used.tolist(), stats["mean_explanation"]))
    assert results[0][1] == results[1][1] and results[0][1][1] > 60
    assert results[0][3] == pytest.approx(results[1][3], rel=1e-6)
    assert results[0][2] == results[1][2]
    assert len(results[0][0]) == len(results[1][0])
    for plain, checkpointed in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-4, atol=1e-6)


@every
def test_double_precision(name, make_memory: Make) -> None:
    """A model of another precision reads the memory, which stays float32, and all weights get gradients."""
    memory = fill(make_memory())
    memory.set_mode("INFERENCE")
    model, x = build(name, memory), inputs(name)
    expected = model(x)
    model.double()
    output = model(x.double() if x.is_floating_point() else x)
    assert output.dtype == torch.float64
    torch.testing.assert_close(output.float(), expected, rtol=1e-3, atol=1e-3)
    loss(output).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_two_models_share_one_memory(make_memory: Make) -> None:
    memory = fill(make_memory())
    both = nn.ModuleList(build(name, memory) for name in ("AESGGRUText", "AESGTransformer"))
    both[0](inputs("AESGGRUText"))
    births = memory.storage.active_count
    assert both[1].memory.storage.active_count == births > 60
    assert [key for key in both.state_dict() if "abstraction" in key] == [
        "0.memory.abstraction_projection.weight",
        "1.memory.abstraction_projection.weight",
    ]


# ---------------------------------------------------------------- presets and bad arguments


@every
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_presets_have_the_sizes_of_the_reference(name, size, tmp_path) -> None:
    if name in IMAGES:
        model = getattr(getattr(architectures, name), size)(storage_dir=str(tmp_path / "m"))
        expected = IMAGE_SIZES[size]
        got = (model.base_filters, model.num_blocks, model.memory.vector_dim, model.bottleneck_size)
        least = 1 << model.num_blocks
        assert 128 // least == model.bottleneck_size
    else:
        model = getattr(getattr(architectures, name), size)(11, storage_dir=str(tmp_path / "m"))
        expected = TEXT_SIZES[size]
        heads = model.nhead if name == "AESGTransformer" else expected.nhead
        got = (model.hidden_size, model.num_layers, model.memory.vector_dim, heads)
    assert got == tuple(expected)
    assert model.memory.config.max_concepts == 100_000
    model.memory.close()


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("vocab_size", [0, -3])
def test_vocab_size_below_one(name, vocab_size, tmp_path) -> None:
    with pytest.raises(AESGConfigError) as caught:
        getattr(architectures, name).small(vocab_size=vocab_size, storage_dir=str(tmp_path / "memory"))
    assert caught.value.message == "vocab_size must be >= 1" and caught.value.subsystem == "config"
    assert not (tmp_path / "memory").exists()


@every
def test_two_sizes_on_one_explicit_directory(name, tmp_path) -> None:
    model, arguments = getattr(architectures, name), () if name in IMAGES else (11,)
    first = model.small(*arguments, storage_dir=str(tmp_path / "m"))
    with pytest.raises(AESGStorageError, match=r"64.*128"):
        model.medium(*arguments, storage_dir=str(tmp_path / "m"))
    assert first.memory.vector_dim == 64


def test_two_sizes_on_the_default_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = architectures.AESGGRUText.small(11)
    with pytest.warns(UserWarning, match="aesg_memory-128"):
        medium = architectures.AESGGRUText.medium(11)
    again = architectures.AESGLSTMText.small(11)
    assert small.memory.storage is again.memory.storage
    assert {p.name for p in tmp_path.iterdir()} == {"aesg_memory", "aesg_memory-128"}
    for model in (small, medium, again):
        model.memory.close()


# ---------------------------------------------------------------- number of layers


@pytest.mark.parametrize("name", TEXTS)
def test_every_layer_counts(name, make_memory: Make) -> None:
    """A layer more has more weights, and each of them changes the output."""
    one, three = (build(name, None, layers=layers) for layers in (1, 3))
    assert sum(p.numel() for p in three.parameters()) > sum(p.numel() for p in one.parameters())
    x = inputs(name)
    for key, weight in three.named_parameters():
        before = three(x)
        with torch.no_grad():
            kept = weight.clone()
            weight.add_(torch.randn(weight.shape))
        assert not torch.equal(three(x), before), key
        with torch.no_grad():
            weight.copy_(kept)


def test_models_are_made_of_the_layers() -> None:
    def count(model: nn.Module, kind: type) -> int:
        return sum(isinstance(part, kind) for part in model.modules())

    assert count(build("AESGGRUText", None, layers=3), AESG_GRU) == 1
    assert count(build("AESGLSTMText", None, layers=3), AESG_LSTM) == 1
    assert count(build("AESGSeq2Seq", None, layers=3), AESG_GRU) == 1
    assert count(build("AESGTransformer", None, layers=3), AESG_TransformerLayer) == 3
    for name in IMAGES:
        assert count(build(name, None), AESG_CNNLayer) == 1
