"""Every call of the tutorial (reference, "Store & Recall"), asynchronous, as it is written there."""

import asyncio
import json
from pathlib import Path

import pytest

from aesg.exceptions import AESGStorageError
from tests.runs.helpers import objects, staged


@pytest.fixture
def context(run):
    return run.context()


def test_1a_ingest_a_file(context, tmp_path):
    async def main():
        arts = context.artifacts()
        (tmp_path / "report.pdf").write_bytes(b"%PDF")
        art = await arts.save_file(
            path=str(tmp_path / "report.pdf"), kind="report", labels={"exp": "A"}, metrics={"bleu": 31.2}
        )
        path = await arts.as_local_file(art)
        assert path.endswith("report.pdf") and Path(path).read_bytes() == b"%PDF"
        assert art.uri.startswith("cas://")

    asyncio.run(main())


def test_1b_stream(context):
    async def main():
        arts = context.artifacts()
        async with arts.writer(kind="plot", planned_ext=".png") as w:
            w.write(b"\x89PNG")
        assert await arts.search(kind="plot") == [w.artifact]

    asyncio.run(main())


def test_2_results_and_events(context):
    async def main():
        arts, mem = context.artifacts(), context.memory()
        uri = (await arts.save_text("weights")).uri
        await mem.record_tool_result(
            tool="train.step",
            outputs=[
                {"name": "val_acc", "kind": "number", "value": 0.912},
                {"name": "ckpt_uri", "kind": "uri", "value": uri},
            ],
        )
        recent = await mem.recent_tool_results(tool="train.step", limit=10)
        assert [value["name"] for value in recent[0].outputs] == ["val_acc", "ckpt_uri"]
        found = await mem.last_by_name("ckpt_uri")
        assert Path(await arts.as_local_file(found["value"])).read_text() == "weights"

        await mem.record(kind="train_log", data={"epoch": 1, "loss": 0.25, "acc": 0.91})
        recent = await mem.recent(kinds=["train_log"], limit=3)
        assert json.loads(recent[0].text) == {"epoch": 1, "loss": 0.25, "acc": 0.91}
        assert await mem.recent_data(kinds=["train_log"], limit=3) == [
            {"epoch": 1, "loss": 0.25, "acc": 0.91}
        ]

    asyncio.run(main())


def test_3_search_and_best(context):
    async def main():
        arts = context.artifacts()
        report = await arts.save_text("r", kind="report", labels={"exp": "A"})
        assert await arts.search(kind="report", labels={"exp": "A"}) == [report]
        assert await arts.best(kind="checkpoint", metric="val_acc", mode="max", scope="run") is None
        await arts.save_text("1", kind="checkpoint", metrics={"val_acc": 0.1})
        await arts.save_text("2", kind="checkpoint", metrics={"val_acc": 0.2})
        best = await arts.best(kind="checkpoint", metric="val_acc", mode="max", scope="run")
        assert Path(await arts.as_local_file(best)).read_text() == "2"

    asyncio.run(main())


def test_4_recipes(context):
    async def main():
        arts = context.artifacts()
        cfg_art = await arts.save_json({"lr": 1e-3, "batch": 64})
        log_art = await arts.save_text("training finished ok")
        assert await arts.list(scope="run") == [cfg_art, log_art]
        await arts.pin(artifact_id=cfg_art.artifact_id)
        assert (await arts.get(cfg_art.artifact_id)).pinned

    asyncio.run(main())


def test_5_directories(context, tmp_path):
    async def main():
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "x").write_text("1")
        art = await context.artifacts().save_dir(tmp_path / "d")
        assert Path(await context.artifacts().as_local_dir(art) + "/x").read_text() == "1"

    asyncio.run(main())


def test_many_at_once(context):
    async def main():
        saves = [context.artifacts().save_text(f"{n}", labels={"n": n}) for n in range(20)]
        events = [context.memory().record("k", data=n) for n in range(20)]
        await asyncio.gather(*saves, *events)
        assert len(await context.artifacts().list()) == 20
        assert sorted(await context.memory().recent_data(["k"])) == list(range(20))

    asyncio.run(main())


def test_errors_are_the_same(context):
    async def main():
        with pytest.raises(AESGStorageError, match="scope"):
            await context.artifacts().search(scope="nowhere")
        with pytest.raises(ZeroDivisionError):
            async with context.artifacts().writer(kind="plot") as w:
                w.write(b"x")
                raise ZeroDivisionError
        assert await context.artifacts().list() == []

    asyncio.run(main())


def test_a_writer_after_a_cancellation_that_was_dealt_with_saves(run):
    async def last_words():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            async with run.context().artifacts().writer(kind="final", planned_ext=".bin") as writer:
                writer.write(b"last words")

    async def main():
        task = asyncio.create_task(last_words())
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(main())
    assert [art.size for art in run.artifacts().search("final")] == [len(b"last words")]


def test_a_cancelled_writer_leaves_nothing(run):
    async def main():
        begun = asyncio.Event()

        async def work():
            async with run.context().artifacts().writer(kind="plot") as w:
                w.write(b"half")
                begun.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert run.artifacts().list() == [] and objects(run.store) == [] and staged(run.store) == []


@pytest.mark.parametrize("writer", [False, True])
def test_a_cancellation_before_the_commit_undoes_a_save(run, writer, monkeypatch):
    """The save waits at its last step before the transaction until it was cancelled."""
    import threading

    from aesg.runs.objects import Stage

    reached, go_on = threading.Event(), threading.Event()
    place = Stage.place

    def slow(stage):
        reached.set()
        go_on.wait(10)
        place(stage)

    monkeypatch.setattr(Stage, "place", slow)

    async def save():
        arts = run.context().artifacts()
        if not writer:
            await arts.save_text("cancelled")
            return
        async with arts.writer(kind="plot") as w:
            w.write(b"cancelled")

    async def main():
        task = asyncio.create_task(save())
        await asyncio.to_thread(reached.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()  # it waits for what it began
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    monkeypatch.undo()
    assert run.artifacts().list() == [] and staged(run.store) == []
    assert run.artifacts().save_text("works").size == 5
