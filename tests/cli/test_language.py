"""`HARASOCIAL_LANGUAGE=vi`: explanations of errors are Vietnamese, the rest is English."""

from __future__ import annotations

import csv
import json

import pytest
from support.command_line import Jobs, Run

ENGLISH = "The messaging window is closed"
VIETNAMESE = "Đã hết khung giờ được nhắn tin"


@pytest.mark.parametrize(
    "command",
    [
        ["show", "ID"],
        ["errors"],
        ["replay", "--all", "--dry-run"],
        ["export"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("language", ["en", "vi"])
def test_a_command_uses_the_language_of_the_settings(
    run: Run, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, command: list[str], language: str
) -> None:
    """Text output is translated. JSON is the same in every language."""
    monkeypatch.setenv("HARASOCIAL_LANGUAGE", language)
    job_id = jobs.failed("10/2018278")
    command = [job_id if word == "ID" else word for word in command]
    shown = " ".join(run(*command).stdout.split())
    assert (ENGLISH in shown, VIETNAMESE in shown) == (language == "en", language == "vi")
    if command[0] == "export":
        (row,) = csv.DictReader(run(*command).stdout.lstrip("\ufeff").splitlines())
        assert row["meaning"].startswith(ENGLISH if language == "en" else VIETNAMESE)
    else:
        assert VIETNAMESE not in run(*command, "--json").stdout


def test_warnings_of_a_replay_are_translated_and_json_is_not(
    run: Run, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of options and fields are not translated."""
    monkeypatch.setenv("HARASOCIAL_LANGUAGE", "vi")
    jobs.failed("timeout")
    text = run("replay", "--all", "--dry-run").stdout
    assert text.startswith("Nên thử gửi lại: ")
    assert "1 tin có thể đã đến nơi" in text
    printed = json.loads(run("replay", "--all", "--dry-run", "--json").stdout)
    assert printed["warnings"] == [
        "1 job may have been sent although it failed: a replay may send it twice."
    ]


def test_an_unsupported_language_is_an_invalid_setting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error lists the supported languages."""
    monkeypatch.setenv("HARASOCIAL_LANGUAGE", "fr")
    result = run("errors")
    assert result.exit_code == 2
    assert "HARASOCIAL_LANGUAGE must be en (English) or vi (Vietnamese)" in result.stderr
