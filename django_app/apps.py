"""The Django app, which passes Django's setting `HARASOCIAL` to this package."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..schemas import Settings, SettingsError, use_host_settings


class HarasocialConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """Reads the settings when Django loads its apps.

    Raises:
        ImproperlyConfigured: with the name of the invalid setting.
    """

    name = "harasocial_dispatch.django_app"
    label = "harasocial_dispatch"
    verbose_name = "Harasocial messages"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not in `ready`: Django imports the models of other apps first, and they may import the
        # producer.
        try:
            use_host_settings(getattr(settings, "HARASOCIAL", {}))
            Settings.from_environment()
        except SettingsError as error:
            raise ImproperlyConfigured(str(error)) from None
