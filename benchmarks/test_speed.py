"""The same contestants under pytest-benchmark: `pytest benchmarks --benchmark-group-by=group`.

Agreement first, then the timing. The tables of docs/performance.md come from `python -m aesg bench ...`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aesg.benchmarks import consolidate, seeds, spread
from aesg.benchmarks._device_peers import recall
from aesg.benchmarks._worlds import clustered, make_memory
from aesg.config import AESGConfig
from aesg.ops import consolidate_

N, DIM = 100_000, 64


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    made = make_memory(folder, clustered(N, DIM, 0), 8, AESGConfig(vector_dim=DIM, max_concepts=10 * N))
    yield made
    made.close()


@pytest.mark.parametrize("batch", [1, 32, 256])
@pytest.mark.parametrize("name", ["aesg.seed_search", "torch matmul + topk", "faiss IndexFlatIP, tuned"])
def test_seeds(benchmark, name, batch):
    torch.manual_seed(0)
    runs = seeds.contestants(torch.randn(batch, DIM), torch.randn(N, DIM), 10, 1)
    if name not in runs:
        pytest.skip(f"{name}: not installed")
    seeds.check_equal(runs)
    benchmark.group = f"seeds B={batch}"
    benchmark(runs[name])


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("kind", ["random", "power-law"])
@pytest.mark.parametrize("name", ["aesg.spread_activation, cpu", "numba loop over CSR"])
def test_spread(benchmark, name, kind, batch):
    graph = spread.make_graph(N, 8, kind == "power-law")
    generator = torch.Generator().manual_seed(batch)
    slots = torch.randint(0, N, (batch, 4), generator=generator)
    energies = 0.4 + 0.6 * torch.rand(batch, 4, generator=generator)
    runs = spread.contestants(graph, slots, energies, 4, 10, "cpu")
    if name not in runs:
        pytest.skip(f"{name}: not installed")
    spread.check_equal(runs)
    benchmark.group = f"spread {kind} B={batch}"
    benchmark(runs[name])


@pytest.mark.parametrize("batch", [1, 256])
def test_approximate(benchmark, memory, batch):
    queries = clustered(batch, DIM, 1)
    exact = memory.graph.search(queries, 10, -1.0)[1]
    assert recall(memory.graph.seek(queries, 10, -1.0)[1], exact) >= 0.9 or batch == 1
    benchmark.group = f"approximate B={batch}"
    benchmark(memory.graph.seek, queries, 10, -1.0)


@pytest.mark.parametrize("batch", [1, 32])
def test_retrieve(benchmark, memory, batch):
    queries = clustered(batch, DIM, 1)
    assert bool((memory.retrieve(queries).indices[:, 0] >= 0).all())
    benchmark.group = f"retrieve B={batch}"
    benchmark(memory.retrieve, queries)


@pytest.mark.parametrize("name", ["aesg.consolidate_", "numpy, columnar"])
def test_consolidate(benchmark, name):
    consolidate.check_equal(N)
    columns = consolidate.columns(10 * N)
    benchmark.group = "consolidate 1M"
    if name == "numpy, columnar":
        benchmark(consolidate.numpy_consolidate, *columns)
    else:
        benchmark(consolidate_, *map(torch.from_numpy, columns), count=10 * N, **consolidate.RULES)


@pytest.mark.parametrize("size", [1, 256])
def test_insert(benchmark, tmp_path, size):
    world = clustered(2048, DIM, 0)
    made = make_memory(tmp_path / "memory", world, 0, AESGConfig(vector_dim=DIM, max_concepts=10**9))
    made.set_mode("TRAIN")
    before = made.storage.node_count
    benchmark.group = f"insert {size} at a time"
    slots = benchmark(made.graph.add_concepts, world[:size])
    assert np.array_equal(made.graph.gather(torch.from_numpy(slots)).numpy(), world[:size].numpy())
    assert made.storage.node_count > before
    made.close()
