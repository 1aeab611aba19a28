"""Django: settings from Django's settings, the command line in manage.py, enqueue on commit.

    INSTALLED_APPS = ["harasocial_dispatch.django_app", …]
    HARASOCIAL = {"REDIS_URL": "redis://127.0.0.1:6379/0", "TOKEN": os.environ["TOKEN"]}

`HARASOCIAL` takes precedence over the environment, which has the settings that it leaves out. Put
the app before your own, so that it comes first when Django imports them.

`manage.py harasocial worker`, `manage.py harasocial stats` and so on are the command
`harasocial-dispatch` with these settings.
"""

from __future__ import annotations

from .on_commit import enqueue_on_commit

__all__ = ["enqueue_on_commit"]
