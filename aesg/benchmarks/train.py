"""What a memory costs a model: `python -m aesg bench train`.

Forward pass and training step of every model, with a memory and as the same model without one, in turn in one
process; with `--released PYTHON` also the model of that name of aesg 3.0.0, in its own process, in turn with
them. Processor seconds beside seconds: on a busy machine the former hardly change; with `--device cuda` a run
ends when the device is done, and the ratios are of seconds. Then, over enough steps
for sweeps and a detection of regions, the share of a step that `update_topology` takes.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from aesg import architectures
from aesg.architectures.base import MemoryModel
from aesg.benchmarks._ceilings import Ceilings, add_roofline, measured, roofline, told
from aesg.benchmarks._device import add_device, until_done
from aesg.benchmarks._released import ReleasedModel
from aesg.benchmarks._timing import integers, machine, write_json
from aesg.nn.rnn import MemoryRNN

TEXTS = ("AESGGRUText", "AESGLSTMText", "AESGSeq2Seq", "AESGDecoderLM", "AESGTransformer")
IMAGES = ("AESGColorizationNet", "AESGCNNClassifier", "AESGCNNAutoencoder")
TARGET = 0.1  # of a step, the most that the topology may take
LOOPED = ("AESGGRUText", "AESGLSTMText")  # compared with a loop over cells as well
EDGES_A_CONCEPT = 4
PASSES = 7  # over the weights of a step with Adam: reads them, their gradient, two moments; writes all but it
NOISE = 0.3  # of a concept against the query it is like, in standard deviations


Run = Callable[[], "tuple[float, float] | None"]


class Work(NamedTuple):
    """One model's inputs and targets."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]

    def to(self, device: str) -> Work:
        return Work(tuple(each.to(device) for each in self.inputs), self.targets.to(device), self.loss)


def make_work(name: str, batch: int, length: int, edge: int, vocab: int) -> Work:
    """Random tokens [B, T] or pictures [B, C, edge, edge] with targets that fit."""
    if name in TEXTS:
        tokens, targets = torch.randint(0, vocab, (2, batch, length))
        inputs = (tokens, targets) if name == "AESGSeq2Seq" else (tokens,)
        return Work(inputs, targets, lambda out, wanted: F.cross_entropy(out.flatten(0, 1), wanted.flatten()))
    if name == "AESGCNNClassifier":
        return Work((torch.rand(batch, 3, edge, edge),), torch.randint(0, 10, (batch,)), F.cross_entropy)
    channels = 1 if name == "AESGColorizationNet" else 3
    return Work((torch.rand(batch, channels, edge, edge),), torch.rand(batch, 3, edge, edge), F.mse_loss)


def make_model(name: str, size: str, vocab: int, directory: str | None) -> MemoryModel:
    """The preset; equal weights whatever its memory."""
    torch.manual_seed(0)
    arguments = (vocab,) if name in TEXTS else ()
    return getattr(getattr(architectures, name), size)(*arguments, storage_dir=directory)


def fill(model: MemoryModel, work: Work, concepts: int) -> Tensor:
    """Gives the memory concepts like what the model asks about, and edges between them. Returns the
    concepts [n, D].
    """
    memory = model.memory
    assert memory is not None
    asked: list[Tensor] = []
    retrieve = memory.retrieve

    def listening(query: Tensor, **further: Any) -> Any:
        asked.append(query.detach().cpu().reshape(-1, memory.vector_dim))
        return retrieve(query, **further)

    memory.set_mode("INFERENCE")
    memory.retrieve = listening  # type: ignore[assignment, method-assign]
    with torch.no_grad():
        model(*work.inputs)
    del memory.retrieve
    memory.set_mode("ONLINE")
    queries = torch.cat(asked)
    vectors = queries[torch.randint(0, len(queries), (concepts,))]
    vectors = vectors + NOISE * queries.std() * torch.randn_like(vectors)
    memory.graph.add_concepts(vectors)
    sources = torch.arange(concepts).repeat_interleave(EDGES_A_CONCEPT)
    targets = (sources + torch.randint(1, concepts, sources.shape)) % concepts
    memory.graph.add_edges(sources, targets, torch.ones(len(sources)), torch.full((len(sources),), 0.3), 1)
    memory.set_mode("TRAIN")
    return vectors


