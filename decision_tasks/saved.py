"""The files that a run of cells is resumed from: its `config.json`, of this format and the one before, and its checkpoints."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from decision_tasks.evaluation import BASELINES
from decision_tasks.objectives import OBJECTIVES
from decision_tasks.settings import ALL, TASKS, CellSettings, cells, with_shared_tasks
from mbrl_taskmet.core.settings import ConfigError, flag, options
from mbrl_taskmet.core.settings_tree import before, resolve
from mbrl_taskmet.runner.records import read_json, read_regular, shortened
from mbrl_taskmet.runner.rundir import FORMAT, check_same, saved_settings

_SCORES = ("normalized_dq", "test_mse")
"""What the tables are made of."""


def to_json(run: Sequence[CellSettings]) -> dict[str, Any]:
    """The contents of `config.json` for the cells of a run."""
    each = {"cells": [cell.names for cell in run], "unnamed": [_unnamed(cell) for cell in run],
            "inputs": [cell.task.inputs for cell in run]}  # fmt: skip
    return {"format": FORMAT, **each}


def saved_names(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of each cell by name in a run's `config.json`, which this version or an earlier one wrote."""
    if saved["format"] == 1:
        return [cell.names for cell in cells(_known(saved["config"]))]
    return [before(CellSettings) | names for names in saved["cells"]]


def read_saved(saved: Mapping[str, Any]) -> tuple[CellSettings, ...]:
    """The cells in a run's `config.json`.

    Raises:
        ConfigError: they were made in Python, of more than settings, or a file of data is not what it was.
        KeyError, TypeError: it is not what any version writes.
    """
    if not saved_names(saved):
        raise ValueError("there is no cell")
    unnamed = dict.fromkeys(name for names in saved.get("unnamed", ()) for name in names)
    if unnamed:
        raise ConfigError(f"the run was started from Python, with {', '.join(unnamed)}, which no flag gives; "
                          "call run with the same cells to go on")  # fmt: skip
    run = with_shared_tasks(resolve(CellSettings, _known(names)) for names in saved_names(saved))
    _check_inputs(run, _inputs(saved))
    return run


def check_same_cells(directory: Path, run: Sequence[CellSettings]) -> None:
    """Raise ConfigError unless the run in `directory` is of the same cells."""
    each = _described(to_json(run)), saved_settings(directory, _described)
    new, saved = json.loads(json.dumps(each))
    if len(saved) != len(new):
        raise ConfigError(f"{directory} is a run of {len(saved)} cell(s), not {len(new)}; give another directory")
    defaults = json.loads(json.dumps({flag(option.name): option.default for option in options(CellSettings)}))
    for mine, old in zip(new, saved, strict=True):
        for name in mine | old:
            then = old.get(name, defaults.get(name) if name in mine else None)  # saved before the setting existed
            if mine.get(name) != then:
                raise ConfigError(f"{directory} has {name} {then}, not {mine.get(name)}; give another directory")
    _check_inputs(run, saved_settings(directory, _inputs))


def check_given(directory: Path, given: Mapping[str, Any], run: tuple[CellSettings, ...]) -> None:
    """Raise ConfigError if a setting that was given for a run in `directory` is another in one of its cells."""
    each = [cell.names for cell in run]
    wide = {name: next(iter(found)) if len(found) == 1 else ALL
            for name in ("task", "method") for found in [{names[name] for names in each}]}  # fmt: skip
    for names in each:
        elsewhere = {name for other in each for name in other} - names.keys()
        check_same(directory, {name: given[name] for name in given if name not in elsewhere}, names | wide)


def move_checkpoints(place: Path) -> None:
    """Put the checkpoints of a cell where `runner.checkpoint` looks for them: format 1 had them one directory higher."""
    old = [path for path in (place / "checkpoints").glob("[0-9]*") if path.name.isdigit()]
    if old:
        (place / "checkpoints" / "state").mkdir(exist_ok=True)
    for path in old:
        path.rename(place / "checkpoints" / "state" / path.name)


