"""Reply bodies: the documented one, and those that no client should take for it."""

from __future__ import annotations

#: The documented reply to a message that will be processed, letter for letter.
ACCEPTED_BODY = (
    b'{"data":{"success":true},"has_error":false,"error_code":null,"error_message":null}'
)

#: Levels of nesting in the body of `deep`.
DEEP_LEVELS = 100_000

#: What acts where it is not made harmless: in a terminal, log, web page, template or shell.
HOSTILE_TEXT = (
    "\x1b[2J\x1b[31mred\x1b[0m\x1b]0;title\x07\x08\x00\r\n\t\x7f\x9b31m "
    "\u202eback\u2028\u200b\ud800 "
    "<script>alert('x')</script> &lt; [bold]x[/bold] %s %n %(x)s {0} {x!r} ${x} $(id) `id` \"'\\"
)
#: Characters of the error_message of `hostile`.
HOSTILE_CHARACTERS = 20_000

_SUCCESS = '"data":{"success":true}'
_NO_ERROR = '"error_code":null,"error_message":null'

#: Behaviour -> a body that is not what the API documents.
ODD_BODIES: dict[str, bytes] = {
    "garbage": b"<html><body>this is not JSON</body></html>",
    "not_object": b"[" + ACCEPTED_BODY + b"]",
    "missing_fields": b"{}",
    "no_success": f'{{"data":null,"has_error":false,{_NO_ERROR}}}'.encode(),
    "unsuccessful": f'{{"data":{{"success":false}},"has_error":false,{_NO_ERROR}}}'.encode(),
    "wrong_types": (
        b'{"data":{"success":"true"},"has_error":"false","error_code":0,"error_message":[]}'
    ),
    "nan": f'{{{_SUCCESS},"has_error":false,"error_code":NaN,"error_message":null}}'.encode(),
    "deep": (
        f'{{"data":{"[" * DEEP_LEVELS}{"]" * DEEP_LEVELS},"has_error":false,{_NO_ERROR}}}'.encode()
    ),
    "duplicate_keys": f'{{{_SUCCESS},"has_error":true,"has_error":false,{_NO_ERROR}}}'.encode(),
    "not_utf8": f'{{{_SUCCESS},"has_error":false,"error_code":null,"error_message":"'.encode()
    + b'\xff\xfe\xe9"}',
}
