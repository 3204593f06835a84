"""Meters: metrics gathered batch by batch, equal to those of all batches at once.

Each has `update(predictions, references)` and `compute() -> {name: float}`. Letters: B samples, C channels or
classes, H and W sides, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aesg.evaluation.torchmetrics_loader import load_torchmetrics
from aesg.exceptions import AESGTrainingError

MAX_NGRAM = 4
SSIM_RADIUS, SSIM_SIGMA = 5, 1.5  # the 11x11 Gaussian window of Wang et al. 2004


class TextMeter:
    """BLEU, ROUGE, accuracy and perplexity of predicted strings against one reference each.

    bleu [0, 1]: of the corpus (Papineni et al. 2002): n-gram precisions over all sentences, brevity penalty,
    no smoothing; n = min(4, words of the longest prediction): an identical sentence has 1 however short.
    rouge [0, 1]: ROUGE-1 recall (Lin 2004), the mean over samples; nothing to recall counts as 1 when nothing
    was predicted, else 0. Words are what whitespace parts, neither stemmed nor lower-cased.
    accuracy [0, 1]: share of predictions that equal their reference to the last character.
    perplexity [1, inf): exp of the cross-entropy of the references' characters under the distribution of the
    predictions' characters, with one added to the count of every character of either. It knows no order; of a
    model's logits see `OutputMeter`.
    """

    def __init__(self) -> None:
        text = load_torchmetrics("text")
        self._bleu = {n: text.BLEUScore(n_gram=n) for n in range(1, MAX_NGRAM + 1)}
        self._rouge = text.ROUGEScore(rouge_keys="rouge1", normalizer=str, tokenizer=str.split)
        self._recalled = False
        self._empty = self._longest = self._samples = self._equal = 0
        self._empty_recall = 0.0
        self._predicted: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Raises AESGTrainingError unless both hold as many strings."""
        for name, given in (("predictions", predictions), ("references", references)):
            if isinstance(given, str) or not all(isinstance(each, str) for each in given):
                raise AESGTrainingError(f"Expected {name} as a list of strings, got {_kind(given)}")
        if len(predictions) != len(references):
            raise AESGTrainingError(
                f"Expected as many predictions as references, got {len(predictions)} and {len(references)}"
            )
        if not predictions:
            return
        for metric in self._bleu.values():
            metric.update(list(predictions), [[each] for each in references])
        recallable = [(p, r) for p, r in zip(predictions, references, strict=True) if r.split()]
        if recallable:
            self._rouge.update([p for p, _ in recallable], [r for _, r in recallable])
            self._recalled = True
        for prediction, reference in zip(predictions, references, strict=True):
            if not reference.split():
                self._empty += 1
                self._empty_recall += not prediction.split()
            self._longest = max(self._longest, len(prediction.split()))
            self._equal += prediction == reference
            self._predicted.update(prediction)
            self._expected.update(reference)
        self._samples += len(predictions)

    def compute(self) -> dict[str, float]:
        """Raises AESGTrainingError before the first sample."""
        _some(self._samples)
        recall = 0.0
        if self._recalled:
            recall = float(self._rouge.compute()["rouge1_recall"]) * (self._samples - self._empty)
        if self._longest:
            bleu = float(self._bleu[min(MAX_NGRAM, self._longest)].compute())
        else:
            bleu = float(self._equal == self._samples)
        return {
            "bleu": bleu,
            "rouge": (recall + self._empty_recall) / self._samples,
            "accuracy": self._equal / self._samples,
            "perplexity": self._perplexity(),
        }

    def _perplexity(self) -> float:
        characters = self._expected.total()
        if characters == 0:
            return 1.0  # nothing to be surprised by
        total = self._predicted.total() + len(self._predicted | self._expected)
        surprise = sum(
            count * -math.log((self._predicted[character] + 1) / total)
            for character, count in self._expected.items()
        )
        return math.exp(surprise / characters)


