"""`aesg bench gpu`: no step hides another, figures follow from cases, and README's table from a file."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aesg.benchmarks import _ceilings, _steps, _targets, gpu, insert, learn, retrieve, seeds, spread, train
from aesg.benchmarks._report import as_markdown, read_part
from aesg.benchmarks._steps import Step
from aesg.exceptions import AESGConfigError, AESGStorageError

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def run(tmp_path):
    """Runs a step; its output goes to tmp_path/log."""

    def run(step: Step, most: float = 60.0) -> dict:
        return _steps.run(step, tmp_path, tmp_path / "log", most)

    return run


def test_a_step_tells_its_status_and_its_time(run, tmp_path):
    done = run(Step("one", python("import time; time.sleep(0.2); print('hello')"), 10))
    assert (done["ok"], done["status"]) == (True, 0) and 0.2 <= done["seconds"] < 5
    failed = run(Step("two", python("print('why'); raise SystemExit(7)"), 10))
    assert (failed["ok"], failed["status"], failed["reason"]) == (False, 7, "exit status 7")
    assert failed["tail"] == "why\n", "what another step printed is none of its"
    assert "hello" in (tmp_path / "log").read_text()


def test_a_step_over_its_time_is_ended_with_what_it_started(run, tmp_path):
    child = "import time, pathlib; time.sleep(1.5); pathlib.Path('late').touch()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    done = run(Step("slow", python(parent), 0.6))
    assert (done["ok"], done["status"]) == (False, 124) and "not done after" in done["reason"]
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_what_is_left_of_the_whole_is_the_limit(run):
    assert run(Step("slow", python("import time; time.sleep(9)"), 60), most=0.3)["status"] == 124
    done = run(Step("none", python(""), 60), most=-1)
    assert (done["ok"], done["reason"]) == (False, "no time was left")


def test_a_step_must_leave_its_result(run, tmp_path):
    result = tmp_path / "r.json"
    step = Step("bench", python(""), 10, result=result)
    assert run(step)["reason"] == "it left no results"
    writes = step._replace(command=python("open('r.json', 'w').write('{}')"))
    assert run(writes)["ok"]
    judged = writes._replace(command=python("raise SystemExit(1)"))
    assert not run(judged)["ok"] and run(judged._replace(judges=True))["ok"]
    assert not run(judged._replace(judges=True, command=python("raise SystemExit(2)")))["ok"]
    result.unlink()
    assert not run(judged._replace(judges=True))["ok"], "an exception has exit status 1 as well"


def test_tests_that_were_all_skipped_prove_nothing(run):
    says = "===== {} in 1.25s (0:00:01) ====="
    step = Step("tests", python(f"print({says.format('70 skipped, 9 deselected')!r})"), 10, must_pass=True)
    assert run(step)["reason"] == "no test ran"
    some = step._replace(command=python(f"print({says.format('3 passed, 1 skipped')!r})"))
    assert run(some)["ok"] and run(some)["tests"] == {"passed": 3, "skipped": 1}
    assert _steps.tests("it took long in 3 ways") == {}


def test_what_is_not_there_fails_alone_and_what_is_left_out_does_not(run):
    assert run(Step("no", ["no-such-command-at-all"], 10))["status"] == 127
    assert run(Step("no", ["no-such-command-at-all"], 10, left_out="not here")) == {
        "name": "no", "command": ["no-such-command-at-all"], "status": None, "seconds": 0.0, "ok": True,
        "left_out": "not here",
    }  # fmt: skip


# --- the whole ---------------------------------------------------------------------------------------------


def test_the_pipeline_on_the_cpu(tmp_path):
    """The script, one benchmark, small: one file with everything."""
    run = subprocess.run(
        [ROOT / "benchmarks" / "gpu_check.sh", *["--device", "cpu", "--small", "--steps", "build,seeds"]],
        env={**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = tmp_path.glob("cpu-*.json")
    record = json.loads(path.read_text())
    assert [step["name"] for step in record["steps"]] == ["build", "seeds"]
    assert [step["ok"] for step in record["steps"]] == [True] * 2 and "left_out" in record["steps"][0]
    assert record["machine"]["torch"] == torch.__version__ and "dirty" in record["machine"]
    assert record["benchmarks"]["seeds"]["cases"][0]["seconds"]["aesg.seed_search"]["median"] > 0
    assert record["ceilings"]["read"] >= record["benchmarks"]["seeds"]["ceilings"]["read"]
    figure = record["figures"]["exact search, B=256: torch over ours"]
    assert figure["mean"] > 0 and "aim" not in figure, "a small run on a CPU has nothing to reach"
    assert "retrieve, B=1, 4 hops: p99" in record["not_measured"]
    assert path.with_suffix(".log").read_text().count("=== seeds: ") == 1


def test_one_failure_hides_no_other_and_fails_the_whole(tmp_path, monkeypatch, capsys):
    result = tmp_path / "seeds.json"
    case = {"n": 5, "dim": 64, "k": 10, "batch": 1, "roofline": {"of": {"read": 0.5}}}
    record = {"cases": [case], "ceilings": {"read": 2.0}}
    good = f"import json; json.dump({record!r}, open({str(result)!r}, 'w'))"
    steps = [
        Step("build", python("print('broken'); raise SystemExit(3)"), 10),
        Step("seeds", python(good), 10, result=result),
    ]
    monkeypatch.setattr(gpu, "plan", lambda device, small, folder: steps)
    out = tmp_path / "out"
    assert gpu.main(["--device", "cpu", "--small", "--out", str(out), "--revision", "abc+"]) == gpu.FAILED
    record = gpu.read(next(out.glob("*.json")))
    assert [(step["status"], step["ok"]) for step in record["steps"]] == [(3, False), (0, True)]
    assert record["figures"]["exact search, B=1: of the read bandwidth"]["mean"] == 50
    assert record["ceilings"] == {"read": 2.0}
    assert (record["machine"]["revision"], record["machine"]["dirty"]) == ("abc", True)
    told = capsys.readouterr().out
    assert "FAILED" in told and "broken" in told and "failed: build" in told


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "new")]) == gpu.NO_DEVICE == 3
    assert "no CUDA device" in capsys.readouterr().out and not (tmp_path / "new").exists()


def test_a_run_on_the_cpu_needs_a_place(monkeypatch):
    monkeypatch.delenv("OUT", raising=False)
    with pytest.raises(AESGConfigError, match="--out"):
        gpu.main(["--device", "cpu"])
    with pytest.raises(AESGConfigError, match=r"expected some of build, tests, seeds.*got nonsense"):
        gpu.chosen(gpu.plan("cpu", True, Path()), "seeds,nonsense")


def test_the_plan_of_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(gpu.shutil, "which", lambda name, path=None: f"bin/{name}")
    steps = {step.name: step for step in gpu.plan("cuda", False, tmp_path)}
    assert list(steps)[:2] == ["build", "tests"] and set(gpu.BENCHMARKS) < set(steps)
    assert not any(step.left_out for step in steps.values())
    assert steps["build"].environment == {"AESG_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}
    assert steps["tests"].must_pass and "--collect-only" not in steps["tests"].command
    assert "--continue-on-collection-errors" in steps["tests"].command, "one file fails, the others run"
    assert steps["memcheck"].command[0] == "bin/compute-sanitizer" and steps["memcheck"].must_pass
    assert "--report-api-errors no" in " ".join(steps["memcheck"].command), "torch asks for what is not there"
    assert all(" ".join(steps[name].command).count("--device cuda") == 1 for name in gpu.BENCHMARKS)
    monkeypatch.setattr(gpu.shutil, "which", lambda name, path=None: None)
    assert gpu.plan("cuda", False, tmp_path)[-1].left_out == "compute-sanitizer is not there"


def test_every_target_is_asked_for_by_the_plan():
    """The benchmarks of a GPU make the very cases that the targets name."""
    for target in _targets.TARGETS:
        full = gpu.BENCHMARKS[target.benchmark][1]
        options = dict(re.findall(r"--([a-z-]+) (\S+)", full))
        for key, name in {"n": "n", "batch": "batch", "hops": "hops", "at a time": "at-a-time"}.items():
            if key in target.case:
                assert target.case[key] in [int(float(part)) for part in options[name].split(",")], target
        if target.benchmark == "train":
            assert "AESGTransformer" in options["models"] and "100000" in options["concepts"].split(",")


def test_the_sanitizer_is_found_beside_cuda(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert gpu._sanitizer() == str(tool)
    tool.chmod(0o644)
    assert gpu._sanitizer() is None


@pytest.mark.parametrize("name", gpu.BENCHMARKS)
def test_every_command_is_understood(name, monkeypatch):
    """All of them read their arguments, then set torch's threads, then begin."""

    class Begun(Exception):
        pass

    def begin(threads):
        raise Begun

    monkeypatch.setattr(torch, "set_num_threads", begin)
    for small in (False, True):
        (step,) = (step for step in gpu.plan("cpu", small, Path("folder")) if step.name == name)
        assert step.command[1:5] == ["-m", "aesg", "bench", name]
        with pytest.raises(Begun):
            importlib.import_module(f"aesg.benchmarks.{name}").main(step.command[5:])


