"""An extension of griffe: a field made by `setting` or `choice` is documented by its help."""

from __future__ import annotations

import ast
from typing import Any

import griffe

_HELP = {"setting": 1, "choice": 2}
"""Which argument of these is the help."""


class SettingDocs(griffe.Extension):
    """Gives fields their help as docstring."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **kwargs: Any) -> None:
        """See the class."""
        del kwargs
        made = getattr(node, "value", None)
        if attr.docstring or not isinstance(made, ast.Call) or not isinstance(made.func, ast.Name):
            return
        at = _HELP.get(made.func.id)
        if at is not None and len(made.args) > at and isinstance(made.args[at], ast.Constant):
            text = made.args[at].value
            attr.docstring = griffe.Docstring(f"{text[0].upper()}{text[1:]}.", parent=attr)
