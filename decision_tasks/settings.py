"""The settings of a cell of the tables, an objective on a task, and how settings by name make the cells of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from decision_tasks.base import Task
from decision_tasks.budget import Budget
from decision_tasks.cubic import Cubic
from decision_tasks.objectives import OBJECTIVES, Objective
from decision_tasks.portfolio import Portfolio
from mbrl_taskmet.core.settings import ConfigError, Option, choice, flag, options, setting, shown
from mbrl_taskmet.core.settings_tree import check_fields, check_names, flatten, resolve

TASKS: dict[str, type[Task]] = {"cubic": Cubic, "budget": Budget, "portfolio": Portfolio}
"""Every task by its name on the command line. May grow: an entry is all that another one needs."""
ALL = "all"
ROWS: tuple[dict[str, Any], ...] = (
    {"method": "mse"},
    {"method": "dfl", "alpha": 0.0},
    {"method": "dfl", "alpha": 10.0},
    {"method": "lodl", "alpha": 0.0},
    {"method": "lodl", "alpha": 10.0},
    {"method": "taskmet"},
)
"""The rows of TaskMet's Tables 2 and 3, which `--method all` stands for."""


@dataclass(frozen=True, kw_only=True)
class CellSettings:
    """One cell of the tables: datasets × seeds runs of an objective on a task. Checked when it is made."""

    task: Task = choice(TASKS, "cubic", f"the task; {ALL}: every one")
    objective: Objective = choice(
        OBJECTIVES, "taskmet", f"way of training; {ALL}: the rows of the paper's tables", flag="method"
    )
    datasets: int = setting(10, "data sets", low=1)
    seeds: int = setting(5, "seeds on each data set", low=1)
    seed: int = setting(0, "number of the data sets' and seeds' random stream", low=0)
    steps: int = setting(100_000, "predictor steps of each run, at most; taskmet's 500 of warm-up come on top", low=1)
    x64: bool = setting(False, "compute in float64")

    def __post_init__(self) -> None:
        for name, kind in (("task", Task), ("objective", Objective)):
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigError(f"the {name} is {shown(value)}; give an instance of a {kind.__name__}")
        check_fields(self)
        if self.objective.differentiates and not self.task.relaxed:
            raise ConfigError(f"the task {self.task.name} has no relaxed decision and {self.objective.name} differentiates it; "
                              "use mse or lodl, or write its relax")  # fmt: skip

    @property
    def runs(self) -> int:
        """How many there are."""
        return self.datasets * self.seeds

    @property
    def names(self) -> dict[str, Any]:
        """Every setting by its name, flat."""
        task, method = _name(TASKS, self.task), _name(OBJECTIVES, self.objective)
        own = {option.name: getattr(self, option.field.name) for option in _own_options()}
        return {"task": task, **flatten(self.task), "method": method, **flatten(self.objective), **own}

    @property
    def label(self) -> str:
        """The method, with its α where that may be set."""
        names = self.names
        return f"{names['method']} α={names['alpha']:g}" if "alpha" in names else names["method"]

    @property
    def directory(self) -> str:
        """The cell's directory inside the run's."""
        names = self.names
        return f"{names['task']}-{names['method']}" + (f"-alpha{names['alpha']:g}" if "alpha" in names else "")

    def shares_data(self, other: CellSettings) -> bool:
        """Whether the data sets of both cells are the same."""
        mine, others = ((cell.datasets, cell.seed, cell.x64) for cell in (self, other))
        return self.task is other.task and mine == others

    def shares(self, other: CellSettings) -> bool:
        """Whether what is computed once for each data set is the same in both cells."""
        mine, others = ((type(cell.objective).prepare, cell.objective.preparation) for cell in (self, other))
        return self.shares_data(other) and mine == others


def cells(given: Mapping[str, Any]) -> tuple[CellSettings, ...]:
    """The cells that settings by name ask for: one, or several where the task or the method is `ALL`.

    Args:
        given: settings by name. None counts as not given. Of several cells each takes what has a place in it.

    Raises:
        ConfigError: a value is of the wrong type, unknown, out of range, has no place in any cell, or contradicts another.
    """
    given = {name: value for name, value in given.items() if value is not None}
    check_names(CellSettings, given)
    if ALL not in (given.get("task"), given.get("method")):
        return (resolve(CellSettings, given),)
    defaults = {option.name: option.default for option in options(CellSettings) if option.name in ("task", "method")}
    task, method = (given.pop(name, default) for name, default in defaults.items())
    tasks = tuple(TASKS) if task == ALL else (task,)
    rows = ROWS if method == ALL else ({"method": method},)
    chosen = [{"task": task, **row} for task in tasks for row in rows]
    for name, value in given.items():
        _check_placed(name, value, chosen)
    placed = ({name: given[name] for name in given if name in _places(one)} | one for one in chosen)
    return with_shared_tasks(resolve(CellSettings, names) for names in placed)


def with_shared_tasks(run: Iterable[CellSettings]) -> tuple[CellSettings, ...]:
    """The cells, those of equal tasks with one and the same: its data is then made once."""
    made: list[CellSettings] = []
    for cell in run:
        same = (one.task for one in made if type(one.task) is type(cell.task) and flatten(one.task) == flatten(cell.task))
        made.append(replace(cell, task=next(same, cell.task)))
    return tuple(made)


def _check_placed(name: str, value: Any, chosen: list[dict[str, Any]]) -> None:
    """Raise ConfigError if a given setting has a place in none of the cells, or in none that does not say it itself."""
    if any(name in _places(one) and name not in one for one in chosen):
        return
    owners = list(dict.fromkeys(one["method"] for one in chosen if name in one))
    if owners:
        raise ConfigError(f"{flag(name)} {value} does nothing for --method {ALL}; leave it out, or use --method "
                          f"{' or '.join(owners)}")  # fmt: skip
    resolve(CellSettings, {**chosen[0], name: value})


def _places(chosen: Mapping[str, Any]) -> set[str]:
    """The settings that have a place in the cell of a task and a method."""
    tags = {name: chosen[name] for name in ("task", "method")}
    return {option.name for option in options(CellSettings) if all(tags.get(tag, name) == name for tag, name in option.where)}


def _own_options() -> list[Option]:
    """A cell's settings but for those of its task and its objective."""
    return [option for option in options(CellSettings) if not option.where and option.variants is None]


def _name(registry: Mapping[str, type], record: Any) -> str:
    return next((name for name, variant in registry.items() if variant is type(record)), record.name)
