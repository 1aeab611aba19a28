"""The reasons for automatic pauses: meaning and remedy of each, in each language."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .error_codes import Explanation
from .language import Language

#: Recorded reason of a pause → its explanation in each language.
PAUSE_REASONS: Mapping[str, Mapping[Language, Explanation]] = MappingProxyType(
    {
        "app_throttled": {
            "en": Explanation(
                "Its token made more calls than the API allows; all pages of the token wait.",
                "Nothing to do: the pages resume automatically. If it happens often, set "
                "HARASOCIAL_TOKEN_RATE.",
            ),
            "vi": Explanation(
                "Token đã gọi nhiều hơn mức API cho phép; mọi trang dùng token này đều chờ.",
                "Không cần làm gì: các trang sẽ tự chạy tiếp. HARASOCIAL_TOKEN_RATE giúp ít gặp.",
            ),
        },
        "auth": {
            "en": Explanation(
                "Its token was refused.",
                "Set a new token in HARASOCIAL_TOKEN or HARASOCIAL_TOKENS_FILE.",
            ),
            "vi": Explanation(
                "Token của trang bị từ chối.",
                "Đặt token mới trong HARASOCIAL_TOKEN hoặc HARASOCIAL_TOKENS_FILE.",
            ),
        },
        "restricted": {
            "en": Explanation(
                "Meta restricts the page.",
                "Read Meta's notice to the page. One message tests the page at the end of each "
                "pause.",
            ),
            "vi": Explanation(
                "Meta đang hạn chế trang.",
                "Đọc thông báo của Meta gửi cho trang. Cuối mỗi lần tạm dừng chỉ thử gửi một tin.",
            ),
        },
        "refused": {
            "en": Explanation(
                "Several messages in a row were refused with the same error code.",
                "Look up the error code. One message tests the page at the end of each pause.",
            ),
            "vi": Explanation(
                "Các tin của trang liên tiếp bị từ chối với cùng một mã lỗi.",
                "Tra cứu mã lỗi đó. Cuối mỗi lần tạm dừng chỉ thử gửi một tin.",
            ),
        },
        "failing": {
            "en": Explanation(
                "Its calls keep failing.",
                "Nothing to do: the page resumes automatically. One message tests it at the end of "
                "each pause.",
            ),
            "vi": Explanation(
                "Trang gửi tin liên tục bị lỗi.",
                "Không cần làm gì: trang sẽ tự chạy tiếp. Cuối mỗi lần tạm dừng chỉ thử gửi một "
                "tin.",
            ),
        },
        "throttled": {
            "en": Explanation(
                "It sent messages faster than the API allows.",
                "Nothing to do: the page resumes automatically. If it happens often, lower its "
                "rate.",
            ),
            "vi": Explanation(
                "Trang gửi tin nhanh hơn mức API cho phép.",
                "Không cần làm gì: trang sẽ tự chạy tiếp. Nếu hay lặp lại, hãy giảm tốc độ gửi.",
            ),
        },
    }
)
