"""Libraries that only some tools need: imported when asked for, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from aesg.exceptions import AESGConfigError


def require(module: str, extra: str) -> Any:
    """The module, imported. Raises AESGConfigError naming the extra of this package that installs it.

    A library that is there but broken (torchvision beside a torch it does not fit raises RuntimeError) counts
    as missing.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:
        name = module.partition(".")[0]
        raise AESGConfigError(
            f"{name} is needed for this and cannot be imported ({error}): pip install 'aesg[{extra}]'"
        ) from error
