"""The memory a run is said to need, against the arrays it really has, and what there is."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.distractors import Distractors
from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError, run
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.training import Trainer
from mbrl_taskmet.runner import agent, memory
from mbrl_taskmet.runner.memory import PROCESS_BYTES, check_memory, gigabytes, least_bytes, required_bytes

MEDIUM = {"steps": 200_000, "seeds": 3}


def trainer(distractors: int = 100, **settings: Any) -> Trainer:
    env, resolved = Distractors(Walk(), distractors), Config(**{**MEDIUM, **settings}, distractors=distractors).resolve()
    return Trainer(env, make_method(env, resolved), resolved)


@cache
def predicted(distractors: int = 100, **settings: Any) -> int:
    """Before compiling, beyond the process itself."""
    return least_bytes(trainer(distractors, **settings)) - PROCESS_BYTES


def real(distractors: int = 100, **settings: Any) -> int:
    """Bytes of the carry of every seed; its shapes are known without making it."""
    made = trainer(distractors, **settings)
    with jax.enable_x64(made.settings.x64):
        carry = jax.eval_shape(made._init_runs, jnp.arange(made.settings.seeds, dtype=jnp.int32), {})
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(carry))


REPLAY_DOMINATES: list[dict[str, Any]] = [
    {"method": "mle"},
    {"method": "omd", "x64": True},
    {"distractors": 512},
    {"preset": "paper-code", "distractors": 50},
]
LEARNER_COUNTS: list[dict[str, Any]] = [
    {"replay_capacity": 2000},
    {"distractors": 2000, "steps": 2000},
    {"preset": "paper-code", "distractors": 512, "steps": 2000},
    {"metric": "full", "metric_input": "state_action", "distractors": 16, "steps": 2000},
]


@pytest.mark.parametrize("settings", REPLAY_DOMINATES, ids=str)
def test_the_prediction_is_what_the_arrays_take_and_at_most_a_fifth_more(settings: dict[str, Any]) -> None:
    assert real(**settings) <= predicted(**settings) <= 1.2 * real(**settings)


@pytest.mark.parametrize("settings", LEARNER_COUNTS, ids=str)
def test_the_prediction_is_never_less_than_what_the_arrays_take(settings: dict[str, Any]) -> None:
    assert real(**settings) <= predicted(**settings)


@pytest.mark.parametrize(
    "more",
    [
        {"distractors": 101}, {"steps": 201_000}, {"seeds": 4}, {"model_hidden": 64}, {"q_hidden": 64}, {"batch_size": 512},
        {"x64": True}, {"metric_input": "state"}, {"solver": "dense"},
    ],
    ids=str,
)  # fmt: skip
def test_more_of_anything_needs_more_memory(more: dict[str, Any]) -> None:
    assert predicted(**more) > predicted()


def test_a_smaller_replay_needs_less_and_a_larger_one_than_the_run_no_more() -> None:
    assert predicted(replay_capacity=100_000) < predicted()
    assert predicted(replay_capacity=10**9) == predicted()


def test_what_does_not_fit_is_refused_with_its_size_and_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"100 distractors would need 1000000.0 GB and this machine has \d+\.\d GB available; give fewer"
    ):
        check_memory(10**15, "Walk with 100 distractors")


def test_what_fits_is_let_through() -> None:
    check_memory(10**6, "Walk with 100 distractors")


def test_gigabytes_are_for_people() -> None:
    assert gigabytes(4_567_000_000) == "4.6 GB"


def test_a_compiled_run_needs_its_arrays_a_seeds_copy_and_little_more() -> None:
    compiled = trainer(method="mle")
    seed = real(method="mle") // 3
    required = required_bytes(compiled) - PROCESS_BYTES
    assert predicted(method="mle") <= required
    assert real(method="mle") + seed <= required <= 1.05 * (real(method="mle") + seed)  # seeds run one after the other
    stats = compiled.compiled.memory_analysis()
    assert required == stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes + (
        stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    )


TOO_LARGE: list[dict[str, Any]] = [
    {"distractors": 100_000},
    {"distractors": 512, "steps": 2_000_000, "seeds": 10},
    {"eval_episodes": 1_000_000_000},
    {"distractors": 512, "solver": "dense"},
]


@pytest.mark.parametrize("settings", TOO_LARGE, ids=str)
def test_what_is_too_large_is_refused_before_anything_is_compiled_or_written(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 16_000_000_000)
    for name in ("init", "compile"):
        monkeypatch.setattr(Trainer, name, lambda self: pytest.fail("memory was taken"))
    with pytest.raises(ConfigError, match=r"Walk.* would need \d+\.\d GB and this machine has 16\.0 GB available; give fewer"):
        run(Distractors(Walk(), settings.get("distractors", 0)), Config(**settings), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_only_the_compiled_program_tells_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "required_bytes", lambda trainer: 10**15)
    monkeypatch.setattr(Trainer, "chunk", lambda *_: pytest.fail("it trained"))
    with pytest.raises(ConfigError, match=r"Walk would need 1000000\.0 GB"):
        run(Walk(), Config(method="mle", steps=64, eval_every=64, random_steps=32, batch_size=32), tmp_path / "run")


def test_a_machine_in_use_has_less_available_than_installed() -> None:
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = memory.available_bytes()
    assert available is not None and memory._own_bytes() < available < installed


def test_what_linux_calls_available_is_read(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n")
    assert list(memory._free_of_machine(tmp_path / "meminfo")) == [4_000_000 * 1024]
    assert list(memory._free_of_machine(tmp_path / "nothing")) == []


@pytest.mark.parametrize("version", [1, 2])
def test_every_control_group_on_the_way_limits(version: int, tmp_path: Path) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
             2: ("memory.max", "memory.current", "inactive_file")}[version]  # fmt: skip
    root = tmp_path / "memory" if version == 1 else tmp_path
    job = root / "batch" / "job"
    job.mkdir(parents=True)
    for folder, (most, used, cached) in {job: (9000, 5000, 1000), job.parent: (8000, 6000, 0)}.items():
        (folder / names[0]).write_text(f"{most}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")
    if version == 2:
        (root / names[0]).write_text("max\n")
    (tmp_path / "membership").write_text({1: "4:cpu,memory:/batch/job\n3:cpuset:/\n", 2: "0::/batch/job\n"}[version])
    assert list(memory._free_of_groups(tmp_path / "membership", tmp_path)) == [9000 - 5000 + 1000, 8000 - 6000]
    assert list(memory._free_of_groups(tmp_path / "nothing", tmp_path)) == []
