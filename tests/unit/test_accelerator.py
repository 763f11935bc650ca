"""The prepared script for an accelerator: what it refuses, what it keeps when a part fails, and a rehearsal."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from mbrl_taskmet.core.settings import ConfigError
from runs import accelerator
from runs.accelerator import main


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["tabels"], "'tabels' is no part; give some of agreement, throughput, tables, figure6"),
        (["--minutes", "0"], "--minutes is 0.0; give a number above 0"),
        (["--inside", "tables"], "'tables' is no part"),
        (["--inside", "compiling", "--rehearse", "--case", "2"], "--case is 2; give 0 to 1"),
        ([], "JAX sees no accelerator here; install the extra for it, such as .[cuda13], or give --rehearse"),
    ],
)
def test_what_cannot_be_done_is_refused(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert message in capsys.readouterr().err


def test_a_part_that_fails_or_hangs_leaves_the_others_what_they_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {
        "tables": "import sys; sys.exit(3)",
        "figure6": "import json, pathlib, sys, time; folder = pathlib.Path(sys.argv[-1]) / 'run'; folder.mkdir(parents=True); "
        "(folder / 'summary.json').write_text(json.dumps({'mean': 441.5, 'config': {}})); time.sleep(60)",
    }

    def started(arguments: list[str], cache: Path) -> object:
        return accelerator.subprocess.Popen(
            [sys.executable, "-c", programs[arguments[1]], *arguments[2:]], stdout=accelerator.subprocess.PIPE, text=True
        )

    monkeypatch.setattr(accelerator, "commands", lambda name, _, logs: [[[name, str(logs)]]])
    monkeypatch.setattr(accelerator, "_python", started)
    device = {"device": {"kind": "A card", "platform": "gpu"}}
    accelerator._measure(list(programs), device, time.monotonic() + 4, tmp_path, rehearse=False)
    parts = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert (parts["tables"]["whole"], parts["tables"]["why not"]) == (False, "exit code 3")
    assert (parts["figure6"]["whole"], parts["figure6"]["why not"]) == (False, "stopped at the end of its time")
    assert parts["figure6"]["found"] == [{"run": "run", "mean": 441.5}]
    text = (tmp_path / "accelerator.md").read_text()
    assert "A card (gpu)" in text and "| run | 441 |" in text.replace("442", "441") and "exit code 3" in text


def test_what_an_earlier_call_measured_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter((100.0, 200.0))

    def part(name: str, seconds: float, rehearse: bool) -> dict[str, object]:
        found = [{"runs": 4, "distractors": 8, "steps per second": next(speeds)}]
        return {"seconds": 1.0, "whole": True, "why not": None, "found": found}

    monkeypatch.setattr(accelerator, "_part", part)
    for name in ("throughput", "tables"):
        accelerator._measure([name], {"device": {"kind": "A card", "platform": "gpu"}}, time.monotonic() + 9, tmp_path, False)
    parts = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert [part["found"][0]["steps per second"] for part in parts.values()] == [100.0, 200.0]
    assert (tmp_path / "throughput.png").exists()
    with pytest.raises(ConfigError, match="has results of A card; give another --output"):
        accelerator._measure(["tables"], {"device": {"kind": "B", "platform": "gpu"}}, time.monotonic() + 9, tmp_path, False)
    (tmp_path / "accelerator.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"accelerator\.json is damaged"):
        accelerator._measure(["tables"], {"device": {"kind": "B", "platform": "gpu"}}, time.monotonic() + 9, tmp_path, False)


@pytest.mark.slow
def test_a_rehearsal_finds_something_in_every_part(tmp_path: Path) -> None:
    assert main(["--rehearse", "--minutes", "10", "--output", str(tmp_path)]) == 0
    parts = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert list(parts) == list(accelerator.SHARES) and all(part["whole"] and part["found"] for part in parts.values())
    assert all(found["largest difference"] < 1e-9 for found in parts["agreement"]["found"])
