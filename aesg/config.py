"""AESGConfig: every parameter of the memory, frozen, with its default and its reason."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from aesg.exceptions import AESGConfigError


@dataclass(frozen=True)
class AESGConfig:
    """Parameters of one memory. Frozen; values are checked where a memory is made (`aesg.validation`).

    The first block holds the fields of aesg 3.0.0 with its defaults. The second holds the constants of the
    rules in `docs/design.md`; JSON written by 3.0.0 lacks them and loads with the defaults.
    """

    vector_dim: int = 256  # D, 1..8192
    max_concepts: int = 1_000_000  # living concepts kept by `update_topology()`
    max_edges_per_node: int = 1000  # above it a concept may be split
    spreading_activation_decay: float = 0.8  # share of energy that survives one hop
    spreading_activation_steps: int = 3  # T, hops
    region_facilitation_multiplier: float = 1.5  # bonus for edges into the best seed's region
    consolidation_epoch_interval: int = 10  # `update_topology()` calls between two sweeps
    prune_confidence_threshold: float = 0.1  # a sweep removes edges below this confidence
    survival_threshold_relevance: float = 0.05
    survival_threshold_frequency: int = 5
    coactivation_threshold_create: int = 50  # joint uses of a pair that give birth to an abstract concept
    merge_similarity_threshold: float = 0.95  # cosine
    split_density_threshold: int = 800  # edges
    novelty_explanation_threshold: float = 0.6  # an input explained below this is novel
    novelty_birth_threshold: int = 3  # like inputs that make a candidate a concept
    learning_rate: float = 1e-3
    batch_size: int = 32
    storage_directory: str | None = None
    abstraction_enabled: bool = True
    region_detection_interval: int = 50  # `update_topology()` calls between two region detections
    log_level: str = "INFO"
    memory_mode: str = "TRAIN"

    seed_top_k: int = 4  # S, best concepts a query starts from
    context_size: int = 10  # K, strongest concepts a query gets back
    seed_min_similarity: float = 0.1  # below it a likeness is chance
    seed_relative_similarity: float = 0.5  # seeds weaker than this share of the best only crowd the context
    source_energy_floor: float = 0.1  # a concept fires at or above this energy
    transfer_floor: float = 0.05  # an edge carries only what exceeds this
    priming: float = 0.5  # share of energy with which the last primary concepts re-enter
    link_count: int = 4  # edges made at birth
    link_min_similarity: float = 0.5  # 0.3 gave ten times the edges for the same recall
    edge_initial_confidence: float = 0.5
    edge_fade: float = (
        0.999  # share of confidence kept between two sweeps without use: gone after about 2,000
    )
    succession_rate: float = 0.3  # kappa of the running estimate P(next | current)
    succession_yield: float = (
        0.7  # share that known successors give up for a new one, so that the latest leads
    )
    coactivation_rate: float = 0.05  # pull towards confidence 1 of an edge whose ends are primary together
    relevance_gain: float = 0.1  # pull of one full-energy use towards relevance 1
    relevance_decay: float = 0.95  # a consolidation keeps this share of relevance
    prune_min_age: int = 5  # consolidations a concept lives at least
    novelty_pool_size: int = 4096  # P, candidates waiting to be born
    query_context: float = 0.6  # how far what came before a token counts in text models' queries, 0: not
    query_collapse_threshold: float = (
        0.9  # resultant from which the queries' common part is left out; 1: never
    )

    approximate_search_from: int = 50_000  # living concepts from which on search is approximate
    recall_target: float = (
        0.95  # share of the ten nearest it must find, measured on a sample; 1: always exact
    )

    @classmethod
    def for_text(cls) -> AESGConfig:
        """Preset for text: D = 128, at most 500,000 concepts."""
        return cls(vector_dim=128, max_concepts=500_000)

    @classmethod
    def for_image(cls) -> AESGConfig:
        """Preset for pictures: D = 256, at most 200,000 concepts."""
        return cls(vector_dim=256, max_concepts=200_000)

    @classmethod
    def for_classification(cls) -> AESGConfig:
        """Preset for classification: D = 64, at most 100,000 concepts."""
        return cls(vector_dim=64, max_concepts=100_000)

    def to_json(self) -> str:
        """The fields as a JSON object in order, two spaces deep; `from_json` gives an equal config."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> AESGConfig:
        """The config that `to_json` wrote. Missing fields take defaults.

        Raises AESGConfigError for malformed JSON, anything but an object, and unknown fields.
        """
        try:
            values: Any = json.loads(text)
        except (TypeError, ValueError) as error:
            raise AESGConfigError(f"Invalid configuration JSON: {error}") from error
        if not isinstance(values, dict):
            raise AESGConfigError(
                f"Invalid configuration JSON: expected an object, got {type(values).__name__}"
            )
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise AESGConfigError(f"Unknown configuration fields: {unknown}")
        return cls(**values)
