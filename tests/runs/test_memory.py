"""The event memory: everything is kept, the newest come back in the order in which they happened."""

import json
import math

import pytest

from aesg.exceptions import AESGStorageError
from aesg.runs import Store


def test_recent_gives_the_newest_in_order_of_time(run):
    mem = run.memory()
    for epoch in range(5):
        mem.record("train_log", data={"epoch": epoch})
        mem.record("other", data=epoch)
    assert [event.data for event in mem.recent(["train_log"], limit=3)] == [{"epoch": e} for e in (2, 3, 4)]
    assert mem.recent_data(["other", "train_log"], limit=3) == [3, {"epoch": 4}, 4]
    assert mem.recent_data(limit=1) == [4]
    assert len(mem.recent()) == 10 and mem.recent(["unknown"]) == [] and mem.recent([]) == []
    assert [event.seq for event in mem.recent()] == sorted(event.seq for event in mem.recent())


def test_order_is_by_sequence_not_by_clock(tmp_path, clock):
    with Store(tmp_path / "s", clock=clock, sync=False) as store, store.run("r") as run:
        for number in range(4):
            clock.now -= 1000
            run.memory().record("k", data=number)
        assert run.memory().recent_data(["k"], limit=2) == [2, 3]
        first, last = run.memory().recent()[0], run.memory().recent()[-1]
        assert last.ts < first.ts and last.seq > first.seq
        assert first.ts == "2023-11-14T21:56:40.000000+00:00"


def test_an_event_has_the_documented_fields(run):
    event = run.memory().record("train_log", data={"b": 1, "a": 2}, tags=["x", "y"], metrics={"loss": 0.25})
    assert run.memory().recent() == [event]
    assert (event.kind, event.topic, event.inputs, event.outputs) == ("train_log", None, None, None)
    assert (event.metrics, event.tags, event.version) == ({"loss": 0.25}, ["x", "y"], 1)
    assert json.loads(event.text) == {"a": 2, "b": 1} == event.data
    said = run.memory().record("note", text="hello")
    assert said.text == "hello" and said.data is None
    both = run.memory().record("note", data=[1], text="both")
    assert both.text == "both" and both.data == [1]
    assert run.memory().recent_data(["note"]) == ["hello", [1]]


def test_nan_is_recorded(run):
    run.memory().record("k", data={"loss": math.nan}, metrics={"loss": math.inf, "x": math.nan})
    (event,) = run.memory().recent()
    assert math.isnan(event.data["loss"]) and event.metrics["loss"] == math.inf
    assert math.isnan(event.metrics["x"])


def test_tool_results_and_their_values_by_name(run):
    mem = run.memory()
    for step in range(3):
        mem.record_tool_result(
            tool="train.step",
            inputs=[{"name": "lr", "kind": "number", "value": 0.1}],
            outputs=[{"name": "val_acc", "kind": "number", "value": step / 10}, {"name": "n", "value": step}],
        )
    mem.record_tool_result(tool="eval", outputs=[{"name": "val_acc", "kind": "number", "value": 0.9}])
    assert [event.outputs[1]["value"] for event in mem.recent_tool_results("train.step", limit=2)] == [1, 2]
    assert [event.topic for event in mem.recent_tool_results(limit=2)] == ["train.step", "eval"]
    assert mem.recent_tool_results("nobody") == []
    assert mem.last_by_name("val_acc") == {"name": "val_acc", "kind": "number", "value": 0.9}
    assert mem.last_by_name("n") == {"name": "n", "kind": "json", "value": 2}
    assert mem.last_by_name("lr") is None  # an input is no result
    assert mem.recent(["tool_result"], limit=1)[0].outputs[0]["value"] == 0.9


def test_scopes(store):
    with store.run("one") as one, store.run("two") as two:
        for place, value in [
            (one, 1),
            (one.node("a", graph="g"), 2),
            (one.node("b", graph="g"), 3),
            (two, 4),
        ]:
            place.memory().record("k", data=value)
            place.memory().record_tool_result("t", outputs=[{"name": "v", "value": value}])
    node = one.node("a", graph="g").memory()
    assert one.memory().recent_data(["k"]) == [1, 2, 3]
    for scope, expected in [("run", [1, 2, 3]), ("graph", [2, 3]), ("node", [2]), ("all", [1, 2, 3, 4])]:
        assert node.recent_data(["k"], scope=scope) == expected
        assert node.recent_data(["k"], limit=1, scope=scope) == expected[-1:]
        assert node.last_by_name("v", scope=scope)["value"] == expected[-1]
        assert node.recent_tool_results("t", scope=scope)[-1].outputs[0]["value"] == expected[-1]
        assert len(node.recent(scope=scope)) == 2 * len(expected)
    assert store.memory().recent_data(["k"]) == [1, 2, 3, 4]


def test_bad_input_writes_nothing(run):
    mem = run.memory()
    for call in [
        lambda: mem.record(""),
        lambda: mem.record(None),
        lambda: mem.record("k", data=object()),
        lambda: mem.record("k", data={1: 2}),
        lambda: mem.record("k", tags="abc"),
        lambda: mem.record("k", tags=[1]),
        lambda: mem.record("k", text=b"x"),
        lambda: mem.record("k", text="\ud800"),
        lambda: mem.record("k", metrics={"m": "high"}),
        lambda: mem.record("k", metrics=[1]),
        lambda: mem.record_tool_result(""),
        lambda: mem.record_tool_result("t", outputs={"name": "x", "value": 1}),
        lambda: mem.record_tool_result("t", outputs="x"),
        lambda: mem.record_tool_result("t", outputs=[1]),
        lambda: mem.record_tool_result("t", outputs=[{"name": "x"}]),
        lambda: mem.record_tool_result("t", outputs=[{"name": "", "value": 1}]),
        lambda: mem.record_tool_result(
            "t", outputs=[{"name": "u", "kind": "uri", "value": "cas://sha256/x"}]
        ),
        lambda: mem.record_tool_result("t", inputs=[{"name": "x", "value": {1}}]),
        lambda: run.store.memory().record("k"),
        lambda: mem.recent(limit=0),
        lambda: mem.recent(limit=-1),
        lambda: mem.recent(limit=2.0),
        lambda: mem.recent("k"),
        lambda: mem.recent([None]),
        lambda: mem.recent(scope="galaxy"),
        lambda: mem.recent_data(limit=0),
        lambda: mem.recent_tool_results("t", limit=0),
        lambda: mem.recent_tool_results(3),
        lambda: mem.last_by_name(""),
        lambda: mem.last_by_name(None),
    ]:
        with pytest.raises(AESGStorageError):
            call()
    assert mem.recent() == []


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("e.run = 1 AND e.kind = 'k'", "events_by_run_and_kind"),
        ("e.run = 1", "events_by_run"),
        ("e.kind = 'k'", "events_by_kind"),
        ("e.topic = 't' AND e.run = 1", "events_by_topic"),
    ],
)
def test_recent_takes_an_index_and_no_sort(run, where, index):
    sql = (
        f"SELECT e.text FROM events e JOIN runs r ON r.seq = e.run WHERE {where} ORDER BY e.seq DESC LIMIT 9"
    )
    plan = str(run.store.index.read("EXPLAIN QUERY PLAN " + sql))
    assert index in plan and "TEMP B-TREE" not in plan
