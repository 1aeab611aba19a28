"""Load our templates and Flower's, and add links to our pages to two of Flower's templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado.template import BaseLoader, Template

_OURS = Path(__file__).parent / "templates"

#: Links in the navigation bar, before Flower's own links.
_LINKS_IN_BAR = "".join(
    f"""
        <li class="nav-item">
          <a class="nav-link{{% if active_tab == '{name}' %}} active{{% end %}}"
            href="{{{{ reverse_url('{name}') }}}}"
            {{% if active_tab == '{name}' %}}aria-current="page"{{% end %}}>{title}</a>
        </li>"""
    for name, title in (
        ("overview", "Overview"),
        ("campaigns", "Campaigns"),
        ("failures", "Failures"),
    )
)
#: A link on the page of a task that represents a job.
_LINK_ON_TASK = """
      {% if task.name == 'harasocial.send' %}
      <a class="btn btn-primary" href="{{ reverse_url('failure', task.uuid) }}">Open in Failures</a>
      {% end %}"""

#: Flower's template → a marker in it, and the text to insert after the first one.
_INSERTIONS = {
    "navbar.html": ('<ul class="app-nav navbar-nav">', _LINKS_IN_BAR),
    "task.html": ('<div class="detail-actions">', _LINK_ON_TASK),
}


class Templates(BaseLoader):
    """Loads a template from our folder, else from Flower's folder."""

    def __init__(self, flowers: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._flowers = Path(flowers)

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return the name unchanged, because there are no subfolders."""
        return name

    def _create_template(self, name: str) -> Template:
        file = _OURS / name
        if file.is_file():
            return Template(file.read_text(encoding="utf-8"), name=name, loader=self)
        text = (self._flowers / name).read_text(encoding="utf-8")
        if name in _INSERTIONS:
            mark, link = _INSERTIONS[name]
            text = text.replace(mark, mark + link, 1)
        return Template(text, name=name, loader=self)
