"""Sphinx configuration for `make docs`. The source is the repository's root."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "harasocial-dispatch"
release = metadata.version(project)
html_title = f"{project} {release}"
language = "en"
# Do not convert the dashes of options such as --json.
smartquotes = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "reference_pages",
]
root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docker/README.md",
    "docs/**",
    "examples/README.md",
]
exclude_patterns = [".*", "build", "docs/_extensions", "tests"]
html_theme = "furo"

# Create the same anchors for headings as GitHub: page.md#the-heading.
myst_heading_anchors = 4

# Docstrings use single backticks for `code`.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# `make links` does not check addresses of servers that the reader starts.
linkcheck_ignore = [r"http://127\.0\.0\.1:"]

# Every link within the site must be valid. Types of Python and of libraries are not documented.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"harasocial_dispatch\.(broker|ledger)\..*"),  # for the package's own tests
    ("py:.*", r"(collections|datetime|enum|pathlib|threading|typing)\..*"),
    ("py:exc", "UnknownBehaviorError"),  # of the sandbox
    ("py:.*", r"(Any|Callable|Iterable|Iterator|Literal|Mapping|Path|Sequence|datetime|optional)"),
]
