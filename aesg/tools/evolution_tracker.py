"""EvolutionTracker: what the event log tells about a memory's life."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from aesg.storage.logger import EventType, EvolutionLogger
from aesg.tools.files import replacing
from aesg.tools.optional import require

SHOWN = 20  # abstract concepts that are printed, the newest
BINS = 60  # of the plot over time
COLORS = {
    "CREATE": "#2e9e5b",
    "MERGE": "#2a6fdb",
    "SPLIT": "#c9a227",
    "PRUNE": "#d9541e",
    "CONSOLIDATE": "#8a94a6",
    "RESTRUCTURE": "#9750c9",
}


class EvolutionTracker:
    """Reads the log of one memory: `EvolutionTracker(memory.logger)`."""

    def __init__(self, logger: EvolutionLogger) -> None:
        self.logger = logger

    def summary(self) -> dict[str, Any]:
        """What happened how often.

        `total`; `counts` by event type, those at 0 too; `abstract` of the concepts created; `first` and
        `last`, unix seconds, None without events; `seconds` between them; `net_growth`: concepts created or
        split off less those merged or pruned. O(events).
        """
        events = self._events()
        counts = {kind.name: int((events["type"] == kind).sum()) for kind in EventType}
        first, last = (
            (int(events["timestamp"].min()), int(events["timestamp"].max()))
            if len(events)
            else (
                None,
                None,
            )
        )
        return {
            "total": len(events),
            "counts": counts,
            "abstract": len(self.abstract_creations()),
            "first": first,
            "last": last,
            "seconds": 0 if first is None or last is None else last - first,
            "net_growth": counts["CREATE"] + counts["SPLIT"] - counts["MERGE"] - counts["PRUNE"],
        }

    def abstract_creations(self) -> np.ndarray:
        """The events that bore a concept above others, structured; id1 the concept, id2 its first parent, val
        how many parents."""
        events = self._events()
        return events[(events["type"] == EventType.CREATE) & (events["id2"] != 0)]

    def print_abstract_creations(self) -> None:
        """One line for each of the newest abstract concepts: when, which, above how many, the first."""
        found = self.abstract_creations()
        print(f"{len(found)} abstract concepts" + (f", the newest {SHOWN}:" if len(found) > SHOWN else ""))
        for event in found[-SHOWN:]:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(int(event["timestamp"])))
            print(
                f"  {when} UTC  concept {int(event['id1'])} above {int(event['val'])} concepts, "
                f"the first {int(event['id2'])}"
            )

    def plot_event_distribution(self, path: str | os.PathLike[str] | None = None) -> Any:
        """How many events of each type, and when; a matplotlib Figure, which a notebook shows.

        `path`: written there too, in the format of its suffix. Raises AESGConfigError without matplotlib,
        AESGStorageError when the file cannot be written.
        """
        figure = require("matplotlib.figure", "plots").Figure(figsize=(10, 4), layout="constrained")
        events = self._events()
        bars, over_time = figure.subplots(1, 2, width_ratios=(1, 2))
        present = [kind for kind in EventType if (events["type"] == kind).any()]
        counts = [int((events["type"] == kind).sum()) for kind in present]
        colors = [COLORS[kind.name] for kind in present]
        drawn = bars.barh([kind.name for kind in present], counts, color=colors)
        bars.bar_label(drawn, padding=3, fmt="{:,.0f}")
        bars.margins(x=0.2)
        bars.set_xlabel("events")
        bars.invert_yaxis()
        if len(events):
            begun = int(events["timestamp"].min())
            seconds = (events["timestamp"] - begun).astype(np.float64)
            scale, unit = _unit(float(seconds.max()))
            over_time.hist(
                [seconds[events["type"] == kind] / scale for kind in present],
                bins=BINS,
                stacked=True,
                color=colors,
                label=[kind.name for kind in present],
            )
            over_time.set_xlabel(f"{unit} since the first event")
            over_time.legend(frameon=False)
        over_time.set_ylabel("events")
        for axes in (bars, over_time):
            axes.spines[["top", "right"]].set_visible(False)
        if path is not None:
            with replacing(path) as beside:
                figure.savefig(beside, dpi=150)
        return figure

    def _events(self) -> np.ndarray:
        return self.logger.get_history().array


def _unit(seconds: float) -> tuple[float, str]:
    """The largest unit of which the span has at least three."""
    for scale, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 3 * scale:
            return scale, unit
    return 1.0, "seconds"
