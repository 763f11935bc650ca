"""Records of runs, compared."""

from __future__ import annotations

from typing import Any

TIMES = ("wall_time", "wall_seconds", "time/steps_per_second")


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a clock says."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
