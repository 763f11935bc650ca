"""Pictures of one run, and of several side by side."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.records import shortened

Rows = list[dict[str, Any]]

STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "linestyle": line, "marker": marker}
    for color, line, marker in zip(
        ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777"),
        ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3))),
        ("o", "s", "^", "D", "v", "P", "X", "*"),
        strict=True,
    )
)
"""Told apart by line and marker where colours are not (Okabe and Ito's palette)."""


@contextmanager
def drawing(directory: Path, go_on: str) -> Iterator[None]:
    """Context in which the pictures of a finished run are drawn: an error there is a warning, for the run itself has succeeded.

    Raises:
        ConfigError: what they are drawn of is damaged.
    """
    try:
        yield
    except ConfigError:  # names the file that it is drawn of
        raise
    except Exception as error:
        warnings.warn(f"the run in {directory} is finished, but its pictures could not be drawn ({shortened(error)}); "
                      f"to draw them: {go_on}", stacklevel=3)  # fmt: skip


def plot_run(rows: Rows, state_names: tuple[str, ...], title: str, path: Path) -> None:
    """Draw `curves.png`: return, model error, and the learned metric if there is one; thin lines are seeds, bold their mean."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    measured = rows[-1].get("metric/diagonal") is not None
    figure = Figure(figsize=(15 if measured else 10, 4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 3 if measured else 2)
    _seeds(axes[0], rows, "eval/return", "return")
    _seeds(axes[1], rows, "train/model_mse_state", "model error, real dimensions")
    axes[1].set_yscale("log")
    if measured:
        _metric(axes[2], rows, state_names)
        shared_legend(axes[2:])
    for axis in axes:
        axis.set_xlabel("environment steps")
        axis.locator_params(axis="x", nbins=5)  # more labels of six digits would overlap
        axis.grid(alpha=0.3)
    save(figure, path)


def plot_sweep(summaries: Mapping[str, Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw `sweep.png`: the final return of every combination, its seeds, their mean and the interval of the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.28 * len(summaries)), layout="constrained")
    axis = figure.subplots()
    for place, summary in enumerate(summaries.values()):
        known = [value for value in summary["final_return"] if value is not None]
        if known:
            draw_seeds(axis, place, known, summary["mean"], summary["ci95"], "C0")
    axis.set_yticks(range(len(summaries)), [name.replace(",", "  ") for name in summaries])
    axis.set(title=title, xlabel="final return: seeds, mean, 95 % interval", ylim=(len(summaries) - 0.5, -0.5))
    axis.grid(alpha=0.3)
    save(figure, path)


def draw_seeds(
    axis: Any, place: int, values: Sequence[float] | np.ndarray, center: float, interval: Sequence[float] | None, color: str,
    marker: Any = "o",
) -> None:  # fmt: skip
    """Draw one row at the height `place`: the values of seeds, and their center with its interval."""
    axis.plot(values, [place] * len(values), ".", color=color, alpha=0.35)
    if interval:
        axis.plot(interval, [place, place], color=color, linewidth=2)
    axis.plot(center, place, marker=marker, color=color)


def plot_groups(groups: dict[str, Rows], path: Path) -> None:
    """Draw the groups' returns, model errors and, where there are some, metrics, as PNG and SVG beside each other.

    groups: the rows of each group, by what it is called; seeds of several runs may be put together.
    path: the PNG's.
    """
    from matplotlib.figure import Figure

    metrics = any("metric/diagonal" in rows[-1] for rows in groups.values())
    figure = Figure(figsize=(16 if metrics else 11, 4.5), layout="constrained")
    axes = figure.subplots(1, 3 if metrics else 2)
    for (name, rows), style in zip(groups.items(), _styles(), strict=False):
        band(axes[0], *curve(rows, "eval/return"), label=name, **style)
        band(axes[1], *curve(rows, "train/model_mse_state"), label=name, **style)
        if "metric/diagonal" in rows[-1]:
            _ratio(axes[2], rows, label=name, **style)
    axes[0].set_ylabel("return")
    axes[1].set(ylabel="model error, real dimensions", yscale="log")
    if metrics:
        axes[2].set(ylabel="metric: mean weight of real dimensions\nover the mean of all", ylim=(0, None))
    for axis in axes:
        axis.set_xlabel("environment steps")
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
    shared_legend(axes)
    save_both(figure, path)


def band(axis: Any, steps: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """A curve's mean over seeds and its standard error as a band, (T,) and (seeds, T); NaN leaves a gap."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    if not count.any():
        return
    center = known_mean(values)
    squares = np.where(known, (values - center) ** 2, 0.0).sum(axis=0)
    spread = np.sqrt(np.divide(squares, (count - 1) * count, where=count > 1, out=np.zeros(len(steps))))
    axis.plot(steps, center, markevery=max(1, len(steps) // 8), markersize=5, linewidth=1.6, **style)
    axis.fill_between(steps, center - spread, center + spread, color=style.get("color"), alpha=0.15, linewidth=0)


def shared_legend(axes: Any) -> None:
    """One legend of what is drawn on any of `axes`, beside them, where it covers nothing."""
    named: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if named:
        axes[0].figure.legend(list(named.values()), list(named), fontsize="small", loc="outside right center")


def draw_against(
    axis: Any,
    numbers: Sequence[int],
    curves: Mapping[str, Mapping[int, tuple[float, float]]],
    styles: Mapping[str, Mapping[str, Any]],
    even: bool = False,
) -> None:
    """(mean, error) by number of every curve that has points, in the style of its name.

    The numbers are on a logarithmic axis, or, 0 among them, `even`: as far from each other as in the list.
    """
    places = {number: place if even else number for place, number in enumerate(numbers)}
    for name, points in curves.items():
        if points:
            centers, errors = zip(*points.values(), strict=True)
            where = [places[number] for number in points]
            axis.errorbar(where, centers, errors, capsize=3, label=name, **styles[name])  # no bar where it is NaN
    axis.set_xscale("linear" if even else "log")
    axis.set_xticks(list(places.values()), [str(number) for number in numbers])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def save(figure: Any, path: Path) -> None:
    """Write a picture whole or not at all, the same bytes for the same figure."""
    import matplotlib

    aside = path.with_suffix(f".part{path.suffix}")
    aside.unlink(missing_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": ""}):
        figure.savefig(aside, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    aside.replace(path)


def save_both(figure: Any, path: Path) -> None:
    """Write the PNG `path`, and an SVG beside it."""
    save(figure, path)
    save(figure, path.with_suffix(".svg"))


def known_mean(values: np.ndarray) -> np.ndarray:
    """The mean over seeds, (seeds, T) → (T,), of those that are known; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.divide(np.where(known, values, 0.0).sum(axis=0), count, where=count > 0, out=np.full(values.shape[1], np.nan))


def curve(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps (T,), values (seeds, T)) of one quantity; NaN where it was null."""
    steps = sorted({row["step"] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    values = np.full((len(seeds), len(steps)), np.nan)
    for row in rows:
        value = row.get(key)
        values[seeds.index(row["seed"]), steps.index(row["step"])] = np.nan if value is None else value
    return np.array(steps), values


def _seeds(axis: Any, rows: Rows, key: str, label: str) -> None:
    steps, values = curve(rows, key)
    axis.plot(steps, values.T, color="C0", alpha=0.3, linewidth=0.8)
    axis.plot(steps, known_mean(values), color="C0", linewidth=2)
    axis.set_ylabel(label)


def _styles() -> Iterable[dict[str, Any]]:
    while True:
        yield from STYLES


def _ratio(axis: Any, rows: Rows, **style: Any) -> None:
    """The real dimensions' mean weight over that of all: 1 at the identity."""
    ratios = [
        {**row, "ratio": np.mean([row[key] for key in row if _real(key)]) / np.mean(row["metric/diagonal"])}
        for row in rows
        if None not in (row.get("metric/diagonal") or [None])
    ]
    band(axis, *curve(ratios, "ratio"), **style)


def _real(key: str) -> bool:
    return key.startswith("metric/") and key not in ("metric/diagonal", "metric/distractors_mean")


def _metric(axis: Any, rows: Rows, state_names: tuple[str, ...]) -> None:
    few = len(state_names) <= 10  # as many as there are colours; a board's cells are drawn alike
    for i, name in enumerate(state_names):
        steps, values = curve(rows, f"metric/{name}")
        style = {"color": f"C{i}", "label": name.replace("_", " ")} if few else {"color": "C0", "linewidth": 0.5}
        axis.plot(steps, known_mean(values), **style)
    if not few:
        axis.lines[0].set_label("real dimensions")
    last = rows[-1]["metric/diagonal"]
    if len(last) > len(state_names):
        noise: dict[int, list[float]] = {row["step"]: [] for row in rows}
        for row in rows:
            noise[row["step"]] += (weight for weight in row["metric/diagonal"][len(state_names) :] if weight is not None)
        steps = np.array(sorted(noise))
        low, high = ([end(noise[step], default=np.nan) for step in steps] for end in (min, max))
        axis.fill_between(steps, low, high, color="grey", alpha=0.4, label="distractors,\nlowest to highest")
    axis.set_ylabel("weight in the metric, mean over seeds")
