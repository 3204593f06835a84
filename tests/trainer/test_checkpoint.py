"""Checkpoints: all of the state comes back; damage is named; a crash leaves a whole one."""

import json
import pickle
import resource
import shutil
import signal

import pytest
import torch

from aesg.architectures import AESGDecoderLM
from aesg.exceptions import AESGStorageError
from aesg.memory.controller import AESGMemory
from aesg.trainer import AESGTrainer, Checkpoint, EarlyStopping
from aesg.trainer import checkpoint as files
from tests.fake_memory import FakeMemory

V = 20
FILES = {
    "model_weights.pt",
    "optimizer_state.pt",
    "config.json",
    "training_state.json",
    "resume_state.pt",
    "memory",
}


def pairs(count=8, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(0, V, (2, 6), generator=generator)) for _ in range(count)]


def new_trainer(seed=0, **options):
    torch.manual_seed(seed)
    return AESGTrainer(AESGDecoderLM(V, 32, 1, FakeMemory(concepts=5, births=True)), **options)


def test_the_documented_files(tmp_path):
    trainer = new_trainer()
    trainer.fit(pairs(), epochs=2)
    trainer.save(tmp_path / "at" / "epoch_2")
    assert {file.name for file in (tmp_path / "at" / "epoch_2").iterdir()} == FILES
    assert [file.name for file in (tmp_path / "at").iterdir()] == ["epoch_2"]
    state = json.loads((tmp_path / "at" / "epoch_2" / "training_state.json").read_text())
    assert state == {"epoch": 2, "global_step": 2, "best_loss": trainer.best_loss}
    config = json.loads((tmp_path / "at" / "epoch_2" / "config.json").read_text())
    assert config["aesg_config"]["vector_dim"] == 16
    assert config["trainer"]["model"] == "AESGDecoderLM"


def test_load_brings_back_weights_optimizer_counters_and_the_live_memory(tmp_path):
    trainer = new_trainer()
    trainer.fit(pairs(), epochs=2)
    trainer.save(tmp_path / "c")
    saved, expected = trainer.model.memory.concepts.clone(), trainer.evaluate(pairs())
    trainer.fit(pairs(), epochs=3)
    assert trainer.evaluate(pairs()) != expected
    trainer.load(tmp_path / "c")
    assert torch.equal(trainer.model.memory.concepts, saved)
    assert trainer.evaluate(pairs()) == expected
    assert (trainer.epoch, trainer.global_step) == (2, 2)
    other = new_trainer(seed=9)
    other.load(tmp_path / "c")
    assert other.evaluate(pairs()) == expected
    assert torch.equal(other.model.memory.concepts, saved)


def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path):
    whole = new_trainer(batch_size=2)
    torch.manual_seed(7)
    losses = whole.fit(pairs(), epochs=4)
    first = new_trainer(batch_size=2, callbacks=[Checkpoint(save_every=2, path=tmp_path)])
    torch.manual_seed(7)
    first.fit(pairs(), epochs=2)
    second = new_trainer(seed=5, batch_size=2)
    assert second.resume(tmp_path / "epoch_2") == 2
    assert second.fit(pairs(), epochs=2) == losses[2:]
    ours, theirs = second.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(second.model.memory.concepts, whole.model.memory.concepts)


