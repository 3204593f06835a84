"""AESGConfig and Validator: the reference's fields and defaults, JSON, and every bad value named."""

import dataclasses

import pytest

from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError, AESGMemoryError
from aesg.validation import _POSITIVE_FLOATS, _POSITIVE_INTEGERS, _UNIT_FLOATS, Validator

DOCUMENTED = {
    "vector_dim": 256,
    "max_concepts": 1_000_000,
    "max_edges_per_node": 1000,
    "spreading_activation_decay": 0.8,
    "spreading_activation_steps": 3,
    "region_facilitation_multiplier": 1.5,
    "consolidation_epoch_interval": 10,
    "prune_confidence_threshold": 0.1,
    "survival_threshold_relevance": 0.05,
    "survival_threshold_frequency": 5,
    "coactivation_threshold_create": 50,
    "merge_similarity_threshold": 0.95,
    "split_density_threshold": 800,
    "novelty_explanation_threshold": 0.6,
    "novelty_birth_threshold": 3,
    "learning_rate": 1e-3,
    "batch_size": 32,
    "storage_directory": None,
    "abstraction_enabled": True,
    "region_detection_interval": 50,
    "log_level": "INFO",
    "memory_mode": "TRAIN",
}


def test_documented_defaults():
    config = AESGConfig()
    assert {name: getattr(config, name) for name in DOCUMENTED} == DOCUMENTED
    Validator.validate_config(config)


def test_presets():
    presets = [AESGConfig.for_text(), AESGConfig.for_image(), AESGConfig.for_classification()]
    assert [(c.vector_dim, c.max_concepts) for c in presets] == [
        (128, 500_000),
        (256, 200_000),
        (64, 100_000),
    ]


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        AESGConfig().vector_dim = 3


def test_json_round_trip_and_missing_fields():
    config = AESGConfig(vector_dim=7, storage_directory="somewhere", succession_rate=0.25)
    assert AESGConfig.from_json(config.to_json()) == config
    assert AESGConfig.from_json('{"vector_dim": 9}') == AESGConfig(vector_dim=9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid configuration JSON"),
        ("[1]", "expected an object, got list"),
        (None, "Invalid configuration JSON"),
        ('{"vector_dim": 3, "wrong": 1, "also": 2}', r"Unknown configuration fields: \['also', 'wrong'\]"),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(AESGConfigError, match=message):
        AESGConfig.from_json(text)


def test_the_documented_message():
    with pytest.raises(AESGConfigError) as caught:
        Validator.validate_config(AESGConfig(vector_dim=-1, spreading_activation_decay=5.0))
    assert caught.value.message.splitlines() == [
        "Configuration validation failed:",
        "Parameter 'vector_dim': got -1, expected integer >= 1",
        "Parameter 'spreading_activation_decay': got 5.0, expected float in [0.0, 1.0]",
    ]


BAD = (
    [(name, value) for name in _POSITIVE_INTEGERS for value in (0, -1, 1.5, True, "3", None)]
    + [(name, value) for name in _UNIT_FLOATS for value in (-0.01, 1.01, float("nan"), True, "0.5", None)]
    + [(name, value) for name in _POSITIVE_FLOATS for value in (0.0, -1.0, float("inf"), "1", None)]
    + [("vector_dim", 0), ("vector_dim", 8193), ("vector_dim", 2.0), ("vector_dim", True)]
    + [("log_level", "LOUD"), ("memory_mode", "train"), ("storage_directory", 3), ("abstraction_enabled", 1)]
)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_every_bad_value_is_named(name, value):
    with pytest.raises(AESGConfigError) as caught:
        Validator.validate_config(AESGConfig(**{name: value}))
    lines = caught.value.message.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"Parameter '{name}': got {value!r}, expected ")


@pytest.mark.parametrize(
    ("name", "value"), [(name, 1) for name in _POSITIVE_INTEGERS + _UNIT_FLOATS] + [("vector_dim", 8192)]
)
def test_bounds_are_allowed(name, value):
    Validator.validate_config(AESGConfig(**{name: value}))


def test_every_field_is_checked():
    named = {*_POSITIVE_INTEGERS, *_UNIT_FLOATS, *_POSITIVE_FLOATS}
    named |= {"vector_dim", "storage_directory", "abstraction_enabled", "log_level", "memory_mode"}
    assert {field.name for field in dataclasses.fields(AESGConfig)} == named


def test_at_most_twenty_errors_are_collected():
    everything = dict.fromkeys((*_POSITIVE_INTEGERS, *_UNIT_FLOATS), -1)
    with pytest.raises(AESGConfigError) as caught:
        Validator.validate_config(AESGConfig(**everything))
    assert caught.value.message.startswith(
        "Configuration validation failed:\nParameter 'max_concepts': got -1"
    )
    assert len(caught.value.message.splitlines()) <= 21


def test_no_config_at_all():
    with pytest.raises(AESGConfigError, match="Expected an AESGConfig, got dict"):
        Validator.validate_config({})


def test_vector_dim_match():
    Validator.validate_vector_dim_match(64, 64)
    with pytest.raises(AESGMemoryError, match="expected 64, got 128"):
        Validator.validate_vector_dim_match(64, 128)


def test_memory_mode():
    for mode in ("TRAIN", "FINETUNE", "INFERENCE", "ONLINE"):
        Validator.validate_memory_mode(mode)
    with pytest.raises(AESGMemoryError) as caught:
        Validator.validate_memory_mode("INVALID")
    assert caught.value.message == (
        "Invalid memory mode 'INVALID'. Valid modes: ['TRAIN', 'FINETUNE', 'INFERENCE', 'ONLINE']"
    )
