"""detect_domain: which metrics suit a model, by its class's name."""

from __future__ import annotations

from typing import Any

from aesg.exceptions import AESGTrainingError

# As documented; the first domain with a name that the class's name contains.
DOMAINS = {
    "text": ("Transformer", "GRUText", "LSTMText", "Seq2Seq", "DecoderLM"),
    "classification": ("Classifier",),
    "image": ("Colorization", "Autoencoder"),
}


def detect_domain(model: Any) -> str:
    """ "text", "classification" or "image", by the name of the model's class or of one it derives from.

    Looks inside torch.compile and data-parallel wrappers. Raises AESGTrainingError, with the names it knows,
    for a class of another name.
    """
    inside = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
    if inside is not None and not _domain(type(model).__name__):
        return detect_domain(inside)
    for kind in type(model).__mro__:
        domain = _domain(kind.__name__)
        if domain and not kind.__module__.startswith("torch."):
            return domain
    known = [part for parts in DOMAINS.values() for part in parts]
    raise AESGTrainingError(
        f"Expected a model whose class name contains one of {known}, got {type(model).__name__}; "
        "use the compute_..._metrics of its kind"
    )


def _domain(name: str) -> str | None:
    return next((domain for domain, parts in DOMAINS.items() if any(part in name for part in parts)), None)
