"""Decides the reply to each request, and has it noted."""

from __future__ import annotations

from dataclasses import replace

from . import control
from .behaviours import ACCEPTED, UnknownBehaviourError, parse_behaviour
from .bodies import ACCEPTED_BODY
from .contract import INVALID_REQUEST, METHOD, PATH, Job, examine
from .journal import Journal
from .replies import REDIRECT_PATH, error_reply, plain_reply, reply_to
from .switches import Switches
from .wire import Head, Reply, make_reply


class Endpoint:
    """The stand-in's mind: the switches, the journal, and the way from a request to a reply."""

    def __init__(self, switches: Switches, journal: Journal) -> None:
        #: Replaced as a whole, so that a request sees one setting only.
        self.switches = switches
        self.journal = journal

    def answer(self, head: Head, body: bytes) -> tuple[Reply, Job | None]:
        """Return the reply to a request that was received whole, and the job it is for.

        Every call must be followed by one of `finish` with the same head.
        """
        if head.target.startswith(control.PREFIX):
            return control.answer(self, head, body), None
        self.journal.note_request(head, body)
        if head.target == PATH:
            return self._answer_message(head, body)
        if head.target == REDIRECT_PATH:
            self.journal.note_redirected()
            # A client that follows must not notice here, but in the count.
            return make_reply(200, ACCEPTED_BODY), None
        return make_reply(404, f"the only path is {PATH}\n".encode()), None

    def _answer_message(self, head: Head, body: bytes) -> tuple[Reply, Job | None]:
        if head.method != METHOD:
            return make_reply(405, b"use POST\n", headers=(("Allow", METHOD),)), None
        switches = self.switches
        job, refusal = examine(head, body, switches.tokens)
        behaviour = ACCEPTED
        if job is not None and refusal is None:
            try:
                behaviour = parse_behaviour(job.payload_id)
            except UnknownBehaviourError as error:
                refusal = error_reply(400, INVALID_REQUEST, str(error))
        # That one behaves as if the body had not been read, so there is no POST to note.
        post_number = self.journal.note_post(job) if behaviour.name != "drop_before" else 1
        if behaviour.name in ("echo_token", "echo_malformed"):
            behaviour = replace(behaviour, authorization=head.fields["authorization"])
        if switches.fail_with is not None:
            reply = plain_reply(switches.fail_with)
        elif refusal is not None:
            reply = refusal
        else:
            reply = reply_to(behaviour, post_number)
        if switches.latency_seconds:
            reply = replace(reply, wait_seconds=reply.wait_seconds + switches.latency_seconds)
        return reply, job

    def accept(self, job: Job | None) -> None:
        """Note that an accepted reply begins to go out for `job`."""
        if job is not None:
            self.journal.note_accepted(job)

    def finish(self, head: Head) -> None:
        """Note that the reply to the request with this head ended, whole or not."""
        if not head.target.startswith(control.PREFIX):
            self.journal.note_answered()
