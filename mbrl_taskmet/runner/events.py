"""TensorBoard's view of a record: one event file for each seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Events:
    """A seed's event file.

    Written at once, without `SummaryWriter`, whose thread dies of a full disk and leaves the training waiting for it.
    """

    BINS = np.concatenate([sign * 1e-12 * 1.1 ** np.arange(774)[::sign] if sign else [0.0] for sign in (-1, 0, 1)])
    """Those of `SummaryWriter`, up to 1e20 on both sides."""

    def __init__(self, directory: Path):
        from tensorboardX.event_file_writer import EventsWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(directory.absolute() / "events"))
        self.flush, self.close = self._writer.flush, self._writer.close

    def add(self, row: dict[str, Any]) -> None:
        """Write the quantities of a row that are known."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import Summary, histogram, scalar

        values = []
        for tag, value in row.items():
            known = [number for number in (value if isinstance(value, list) else [value]) if number is not None]
            if "/" not in tag or not known:
                continue
            # Numbers that float32 cannot hold, or that are beyond the last bin, count as the largest.
            shown = np.clip(np.array(known, float), -3e38, 3e38)
            make = histogram(tag, np.clip(shown, -1e19, 1e19), self.BINS) if isinstance(value, list) else scalar(tag, shown)
            values += make.value
        self._writer.write_event(Event(wall_time=row["wall_time"], step=row["step"], summary=Summary(value=values)))