# --- figures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    """What the benchmarks write, tiny, each case renamed to one that a target asks for."""
    folder, threads = tmp_path_factory.mktemp("benchmarks"), torch.get_num_threads()
    tiny = {
        seeds: "--n 300 --dim 64 --batch 1,2,3 --seconds 0.01",
        spread: "--n 300 --hops 4 --batch 2 --graph random --seconds 0.01",
        retrieve: "--n 300 --hops 0,4 --batch 1,2 --seconds 0.02",
        insert: "--n 300 --dim 8 --rows 64 --rounds 1 --at-a-time 16,32",
        learn: "--n 300 --batch 1,2 --seconds 0.02",
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ceilings, "measure", lambda device: {"read": 1e9, "copy": 1e9, "f32": 1e9})
        for bench, words in tiny.items():
            name = bench.__name__.rsplit(".", 1)[-1]
            path = folder / f"{name}.json"
            assert bench.main([*words.split(), "--roofline", "--json", str(path)]) == 0
            found[name] = json.loads(path.read_text())
    train.main(["--short", "--models", "AESGTransformer", "--out", str(folder)])
    found["train"] = json.loads((folder / "train.json").read_text())
    torch.set_num_threads(threads)
    batches = {"seeds": {2: 256, 3: 4096}, "spread": {2: 4096}, "retrieve": {2: 4096}, "insert": {}}
    batches["learn"] = {2: 4096}
    for name, sizes in batches.items():
        for case in found[name]["cases"]:
            case["n"] = 1_000_000
            if "batch" in case:
                case["batch"] = sizes.get(case["batch"], case["batch"])
            if "at a time" in case:
                case["at a time"] = {16: 256, 32: 4096}[case["at a time"]]
    for case in found["spread"]["cases"]:
        case["seconds"]["aesg.spread_activation, cuda"] = case["seconds"].pop("aesg.spread_activation, cpu")
    for case in found["retrieve"]["cases"]:
        case["seconds"]["aesg"]["calls"] = 1000
        case["captured"] = copy.deepcopy(case["seconds"]["aesg"])
    for case in found["learn"]["cases"]:
        case["captured"] = copy.deepcopy(case["seconds"])
    for case in found["train"]["cases"]:
        case["results"]["100,000 concepts"] = case["results"]["50 concepts"]
    return found


