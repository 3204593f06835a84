"""Metrics: known values, documented ranges, batches equal the whole, and other implementations agree."""

import math
import subprocess
import sys

import pytest
import torch

from aesg import Evaluator
from aesg.evaluation import ClassificationMeter, ImageMeter, OutputMeter, TextMeter
from aesg.exceptions import AESGTrainingError

A = ["the cat sat on the mat", "hello world", "a b", "one two three four five"]
B = ["the cat sat on a mat", "hello world", "b a", "one two three five four"]


@pytest.mark.parametrize("sentence", ["word", "two words", "now three words", "a longer one of six words"])
def test_an_identical_sentence_has_bleu_1_however_short(sentence):
    found = Evaluator.compute_text_metrics([sentence], [sentence])
    assert found["bleu"] == pytest.approx(1)
    assert found["rouge"] == found["accuracy"] == 1
    assert found["perplexity"] >= 1


def test_bleu_by_hand():
    found = Evaluator.compute_text_metrics(A[:2], B[:2])
    assert found["bleu"] == pytest.approx((7 / 8 * 4 / 6 * 2 / 4 * 1 / 3) ** 0.25, rel=1e-5)
    assert found["rouge"] == pytest.approx((5 / 6 + 1) / 2)
    assert found["accuracy"] == 0.5
    short = Evaluator.compute_text_metrics(["the cat"], ["the cat sat down"])
    assert short["bleu"] == pytest.approx(math.exp(1 - 4 / 2))  # brevity


def test_rouge_counts_words_of_any_script():
    assert Evaluator.compute_text_metrics(["über straße"], ["straße über"])["rouge"] == 1
    assert Evaluator.compute_text_metrics(["", "x"], ["", ""])["rouge"] == 0.5


def test_perplexity_of_strings_by_hand():
    # "aab" predicts a with 3/5 and b with 2/5, one added to each count.
    found = Evaluator.compute_text_metrics(["aab"], ["ab"])["perplexity"]
    assert found == pytest.approx(math.exp(-(math.log(3 / 5) + math.log(2 / 5)) / 2))


def test_batches_equal_the_whole():
    meter = TextMeter()
    for p, r in zip(A, B, strict=True):
        meter.update([p], [r])
    assert meter.compute() == pytest.approx(Evaluator.compute_text_metrics(A, B), rel=1e-6)
    x, y = torch.rand(2, 7, 3, 16, 12).unbind()
    pictures = ImageMeter()
    pictures.update(x[:2], y[:2])
    pictures.update(x[2:], y[2:])
    assert pictures.compute() == pytest.approx(Evaluator.compute_image_metrics(x, y), rel=1e-5)
    logits, classes = torch.randn(50, 6), torch.randint(0, 6, (50,))
    counted = ClassificationMeter()
    counted.update(logits[:1], classes[:1])
    counted.update(logits[1:], classes[1:])
    assert counted.compute() == pytest.approx(Evaluator.compute_classification_metrics(logits, classes))


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 10, 11, 30])
def test_pictures_of_any_size(side):
    x = torch.rand(2, 3, side, side + 1)
    same = Evaluator.compute_image_metrics(x, x)
    assert same["ssim"] == pytest.approx(1, abs=1e-5)
    assert (same["psnr"], same["mse"], same["mae"]) == (math.inf, 0, 0)
    other = Evaluator.compute_image_metrics(x, 1 - x)
    assert -1 <= other["ssim"] < 0.99
    assert other["psnr"] == pytest.approx(10 * math.log10(1 / other["mse"]), rel=1e-4)


