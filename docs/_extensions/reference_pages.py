"""Directives for pages that are generated from the code.

`settings-reference` lists all settings, with the comments and defaults of the class `Settings`.
The accepted values are taken from the error messages for a wrong value.

`public-classes` lists the classes in a module's `__all__`, or with the option `errors` its
exceptions.
"""

from __future__ import annotations

import os
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from docutils import nodes
from docutils.parsers.rst import directives
from harasocial_dispatch.schemas import Settings, SettingsError
from harasocial_dispatch.schemas.settings import PREFIX
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

#: A value that all settings refuse, except names of files.
_WRONG = "a wrong\tvalue"
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


class SettingsReference(SphinxDirective):
    """Inserts one entry for each setting."""

    def run(self) -> list[nodes.Node]:
        comments = ModuleAnalyzer.for_module(Settings.__module__).find_attr_docs()
        text = ""
        for setting in fields(Settings):
            meaning = " ".join(comments.get((Settings.__name__, setting.name), [])).strip()
            if not meaning:
                raise self.error(f"Settings.{setting.name} has no comment that explains it (#: …)")
            text += _entry(setting, meaning)
        return self.parse_text_to_nodes(text)


def _entry(setting: Field[object], meaning: str) -> str:
    variable = PREFIX + setting.name.upper()
    accepted = _accepted(variable)
    lines = [meaning, "", f"Default: {_default(setting)}."]
    if accepted:
        lines += ["", f"It {accepted}."]
    return f"````{{envvar}} {variable}\n" + "\n".join(lines) + "\n````\n\n"


def _default(setting: Field[object]) -> str:
    value = setting.default
    if value is MISSING or value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        text = f"`{value:.10g}`"
        return text + _in_words(value) if setting.name.endswith("_seconds") else text
    return f"`{value}`"


def _in_words(seconds: float) -> str:
    for size, name in _UNITS:
        count = seconds / size
        if count >= 1 and count == int(count):
            return f" ({count:.0f} {name}{'' if count == 1 else 's'})"
    return ""


def _accepted(variable: str) -> str:
    """Return the expected values of a setting, from its error message: "must be …"."""
    others = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    with patch.dict(os.environ, {**others, variable: _WRONG}, clear=True):
        try:
            Settings.from_environment(None)
        except SettingsError as error:
            return str(error).partition("must ")[1] + str(error).partition("must ")[2]
    return ""


class PublicClasses(SphinxDirective):
    """Inserts an entry for each class in a module's `__all__`, except the excluded names.

    Arguments: the module, and names to exclude.
    """

    required_arguments = 1
    optional_arguments = 100
    option_spec = {"errors": directives.flag}  # noqa: RUF012 - docutils declares it so

    def run(self) -> list[nodes.Node]:
        module_name, *left_out = self.arguments
        module = import_module(module_name)
        kind = "exception" if "errors" in self.options else "class"
        lines = []
        for name in sorted(set(module.__all__) - set(left_out)):
            value = vars(module).get(name)
            is_error = isinstance(value, type) and issubclass(value, Exception)
            if isinstance(value, type) and is_error == (kind == "exception"):
                lines += [f".. auto{kind}:: {module_name}.{name}", "   :members:"]
                lines += ["   :exclude-members: add", ""]  # only for building a report
        return self.parse_text_to_nodes("\n".join(lines))


def _keep_colons(_app: Sphinx, what: str, *rest: list[str]) -> None:
    """Keep napoleon from reading `#: Waits: …` as an attribute of the type `Waits`.

    It looks for a type in the first line only; that is an empty comment here.
    """
    if what == "attribute":
        rest[-1][:0] = ["..", ""]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("settings-reference", SettingsReference)
    app.add_directive("public-classes", PublicClasses)
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)  # before napoleon
    return {"version": Path(__file__).name, "parallel_read_safe": True}
