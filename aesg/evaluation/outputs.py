"""OutputMeter: from what a model puts out, batch by batch, to the metrics of its domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from aesg.evaluation.domains import detect_domain
from aesg.evaluation.meters import ClassificationMeter, ImageMeter, PerplexityMeter, TextMeter
from aesg.exceptions import AESGTrainingError


class OutputMeter:
    """Metrics of outputs and targets; `OutputMeter.of(model)` makes the one that fits.

    Texts: logits [B, T, V] against tokens [B, T]; the likeliest tokens, where the target is not `ignored`,
    are compared as strings. decode makes a string of token ids; without it each id is a word. Their
    perplexity is the model's own, of the logits.
    """

    def __init__(self, meter: Any, decode: Callable[[list[int]], str] | None, ignored: int) -> None:
        self._meter = meter
        self._decode = decode or (lambda ids: " ".join(map(str, ids)))
        self._ignored = ignored
        self._perplexity = PerplexityMeter(ignored) if isinstance(meter, TextMeter) else None

    @classmethod
    def of(
        cls, model: nn.Module, decode: Callable[[list[int]], str] | None = None, ignored: int = -100
    ) -> OutputMeter:
        """Raises AESGTrainingError for a model of no known domain."""
        kinds: dict[str, Any] = {
            "text": TextMeter,
            "image": ImageMeter,
            "classification": ClassificationMeter,
        }
        return cls(kinds[detect_domain(model)](), decode, ignored)

    def update(self, outputs: Any, targets: Any) -> None:
        """One batch. Raises AESGTrainingError for shapes that are not those of the domain."""
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            raise AESGTrainingError(
                f"Expected tensors to compute metrics of, got {type(outputs).__name__} and "
                f"{type(targets).__name__}"
            )
        if self._perplexity is None:
            self._meter.update(outputs, targets)
            return
        self._perplexity.update(outputs, targets)
        likeliest, counts = outputs.argmax(dim=-1).cpu(), (targets != self._ignored).cpu()
        rows = [row for row in range(len(targets)) if bool(counts[row].any())]
        self._meter.update(
            [self._decode(likeliest[row][counts[row]].tolist()) for row in rows],
            [self._decode(targets.cpu()[row][counts[row]].tolist()) for row in rows],
        )

    def compute(self) -> dict[str, float]:
        """The metrics of all batches so far."""
        found: dict[str, float] = self._meter.compute()
        if self._perplexity is not None:
            found["perplexity"] = self._perplexity.compute()
        return found
