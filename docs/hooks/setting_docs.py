"""An extension of griffe: what the code says behind a field stands in its class's table of attributes.

That is the help of a `setting` or `choice`, whose default is then shown as the field's, or a comment on the field's line.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

_MADE = {"setting": (0, 1), "choice": (1, 2), "group": (0, None)}
"""By what makes a field: which arguments are its default and its help."""
_COMMENT = re.compile(r"  # (?!type:|noqa|fmt:)(.+)$")


class SettingDocs(griffe.Extension):
    """Shows fields by default and help."""

    def on_class_members(self, *, node: Any, cls: griffe.Class, **kwargs: Any) -> None:
        """See the class."""
        del kwargs
        if cls.docstring is None:
            return
        text, lines = cls.docstring.value, []
        for field in getattr(node, "body", ()):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and not field.target.id.startswith("_"):
                words = _described(field, cls)
                if words and f"\n    {field.target.id}: " not in text:
                    lines.append(f"    {field.target.id}: {words}")
        if lines:
            heading = "\n" if "Attributes:" in text else "\n\nAttributes:\n"
            cls.docstring = griffe.Docstring(text.rstrip() + heading + "\n".join(lines), parent=cls)


def _described(field: ast.AnnAssign, cls: griffe.Class) -> str:
    """What is said of a field. The default of one that `setting` makes becomes the field's."""
    made = field.value
    if isinstance(made, ast.Call) and getattr(made.func, "id", "") in _MADE:
        default, help = _MADE[made.func.id]  # type: ignore[attr-defined]
        attribute = cls.members[field.target.id]  # type: ignore[union-attr]
        attribute.value = attribute.value.arguments[default]  # type: ignore[union-attr]
        words = made.args[help] if help is not None else None
        return str(words.value) if isinstance(words, ast.Constant) else ""
    comment = _COMMENT.search(cls.lines_collection[cls.filepath][field.lineno - 1])  # type: ignore[index]
    return comment[1] if comment else ""