class ImageMeter:
    """PSNR, SSIM, MSE and MAE of pictures [B, C, H, W] or [C, H, W] with values in [0, 1].

    psnr (dB): 10 log10(1 / MSE) with the MSE over all pixels of all pictures; inf when they are equal.
    ssim [-1, 1]: mean over pictures of the structural similarity with an 11x11 Gaussian window, sigma 1.5,
    k1 = 0.01, k2 = 0.03 (Wang et al. 2004). For sides below 11 the window is the largest odd one that fits,
    its sigma shrinking alike.
    mse, mae [0, 1]: means over all pixels.
    """

    def __init__(self) -> None:
        image, regression = load_torchmetrics("image"), load_torchmetrics("regression")
        self._psnr = image.PeakSignalNoiseRatio(data_range=1.0)
        self._mse = regression.MeanSquaredError()
        self._mae = regression.MeanAbsoluteError()
        self._similarity, self._pictures = 0.0, 0

    def update(self, predictions: Tensor, references: Tensor) -> None:
        """Raises AESGTrainingError for other shapes, and for values that are not finite."""
        predictions, references = (_pictures(each) for each in (predictions, references))
        if predictions.shape != references.shape:
            raise AESGTrainingError(
                f"Expected pictures of one shape, got {list(predictions.shape)} and {list(references.shape)}"
            )
        if not predictions.numel():
            return
        for metric in (self._psnr, self._mse, self._mae):
            metric.update(predictions.reshape(-1), references.reshape(-1))
        radius = min(SSIM_RADIUS, (min(predictions.shape[-2:]) - 1) // 2)
        sigma = SSIM_SIGMA if radius == SSIM_RADIUS else max(0.1, radius / 3.5)  # torchmetrics: r = 3.5 sigma
        similarity = load_torchmetrics("functional.image").structural_similarity_index_measure(
            predictions, references, sigma=sigma, data_range=1.0, reduction="none"
        )
        self._similarity += float(similarity.sum())
        self._pictures += len(predictions)

    def compute(self) -> dict[str, float]:
        """Raises AESGTrainingError before the first picture."""
        _some(self._pictures)
        return {
            "psnr": float(self._psnr.compute()),
            "ssim": self._similarity / self._pictures,
            "mse": float(self._mse.compute()),
            "mae": float(self._mae.compute()),
        }


class ClassificationMeter:
    """Accuracy, and macro precision, recall and F1, of logits [B, C] or classes [B] against classes [B].

    accuracy [0, 1]: share of samples that are right. precision, recall, f1 [0, 1]: of each class, then the
    plain mean over the classes that occur among predictions or references, as scikit-learn's macro average
    with zero_division=0. f1 is the mean of the classes' F1, not the F1 of the means.
    num_classes: needed when predictions are classes; logits tell it.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        self.num_classes = num_classes
        self._metrics: dict[str, Any] = {}

    def update(self, predictions: Tensor, references: Tensor) -> None:
        """Raises AESGTrainingError for other shapes, and for classes outside [0, num_classes)."""
        predictions = torch.as_tensor(predictions).detach().cpu()
        references = torch.as_tensor(references).detach().cpu()
        if predictions.dim() == 2:
            self.num_classes = self.num_classes or predictions.shape[1]
            predictions = predictions.argmax(dim=1)
        if (
            predictions.dim() != 1
            or references.shape != predictions.shape
            or _is_real(predictions, references)
        ):
            raise AESGTrainingError(
                "Expected logits [B, C] or classes [B], and classes [B], got "
                f"{list(predictions.shape)} of {predictions.dtype} and {list(references.shape)} "
                f"of {references.dtype}"
            )
        if self.num_classes is None:
            raise AESGTrainingError("Expected logits, or num_classes beside predicted classes; got neither")
        if not predictions.numel():
            return
        low = int(torch.minimum(predictions.min(), references.min()))
        high = int(torch.maximum(predictions.max(), references.max()))
        if low < 0 or high >= self.num_classes:
            raise AESGTrainingError(f"Expected classes in [0, {self.num_classes}), got {low} to {high}")
        if not self._metrics:
            self._metrics = self._new_metrics()
        for metric in self._metrics.values():
            metric.update(predictions, references)

    def compute(self) -> dict[str, float]:
        """Raises AESGTrainingError before the first sample."""
        _some(len(self._metrics))
        return {name: float(metric.compute()) for name, metric in self._metrics.items()}

    def _new_metrics(self) -> dict[str, Any]:
        parts = load_torchmetrics("classification")
        # One class is no multiclass problem to torchmetrics; a second that never occurs changes no figure.
        macro = {"num_classes": max(2, self.num_classes or 0), "average": "macro", "validate_args": False}
        return {
            "accuracy": parts.MulticlassAccuracy(**{**macro, "average": "micro"}),
            "precision": parts.MulticlassPrecision(**macro),
            "recall": parts.MulticlassRecall(**macro),
            "f1": parts.MulticlassF1Score(**macro),
        }


class PerplexityMeter:
    """exp of the mean cross-entropy of tokens under a model's logits [B, T, V]; tokens [B, T] i64."""

    def __init__(self, ignore_index: int = -100) -> None:
        self._perplexity = load_torchmetrics("text").Perplexity(ignore_index=ignore_index)
        self._ignored = ignore_index
        self._tokens = 0

    def update(self, logits: Tensor, tokens: Tensor) -> None:
        """Raises AESGTrainingError for other shapes."""
        if logits.dim() != 3 or logits.shape[:2] != tokens.shape or tokens.is_floating_point():
            raise AESGTrainingError(
                f"Expected logits [B, T, V] and tokens [B, T], got {list(logits.shape)} and "
                f"{list(tokens.shape)} of {tokens.dtype}"
            )
        self._perplexity.update(logits.detach().float().cpu(), tokens.detach().cpu())
        self._tokens += int((tokens != self._ignored).sum())

    def compute(self) -> float:
        """Raises AESGTrainingError before the first token that counts."""
        _some(self._tokens)
        return float(self._perplexity.compute())


def _some(count: int) -> None:
    if count == 0:
        raise AESGTrainingError("Expected at least one sample to evaluate, got none")


def _is_real(*tensors: Tensor) -> bool:
    return any(tensor.is_floating_point() for tensor in tensors)


def _pictures(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() not in (3, 4):
        raise AESGTrainingError(f"Expected pictures [B, C, H, W] or [C, H, W], got {_kind(value)}")
    value = value.detach().float().cpu()
    if not bool(torch.isfinite(value).all()):
        raise AESGTrainingError("Expected pictures of finite values, got NaN or infinity")
    return value if value.dim() == 4 else value.unsqueeze(0)


def _kind(value: Any) -> str:
    return f"{list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