def test_every_target_finds_its_figure(benchmarks):
    figures, missing = _targets.check(benchmarks)
    assert missing == {} and list(figures) == [target.figure for target in _targets.TARGETS]
    case = benchmarks["seeds"]["cases"][1]["seconds"]
    ours, torchs = (case[name]["median"] for name in ("aesg.seed_search", "torch matmul + topk"))
    row = figures["exact search, B=256: torch over ours"]
    assert row["mean"] == torchs / ours and row["reached"] == (torchs >= 10 * ours)
    p99 = benchmarks["retrieve"]["cases"][1]["seconds"]["aesg"]["p99"]
    assert figures["retrieve, B=1, 4 hops: p99"]["mean"] == pytest.approx(1e6 * p99)


@pytest.mark.parametrize(
    ("bound", "bar", "reached", "ratio"),
    [(">=", 4, True, 1.25), (">=", 10, False, 0.5), ("<=", 4, False, 0.8)],
)
def test_met_and_missed(bound, bar, reached, ratio, monkeypatch, capsys):
    target = _targets.Target("f", "b", {"n": 7}, ("x",), bound, bar, unit="ms")
    monkeypatch.setattr(_targets, "TARGETS", (target,))
    figures, missing = _targets.check({"b": {"cases": [{"n": 8, "x": 9.0}, {"n": 7, "x": [4.0, 5.0, 9.0]}]}})
    assert figures["f"] == {
        "mean": 5.0, "half_width_95": None, "values": [5.0], "unit": "ms", "aim": f"{bound} {bar} ms",
        "reached": reached, "ratio": ratio,
    }  # fmt: skip
    told = _targets.told(figures, missing)
    assert ("met" if reached else "MISSED") in told and f"({ratio:.2f} x)" in told
    assert f"targets: {int(reached)} met, {int(not reached)} missed, 0 not measured" in told


def test_what_was_not_measured_says_why(benchmarks):
    found = copy.deepcopy(benchmarks)
    found["retrieve"]["cases"][1]["captured"] = "capture failed: RuntimeError: no"
    found["retrieve"]["cases"][1]["seconds"]["aesg"]["calls"] = 999
    del found["train"]
    found["spread"]["cases"] = []
    figures, missing = _targets.check(found)
    assert missing["retrieve in a graph, B=1, 4 hops: p99"] == "capture failed: RuntimeError: no"
    assert missing["retrieve, B=1, 4 hops: p99"] == "999 calls: too few for a 99th percentile"
    assert [reason for reason in missing.values() if "train left no results" in reason]
    assert [reason for reason in missing.values() if "spread has no case" in reason]
    assert len(figures) + len(missing) == len(_targets.TARGETS) and len(missing) == 4


