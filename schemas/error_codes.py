"""The table of error codes: class, meaning and remedy of each code, in each language. Pure.

Numeric codes come from Messenger and Graph. The API may pass them on as `code/subcode`, or either
part alone. Codes in words are this package's own: they are used if the API returns none. Sources:
the error references of the Messenger Platform and the Graph API, and the documentation of other
senders. If the sources disagree (551), the table uses the interpretation that is safest for the
page and the person.

`make docs` generates `docs/error-codes.md` from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from .language import Language
from .states import OutcomeClass, StrEnum

#: The row for an HTTP status that has no row of its own, by the status's first digit.
_STATUS_FAMILIES = {"4": "http_4xx", "5": "http_5xx"}
#: A subcode with at least this many digits has the same meaning with every code, and alone.
_UNIQUE_SUBCODE_DIGITS = 6


class Explanation(NamedTuple):
    """The meaning of an error code, and what to do about it."""

    meaning: str
    remedy: str


class ReplayKind(StrEnum):
    """Whether a replay of a failed job helps."""

    #: It helps after a person has fixed the cause.
    FIXABLE = "fixable"
    #: It helps: the cause is temporary.
    PASSING = "passing"
    #: It does not help: the job would fail again, or the person would get the message twice.
    NEVER = "never"


class Subject(StrEnum):
    """What a refusal is about. This determines whether it counts against the page."""

    #: Possibly the page. The page's other messages would then be refused too.
    PAGE = "page"
    #: The recipient.
    PERSON = "person"
    #: Something else, such as the message or the connection.
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A row of the table.

    Attributes:
        code: a code, a range such as `200-299`, or a family of HTTP statuses such as `http_5xx`.
        outcome_class: the class of an attempt that ends with the code.
        replay: whether a replay of a job that failed with the code helps.
        texts: the explanation in each language.
        about: what the error is about.
        may_have_been_sent: whether the message may have been sent despite the error. With
            `at_most_once` a transient error is then ambiguous.
    """

    code: str
    outcome_class: OutcomeClass
    replay: ReplayKind
    texts: Mapping[Language, Explanation]
    about: Subject = Subject.OTHER
    may_have_been_sent: bool = False

    @property
    def was_sent(self) -> bool:
        """Whether the message was certainly sent despite the error."""
        return self.outcome_class is _AMBIGUOUS and self.replay is ReplayKind.NEVER


def _texts(en: tuple[str, str], vi: tuple[str, str]) -> Mapping[Language, Explanation]:
    return MappingProxyType({"en": Explanation(*en), "vi": Explanation(*vi)})


_TRANSIENT, _THROTTLED, _APP_THROTTLED, _RESTRICTED, _AUTH, _AMBIGUOUS, _PERMANENT = (
    OutcomeClass.TRANSIENT,
    OutcomeClass.THROTTLED,
    OutcomeClass.APP_THROTTLED,
    OutcomeClass.RESTRICTED,
    OutcomeClass.AUTH,
    OutcomeClass.AMBIGUOUS,
    OutcomeClass.PERMANENT,
)
_FIXABLE, _PASSING, _NEVER = ReplayKind.FIXABLE, ReplayKind.PASSING, ReplayKind.NEVER
_PAGE, _PERSON, _OTHER = Subject.PAGE, Subject.PERSON, Subject.OTHER

# Texts that several rows share.