def test_checkpoint_callback_saves_the_right_epochs(tmp_path):
    trainer = new_trainer(callbacks=[Checkpoint(save_every=2, path=str(tmp_path))])
    trainer.fit(pairs(), epochs=5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_2", "epoch_4"]
    assert json.loads((tmp_path / "epoch_4" / "training_state.json").read_text())["epoch"] == 4


def test_callbacks_go_on_where_they_were(tmp_path):
    stopping = EarlyStopping(patience=9, min_delta=100.0)
    trainer = new_trainer(callbacks=[stopping])
    trainer.fit(pairs(), epochs=3)
    trainer.save(tmp_path / "c")
    fresh = EarlyStopping(patience=9, min_delta=100.0)
    other = new_trainer(callbacks=[fresh])
    other.resume(tmp_path / "c")
    assert (fresh.best, fresh.waited) == (stopping.best, 2)
    other.fit(pairs(), epochs=1)
    assert fresh.waited == 3


def test_saving_again_replaces(tmp_path):
    trainer = new_trainer()
    trainer.save(tmp_path / "c")
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    assert json.loads((tmp_path / "c" / "training_state.json").read_text())["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_failed_save_leaves_the_former(tmp_path, monkeypatch):
    trainer = new_trainer()
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    trainer.fit(pairs(), epochs=1)
    monkeypatch.setattr(files.torch, "save", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(AESGStorageError, match="no space"):
        trainer.save(tmp_path / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    trainer.load(tmp_path / "c")
    assert trainer.epoch == 1


def test_a_crash_between_the_two_renames_leaves_the_former_to_be_found(tmp_path):
    trainer = new_trainer()
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / "c.former")  # where a crash would leave it
    trainer.load(tmp_path / "c")
    assert trainer.epoch == 1
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_save_spares_what_is_no_checkpoint(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(AESGStorageError, match="something else"):
        new_trainer().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", sorted(FILES - {"resume_state.pt"}))
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_damage_is_named_and_nothing_is_half_loaded(tmp_path, name, how):
    trainer = new_trainer()
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    trainer.fit(pairs(), epochs=1)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    concepts = trainer.model.memory.concepts.clone()
    victim = tmp_path / "c" / name
    if name == "memory":
        shutil.rmtree(victim)
        if how == "damaged":
            victim.write_text("no directory")
    elif how == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises(
        AESGStorageError, match=name if (name, how) != ("model_weights.pt", "missing") else "checkpoint"
    ):
        trainer.load(tmp_path / "c")
    assert trainer.epoch == 2
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())
    assert torch.equal(trainer.model.memory.concepts, concepts)


@pytest.mark.parametrize("name", sorted(FILES - {"memory", "resume_state.pt"}))
def test_a_flipped_bit_anywhere_is_noticed(tmp_path, name):
    trainer = new_trainer()
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    victim = tmp_path / "c" / name
    whole = victim.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 7)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        victim.write_bytes(damaged)
        with pytest.raises(AESGStorageError, match=name):
            trainer.load(tmp_path / "c")
    victim.write_bytes(whole)
    trainer.load(tmp_path / "c")


def test_a_flipped_bit_of_the_memory_is_noticed(tmp_path, make_memory):
    trainer = AESGTrainer(AESGDecoderLM(V, 32, 1, make_memory(novelty_birth_threshold=1)))
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    vectors = trainer.memory.storage.column("vector").clone()
    for name in ("nodes.aesg", "edges.aesg", "evolution.aesglog", "state.aesg", "meta.npy"):
        victim = tmp_path / "c" / "memory" / name
        whole = victim.read_bytes()
        for place in (len(whole) // 2, len(whole) - 1) if name == "nodes.aesg" else (5000 % len(whole),):
            damaged = bytearray(whole)
            damaged[place] ^= 4
            victim.write_bytes(damaged)
            with pytest.raises(AESGStorageError, match="memory"):
                trainer.load(tmp_path / "c")
            assert torch.equal(trainer.memory.storage.column("vector"), vectors)
        victim.write_bytes(whole)
    trainer.load(tmp_path / "c")


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (None, None),
        ("x", "Expected checksums"),
        ({"../x": "0"}, "Expected checksums"),
        ({"config.json": 1}, "is damaged"),
    ],
)
def test_checksums_of_older_and_of_foreign_checkpoints(tmp_path, sums, message):
    trainer = new_trainer()
    trainer.save(tmp_path / "c")
    state = torch.load(tmp_path / "c" / "resume_state.pt", weights_only=True)
    assert set(state["files"]) == FILES - {"memory", "resume_state.pt"}
    state.pop("files") if sums is None else state.update(files=sums)
    torch.save(state, tmp_path / "c" / "resume_state.pt")
    if message is None:
        assert trainer.resume(tmp_path / "c") == 0
        return
    with pytest.raises(AESGStorageError, match=message):
        trainer.resume(tmp_path / "c")


def test_the_unused_places_of_the_memorys_checksums_are_guarded_until_it_is_written_to(tmp_path):
    trainer = AESGTrainer(AESGDecoderLM.small(vocab_size=V, storage_dir=str(tmp_path / "m")))
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    table = tmp_path / "c" / "memory" / "checksums.aesg"
    whole = table.read_bytes()
    for place in range(4096, len(whole), 331):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        table.write_bytes(damaged)
        with pytest.raises(AESGStorageError, match="memory"):
            trainer.load(tmp_path / "c")
    table.write_bytes(whole)
    trainer.load(tmp_path / "c")
    with AESGMemory(tmp_path / "c" / "memory") as memory:  # it is a memory like any other
        for _ in range(3):
            memory.retrieve(torch.randn(40, memory.config.vector_dim, generator=torch.Generator()))
            memory.update_topology()
        memory.save()
        memory.storage.compact()
        grown = memory.storage.node_count
    trainer.load(tmp_path / "c")
    assert trainer.memory.storage.node_count == grown


def test_a_full_disk_is_a_storage_error_and_the_former_checkpoint_stays(tmp_path):
    trainer = new_trainer()
    trainer.save(tmp_path / "c")
    expected = trainer.evaluate(pairs())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        with pytest.raises(AESGStorageError, match=r"model_weights\.pt"):
            trainer.save(tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [each.name for each in tmp_path.iterdir()] == ["c"]
    trainer.load(tmp_path / "c")
    assert trainer.evaluate(pairs()) == expected


def test_a_symlink_leads_to_the_checkpoint_and_stays(tmp_path):
    trainer = new_trainer()
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    for epochs in (1, 2):
        trainer.fit(pairs(), epochs=1)
        trainer.save(tmp_path / "link")
        assert {file.name for file in (tmp_path / "disk").iterdir()} == FILES
        assert (tmp_path / "link").is_symlink()
        assert sorted(each.name for each in tmp_path.iterdir()) == ["disk", "link"]
        other = new_trainer(seed=5)
        assert other.resume(tmp_path / "link") == epochs


def test_the_state_of_another_kind_of_optimizer_is_refused_and_nothing_changes(tmp_path):
    saved = new_trainer()
    saved.fit(pairs(), epochs=1)
    saved.save(tmp_path / "c")
    model = new_trainer(seed=3).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = AESGTrainer(model, optimizer=sgd)
    with pytest.raises(AESGStorageError, match=r"optimizer_state\.pt.*another optimizer than SGD.*momentum"):
        trainer.load(tmp_path / "c")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (trainer.epoch, sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"]) == (0, 0.1, 0.9)
    trainer.fit(pairs(), epochs=1)  # works on
    adamw = torch.optim.AdamW(model.parameters(), lr=0.5)
    AESGTrainer(model, optimizer=adamw).load(tmp_path / "c")  # the same state
    assert adamw.param_groups[0]["lr"] == 1e-3


def test_a_pickle_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    trainer = new_trainer()
    trainer.save(tmp_path / "c")
    for content in (lambda f: f.write_bytes(pickle.dumps(Evil())), lambda f: torch.save(Evil(), f)):
        content(tmp_path / "c" / "optimizer_state.pt")
        with pytest.raises(AESGStorageError, match=r"optimizer_state\.pt"):
            trainer.load(tmp_path / "c")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_model(tmp_path):
    new_trainer().save(tmp_path / "c")
    torch.manual_seed(0)
    wider = AESGTrainer(AESGDecoderLM(V + 1, 32, 1, FakeMemory(concepts=5)))
    with pytest.raises(AESGStorageError, match=r"embedding.weight: expected \[21, 32\], got \[20, 32\]"):
        wider.load(tmp_path / "c")
    deeper = AESGTrainer(AESGDecoderLM(V, 32, 2, FakeMemory(concepts=5)))
    with pytest.raises(AESGStorageError, match=r"missing.*blocks"):
        deeper.load(tmp_path / "c")


@pytest.mark.parametrize("path", [None, 3, "", b"c", "a\0b", "/", object()])
def test_paths_that_are_none(path):
    trainer = new_trainer()
    for call in (trainer.save, trainer.load, trainer.resume):
        with pytest.raises(AESGStorageError, match="Expected the path of a checkpoint directory, got"):
            call(path)


def test_paths_are_relative_to_where_one_is(tmp_path, monkeypatch):
    trainer = new_trainer()
    trainer.fit(pairs(), epochs=1)
    monkeypatch.chdir(tmp_path)
    trainer.save("./c/")
    monkeypatch.chdir(tmp_path / "c")
    assert trainer.resume(".") == 1
    with pytest.raises(AESGStorageError, match="something else"):
        trainer.save("..")


@pytest.mark.parametrize("what", ["nothing", "file", "directory"])
def test_no_checkpoint_there(tmp_path, what):
    place = tmp_path / "c"
    if what == "file":
        place.write_text("x")
    if what == "directory":
        place.mkdir()
    with pytest.raises(AESGStorageError, match="Expected a checkpoint directory"):
        new_trainer().load(place)