def test_ssim_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    x = torch.rand(3, 40, 32)
    y = (x + 0.1 * torch.randn(3, 40, 32)).clamp(0, 1)
    expected = metrics.structural_similarity(
        x.numpy(), y.numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert Evaluator.compute_image_metrics(x, y)["ssim"] == pytest.approx(
        expected, abs=5e-3
    )  # theirs leaves out a rim of 5


def test_classes_equal_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, classes = torch.randn(40, 9), torch.randint(0, 7, (40,))
    found = Evaluator.compute_classification_metrics(logits, classes)
    predicted = logits.argmax(1)
    p, r, f, _ = sklearn.precision_recall_fscore_support(classes, predicted, average="macro", zero_division=0)
    accuracy = sklearn.accuracy_score(classes, predicted)
    assert found == pytest.approx({"accuracy": accuracy, "precision": p, "recall": r, "f1": f}, rel=1e-5)
    assert Evaluator.compute_classification_metrics(predicted, classes) == pytest.approx(found)


def test_one_class():
    found = Evaluator.compute_classification_metrics(torch.randn(4, 1), torch.zeros(4, dtype=torch.long))
    assert found == {"accuracy": 1, "precision": 1, "recall": 1, "f1": 1}


def test_perplexity_of_logits():
    logits, tokens = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    tokens[0, :3] = -100
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).exp()
    assert Evaluator.compute_perplexity(logits, tokens) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("AESGTransformer", "text"), ("AESGGRUText", "text"), ("AESGLSTMText", "text"),
        ("AESGSeq2Seq", "text"),
        ("AESGDecoderLM", "text"), ("AESGCNNClassifier", "classification"), ("AESGColorizationNet", "image"),
        ("AESGCNNAutoencoder", "image"), ("MyClassifier", "classification"),
    ],
)  # fmt: skip
def test_domains(name, domain):
    kind = type(name, (torch.nn.Module,), {})
    assert Evaluator.detect_domain(kind()) == domain
    assert Evaluator.detect_domain(type("Mine", (kind,), {})()) == domain
    assert Evaluator.detect_domain(torch.nn.DataParallel(kind())) == domain


def test_an_unknown_domain():
    with pytest.raises(AESGTrainingError, match=r"'Classifier'.*got Linear"):
        Evaluator.detect_domain(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Evaluator.compute_text_metrics(["a"], ["a", "b"]), "got 1 and 2"),
        (lambda: Evaluator.compute_text_metrics("text", ["a"]), "list of strings, got str"),
        (lambda: Evaluator.compute_text_metrics([], []), "at least one sample"),
        (lambda: Evaluator.compute_image_metrics(torch.rand(2, 2), torch.rand(2, 2)), r"\[B, C, H, W\]"),
        (lambda: Evaluator.compute_image_metrics(torch.rand(3, 2, 2), torch.rand(3, 2, 3)), "one shape"),
        (
            lambda: Evaluator.compute_image_metrics(torch.full((1, 2, 2), math.nan), torch.rand(1, 2, 2)),
            "NaN",
        ),
        (lambda: Evaluator.compute_classification_metrics(torch.rand(3, 2), torch.rand(3)), "classes"),
        (
            lambda: Evaluator.compute_classification_metrics(torch.rand(3, 2), torch.tensor([0, 1, 2])),
            r"\[0, 2\), got 0 to 2",
        ),
        (lambda: Evaluator.compute_perplexity(torch.rand(2, 3), torch.zeros(2, 3)), r"\[B, T, V\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(AESGTrainingError, match=message):
        call()


def test_outputs_of_a_text_model():
    model = type("TinyDecoderLM", (torch.nn.Module,), {})()
    targets = torch.tensor([[1, 2, 3, -100], [4, 4, -100, -100]])
    logits = torch.nn.functional.one_hot(targets.clamp(min=0), 6).float() * 30
    meter = OutputMeter.of(model)
    meter.update(logits, targets)
    found = meter.compute()
    assert found["bleu"] == pytest.approx(1)
    assert found["accuracy"] == 1
    assert found["perplexity"] == pytest.approx(1, abs=1e-6)
    seen = []
    decoding = OutputMeter.of(model, decode=lambda ids: seen.append(ids) or "x")
    decoding.update(logits, targets)
    assert seen == [[1, 2, 3], [4, 4], [1, 2, 3], [4, 4]]


def test_a_torchvision_built_for_another_torch_does_no_harm(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    info = tmp_path / "torchvision-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.0\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from aesg import Evaluator; import torch; "
        "print(Evaluator.compute_image_metrics(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))['mae'])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1.0"


def test_torchmetrics_is_not_loaded_before_it_is_needed():
    code = "import sys; from aesg import Evaluator, AESGTrainer; print('torchmetrics' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