_FAULT = _texts(
    (
        "Messenger had a temporary fault, which lasted until all attempts were spent.",
        "Replay when Messenger works again.",
    ),
    (
        "Messenger gặp lỗi tạm thời, kéo dài cho đến khi hết số lần thử.",
        "Gửi lại khi Messenger hoạt động bình thường.",
    ),
)
_PERMISSION = _texts(
    (
        "The page or app lacks a permission that this message needs.",
        "Connect the page to Harasocial again and grant all permissions, then replay.",
    ),
    (
        "Trang hoặc ứng dụng thiếu quyền cần có để gửi tin nhắn này.",
        "Kết nối lại trang với Harasocial và cấp đủ các quyền, rồi gửi lại.",
    ),
)
_TOKEN = _texts(
    (
        "The token expired, was revoked, or belongs to another page.",
        "Set a new token in HARASOCIAL_TOKEN or HARASOCIAL_TOKENS_FILE: the page resumes "
        "automatically. Then replay.",
    ),
    (
        "Token đã hết hạn, bị thu hồi hoặc thuộc về trang khác.",
        "Đặt token mới trong HARASOCIAL_TOKEN hoặc HARASOCIAL_TOKENS_FILE: trang sẽ tự chạy "
        "tiếp. Sau đó gửi lại.",
    ),
)
_TOO_FAST = _texts(
    (
        "The page sent messages faster than the API allows.",
        "Nothing to do: the page resumes automatically. If it happens often, lower its rate.",
    ),
    (
        "Trang gửi tin nhanh hơn mức API cho phép.",
        "Không cần làm gì: trang sẽ tự chạy tiếp. Nếu hay lặp lại, hãy giảm tốc độ gửi.",
    ),
)
_APP_TOO_FAST = _texts(
    (
        "The token made more calls than the API allows; all pages of the token wait.",
        "Nothing to do: the pages resume automatically. If it happens often, set "
        "HARASOCIAL_TOKEN_RATE.",
    ),
    (
        "Token đã gọi nhiều hơn mức API cho phép; mọi trang dùng token này đều chờ.",
        "Không cần làm gì: các trang sẽ tự chạy tiếp. Nếu hay lặp lại, hãy đặt "
        "HARASOCIAL_TOKEN_RATE.",
    ),
)
_RESTRICTED_PAGE = _texts(
    (
        "Meta has restricted the page for a while, often because people reported its messages.",
        "Read Meta's notice to the page, and send nothing meanwhile: each message makes the "
        "restriction longer. Replay when it has ended.",
    ),
    (
        "Meta đang tạm hạn chế trang, thường vì có người báo cáo tin nhắn của trang.",
        "Đọc thông báo của Meta gửi cho trang và đừng cố gửi thêm, vì sẽ bị hạn chế lâu hơn. "
        "Gửi lại khi hết hạn chế.",
    ),
)
_WINDOW = _texts(
    (
        "The messaging window is closed: the person has not written to the page lately.",
        "Do not replay until the person has written again; then the window is open for 24 hours.",
    ),
    (
        "Đã hết khung giờ được nhắn tin: gần đây khách chưa nhắn cho trang.",
        "Không gửi lại cho đến khi khách nhắn cho trang; khi đó trang có 24 giờ để nhắn lại.",
    ),
)
_UNREACHABLE = _texts(
    (
        "The person cannot be reached: they blocked the page, left, or turned messages off.",
        "Do not replay; stop sending to this person.",
    ),
    (
        "Không liên hệ được với khách: họ đã chặn trang, ngừng dùng Messenger hoặc tắt tin nhắn.",
        "Không gửi lại; ngừng gửi tin cho khách này.",
    ),
)
_TOO_MANY_TO_PERSON = _texts(
    (
        "Too many messages went to this person in a short time.",
        "Replay after some hours, and send to this person less often.",
    ),
    (
        "Khách này đã nhận quá nhiều tin nhắn trong thời gian ngắn.",
        "Chờ vài giờ rồi gửi lại, và nhắn cho khách này thưa hơn.",
    ),
)
_NO_LINK = _texts(
    (
        "Messenger refuses the message for now, for example because of a link in it.",
        "Replay later; if it fails again, check the links in the content.",
    ),
    (
        "Messenger tạm thời từ chối tin nhắn, chẳng hạn vì một liên kết trong đó.",
        "Gửi lại sau; nếu vẫn lỗi, kiểm tra các liên kết trong nội dung.",
    ),
)

