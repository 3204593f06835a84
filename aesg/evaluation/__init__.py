"""Quality metrics of texts, pictures and classes, through torchmetrics, imported when first needed."""

from aesg.evaluation.evaluator import Evaluator
from aesg.evaluation.meters import ClassificationMeter, ImageMeter, TextMeter
from aesg.evaluation.outputs import OutputMeter

__all__ = ["ClassificationMeter", "Evaluator", "ImageMeter", "OutputMeter", "TextMeter"]