def loop_over_cells(model: MemoryModel) -> MemoryModel:
    """The plain model with its top layer as a loop over cells instead of torch's fused kernel."""
    top = next(part for part in model.modules() if isinstance(part, MemoryRNN))

    def sequence(x: Tensor, state: Any = None, **_: Any) -> Any:
        return top._run_steps(x, top.zeros(len(x), x.device) if state is None else state, read=False)

    top.sequence = sequence  # type: ignore[method-assign]
    return model


def forward_pass(model: MemoryModel, work: Work) -> Run:
    def run() -> None:
        with torch.no_grad(), model.reading_only():
            model(*work.inputs)

    return run


def training_step(model: MemoryModel, work: Work) -> Run:
    """Forward, backward, optimizer, update_topology: what a trainer does with a batch."""
    optimizer = torch.optim.Adam(model.parameters())

    def run() -> None:
        if model.memory is not None:
            model.memory.reset_state()
        loss = work.loss(model(*work.inputs), work.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if model.memory is not None:
            model.memory.update_topology()

    return run


def topology(run: Run, model: MemoryModel, steps: int) -> dict[str, float]:
    """Mean ms of a step and of its topology update, and the latter's share."""
    assert model.memory is not None
    before, started = model.memory.stats()["topology_seconds"], time.perf_counter()
    for _ in range(steps):
        run()
    seconds = time.perf_counter() - started
    spent = model.memory.stats()["topology_seconds"] - before
    return {
        "step_ms": 1e3 * seconds / steps,
        "topology_ms": 1e3 * spent / steps,
        "topology_share": spent / seconds,
    }


def timed(run: Run) -> tuple[float, float]:
    """Seconds and processor seconds of one run; one that returns them measured itself, in another process."""
    clock, processor = time.perf_counter(), time.process_time()
    found = run()
    own = time.perf_counter() - clock, time.process_time() - processor
    return own if found is None else found


def measure(contestants: dict[str, Run], runs: int, most: float = math.inf) -> dict[str, dict[str, float]]:
    """Medians in ms, by the clock and of processor time, taken in turn after one run to warm up.

    Who needed more than `most` seconds by then is not asked again, once it was asked three times.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for run in contestants.values():
        timed(run)
    for _ in range(runs):
        for name, run in contestants.items():
            if len(times[name]) < 3 or sum(each[0] for each in times[name]) < most:
                times[name].append(timed(run))
    return {
        name: {
            "ms": 1e3 * statistics.median(each[0] for each in pairs),
            "low_ms": 1e3 * _at(0.1, [each[0] for each in pairs]),
            "high_ms": 1e3 * _at(0.9, [each[0] for each in pairs]),
            "processor_ms": 1e3 * statistics.median(each[1] for each in pairs),
            "runs": len(pairs),
        }
        for name, pairs in times.items()
    }


def _at(share: float, values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


def least_work(model: MemoryModel, work: Work, what: str) -> tuple[float, float]:
    """Bytes and FLOP of one pass or step that the model cannot do without: its weights, its products, but
    for those inside of torch's fused recurrent kernels, which nothing counts.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        (forward_pass if what == "forward" else training_step)(model, work)()
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    return float(weights * (1 if what == "forward" else PASSES)), float(counter.get_total_flops())


def bench(
    name: str, options: argparse.Namespace, vocab: int, ceilings: Ceilings | None
) -> list[dict[str, Any]]:
    """Both measurements of one model, printed and as JSON cases."""
    device, unit = options.device, "processor_ms" if options.device == "cpu" else "ms"
    work = make_work(name, options.batch, options.length, options.edge, vocab).to(device)
    models = {"plain": make_model(name, options.size, vocab, None).to(device)}
    if name in LOOPED:
        models["plain, cell loop"] = loop_over_cells(make_model(name, options.size, vocab, None).to(device))
    others: dict[str, ReleasedModel] = {}
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for concepts in options.concepts:
            model = make_model(name, options.size, vocab, str(Path(folder, f"{concepts}"))).to(device)
            held = fill(model, work, concepts)
            models[f"{concepts:,} concepts"] = model
            if options.released:
                given = work.inputs[0].cpu().numpy(), work.targets.cpu().numpy(), held.numpy()
                others[f"aesg 3.0.0, {concepts:,}"] = ReleasedModel(
                    options.released, name, options.size, vocab, *given
                )
        for what, make in (("forward", forward_pass), ("training step", training_step)):
            for model in models.values():
                model.train(what != "forward")
            moved, done = least_work(models["plain"], work, what)
            contestants = {key: until_done(make(model, work), device) for key, model in models.items()}
            contestants |= {key: functools.partial(other.run, what) for key, other in others.items()}
            found = measure(contestants, options.runs, options.seconds)
            shape = f"V={vocab}" if name in TEXTS else f"{options.edge}x{options.edge}"
            print(f"\n{name}.{options.size} {shape} {what}")
            for key, each in found.items():
                taken, ratio = each["processor_ms"], each[unit] / found["plain"][unit]
                print(f"  {key:22} {each['ms']:9.1f} ms {taken:9.1f} ms processor {ratio:6.2f} x", flush=True)
            for key, model in models.items() if what != "forward" and options.steps else ():
                if model.memory is not None:
                    found[key].update(topology(contestants[key], model, options.steps))
                    share = found[key]["topology_share"]
                    print(
                        f"  {key:22} {found[key]['step_ms']:9.1f} ms, topology "
                        f"{found[key]['topology_ms']:.2f} ms: {share:.1%} (target {TARGET:.0%})"
                    )
            used = roofline(moved, done, 1e-3 * found["plain"]["ms"], ceilings)
            print(f"  plain, {told(used)}")
            case = {"model": name, "size": options.size, "shape": shape, "what": what, "results": found}
            cases.append(case | {"roofline": used})
        for model in models.values():
            if model.memory is not None:
                model.memory.close()
        for other in others.values():
            other.close()
    return cases


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="aesg bench train", description=__doc__)
    parser.add_argument("--models", default=",".join(TEXTS + IMAGES), help="names, comma-separated")
    parser.add_argument("--size", default="small", choices=("small", "medium", "large"))
    parser.add_argument("--concepts", type=integers, default=[500, 100_000])
    parser.add_argument("--vocab", type=integers, default=[1000, 10_000])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=32, help="tokens of a sequence")
    parser.add_argument("--edge", type=int, default=128, help="of a picture")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="most for a contestant beyond three runs")
    parser.add_argument(
        "--steps", type=int, default=40, help="over which the topology's share is taken; 0: not"
    )
    parser.add_argument("--released", default=None, metavar="PYTHON", help="a Python that has aesg 3.0.0")
    add_device(parser)
    add_roofline(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", metavar="DIR", help="write train.json there")
    parser.add_argument("--short", action="store_true", help="tiny sizes: does it run at all")
    options = parser.parse_args(argv)
    if options.short:
        options.concepts, options.vocab, options.runs, options.steps = [50], [100], 1, 2
        options.batch, options.length, options.edge = 2, 4, 16
    torch.set_num_threads(options.threads)
    print(machine())
    ceilings = measured(options)
    cases: list[dict[str, Any]] = []
    path = None if options.out is None else str(Path(options.out, "train.json"))
    for name in options.models.split(","):
        for vocab in options.vocab if name in TEXTS else options.vocab[:1]:
            cases += bench(name, options, vocab, ceilings)
            write_json(path, "train", options, cases, ceilings, done=False)
    write_json(path, "train", options, cases, ceilings)
    return 0
