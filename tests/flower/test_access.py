"""Access over HTTP: the login is required, and only forms of our pages are accepted."""

from __future__ import annotations

import re

import pytest
import requests
from harasocial_dispatch.schemas import State
from support.flower_harness import LOGIN, PASSWORD, USER, FlowerHarness, new_page_id

PATHS = [
    *("/failures", "/failures/", "/failures/waiting", "/failures/replays"),
    *("/failures/export.csv", "/failures/export.jsonl", "/failures/none"),
    *("/pages", "/pages/70000", "/audit", "/cancellations/abc"),
]

#: The paths that forms are sent to.
CHANGING_PATHS = [
    *("/failures/replays", "/failures/waiting", "/failures/{job}"),
    *("/overview/page", "/cancellations", "/cancellations/abc"),
]


@pytest.mark.parametrize(
    ("login", "paths"),
    [
        (None, PATHS),
        # Few attempts each, because the login limit would reject more of them unchecked.
        ((USER, "wrong"), PATHS[:3]),
        (("", ""), PATHS[3:6]),
        ((USER.title(), PASSWORD), PATHS[:3]),
        ((USER, ""), PATHS[3:6]),
    ],
)
def test_reading_requires_the_login(
    harness: FlowerHarness, login: tuple[str, str] | None, paths: list[str]
) -> None:
    """The response contains nothing else."""
    for path in paths:
        answer = harness.flower.get(path, auth=login, allow_redirects=False)
        assert (answer.status_code, answer.text) == (401, "Access denied")
        assert "Basic" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", CHANGING_PATHS)
def test_changes_require_the_login(harness: FlowerHarness, path: str) -> None:
    """A forged token is rejected even if it matches a forged cookie."""
    job_id = harness.fail(page_id=new_page_id())
    token = "0123456789abcdef" * 2
    answer = requests.post(
        harness.flower.url + path.format(job=job_id),
        data={"action": "replay", "job_id": job_id, "what": "selection", "_xsrf": token},
        cookies={"_xsrf": token},
        timeout=30,
    )
    assert answer.status_code == 401
    assert harness.state(job_id) is State.FAILED


@pytest.mark.parametrize("path", CHANGING_PATHS)
@pytest.mark.parametrize(
    "kind", ["no token", "wrong token", "token of another cookie", "another site"]
)
def test_a_forged_form_is_rejected(harness: FlowerHarness, path: str, kind: str) -> None:
    """A forged form is rejected, although the browser sends the login automatically."""
    job_id = harness.fail(page_id=new_page_id())
    url = harness.flower.url + path.format(job=job_id)
    fields = {"action": "replay", "job_id": job_id, "what": "filter"}
    headers, cookies = {}, {}
    if kind == "wrong token":
        fields["_xsrf"], cookies["_xsrf"] = "0" * 32, "f" * 32
    elif kind == "token of another cookie":
        page = harness.flower.get("/failures")
        fields["_xsrf"] = re.findall(r'name="_xsrf" value="([^"]+)"', page.text)[0]
        cookies["_xsrf"] = "2|00000000|" + "0" * 32 + "|1700000000"
    elif kind == "another site":
        headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = requests.post(
        url, data=fields, headers=headers, cookies=cookies, auth=LOGIN, timeout=30
    )
    assert answer.status_code == 403
    assert harness.state(job_id) is State.FAILED


@pytest.mark.parametrize("path", [*PATHS[:4], "/pages/70000", "/audit"])
def test_pages_load_nothing_from_other_hosts(harness: FlowerHarness, path: str) -> None:
    """Every URL is on this host, and the Content-Security-Policy enforces it."""
    page = harness.flower.get(path)
    ours = page.text[page.text.index('class="page-section failures-page') :]
    assert re.findall(r'(?:src|href|action)="(?:https?:)?//', ours) == []
    assert " style=" not in ours
    assert " on" not in "".join(re.findall(r"<[^>]*>", ours)).replace(' only="', "")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
