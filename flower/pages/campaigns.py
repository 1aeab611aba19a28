"""`/campaigns` and `/campaigns/<name>`: progress of campaigns; hold, release and cancel."""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError, authenticated

from ...schemas import CampaignCanceled, CampaignNotFound
from ...schemas.error_codes import explain
from .overview import LivePageHandler

#: Maximum number of campaigns in the list.
_CAMPAIGNS = 100
#: Maximum number of pages and error codes on a campaign's page.
_ROWS = 50

#: The message after an action, by the parameter `done` of the redirect.
_DONE = {
    "hold": "The campaign is held: none of its messages are sent until it is released.",
    "release": "The campaign is released.",
    "cancel": "The campaign is canceled: none of its waiting messages are sent.",
}


class CampaignsHandler(LivePageHandler):
    """The list of campaigns, the most recently changed first."""

    active_tab = "campaigns"

    @authenticated
    async def get(self) -> None:
        found = await self.ask(self.site.ledger.reader.campaigns, limit=_CAMPAIGNS)
        self.render("campaigns.html", campaigns=found, limit=_CAMPAIGNS)


class CampaignHandler(LivePageHandler):
    """One campaign. A POST holds, releases or cancels it."""

    active_tab = "campaigns"

    @authenticated
    async def get(self, name: str) -> None:
        campaign = await self.ask(self.site.ledger.reader.campaign, name)
        if campaign is None:
            raise HTTPError(
                404, f"There is no campaign {name}: it never existed, or its retention has ended."
            )
        self.render(
            "campaign.html",
            campaign=campaign,
            done=_DONE.get(self.text_argument("done")),
            explain=explain,
            rows=_ROWS,
        )

    @authenticated
    async def post(self, name: str) -> None:
        self.forbid_if_read_only()
        action = self.text_argument("action")
        ledger = self.site.ledger
        who: dict[str, Any] = {"by": self.operator, "via": "flower"}
        try:
            if action == "hold":
                reason = self.text_argument("reason").strip()
                await self.ask(ledger.hold_campaign, name, reason, **who)
            elif action == "release":
                await self.ask(ledger.release_campaign, name, **who)
            elif action == "cancel":
                await self.ask(ledger.cancel_campaign, name, **who)
            else:
                raise HTTPError(400, f"There is no action {action!r}.")
        except CampaignNotFound as error:
            raise HTTPError(404, f"{error}.") from None
        except CampaignCanceled as error:
            raise HTTPError(409, f"{error}.") from None
        self.redirect(f"{self.reverse_url('campaign', name)}?done={action}")
