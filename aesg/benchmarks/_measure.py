"""Means with their 95 % intervals, and the environment a figure was measured in."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from aesg import __version__

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom; beyond the table the normal value is near.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
_NORMAL95 = 1.96


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of independent runs and the half width of its 95 % interval (infinite for one run)."""
    n = len(values)
    if n < 2:
        return float(values[0]), math.inf
    t = _T95[n - 2] if n - 2 < len(_T95) else _NORMAL95
    return float(np.mean(values)), t * float(np.std(values, ddof=1)) / math.sqrt(n)


def environment(device: str | torch.device = "cpu") -> dict[str, Any]:
    """What a figure must be read with; `device`: where models and memories were."""
    found: dict[str, Any] = {
        "aesg": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found
