"""The Django app: Django's settings, the command line in manage.py, and enqueue on commit.

    INSTALLED_APPS = ["harasocial_dispatch.django_app", …]
    HARASOCIAL = {"REDIS_URL": "redis://127.0.0.1:6379/0", "TOKEN": os.environ["TOKEN"]}

`HARASOCIAL` takes precedence over the environment, which provides all other settings. List the app
before your own apps, so that Django imports it first. With `DEBUG`, Django's error pages show it,
except for tokens: leave a URL with a password to a file that `HARASOCIAL_REDIS_URL_FILE` names.

`manage.py harasocial` is the command `harasocial-dispatch` with these settings, such as `manage.py
harasocial worker` or `manage.py harasocial stats`.
"""

from __future__ import annotations

from .on_commit import enqueue_on_commit

__all__ = ["enqueue_on_commit"]
