"""TensorBoard's view of a record: one event file for each seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Events:
    """A seed's event file: scalars and histograms by their tags, settings and return for the HParams tab, the metric's picture.

    Written at once, without `SummaryWriter`, whose thread dies of a full disk and leaves the training waiting for it.

    Args:
        directory: where the file goes; made if it is not there.
        settings: the run's, by name.
    """

    BINS = np.concatenate([sign * 1e-12 * 1.1 ** np.arange(774)[::sign] if sign else [0.0] for sign in (-1, 0, 1)])
    """Those of `SummaryWriter`, up to 1e20 on both sides."""
    FEW = 8
    """Weights of a metric up to which its scalars and histograms are enough."""
    PIXELS = 4
    """Of a weight in the metric's picture, on each side."""

    def __init__(self, directory: Path, settings: Mapping[str, Any] | None = None):
        from tensorboardX.event_file_writer import EventsWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(directory.absolute() / "events"))
        self.flush = self._writer.flush
        self._settings = dict(settings or {})
        self._metrics: list[list[float | None]] = []
        self._last: dict[str, Any] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Write the quantities of a row that are known."""
        from tensorboardX.summary import histogram, scalar

        if not self._last and self._settings:
            self._write_settings(row)
        values = []
        for tag, value in row.items():
            known = [number for number in (value if isinstance(value, list) else [value]) if number is not None]
            if "/" not in tag or not known:
                continue
            # Numbers that float32 cannot hold, or that are beyond the last bin, count as the largest.
            shown = np.clip(np.array(known, float), -3e38, 3e38)
            make = histogram(tag, np.clip(shown, -1e19, 1e19), self.BINS) if isinstance(value, list) else scalar(tag, shown)
            values += make.value
        self._write(values, row)
        self._last = row
        if len(diagonal := row.get("metric/diagonal") or []) > self.FEW:
            self._metrics.append(diagonal)
            if len(self._metrics).bit_count() == 1:  # each time there are twice as many, so that the file stays small
                self._draw_metric()

    def close(self) -> None:
        """Write the metric's last picture and finish the file."""
        if len(self._metrics).bit_count() > 1:
            self._draw_metric()
        self._writer.close()

    def _write(self, values: Any, row: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import Summary

        self._writer.write_event(Event(wall_time=row["wall_time"], step=row["step"], summary=Summary(value=values)))

    def _write_settings(self, row: dict[str, Any]) -> None:
        """The settings, beside which the HParams tab shows the last return on file."""
        from tensorboardX.summary import hparams

        told = {name: str(value) if isinstance(value, list) else value for name, value in self._settings.items()}
        experiment, start, _ = hparams(told, {"eval/return": None})
        for summary in (experiment, start):
            self._write(summary.value, row)

    def _draw_metric(self) -> None:
        """The weights (rows) over the evaluations so far (columns), white where they are largest."""
        from tensorboardX.summary import image

        weights = np.clip(np.nan_to_num(np.array(self._metrics, float).T), 0, 3e38)
        shades = np.uint8(255 * weights / max(weights.max(), 1e-38))
        picture = shades.repeat(self.PIXELS, axis=0).repeat(self.PIXELS, axis=1)
        self._write(image("metric/over_training", picture, dataformats="HW").value, self._last)