# --- README ------------------------------------------------------------------------------------------------


def made_up(benchmarks) -> dict:
    figures, missing = _targets.check({name: benchmarks[name] for name in ("seeds", "insert")})
    facts = {"name": "NVIDIA Made-Up", "driver": "1.2.3"}
    machine = {"cpu": "c", "torch": "2.11.0+cu130", "revision": "abc", "gpu_facts": facts}
    return {
        "benchmark": "gpu", "device": "cuda", "small": False, "date": "2031-02-03T04:05:06Z",
        "machine": machine, "figures": figures, "not_measured": missing,
    }  # fmt: skip


def test_the_table_follows_from_the_file(benchmarks, tmp_path, capsys):
    record = made_up(benchmarks)
    record["figures"]["exact search, B=1: torch over ours"] |= {"mean": 3.456, "reached": True}
    record["figures"]["births a second and searched, 256 at a time"] |= {"mean": 654321.0, "reached": False}
    path = tmp_path / "made-up.json"
    path.write_text(json.dumps(record))
    assert gpu.main(["--table", str(path)]) == 0
    table = capsys.readouterr().out
    assert table.startswith("NVIDIA Made-Up, driver 1.2.3, torch 2.11.0+cu130, revision abc, 2031-02-03:\n")
    assert "| exact search, B=1: torch over ours | 3.46 x | >= 3 x | met |\n" in table
    assert "| births a second and searched, 256 at a time | 654,321 | >= 1,000,000 | missed |\n" in table
    assert "| retrieve, B=1, 4 hops: p99 | not measured | | |\n" in table
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(AESGStorageError, match=r"other.json"):
        gpu.main(["--table", str(tmp_path / "other.json")])


def test_a_results_file_is_a_table_of_the_report(benchmarks, tmp_path):
    path = tmp_path / "made-up.json"
    path.write_text(json.dumps(made_up(benchmarks)))
    page = as_markdown({"gpu": read_part(path)}, "command")
    assert re.search(r"\d+ figures have an aim; \w+ of them missed it", page)
    assert "exact search, B=1: of the read bandwidth" in page


def wrong_tables(readme: str, results: Path) -> list[str]:
    """What README says of a GPU that is not in a results file, and results it does not show."""
    begin, end = re.escape(_targets.TABLE_BEGIN).replace(r"\{\}", r"(\S+)"), re.escape(_targets.TABLE_END)
    shown = dict(re.findall(rf"{begin}\n(.*?){end}", readme, re.DOTALL))
    there = {path.name for path in results.glob("*.json")}
    wrong = [f"no such file: {name}" for name in shown if name not in there]
    wrong += [f"not what is in {n}" for n in set(shown) & there if shown[n] != _table(results / n)]
    wrong += [f"no whole run on a GPU: {name}" for name in sorted(there) if not _whole(results / name)]
    return wrong + (["results that are not shown"] if there and not shown else [])


def _whole(path: Path) -> bool:
    record = gpu.read(path)
    return record["device"] == "cuda" and not record["small"]


def _table(path: Path) -> str:
    return _targets.as_markdown(gpu.read(path))


def test_readme_shows_what_was_measured():
    assert wrong_tables((ROOT / "README.md").read_text("utf-8"), ROOT / "benchmarks" / "results") == []


def test_a_wrong_table_is_found(benchmarks, tmp_path):
    assert wrong_tables("no claim", tmp_path) == []
    (tmp_path / "a.json").write_text(json.dumps(made_up(benchmarks)))
    begin = _targets.TABLE_BEGIN.format("a.json")
    readme = f"x\n{begin}\n{_table(tmp_path / 'a.json')}{_targets.TABLE_END}\ny"
    assert wrong_tables(readme, tmp_path) == []
    assert wrong_tables(readme.replace("measured", "guessed"), tmp_path) == ["not what is in a.json"]
    assert wrong_tables(readme.replace("a.json", "b.json"), tmp_path) == ["no such file: b.json"]
    assert wrong_tables("nothing", tmp_path) == ["results that are not shown"]
    (tmp_path / "a.json").write_text(json.dumps(made_up(benchmarks) | {"small": True}))
    assert wrong_tables(readme, tmp_path) == ["no whole run on a GPU: a.json"]