#: The API's own codes.
API_CODES: tuple[ErrorCode, ...] = (
    ErrorCode("-1", _TRANSIENT, _PASSING, _FAULT, may_have_been_sent=True),
    ErrorCode("1", _TRANSIENT, _PASSING, _FAULT, may_have_been_sent=True),
    ErrorCode("1/99", _PERMANENT, _FIXABLE, _PERMISSION, _PAGE),
    ErrorCode(
        "1/1357046",
        _AMBIGUOUS,
        _NEVER,
        _texts(
            (
                "The API reported an error although the message was sent.",
                "Do not replay: the message has arrived.",
            ),
            (
                "API báo lỗi dù tin nhắn đã được gửi.",
                "Không gửi lại: tin nhắn đã đến nơi.",
            ),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode("2", _TRANSIENT, _PASSING, _FAULT),
    ErrorCode(
        "2/2018344",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The page has not accepted Messenger's privacy terms for custom labels.",
                "Let an admin of the page accept them in its inbox, then replay.",
            ),
            (
                "Trang chưa đồng ý điều khoản quyền riêng tư của Messenger về nhãn tùy chỉnh.",
                "Nhờ quản trị viên của trang đồng ý trong hộp thư của trang, rồi gửi lại.",
            ),
        ),
        _PAGE,
    ),
    ErrorCode(
        "3",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The app lacks a capability that this message needs.",
                "Have Meta review the app for that capability, then replay.",
            ),
            (
                "Ứng dụng chưa được Meta duyệt tính năng mà tin nhắn này cần.",
                "Đề nghị Meta duyệt tính năng đó cho ứng dụng, rồi gửi lại.",
            ),
        ),
        _PAGE,
    ),
    ErrorCode("4", _APP_THROTTLED, _PASSING, _APP_TOO_FAST),
    ErrorCode(
        "4/2018354",
        _PERMANENT,
        _NEVER,
        _texts(
            (
                "The person received another marketing message too recently.",
                "Do not replay; leave this person out until the delay between messages is over.",
            ),
            (
                "Khách này vừa nhận một tin tiếp thị cách đây chưa đủ lâu.",
                "Không gửi lại; bỏ qua khách này cho đến khi đủ khoảng cách giữa hai tin.",
            ),
        ),
        _PERSON,
    ),
    ErrorCode("9", _TRANSIENT, _PASSING, _TOO_MANY_TO_PERSON, _PERSON),
    ErrorCode("9/2018352", _TRANSIENT, _PASSING, _TOO_MANY_TO_PERSON, _PERSON),
    ErrorCode("10", _PERMANENT, _FIXABLE, _PERMISSION, _PAGE),
    ErrorCode("10/1893063", _RESTRICTED, _PASSING, _RESTRICTED_PAGE, _PAGE),
    ErrorCode("10/2018065", _PERMANENT, _NEVER, _WINDOW, _PERSON),
    ErrorCode("10/2018108", _PERMANENT, _NEVER, _UNREACHABLE, _PERSON),
    ErrorCode("10/2018278", _PERMANENT, _NEVER, _WINDOW, _PERSON),
    ErrorCode(
        "10/2018300",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "Another app, or a person in the page's inbox, controls this conversation.",
                "Have the conversation handed over to Harasocial, then replay.",
            ),
            (
                "Một ứng dụng khác, hoặc nhân viên trong hộp thư, đang giữ cuộc trò chuyện này.",
                "Chuyển quyền điều khiển cuộc trò chuyện cho Harasocial, rồi gửi lại.",
            ),
        ),
        _PERSON,
    ),
    ErrorCode("17", _THROTTLED, _PASSING, _TOO_FAST),
    ErrorCode("32", _THROTTLED, _PASSING, _TOO_FAST),
    ErrorCode(
        "100",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "Messenger refused something in the message: an id, or the payload's content.",
                "Check page_id, recipient id and payload_id; correct the content in Harasocial, "
                "then replay.",
            ),
            (
                "Messenger báo tin nhắn có chỗ sai: một mã id hoặc nội dung của payload.",
                "Kiểm tra page_id, id người nhận và payload_id; sửa nội dung trong Harasocial, "
                "rồi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "100/2018001",
        _PERMANENT,
        _NEVER,
        _texts(
            (
                "No person with this id on this page.",
                "Do not replay. Ids differ from page to page: enqueue a new message with the id "
                "that was issued for this page.",
            ),
            (
                "Trang này không có khách nào mang id đó.",
                "Không gửi lại. Mỗi trang có id khách riêng: tạo tin mới với id đúng của khách "
                "trên trang này.",
            ),
        ),
        _PERSON,
    ),
    ErrorCode(
        "100/2018109",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "An attachment of the message is larger than allowed.",
                "Make the attachment smaller in Harasocial, then replay.",
            ),
            (
                "Tệp đính kèm của tin nhắn vượt quá dung lượng cho phép.",
                "Giảm dung lượng tệp trong Harasocial, rồi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "100/2534029",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "Meta has blocked the business account of the page because of its policies.",
                "Have the block lifted in Meta Business Suite, then replay.",
            ),
            (
                "Meta đã chặn tài khoản doanh nghiệp của trang do vi phạm chính sách.",
                "Yêu cầu Meta gỡ chặn trong Meta Business Suite, rồi gửi lại.",
            ),
        ),
        _PAGE,
    ),
    ErrorCode("102", _AUTH, _FIXABLE, _TOKEN),
    ErrorCode("190", _AUTH, _FIXABLE, _TOKEN),
    ErrorCode("200-299", _PERMANENT, _FIXABLE, _PERMISSION, _PAGE),
    ErrorCode("200/1545041", _PERMANENT, _NEVER, _UNREACHABLE, _PERSON),
    ErrorCode(
        "200/2534041",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The app's access to the page was withdrawn, by its owner or by Meta.",
                "Connect the page to Harasocial again, then replay.",
            ),
            (
                "Chủ trang hoặc Meta đã thu hồi quyền truy cập trang của ứng dụng.",
                "Kết nối lại trang với Harasocial, rồi gửi lại.",
            ),
        ),
        _PAGE,
    ),
    ErrorCode("341", _APP_THROTTLED, _PASSING, _APP_TOO_FAST),
    ErrorCode("368", _RESTRICTED, _PASSING, _RESTRICTED_PAGE, _PAGE),
    ErrorCode(
        "506",
        _PERMANENT,
        _NEVER,
        _texts(
            (
                "Messenger treats it as a duplicate of a message that was just sent.",
                "Do not replay: most likely the message has arrived. Check the conversation.",
            ),
            (
                "Messenger cho rằng tin này trùng với tin vừa gửi.",
                "Không gửi lại: rất có thể tin đã đến nơi. Hãy xem cuộc trò chuyện.",
            ),
        ),
        _PERSON,
    ),
    ErrorCode("508", _TRANSIENT, _PASSING, _NO_LINK),
    ErrorCode("508/2534122", _TRANSIENT, _PASSING, _NO_LINK),
    ErrorCode("551", _PERMANENT, _NEVER, _UNREACHABLE, _PERSON),
    ErrorCode("551/1545041", _PERMANENT, _NEVER, _UNREACHABLE, _PERSON),
    ErrorCode("613", _THROTTLED, _PASSING, _TOO_FAST),
    ErrorCode(
        "613/2018338",
        _THROTTLED,
        _FIXABLE,
        _texts(
            (
                "A warning: Messenger considers these messages bothersome or abusive.",
                "Stop the campaign, and send fewer messages, to people who expect them: Meta "
                "may restrict the page. Then replay.",
            ),
            (
                "Cảnh báo: Messenger cho rằng các tin nhắn này gây phiền hoặc bị lạm dụng.",
                "Dừng chiến dịch; gửi ít hơn và chỉ cho khách đang chờ tin, nếu không trang có "
                "thể bị Meta hạn chế. Sau đó gửi lại.",
            ),
        ),
        _PAGE,
    ),
    ErrorCode("1200", _TRANSIENT, _PASSING, _FAULT),
    ErrorCode("1200/2018024", _TRANSIENT, _PASSING, _FAULT),
    ErrorCode("2022", _RESTRICTED, _PASSING, _RESTRICTED_PAGE, _PAGE),
    ErrorCode("2534022", _PERMANENT, _NEVER, _WINDOW, _PERSON),
    ErrorCode("80001-80014", _THROTTLED, _PASSING, _TOO_FAST),
)

