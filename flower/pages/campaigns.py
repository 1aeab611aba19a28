"""`/campaigns` and `/campaigns/<name>`: how far each campaign is; holding, releasing, canceling."""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError, authenticated

from ...schemas import CampaignCanceled, CampaignNotFound
from ...schemas.error_codes import explain
from .overview import LivePageHandler

#: Campaigns that the list shows.
_CAMPAIGNS = 100
#: Pages and error codes that a campaign's page shows.
_ROWS = 50

#: What a form did, as its redirect says it.
_DONE = {
    "hold": "The campaign is held: none of its messages is sent until it is released.",
    "release": "The campaign is released.",
    "cancel": "The campaign is canceled: none of its waiting messages is sent.",
}


class CampaignsHandler(LivePageHandler):
    """The list, those that changed last first."""

    @authenticated
    async def get(self) -> None:
        found = await self.ask(self.site.ledger.reader.campaigns, limit=_CAMPAIGNS)
        self.render("campaigns.html", campaigns=found, limit=_CAMPAIGNS)


class CampaignHandler(LivePageHandler):
    """One campaign; a POST holds, releases or cancels it."""

    @authenticated
    async def get(self, name: str) -> None:
        campaign = await self.ask(self.site.ledger.reader.campaign, name)
        if campaign is None:
            raise HTTPError(404, f"There is no campaign {name}, or it is no longer kept.")
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
