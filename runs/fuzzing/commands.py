"""Command lines: of every command some flags with values of their type, and some with any other."""

from __future__ import annotations

import importlib
import itertools
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import strategies as st

from decision_tasks.settings import CellSettings
from mbrl_taskmet.core.settings import Option, flag, options
from mbrl_taskmet.rl.settings import Settings
from runs.fuzzing.judging import Case, Cut
from runs.fuzzing.sandbox import Sandbox
from runs.fuzzing.values import ANYTHING, NUMBERS, TEXTS, drawn, likely

Words = list[str]
RUNS = ("agent", "interrupted", "cell", "undecided")
PLACES = ("logs", "reports", "prices.csv", "rates.npz", "nowhere", "")
"""What stands in `case` while a command line is tried, besides runs."""
_WRITING = ("--logdir", "--output", "--resume")


class Command(NamedTuple):
    """A command, and what it may be given.

    Attributes:
        name: of its module.
        call: its `main`, of the words alone.
        start: words that stand first, for it to get beyond what is required.
        flags: words by flag.
        settings: the tree of records of further flags.
        where: default places that it writes to, in the working directory.
    """

    name: str
    call: Callable[[Words], int]
    start: Words
    flags: dict[str, st.SearchStrategy[str]]
    settings: type | None = None
    where: tuple[str, ...] = ("runs/logs",)


def cases(count: int, seed: int, sandbox: Sandbox) -> Iterator[Case]:
    """Command lines of all commands."""
    lines = st.sampled_from(_commands()).flatmap(lambda command: st.tuples(st.just(command), _words(command)))
    for command, words in drawn(lines, count, seed):
        argv = [word.replace("{case}", str(sandbox.case)) for word in words]
        for name in (*RUNS, *PLACES):
            if any(f"{{case}}/{name}" in word for word in words) and (sandbox.base / name).exists() and name:
                sandbox.copy(name)
        yield Case("command", f"python -m {command.name} {shlex.join(words)}", partial(_call, command, argv),
                   writes=_writes(command, argv, sandbox))  # fmt: skip


def cut(*_: Any, **__: Any) -> Any:
    """In the place of what would train or measure."""
    raise Cut


def _call(command: Command, argv: Words) -> int:
    from agents import tabular
    from runs import kills, speed
    from runs import tabular as study

    with (
        mock.patch.dict(speed.PARTS, dict.fromkeys(speed.PARTS, cut)),
        mock.patch.object(kills, "kill", cut),
        mock.patch.object(tabular, "study", cut),
        mock.patch.object(study, "study", cut),
    ):
        return command.call(argv)


def _writes(command: Command, argv: Words, sandbox: Sandbox) -> tuple[Path, ...]:
    """Where a command line lets a command write: what it names, and the defaults."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    pairs = list(itertools.pairwise(words))
    named = [value for name, value in pairs if name in _WRITING and value]
    logdirs = [value for name, value in pairs if name == "--logdir"] or ["runs/logs"]
    names = [str(Path(logdir) / value) for name, value in pairs if name == "--name" for logdir in logdirs]
    places: list[Path] = [sandbox.cwd / place for place in (*named, *names, *command.where)]
    return (*places, *(place.with_suffix(suffix) for place in places for suffix in (".png", ".svg") if place.name),
            sandbox.cwd / "runs")  # fmt: skip


def _commands() -> list[Command]:
    from agents.command import main as train
    from agents.tabular import main as tabular
    from decision_tasks.command import main as decide
    from mbrl_taskmet.plotting import main as plot
    from runs import kills, speed
    from runs import tabular as study
    from runs.experiment import main as experiment

    counts = st.sampled_from(["1", "3", "100"]) | _text(NUMBERS)
    place = st.sampled_from([f"{{case}}/{name}" for name in (*RUNS, *PLACES)] + ["", "new", "keep/new"]) | TEXTS
    directory = {"--name": TEXTS | st.just("new"), "--logdir": place, "--resume": place}
    agent = {**directory, "--film": st.just(""), "--checkpoint-share": _text(st.floats(0, 1) | NUMBERS)}
    found = [
        Command("agents.cartpole", partial(train, "CartPole-v1"), [], agent, Settings),
        Command("agents.gymnax", partial(train, None), ["--env", "Walk"], {**agent, "--env": _environments()}, Settings),
        Command("agents.gymnax", partial(train, None), ["--env", "Walk", "--resume", "{case}/agent"], agent, Settings),
        Command("decision_tasks", decide, [], {**directory, "--prices": place, "--rates": place}, CellSettings),
        Command("decision_tasks", decide, ["--resume", "{case}/cell"], {}, CellSettings),
        Command("mbrl_taskmet.plotting", plot, ["{case}/agent"], {"--output": place, "": place}, where=("comparison.png",)),
        Command("agents.tabular", tabular, [], {"--seeds": counts, "--steps": counts, "--norm": TEXTS}),
        Command("runs.tabular", study.main, [], {"--seeds": counts, "--steps": counts, "--output": place}),
        Command("runs.kills", kills.main, [], {"--kills": counts, "--seed": counts, "--output": place}),
        Command("runs.speed", speed.main, [], {"": st.sampled_from(["update", "memory"]) | TEXTS}),
    ]
    for name in ("distractors", "capacity", "solvers", "environments"):
        one = importlib.import_module(f"runs.{name}").EXPERIMENT
        numbers = dict.fromkeys(("--seeds", "--first-seed", "--steps", "--block"), counts)
        only = st.sampled_from([one.settings[0].name, "*"]) | TEXTS
        flags = {**numbers, "--logdir": place, "--only": only, "--report": st.just(""), "--output": place}
        logs = ["--logdir", f"{{case}}/logs/{name}"] if name in ("distractors", "solvers") else []
        found.append(Command(f"runs.{name}", partial(experiment, one), logs, flags, Settings))
    return found


def _environments() -> st.SearchStrategy[str]:
    return st.sampled_from(["Walk", "Acrobot-v1", "Pendulum-v1", "Breakout-MinAtar", "os:path", "json:JSONDecoder", ":",
                            "a:b:c", "envs.probes:Walk", "envs.probes:", ".:x", "CartPole-v1 "]) | TEXTS  # fmt: skip


def _text(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return values.map(str)


def _words(command: Command) -> st.SearchStrategy[Words]:
    """Words of a command: flags with values, and now and then a value or a flag too many."""
    flags = [st.tuples(st.just(name), value) for name, value in command.flags.items()]
    if command.settings is not None:
        flags += [_flag(option) for option in options(command.settings)]
    strange = st.tuples(TEXTS.map(lambda text: f"--{text}") | st.just("--help"), TEXTS)
    pairs = st.lists(st.one_of(*flags, *flags, strange), max_size=4)

    def written(pairs: list[tuple[str, str]], joined: bool) -> Words:
        words = list(command.start)
        for name, value in pairs:
            if joined and name and value:
                words.append(f"{name}={value}")
            else:
                words += [word for word in (name, value) if word or name == "--name"]
        return words

    return st.builds(written, pairs, st.integers(0, 5).map(lambda chance: chance == 0))


def _flag(option: Option) -> st.SearchStrategy[tuple[str, str]]:
    """A setting's flag and a word for it."""
    name = flag(option.name)
    if option.hint is bool and not option.choices:
        return st.tuples(st.sampled_from([name, name.replace("--", "--no-", 1)]), st.just(""))

    def word(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    value = st.integers(0, 3).flatmap(lambda chance: likely(option).map(word) if chance else TEXTS | ANYTHING.map(str))
    return st.tuples(st.just(name), value)
