"""The words and tables of `benchmark_report.md`."""

from __future__ import annotations

import statistics
from typing import Any

from aesg.benchmarks._measure import interval

UNITS = {"psnr": "dB", "ssim": ""}


def report(
    settings: dict[str, Any],
    results: dict[str, Any],
    differences: dict[str, dict[str, Any]],
    environment: dict[str, Any],
    curves: bool,
) -> str:
    """Markdown. `differences`: of `compare`."""
    aesg, baseline = results["aesg"], results["baseline"]
    count = settings["seeds"]
    rows = [
        ("PSNR, dB (higher is better)", "psnr", 3),
        ("SSIM (higher is better)", "ssim", 4),
    ]
    table = ["| | with memory | its reads switched off | baseline |", "|---|---:|---:|---:|"]
    for title, key, digits in rows:
        cells = (
            _cell([run[key] for run in aesg.seeds], digits),
            _cell([run[f"{key}_reads_off"] for run in aesg.seeds], digits),
            _cell([run[key] for run in baseline.seeds], digits),
        )
        table.append(f"| {title} | {' | '.join(cells)} |")
    last = (_cell([run["loss_per_epoch"][-1] for run in model.seeds], 5) for model in (aesg, baseline))
    table.append("| training loss of the last epoch | {} | | {} |".format(*last))
    seconds = (_cell([run["train_time_seconds"] for run in model.seeds], 1) for model in (aesg, baseline))
    table.append("| training, seconds | {} | | {} |".format(*seconds))
    retrieval = statistics.mean(run["retrieval_seconds"] for run in aesg.seeds)
    lines = [
        "# Colorization with a memory and without",
        "",
        f"Pictures: {settings['dataset']}.",
        "",
        f"{settings['images']:,} pictures of {settings['image_size']} x {settings['image_size']} pixels, "
        f"{settings['held_out']:,} of them held out; {settings['max_epochs']} epochs, batches of "
        f"{settings['batch_size']}, Adam at {settings['learning_rate']:g}; {count} "
        + ("seeds" if count > 1 else "seed")
        + " (weights, split and order). Both models have the same layers but for the memory, the same "
        "initial weights, steps and order of data; the memory is updated after each batch.",
        "",
        *table,
        "",
        "Mean"
        + (
            f" and 95 % interval over {count} seeds (Student's t)."
            if count > 1
            else " of one seed: no interval."
        )
        + " The middle column is the trained model with the memory, answering without asking it.",
        "",
        "## Is it a difference?",
        "",
        *(f"- {sentence(key, found)}" for key, found in differences.items()),
        "",
        "## The memory",
        "",
        f"{aesg.concepts_created:,} concepts created, {aesg.concepts_merged:,} merged, "
        f"{aesg.memory_nodes:,} alive at the end; {aesg.regions_activated:,} regions with a concept that was "
        f"used. {retrieval:.1f} s of training went to retrieval.",
        "",
        "## Pictures",
        "",
        "`samples/sample_000.png` and on, held out; from left to right: original, grey, with memory, "
        "baseline."
        + (
            " `curves.png`: loss and growth of the memory."
            if curves
            else " No curves: matplotlib is not installed (`pip install 'aesg[plots]'`)."
        ),
        "",
        "## Environment",
        "",
        ", ".join(f"{name} {value}" for name, value in environment.items()),
        "",
    ]
    return "\n".join(lines)


def sentence(key: str, found: dict[str, Any]) -> str:
    """Says in words what a paired comparison shows, and what it does not."""
    metric, _, other = key.partition("_less_")
    against = {"baseline": "the baseline", "reads_off": "the same model with its reads switched off"}[other]
    unit = f" {UNITS[metric]}" if UNITS[metric] else ""
    digits = 3 if metric == "psnr" else 4
    difference = f"{metric.upper()} with memory is {found['mean']:+.{digits}f}{unit} against {against}"
    if found["half_width_95"] is None:
        return f"{difference}: one seed, which cannot tell a difference from chance."
    interval_ = f"95 % interval {found['mean'] - found['half_width_95']:+.{digits}f} to "
    interval_ += f"{found['mean'] + found['half_width_95']:+.{digits}f}, seed by seed"
    if not found["is_a_difference"]:
        return f"{difference} ({interval_}): the interval holds zero, so no difference is shown."
    return (
        f"{difference} ({interval_}): a difference, {'better' if found['mean'] > 0 else 'worse'} with memory."
    )


def _cell(values: list[float], digits: int) -> str:
    mean, half = interval(values)
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")