def is_finished(place: Path) -> bool:
    """Whether a cell has been trained to its end.

    Raises:
        ConfigError: what it has left is damaged.
    """
    path = place / "result.json"
    if not path.exists():
        return False
    try:
        result = read_json(path)
        if not _is_result(result):
            raise ValueError("its results are not what the program writes")
        _check_learned(place / "learned.npz", with_metric=result.get("method") == "taskmet")
    except (OSError, ValueError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{place} is damaged ({shortened(error)}); restore it, or remove {path} to train it again") from None
    return True


def _check_learned(path: Path, with_metric: bool) -> None:
    """Raise ValueError unless a cell's arrays are what pictures are made of."""
    with np.load(io.BytesIO(read_regular(path)), allow_pickle=False) as arrays:
        found = dict(arrays) if isinstance(arrays, Mapping) else {}
    for name in ("x", "y", "prediction", *(["metric"] if with_metric else [])):
        if name not in found or found[name].dtype.kind != "f":
            raise ValueError(f"{path.name} holds no numbers called {name}")
    if found["prediction"].shape[1:] != found["y"].shape or found["x"].shape[:1] != found["y"].shape[:1]:
        raise ValueError(f"the arrays in {path.name} are of different shapes")


def _is_result(result: Any) -> bool:
    """Whether the contents of a `result.json` have all that the tables are made of."""

    def known(values: Any) -> bool:
        return isinstance(values, list) and all(value is None or type(value) in (int, float) for value in values)

    if not isinstance(result, dict) or not isinstance(baselines := result.get("baselines"), dict):
        return False
    tables = [result, *(baselines.get(name) for name in BASELINES)]
    each = all(isinstance(table, dict) and all(known(table.get(name)) for name in _SCORES) for table in tables)
    means = [result.get(f"{kind}_{name}", "") for kind in ("mean", "stderr") for name in _SCORES]
    return each and known(means) and isinstance(result.get("task"), str)


def _described(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All that a `config.json` says of each cell: settings by their flags, and what no flag gives."""
    names = saved_names(saved)
    unnamed = saved.get("unnamed", [{}] * len(names))
    return [{flag(name): value for name, value in mine.items()} | more for mine, more in zip(names, unnamed, strict=True)]


def _inputs(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fingerprints of each cell's files of data in a `config.json`, where it has any."""
    return [dict(known) for known in saved.get("inputs", [{}] * len(saved_names(saved)))]


def _check_inputs(run: Sequence[CellSettings], saved: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError if a file of data has other contents than the run was started with."""
    for cell, known in zip(run, saved, strict=True):
        for name, then in known.items():
            now = cell.task.inputs.get(name)
            if now != then:
                raise ConfigError(f"{flag(name)} {cell.names[name]} is not the file that the run was started with ({then}; now "
                                  f"{now}); restore it to go on")  # fmt: skip


def _known(names: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, all of which this version has."""
    for name in names:
        if name not in {option.name for option in options(CellSettings)}:
            raise TypeError(f"there is no setting {name!r}")
    return names


def _unnamed(cell: CellSettings) -> dict[str, Any]:
    """What was given in Python and no flag could: tasks and objectives of one's own, and values that are no settings."""
    found: dict[str, Any] = {}
    for registry, word, record in ((TASKS, "task", cell.task), (OBJECTIVES, "method", cell.objective)):
        if type(record) not in registry.values():
            found[f"the {word} {record.name}"] = type(record).__qualname__
        found |= {f"{name} of the {word} {record.name}": mark for name, mark in _beside_settings(record).items()}
    return found


def _beside_settings(record: Any) -> dict[str, Any]:
    """A mark of each field of a record that is no setting and holds something else than its default."""
    plain = [field for field in fields(record) if not {"help", "group"} & field.metadata.keys()]
    defaults = {field.name: field.default_factory() if callable(field.default_factory) else field.default for field in plain}
    values = {name: getattr(record, name) for name in defaults}
    return {name: _mark(value) for name, value in values.items() if repr(value) != repr(defaults[name])}


def _mark(value: Any) -> Any:
    """What tells a value from another, in JSON, as far as a value of its type can be told."""
    if hasattr(value, "tobytes"):
        return f"{value.dtype} {value.shape}, checksum {zlib.crc32(value.tobytes())}"
    return type(value).__qualname__ if " at 0x" in repr(value) else repr(value)
