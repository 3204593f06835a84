"""The library: what it registers, what it is built against, and how its errors become typed ones."""

import re
from pathlib import Path

import pytest
import torch

import aesg.ops  # noqa: F401  (registers the fakes)
from aesg import _extension
from aesg.exceptions import AESGConfigError, AESGMemoryError, AESGNavigationError

OPS = [
    "seed_search",
    "spread_activation",
    "spread_activation_backward",
    "consolidate_",
    "pool_novelty_",
    "keep_primary_",
    "project_out",
    "project_out_inv_norm_",
    "note_succession_",
    "count_use_",
    "coactivation_pairs",
    "coactivate_",
    "follow_",
    "retire_",
    "pack_rows",
    "bear_",
]
WITH_CUDA = [
    "seed_search",
    "spread_activation",
    "spread_activation_backward",
    "activate_context",
    "replay_energies",
    "replay_energies_backward",
    "read_members",
    "read_members_backward",
    "consolidate_",
    "pool_novelty_",
    "keep_primary_",
    "project_out",
    "project_out_inv_norm_",
    "note_succession_",
    "count_use_",
    "coactivation_pairs",
    "coactivate_",
    "follow_",
    "retire_",
    "pack_rows",
    "bear_",
]


def has(op, key):
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aesg::{op}", key)


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_cpu_kernel_and_a_fake(op):
    assert has(op, "CPU") and has(op, "Meta")


def test_cuda_kernels_are_registered_all_or_none():
    assert {has(op, "CUDA") for op in WITH_CUDA} == {_extension.has_cuda_kernels()}


def test_the_sources_keep_to_what_the_oldest_torch_has():
    """Names that came after 2.11, the TORCH_TARGET of setup.py: newer headers have them all the same."""
    newer = re.compile(r"\bSTABLE_TORCH_ERROR_CODE_CHECK\b")
    sources = [p for p in (Path(__file__).resolve().parents[2] / "csrc").rglob("*") if p.is_file()]
    assert sources and not [str(p) for p in sources if newer.search(p.read_text())]


@pytest.mark.parametrize(
    "text, error, message",
    [
        ("AESGMemoryError: vectors: expected a, got b", AESGMemoryError, "vectors: expected a, got b"),
        ("first AESGNavigationError: k: expected 1\nsecond line", AESGNavigationError, "k: expected 1"),
        (
            "aesg::seed_search() Expected a value\nof type",
            AESGConfigError,
            "aesg::seed_search() Expected a value",
        ),
        ("something else", RuntimeError, "something else"),
    ],
)
def test_errors_are_typed_by_their_name(text, error, message):
    with pytest.raises(error) as caught:
        _extension.raise_typed(RuntimeError(text), AESGConfigError)
    assert str(caught.value) == message


def test_a_missing_library_says_how_to_build_it(monkeypatch, tmp_path):
    monkeypatch.setattr(_extension, "__file__", str(tmp_path / "_extension.py"))
    with pytest.raises(ImportError, match="pip install -e"):
        _extension._load()


def test_an_unfitting_library_is_an_import_error(monkeypatch, tmp_path):
    (tmp_path / "_ops.abi3.so").write_bytes(b"not a library")
    monkeypatch.setattr(_extension, "__file__", str(tmp_path / "_extension.py"))
    with pytest.raises(ImportError, match="does not load into torch"):
        _extension._load()
