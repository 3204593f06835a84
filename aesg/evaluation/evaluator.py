"""Evaluator: the documented face of the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aesg.evaluation.domains import detect_domain
from aesg.evaluation.meters import ClassificationMeter, ImageMeter, PerplexityMeter, TextMeter


class Evaluator:
    """Metrics of predictions against references: what each is, `aesg.evaluation.meters` says."""

    @staticmethod
    def detect_domain(model: Any) -> str:
        """ "text", "classification" or "image", by class name; AESGTrainingError for any other."""
        return detect_domain(model)

    @staticmethod
    def compute_text_metrics(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """bleu, rouge, accuracy and perplexity of strings."""
        return _measured(TextMeter(), predictions, references)

    @staticmethod
    def compute_image_metrics(predictions: Tensor, references: Tensor) -> dict[str, float]:
        """psnr, ssim, mse and mae of pictures [B, C, H, W] with values in [0, 1]."""
        return _measured(ImageMeter(), predictions, references)

    @staticmethod
    def compute_classification_metrics(predictions: Tensor, references: Tensor) -> dict[str, float]:
        """accuracy, precision, recall and f1 of logits [B, C] or classes [B] against classes [B]."""
        predictions, references = torch.as_tensor(predictions), torch.as_tensor(references)
        classes = None
        if predictions.dim() == 1 and predictions.numel() and references.numel():
            classes = int(max(predictions.max(), references.max())) + 1
        return _measured(ClassificationMeter(classes), predictions, references)

    @staticmethod
    def compute_perplexity(logits: Tensor, tokens: Tensor, ignore_index: int = -100) -> float:
        """exp of the mean cross-entropy of tokens [B, T] under logits [B, T, V]."""
        meter = PerplexityMeter(ignore_index)
        meter.update(logits, tokens)
        return meter.compute()

    def evaluate(self, model: Any, predictions: Any, references: Any) -> dict[str, float]:
        """The metrics of the model's domain, which its class name tells."""
        kinds: dict[str, Any] = {
            "text": self.compute_text_metrics,
            "image": self.compute_image_metrics,
            "classification": self.compute_classification_metrics,
        }
        return kinds[self.detect_domain(model)](predictions, references)


def _measured(meter: Any, predictions: Any, references: Any) -> dict[str, float]:
    meter.update(predictions, references)
    return meter.compute()