_CHECK_FIRST = (
    "Check the conversation first: a replay may send the message a second time.",
    "Xem cuộc trò chuyện trước: gửi lại có thể khiến khách nhận tin hai lần.",
)
_FIRST_MAY_BE_SENT = (
    "Replay when the API works again; an earlier attempt may have gone out.",
    "Gửi lại khi API hoạt động bình thường; có thể lần thử trước đã gửi được tin.",
)
_API_WORKS_AGAIN = (
    "Replay when the API works again.",
    "Gửi lại khi API hoạt động bình thường.",
)
_CHECK_URL_AND_VERSION = (
    "Check HARASOCIAL_API_URL, and whether a newer version of this package is out. Then replay.",
    "Kiểm tra HARASOCIAL_API_URL và xem phần mềm đã có bản mới hơn chưa, rồi gửi lại.",
)

#: This package's own codes, for failures without a code from the API.
FALLBACK_CODES: tuple[ErrorCode, ...] = (
    ErrorCode(
        "connection_failed",
        _TRANSIENT,
        _PASSING,
        _texts(
            (
                "No connection to the API could be made; nothing was sent.",
                "Check the network, DNS and HARASOCIAL_API_URL of the worker's host, then replay.",
            ),
            (
                "Không kết nối được với API; chưa có gì được gửi.",
                "Kiểm tra mạng, DNS và HARASOCIAL_API_URL trên máy chạy worker, rồi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "connection_lost",
        _AMBIGUOUS,
        _PASSING,
        _texts(
            (
                "The connection ended before the reply came: the message may have gone out.",
                _CHECK_FIRST[0],
            ),
            (
                "Mất kết nối trước khi có phản hồi: có thể tin đã được gửi.",
                _CHECK_FIRST[1],
            ),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode(
        "expired",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The deadline passed before the message was sent.",
                "Replay only if the message is still useful. Find out why its page waited (paused, "
                "or slow).",
            ),
            (
                "Đã quá hạn trước khi kịp gửi.",
                "Chỉ gửi lại nếu tin vẫn còn giá trị; xem vì sao trang phải chờ (tạm dừng hoặc "
                "gửi chậm).",
            ),
        ),
    ),
    ErrorCode(
        "internal_error",
        _AMBIGUOUS,
        _FIXABLE,
        _texts(
            (
                "An internal error occurred while sending; the worker's log has the details.",
                "Report it, and check the conversation before a replay: the message may have gone "
                "out.",
            ),
            (
                "Phần mềm gặp lỗi khi đang gửi; xem chi tiết trong nhật ký của worker.",
                "Báo lỗi cho bên phát triển, và xem cuộc trò chuyện trước khi gửi lại: có thể tin "
                "đã được gửi.",
            ),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode(
        "invalid_job",
        _PERMANENT,
        _NEVER,
        _texts(
            (
                "The stored job is not a valid message; it was not written by enqueue.",
                "Do not replay; find out who writes to this Redis, and enqueue the message again.",
            ),
            (
                "Dữ liệu đã lưu không phải tin nhắn hợp lệ; không phải do lệnh enqueue ghi.",
                "Không gửi lại; tìm xem chương trình nào ghi vào Redis này, rồi tạo lại tin nhắn.",
            ),
        ),
    ),
    ErrorCode(
        "invalid_response",
        _AMBIGUOUS,
        _PASSING,
        _texts(
            (
                "The reply does not follow the API's documentation: the message may have gone out.",
                _CHECK_FIRST[0],
            ),
            (
                "Phản hồi không đúng tài liệu của API: có thể tin đã được gửi.",
                _CHECK_FIRST[1],
            ),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode(
        "not_accepted",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The API reported neither an error nor success.",
                "Ask Harasocial's support whether the message was sent before you replay it.",
            ),
            (
                "API không báo lỗi nhưng cũng không báo thành công.",
                "Hỏi bộ phận hỗ trợ của Harasocial về tin này trước khi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "redirected",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The API replied with a redirect. It is not followed, to keep the token safe.",
                "Correct HARASOCIAL_API_URL, then replay.",
            ),
            (
                "API chuyển hướng sang địa chỉ khác; phần mềm không đi theo để không lộ token.",
                "Sửa HARASOCIAL_API_URL, rồi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "timeout",
        _AMBIGUOUS,
        _PASSING,
        _texts(
            (
                "No reply came in time: the message may have gone out.",
                _CHECK_FIRST[0],
            ),
            (
                "Không có phản hồi kịp thời: có thể tin đã được gửi.",
                _CHECK_FIRST[1],
            ),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode(
        "token_missing",
        _AUTH,
        _FIXABLE,
        _texts(
            (
                "No token is set for this page.",
                "Add one to HARASOCIAL_TOKENS_FILE (or set HARASOCIAL_TOKEN), then replay.",
            ),
            (
                "Chưa có token cho trang này.",
                "Thêm token vào HARASOCIAL_TOKENS_FILE (hoặc đặt HARASOCIAL_TOKEN), rồi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "unknown_outcome",
        _AMBIGUOUS,
        _PASSING,
        _texts(
            (
                "The worker stopped while sending: the message may have gone out.",
                _CHECK_FIRST[0],
            ),
            (
                "Worker đang gửi tin thì bị ngắt: có thể tin đã được gửi.",
                _CHECK_FIRST[1],
            ),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode(
        "unspecified",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The API reported an error without an error code.",
                "Read the error message, if there is one, and ask Harasocial's support.",
            ),
            (
                "API báo lỗi nhưng không nói rõ lỗi gì.",
                "Đọc nội dung thông báo lỗi, nếu có, và hỏi bộ phận hỗ trợ của Harasocial.",
            ),
        ),
        _PAGE,
    ),
    ErrorCode(
        "http_400",
        _PERMANENT,
        _FIXABLE,
        _texts(
            ("The API could not read the request.", _CHECK_URL_AND_VERSION[0]),
            ("API không đọc được yêu cầu.", _CHECK_URL_AND_VERSION[1]),
        ),
    ),
    ErrorCode(
        "http_401",
        _AUTH,
        _FIXABLE,
        _texts(
            ("The API refused the token.", _TOKEN["en"].remedy),
            ("API từ chối token.", _TOKEN["vi"].remedy),
        ),
    ),
    ErrorCode(
        "http_403",
        _AUTH,
        _FIXABLE,
        _texts(
            (
                "The token is not allowed to send: it lacks the scope social.conv, or it belongs "
                "to another page.",
                "Set a token with the scope social.conv for this page: the page resumes "
                "automatically. Then replay.",
            ),
            (
                "Token không có quyền gửi: thiếu phạm vi social.conv, hoặc trang không thuộc token "
                "này.",
                "Tạo token có phạm vi social.conv cho trang này: trang sẽ tự chạy tiếp. Sau đó "
                "gửi lại.",
            ),
        ),
        _PAGE,
    ),
    ErrorCode(
        "http_404",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "This address is not the API's.",
                "Correct HARASOCIAL_API_URL, then replay.",
            ),
            (
                "Địa chỉ này không phải của API.",
                "Sửa HARASOCIAL_API_URL, rồi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "http_408",
        _TRANSIENT,
        _PASSING,
        _texts(
            (
                "The API waited too long for the request.",
                "Check the worker's network, then replay.",
            ),
            (
                "API chờ yêu cầu quá lâu.",
                "Kiểm tra mạng của máy chạy worker, rồi gửi lại.",
            ),
        ),
    ),
    ErrorCode(
        "http_413",
        _PERMANENT,
        _NEVER,
        _texts(
            (
                "The message is larger than the API allows.",
                "Do not replay; enqueue a new message with shorter metadata.",
            ),
            (
                "Tin nhắn lớn hơn mức API cho phép.",
                "Không gửi lại; tạo tin mới với metadata ngắn hơn.",
            ),
        ),
    ),
    ErrorCode(
        "http_415",
        _PERMANENT,
        _FIXABLE,
        _texts(
            ("The API refused the request's content type.", _CHECK_URL_AND_VERSION[0]),
            ("API từ chối kiểu nội dung của yêu cầu.", _CHECK_URL_AND_VERSION[1]),
        ),
    ),
    ErrorCode("http_429", _THROTTLED, _PASSING, _TOO_FAST),
    ErrorCode(
        "http_500",
        _TRANSIENT,
        _PASSING,
        _texts(
            ("The API failed while it processed the message.", _FIRST_MAY_BE_SENT[0]),
            ("API gặp lỗi khi đang xử lý tin nhắn.", _FIRST_MAY_BE_SENT[1]),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode(
        "http_502",
        _TRANSIENT,
        _PASSING,
        _texts(
            ("The API's gateway could not reach the API.", _API_WORKS_AGAIN[0]),
            ("Cổng kết nối của API không liên lạc được với API.", _API_WORKS_AGAIN[1]),
        ),
    ),
    ErrorCode(
        "http_503",
        _TRANSIENT,
        _PASSING,
        _texts(
            ("The API was overloaded or down for maintenance.", _API_WORKS_AGAIN[0]),
            ("API bị quá tải hoặc đang bảo trì.", _API_WORKS_AGAIN[1]),
        ),
    ),
    ErrorCode(
        "http_504",
        _TRANSIENT,
        _PASSING,
        _texts(
            ("The API's gateway got no reply in time.", _FIRST_MAY_BE_SENT[0]),
            ("Cổng kết nối của API không nhận được trả lời kịp thời.", _FIRST_MAY_BE_SENT[1]),
        ),
        may_have_been_sent=True,
    ),
    ErrorCode(
        "http_4xx",
        _PERMANENT,
        _FIXABLE,
        _texts(
            (
                "The API refused the request with this HTTP status.",
                "Read the error message; check HARASOCIAL_API_URL, page_id and payload_id, "
                "then replay.",
            ),
            (
                "API từ chối yêu cầu với mã trạng thái HTTP này.",
                "Đọc thông báo lỗi; kiểm tra HARASOCIAL_API_URL, page_id và payload_id, rồi gửi "
                "lại.",
            ),
        ),
    ),
    ErrorCode(
        "http_5xx",
        _TRANSIENT,
        _PASSING,
        _texts(
            ("The API failed with this HTTP status.", _API_WORKS_AGAIN[0]),
            ("API gặp lỗi với mã trạng thái HTTP này.", _API_WORKS_AGAIN[1]),
        ),
    ),
)

#: A short label for each kind.
KIND_NAMES: Mapping[ReplayKind, Mapping[Language, str]] = MappingProxyType(
    {
        ReplayKind.PASSING: {"en": "Worth another try", "vi": "Nên thử gửi lại"},
        ReplayKind.FIXABLE: {"en": "Fix the cause, then replay", "vi": "Xử lý xong rồi gửi lại"},
        ReplayKind.NEVER: {"en": "Do not replay", "vi": "Không gửi lại"},
    }
)

#: The row for every code that is not in the table.
UNKNOWN = ErrorCode(
    "",
    _PERMANENT,
    _FIXABLE,
    _texts(
        (
            "This code is not in the table; the error message is the API's own.",
            "Read the message, and replay when its cause is gone. If the cause is temporary, list "
            "the code as transient in HARASOCIAL_ERROR_CODE_CLASSES.",
        ),
        (
            "Mã lỗi này chưa có trong danh sách; nội dung thông báo là của API.",
            "Đọc thông báo lỗi và gửi lại khi đã hết nguyên nhân. Nếu lỗi tự hết, hãy đặt "
            "HARASOCIAL_ERROR_CODE_CLASSES để mã này được thử lại.",
        ),
    ),
    _PAGE,
)


def _unique_subcode(error_code: str) -> str:
    """Return the subcode of `code/subcode` if it has the same meaning with every code, else ""."""
    subcode = error_code.partition("/")[2]
    return subcode if len(subcode) >= _UNIQUE_SUBCODE_DIGITS else ""


def _by_name(rows: tuple[ErrorCode, ...]) -> Mapping[str, ErrorCode]:
    """Return the rows by code, by each number of a range, and by unique subcode."""
    named: dict[str, ErrorCode] = {}
    for row in rows:
        if subcode := _unique_subcode(row.code):
            named.setdefault(subcode, row)
        first, _, last = row.code.lstrip("-").partition("-")
        if last:
            named |= dict.fromkeys(map(str, range(int(first), int(last) + 1)), row)
    return MappingProxyType(named | {row.code: row for row in rows})


_API_ROWS = _by_name(API_CODES)
_FALLBACK_ROWS = _by_name(FALLBACK_CODES)


def _names(error_code: str) -> tuple[str, ...]:
    """Return the keys to look up for a code, the most specific first."""
    names = (error_code, _unique_subcode(error_code), error_code.partition("/")[0])
    return tuple(filter(None, names))


def find_api_code(error_code: str | None) -> ErrorCode | None:
    """Return the row of a code from the API, or None if the table does not have it.

    A `code/subcode` that is not listed falls back to its subcode, if the subcode is unique, and
    then to its code.
    """
    return next((_API_ROWS[n] for n in _names(error_code or "") if n in _API_ROWS), None)


def find_fallback_code(error_code: str) -> ErrorCode | None:
    """Return the row of one of this package's own codes, or None for any other code."""
    prefix, _, status = error_code.partition("_")
    if prefix == "http" and len(status) == 3 and status.isascii() and status.isdecimal():
        error_code = (
            error_code
            if error_code in _FALLBACK_ROWS
            else _STATUS_FAMILIES.get(status[0], error_code)
        )
    return _FALLBACK_ROWS.get(error_code)


def class_of(
    error_code: str | None, extra: Mapping[str, OutcomeClass] = MappingProxyType({})
) -> OutcomeClass | None:
    """Return the class of an API error code, or None if it is not listed.

    `extra` is the operator's list. It takes precedence over the table. A `code/subcode` that is
    not listed falls back as in `find_api_code`.
    """
    lone = {subcode: extra[code] for code in extra if (subcode := _unique_subcode(code))}
    listed = lone | dict(extra)
    for name in _names(error_code or ""):
        if name in listed:
            return listed[name]
    row = find_api_code(error_code)
    return row.outcome_class if row else None


def row_of(error_code: str) -> ErrorCode:
    """Return the row of a failed job's error code, or `UNKNOWN` if the table does not have it."""
    return find_fallback_code(error_code) or find_api_code(error_code) or UNKNOWN


def explain(error_code: str | None, language: Language = "en") -> Explanation | None:
    """Return the explanation of `error_code`, or None if the table does not have it."""
    row = row_of(error_code or "")
    return None if row is UNKNOWN else row.texts[language]


def explain_any(error_code: str | None, language: Language = "en") -> Explanation:
    """Return the explanation of `error_code`; for an unknown code, the one of `UNKNOWN`."""
    return explain(error_code, language) or UNKNOWN.texts[language]
