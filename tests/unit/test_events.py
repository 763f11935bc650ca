"""What TensorBoard shows beside the numbers of a record: the settings with the last return, and the metric as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import parse_experiment_plugin_data, parse_session_start_info_plugin_data

from mbrl_taskmet.runner.events import Events
from mbrl_taskmet.runner.records import Recorder, write_json

SETTINGS = {"method": "taskmet", "metric_lr": 0.003, "steps": 500, "normalize": True, "metric_hidden": [32, 32], "none": None}


def row(step: int, weights: list[float]) -> dict[str, Any]:
    return {"step": step, "seed": 0, "eval/return": 10.0 * step, "metric/diagonal": weights, "wall_time": 1.0}


def read(directory: Path) -> Any:
    return EventAccumulator(str(directory), size_guidance={"images": 0}).Reload()


def test_the_hparams_tab_has_the_settings_and_the_return(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"format": 2, "settings": SETTINGS})
    recorder = Recorder(tmp_path)
    recorder.write([row(1, [1.0, 2.0]), row(2, [1.0, 3.0])])
    recorder.close()
    plugin = read(tmp_path / "tensorboard" / "seed_0").PluginTagToContent("hparams")
    start = parse_session_start_info_plugin_data(plugin["_hparams_/session_start_info"]).hparams
    assert start["method"].string_value == "taskmet" and start["metric_hidden"].string_value == "[32, 32]"
    assert (start["metric_lr"].number_value, start["normalize"].bool_value) == (0.003, True)
    assert "none" not in start
    (metric,) = parse_experiment_plugin_data(plugin["_hparams_/experiment"]).metric_infos
    assert metric.name.tag == "eval/return"


def test_a_metric_of_many_dimensions_is_a_picture_of_its_weights_over_training(tmp_path: Path) -> None:
    weights = np.arange(60.0).reshape(5, 12)
    events = Events(tmp_path)
    for step, these in enumerate(weights, start=1):
        events.add(row(step, these.tolist()))
    events.close()
    pictures = read(tmp_path).Images("metric/over_training")
    assert [picture.step for picture in pictures] == [1, 2, 4, 5]  # each doubling, and the end
    shades = np.asarray(Image.open(io.BytesIO(pictures[-1].encoded_image_string)))[:: Events.PIXELS, :: Events.PIXELS]
    assert shades.shape[:2] == (12, 5)
    expected = (255 * weights.T / 59).astype(int)
    assert np.array_equal(shades.reshape(12, 5, -1)[..., 0], expected)


@pytest.mark.parametrize("dimensions", [1, 8])
def test_a_metric_of_few_dimensions_has_no_picture(dimensions: int, tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.add(row(1, [1.0] * dimensions))
    events.close()
    assert read(tmp_path).Tags()["images"] == []
