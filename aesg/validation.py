"""Validator: checks configs, dimensions and mode names before anything is made from them."""

from __future__ import annotations

import math
from typing import Any

from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError, AESGMemoryError

MAX_VECTOR_DIM = 8192
MAX_REPORTED_ERRORS = 20
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MEMORY_MODES = ("TRAIN", "FINETUNE", "INFERENCE", "ONLINE")

_POSITIVE_INTEGERS = (
    "max_concepts",
    "max_edges_per_node",
    "spreading_activation_steps",
    "consolidation_epoch_interval",
    "survival_threshold_frequency",
    "coactivation_threshold_create",
    "split_density_threshold",
    "novelty_birth_threshold",
    "batch_size",
    "region_detection_interval",
    "seed_top_k",
    "context_size",
    "link_count",
    "prune_min_age",
    "novelty_pool_size",
    "approximate_search_from",
)
_UNIT_FLOATS = (
    "spreading_activation_decay",
    "prune_confidence_threshold",
    "survival_threshold_relevance",
    "merge_similarity_threshold",
    "novelty_explanation_threshold",
    "seed_min_similarity",
    "seed_relative_similarity",
    "source_energy_floor",
    "transfer_floor",
    "priming",
    "link_min_similarity",
    "edge_initial_confidence",
    "edge_fade",
    "succession_rate",
    "succession_yield",
    "coactivation_rate",
    "relevance_gain",
    "relevance_decay",
    "recall_target",
    "query_context",
    "query_collapse_threshold",
)
_POSITIVE_FLOATS = ("learning_rate", "region_facilitation_multiplier")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Validator:
    """Checks that raise a typed error naming what was expected and what came."""

    @staticmethod
    def validate_config(config: AESGConfig) -> None:
        """Raises one AESGConfigError that lists every bad field, at most 20 of them."""
        if not isinstance(config, AESGConfig):
            raise AESGConfigError(f"Expected an AESGConfig, got {type(config).__name__}")
        errors: list[str] = []

        def check(name: str, good: bool, expected: str) -> None:
            if not good:
                errors.append(f"Parameter '{name}': got {getattr(config, name)!r}, expected {expected}")

        dim = config.vector_dim
        if not _is_integer(dim) or dim < 1:
            check("vector_dim", False, "integer >= 1")
        else:
            check("vector_dim", dim <= MAX_VECTOR_DIM, f"integer <= {MAX_VECTOR_DIM}")
        for name in _POSITIVE_INTEGERS:
            value = getattr(config, name)
            check(name, _is_integer(value) and value >= 1, "integer >= 1")
            check(name, not _is_integer(value) or value < 2**63, "integer < 2**63")
        for name in _UNIT_FLOATS:
            value = getattr(config, name)
            check(name, _is_finite_number(value) and 0.0 <= value <= 1.0, "float in [0.0, 1.0]")
        for name in _POSITIVE_FLOATS:
            value = getattr(config, name)
            check(name, _is_finite_number(value) and value > 0.0, "finite float > 0.0")
        directory = config.storage_directory
        check("storage_directory", directory is None or isinstance(directory, str), "string or None")
        check("abstraction_enabled", isinstance(config.abstraction_enabled, bool), "bool")
        check("log_level", config.log_level in LOG_LEVELS, f"one of {list(LOG_LEVELS)}")
        check("memory_mode", config.memory_mode in MEMORY_MODES, f"one of {list(MEMORY_MODES)}")

        if errors:
            shown = errors[:MAX_REPORTED_ERRORS]
            raise AESGConfigError("\n".join(["Configuration validation failed:", *shown]))

    @staticmethod
    def validate_vector_dim_match(config_dim: int, tensor_dim: int) -> None:
        """Raises AESGMemoryError unless a tensor's last dimension is the memory's D."""
        if config_dim != tensor_dim:
            raise AESGMemoryError(f"Vector dimension mismatch: expected {config_dim}, got {tensor_dim}")

    @staticmethod
    def validate_memory_mode(mode: str) -> None:
        """Raises AESGMemoryError unless `mode` is one of the four mode names."""
        if mode not in MEMORY_MODES:
            raise AESGMemoryError(f"Invalid memory mode '{mode}'. Valid modes: {list(MEMORY_MODES)}")
