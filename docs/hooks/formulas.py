"""Formulas, `$$…$$` on lines of their own and `$…$` in a line, as MathML, which browsers draw without a script.

Only on pages that say `formulas: true` at their top.
"""

from __future__ import annotations

import re
from typing import Any

_FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<line>[^$\n]+)\$", re.DOTALL)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The text with its formulas drawn."""
    del config, files
    return _FORMULA.sub(_drawn, markdown) if page.meta.get("formulas") else markdown


def _drawn(formula: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    if formula["line"]:
        return f"<span>{convert(formula['line'])}</span>"  # which Markdown keeps in its paragraph
    return f'<div class="formula">{convert(" ".join(formula["block"].split()), display="block")}</div>'
