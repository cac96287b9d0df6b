"""To which endpoints the methods of the driver lead: each is called once, over a transport that answers nothing."""

import inspect
import json

import httpx
from mattermostautodriver import TypedDriver

from cast import TRAFFIC

ANY = "x" * 26


def keep():
    """Writes a line for each endpoint beside the traffic. A method that fails before it asks offers nothing."""
    seen = set()

    def answer(request):
        seen.add(f"{request.method} {request.url.path}")
        return httpx.Response(200, json={})

    driver = TypedDriver({"url": "localhost", "transport": httpx.MockTransport(answer), "max_retries": 0})
    for area in vars(driver).values():
        if type(area).__module__.startswith("mattermostautodriver.endpoints."):
            for name, method in inspect.getmembers(area, inspect.ismethod):
                if name.startswith("_"):
                    continue
                try:
                    method(*[ANY] * len(inspect.signature(method).parameters))
                except (AttributeError, NameError, TypeError, ValueError):
                    # The generated method is wrong in itself.
                    continue
    assert len(seen) > 400, f"only {len(seen)} endpoints: the driver is built differently than thought"
    if TRAFFIC.file:
        for endpoint in sorted(seen):
            print(json.dumps({"offers": endpoint}), file=TRAFFIC.file)
