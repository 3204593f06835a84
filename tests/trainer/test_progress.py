"""The progress bar: what it shows, and when it does not."""

import io
import re
import sys

import pytest

from aesg.architectures import AESGDecoderLM
from aesg.trainer import AESGTrainer, progress
from tests.trainer.test_trainer import V, language_model, pairs


class Terminal(io.StringIO):
    """A stderr that is a terminal, or none."""

    def __init__(self, is_one):
        super().__init__()
        self._is_one = is_one

    def isatty(self):
        return self._is_one


def shown(monkeypatch, model, is_terminal, wanted):
    stderr = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)
    AESGTrainer(model, batch_size=4).fit(pairs(), epochs=2, progress=wanted)
    return stderr.getvalue()


def test_loss_concepts_edges_and_speed(monkeypatch, make_memory):
    memory = make_memory(novelty_birth_threshold=1)
    text = shown(monkeypatch, AESGDecoderLM(V, 32, 1, memory), True, None)
    assert "epoch 1" in text and "epoch 2" in text and "2/2" in text and "batch" in text
    last = text.rpartition("loss=")[2]
    figures = re.match(r"(\d+\.\d{3}), concepts=([\d,]+), edges=([\d,]+), targets/s=([\d,]+)", last)
    assert figures, last
    assert int(figures[2].replace(",", "")) == memory.storage.node_count > 0
    assert int(figures[4].replace(",", "")) > 0


@pytest.mark.parametrize(
    ("is_terminal", "wanted", "expected"),
    [(True, None, True), (True, False, False), (False, None, False), (False, True, True)],
)
def test_when_it_is_shown(monkeypatch, is_terminal, wanted, expected):
    assert bool(shown(monkeypatch, language_model(), is_terminal, wanted)) == expected


def test_without_a_memory_it_shows_the_loss_alone(monkeypatch):
    model = AESGDecoderLM(V, 32, 1, None)
    with pytest.warns(UserWarning, match="no AESGMemory") as told:
        text = shown(monkeypatch, model, True, True)
    assert "loss=" in text and "concepts" not in text
    assert len([each for each in told if "no AESGMemory" in str(each.message)]) == 1
