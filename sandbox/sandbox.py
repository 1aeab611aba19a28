"""The stand-in for the API."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from itertools import chain

from .behaviors import (
    OK,
    REDIRECT_PATH,
    Behavior,
    ScriptedReply,
    UnknownBehaviorError,
    parse_behavior,
    reply_to,
)
from .behaviors import PREFIX as BEHAVIOR_PREFIX
from .contract import (
    ACCEPTED_BODY,
    ANY_PAGE,
    INVALID_REQUEST,
    METHOD,
    PATH,
    Job,
    error_reply,
    examine,
)
from .control import DEFAULT_TOKEN, PREFIX, Switches, control_reply
from .journal import Journal, ReceivedJob, Totals
from .reply import Step, make_plain_reply, make_reply
from .request import RawRequest
from .server import Server


class Sandbox(Server):
    """A stand-in for the API, on a background thread.

        with Sandbox() as sandbox:
            ...  # POST to sandbox.url
            assert sandbox.totals().accepted == 1

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.
        tokens: page_id, or `*` for every other page → the valid token.
        tls: a server context, to serve HTTPS.
        keep_requests: the maximum number of raw requests to keep.

    All methods are thread-safe. The counts remain available after `stop`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens: Mapping[str, str] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        keep_requests: int = 1000,
    ) -> None:
        super().__init__(self._reply, host, port, tls=tls, thread_name="harasocial-sandbox")
        self._switches = Switches({ANY_PAGE: DEFAULT_TOKEN} if tokens is None else tokens)
        self._journal = Journal(keep_requests)
        self._planned: list[_PlannedReply] = []

    @property
    def url(self) -> str:
        """The URL to POST messages to: the value for `HARASOCIAL_API_URL`."""
        return self.root_url + PATH

    # Switches.

    @property
    def tokens(self) -> Mapping[str, str]:
        """The tokens, page_id or `*` → token. Assign a mapping to replace all of them."""
        return self._switches.tokens

    @tokens.setter
    def tokens(self, tokens: Mapping[str, str]) -> None:
        self._switches.change({"tokens": tokens})

    @property
    def latency_seconds(self) -> float:
        """Seconds by which the reply to every POST is delayed. Assign to change it."""
        return self._switches.latency_seconds

    @latency_seconds.setter
    def latency_seconds(self, seconds: float) -> None:
        self._switches.change({"latency_seconds": seconds})

    def fail_with(self, status: int | None) -> None:
        """Reply to every POST with `status`, from 200 to 599, until it is set to None."""
        self._switches.change({"fail_with": status})

    def reply_next(self, behavior: str, *, times: int = 1, **fields: str | None) -> None:
        """Reply with a behavior to the next valid POSTs, regardless of their payload id.

            sandbox.reply_next("code:551", recipient_id="2560816460648749")

        Earlier planned replies are used first.

        Args:
            behavior: as in a payload id after `sandbox:`.
            times: the number of POSTs, at least 1.
            fields: only POSTs with this page_id, recipient_id, payload_id and metadata.

        Raises:
            UnknownBehaviorError: there is no such behavior.
            TypeError: a job has no such field.
            ValueError: `times` is less than 1.
        """
        if times < 1:
            raise ValueError(f"times must be at least 1, not {times}")
        unknown = fields.keys() - set(Job._fields)
        if unknown:
            raise TypeError(f"a job has no field {', '.join(sorted(unknown))}")
        parsed = parse_behavior(f"{BEHAVIOR_PREFIX}{behavior}")
        self._planned.append(_PlannedReply(parsed, fields, times))

    # Received data.

    def totals(self) -> Totals:
        """Return the counts over all jobs."""
        return self._journal.totals()

    def jobs(self, **fields: str | None) -> list[ReceivedJob]:
        """Return the jobs received, in the order of their first POSTs.

        Keywords filter them: `sandbox.jobs(page_id="1", payload_id="sandbox:ok")`.
        """
        return [
            job
            for job in self._journal.jobs()
            if all(getattr(job, name) == value for name, value in fields.items())
        ]

    def requests(self) -> list[RawRequest]:
        """Return the last requests unchanged, oldest first. Tokens are not masked."""
        return self._journal.requests()

    def reset(self) -> None:
        """Delete the received data. The switches do not change."""
        self._journal.reset()

    # On the server's thread.

    def _reply(self, request: RawRequest) -> Generator[Step, None, None]:
        if request.path.startswith(PREFIX):
            yield _for_method(request.method, control_reply(request, self._journal, self._switches))
            return
        self._journal.note_request(request)
        try:
            job, reply = self._api_reply(request)
            accepted_job = job if reply.accepted else None
            for step in reply.steps:
                if accepted_job is not None and isinstance(step, bytes):
                    self._journal.note_accepted(accepted_job)
                    accepted_job = None
                yield step
        finally:
            self._journal.note_answered()

    def _api_reply(self, request: RawRequest) -> tuple[Job | None, ScriptedReply]:
        if request.path == PATH and request.method == METHOD:
            return self._message_reply(request)
        if request.path == PATH:
            reply = make_reply(405, b"use POST\n", headers=(("Allow", METHOD),))
        elif request.path == REDIRECT_PATH:
            self._journal.note_redirected()
            # Reply as to any message. Only the count shows whether a client follows redirects.
            reply = make_reply(200, ACCEPTED_BODY)
        else:
            reply = make_reply(404, f"the only path is {PATH}\n".encode())
        return None, ScriptedReply((_for_method(request.method, reply),))

    def _message_reply(self, request: RawRequest) -> tuple[Job | None, ScriptedReply]:
        job, refusal = examine(request, self._switches.tokens)
        behavior = OK
        if job is not None and refusal is None:
            try:
                behavior = self._planned_for(job) or parse_behavior(job.payload_id)
            except UnknownBehaviorError as error:
                refusal = error_reply(400, INVALID_REQUEST, str(error))
        # `drop_before` simulates that the body was not read, so it does not count as a POST.
        post_number = 1 if behavior.name == "drop_before" else self._journal.note_post(job)
        if self._switches.fail_with is not None:
            reply = ScriptedReply((make_plain_reply(self._switches.fail_with),))
        elif refusal is not None:
            reply = ScriptedReply((refusal,))
        else:
            authorization = request.head.fields["authorization"]
            reply = reply_to(behavior, post_number=post_number, authorization=authorization)
        if self._switches.latency_seconds:
            steps = chain([self._switches.latency_seconds], reply.steps)
            reply = reply._replace(steps=steps)
        return job, reply

    def _planned_for(self, job: Job) -> Behavior | None:
        for planned in self._planned:
            if planned.fits(job):
                planned.times -= 1
                if planned.times <= 0:
                    self._planned.remove(planned)
                return planned.behavior
        return None


@dataclass(slots=True)
class _PlannedReply:
    """The reply to the next `times` POSTs of jobs with these fields."""

    behavior: Behavior
    fields: Mapping[str, str | None]
    times: int

    def fits(self, job: Job) -> bool:
        return all(getattr(job, name) == value for name, value in self.fields.items())


def _for_method(method: str, reply: bytes) -> bytes:
    """Return `reply` without its body if the method is HEAD."""
    if method != "HEAD":
        return reply
    head, end, _ = reply.partition(b"\r\n\r\n")
    return head + end
