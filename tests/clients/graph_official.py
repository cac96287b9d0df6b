"""msal and msgraph-sdk, unchanged, against graphsim.

tests/graphsim/tests/it/clients.rs starts the simulator and calls this with GRAPHSIM, its line of JSON, and with
REQUESTS_CA_BUNDLE and SSL_CERT_FILE, which name its authority. What was committed is compared there afterwards.
"""

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import urllib.parse

import msal
import requests
from azure.core.credentials import AccessToken
from kiota_abstractions.api_error import APIError
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph import GraphRequestAdapter, GraphServiceClient
from msgraph.generated.drives.item.items.item.create_upload_session.create_upload_session_post_request_body import (
    CreateUploadSessionPostRequestBody,
)
from msgraph.generated.models.body_type import BodyType
from msgraph.generated.models.chat_message import ChatMessage
from msgraph.generated.models.drive_item_uploadable_properties import DriveItemUploadableProperties
from msgraph.generated.models.email_address import EmailAddress
from msgraph.generated.models.item_body import ItemBody
from msgraph.generated.models.message import Message
from msgraph.generated.models.o_data_errors.o_data_error import ODataError
from msgraph.generated.models.recipient import Recipient
from msgraph.generated.users.item.send_mail.send_mail_post_request_body import SendMailPostRequestBody
from msgraph.generated.users.users_request_builder import UsersRequestBuilder
from msgraph_core.tasks import LargeFileUploadTask, PageIterator

SIM = json.loads(os.environ["GRAPHSIM"])
AUTHORITY = f"{SIM['login']}/{SIM['tenant']}"
SCOPE = f"{SIM['graph']}/.default"
BACK = "http://localhost:4711/back"


def control(verb, body=None):
    url = f"{SIM['control']}/_sim/{verb}"
    answer = requests.get(url, timeout=20) if body is None else requests.post(url, json=body, timeout=20)
    assert answer.ok, (verb, answer.text)
    return answer.json()


def token_requests():
    return sum(1 for r in control("oracle")["requests"] if r["host"] == "login" and r["path"].endswith("/token"))


def confidential(client_id, credential, **more):
    return msal.ConfidentialClientApplication(
        client_id, authority=AUTHORITY, client_credential=credential, instance_discovery=False, **more
    )


def signed_in(url, name):
    """What a browser does: open the page, fill it in, follow the redirect as far as its address."""
    browser = requests.Session()
    page = browser.get(url, timeout=20)
    assert page.status_code == 200, page.text
    context = re.search(r'name="ctx" value="([^"]+)"', page.text).group(1)
    action = re.search(r'action="([^"]+)"', page.text).group(1)
    fields = {"ctx": context, "login": f"{name}@contoso.example", "passwd": "wrong"}
    assert "AADSTS50126" in browser.post(action, data=fields, timeout=20).text
    fields["passwd"] = f"{name}-password"
    answer = browser.post(action, data=fields, timeout=20, allow_redirects=False)
    assert answer.status_code == 302, answer.text
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["Location"]).query))


def identity():
    world = {}
    made = control("credential", {"name": "official"})
    world["anna"] = control("user", {"userPrincipalName": "anna@contoso.example", "displayName": "Anna", "password": "anna-password"})["id"]
    for number in range(30):
        control("user", {"userPrincipalName": f"user{number}@contoso.example", "displayName": f"User {number}"})
    app = control("app", {
        "name": "Official", "secrets": [{"value": "s3cret"}], "certificates": [made["certificatePem"]],
        "application": ["User.Read.All", "Files.ReadWrite.All", "Mail.Send"],
        "delegated": ["User.Read", "ChannelMessage.Send", "ChannelMessage.Read.All"],
        "redirects": ["http://localhost/back"], "identifierUri": "api://sim.example/official",
    })["id"]
    world["team"] = control("team", {"displayName": "Bravo", "members": [world["anna"]], "channels": ["Ops"]})

    by_secret = confidential(app, "s3cret")
    first = by_secret.acquire_token_for_client([SCOPE])
    assert first["token_type"] == "Bearer" and 3600 <= first["expires_in"] <= 5400, first
    asked = token_requests()
    again = by_secret.acquire_token_for_client([SCOPE])
    assert again["access_token"] == first["access_token"] and token_requests() == asked, "msal keeps it"
    refused = confidential(app, "wrong").acquire_token_for_client([SCOPE])
    assert refused["error"] == "invalid_client" and refused["error_codes"] == [7000215], refused
    wrong = by_secret.acquire_token_for_client(["https://graph.microsoft.com/.default"])
    assert wrong["error_codes"] == [500011], wrong

    key = {"private_key": made["keyPem"], "public_certificate": made["certificatePem"]}
    by_certificate = confidential(app, key, client_capabilities=["cp1"])
    long = by_certificate.acquire_token_for_client([SCOPE])
    assert long.get("expires_in", 0) > 20 * 3600, long

    # Continuous access evaluation: the challenge of Graph goes back to Entra and gives another token.
    control("revoke/app", {"id": app})
    refused = requests.get(f"{SIM['graph']}/v1.0/users", headers={"Authorization": f"Bearer {long['access_token']}"}, timeout=20)
    assert refused.status_code == 401, refused.text
    claims = re.search(r'claims="([^"]+)"', refused.headers["WWW-Authenticate"]).group(1)
    control("clock/advance", {"ms": 2000})
    fresh = by_certificate.acquire_token_for_client([SCOPE], claims_challenge=base64.b64decode(claims).decode())
    assert fresh.get("access_token") not in (None, long["access_token"]), fresh
    taken = requests.get(f"{SIM['graph']}/v1.0/users", headers={"Authorization": f"Bearer {fresh['access_token']}"}, timeout=20)
    assert taken.status_code == 200, taken.text

    flow = by_secret.initiate_auth_code_flow(["User.Read", "ChannelMessage.Send", "ChannelMessage.Read.All"], redirect_uri=BACK)
    user = by_secret.acquire_token_by_auth_code_flow(flow, signed_in(flow["auth_uri"], "anna"))
    assert user["id_token_claims"]["oid"] == world["anna"], user
    assert user["refresh_token"]
    account = by_secret.get_accounts()[0]
    renewed = by_secret.acquire_token_silent(["User.Read"], account=account, force_refresh=True)
    assert renewed and renewed["access_token"] != user["access_token"], renewed
    world["user_token"] = user["access_token"]

    tab = control("tab-token", {"user": world["anna"], "app": app})["token"]
    behalf = by_secret.acquire_token_on_behalf_of(tab, ["User.Read"])
    assert behalf.get("access_token"), behalf

    public = control("app", {"name": "Command line", "public": True, "delegated": ["User.Read"]})["id"]
    device = msal.PublicClientApplication(public, authority=AUTHORITY, instance_discovery=False)
    flow = device.initiate_device_flow(["User.Read"])
    control("device", {"userCode": flow["user_code"], "user": world["anna"]})
    assert device.acquire_token_by_device_flow(flow).get("access_token")

    # With oidc_authority, the issuer of the discovery document is what counts.
    other = msal.ConfidentialClientApplication(app, oidc_authority=f"{AUTHORITY}/v2.0", client_credential="s3cret")
    assert other.acquire_token_for_client([SCOPE]).get("access_token")
    world["app"] = by_secret
    return world


class FromMsal:
    """A credential of Azure's kind over msal."""

    def __init__(self, get):
        self.get = get

    def get_token(self, *scopes, **_):
        answer = self.get(list(scopes))
        return AccessToken(answer["access_token"], 2**33)


def client(get):
    provider = AzureIdentityAuthenticationProvider(FromMsal(get), scopes=[SCOPE], allowed_hosts=["localhost"])
    adapter = GraphRequestAdapter(provider)
    adapter.base_url = f"{SIM['graph']}/v1.0"
    return GraphServiceClient(request_adapter=adapter), adapter


async def graph(world):
    by_app, adapter = client(lambda scopes: world["app"].acquire_token_for_client(scopes))
    by_user, _ = client(lambda _: {"access_token": world["user_token"]})

    query = UsersRequestBuilder.UsersRequestBuilderGetQueryParameters(select=["id", "displayName"], top=7)
    page = await by_app.users.get(RequestConfiguration(query_parameters=query))
    names = []
    await PageIterator(page, adapter).iterate(lambda user: names.append(user.display_name) or True)
    assert len(names) == 31 and len(set(names)) == 31, names

    delta = await by_app.users.delta.get()
    seen = set()
    while True:
        seen.update(user.id for user in delta.value)
        if delta.odata_delta_link:
            break
        delta = await by_app.users.delta.with_url(delta.odata_next_link).get()
    assert len(seen) == 31

    try:
        await by_app.users.by_user_id("nobody@contoso.example").get()
        raise AssertionError("there is no such user")
    except ODataError as refusal:
        assert refusal.response_status_code == 404 and refusal.error.code == "Request_ResourceNotFound"
        assert refusal.error.inner_error.request_id

    assert (await by_user.me.get()).id == world["anna"]
    team, channel = world["team"]["id"], world["team"]["channels"]["Ops"]
    messages = by_user.teams.by_team_id(team).channels.by_channel_id(channel).messages
    # Throttled with a fraction of a second, and again without a word: the SDK waits and repeats.
    control("fail", {"method": "POST", "path": "/messages", "failure": {"kind": "refused", "status": 429, "retry_after_s": 1}})
    posted = await messages.post(ChatMessage(body=ItemBody(content_type=BodyType.Html, content="<p>from <b>Python</b></p>")))
    assert posted.body.content == "<p>from <b>Python</b></p>" and posted.from_.user.id == world["anna"]
    replies = messages.by_chat_message_id(posted.id).replies
    reply = await replies.post(ChatMessage(body=ItemBody(content="and a reply")))
    assert reply.reply_to_id == posted.id

    mail = Message(subject="From Python", body=ItemBody(content="text"),
                   to_recipients=[Recipient(email_address=EmailAddress(address="anna@contoso.example"))])
    await by_app.users.by_user_id(world["anna"]).send_mail.post(SendMailPostRequestBody(message=mail, save_to_sent_items=True))

    drive = by_app.drives.by_drive_id(world["team"]["drive"])
    small = await drive.items.by_drive_item_id("root:/Ops/small.txt:").content.put(b"small")
    assert small.size == 5, small
    assert await drive.items.by_drive_item_id(small.id).content.get() == b"small"
    await upload(adapter, drive)


async def upload(adapter, drive):
    content = hashlib.shake_256(b"large").digest(3 * 327_680 + 1000)
    item = DriveItemUploadableProperties(additional_data={"@microsoft.graph.conflictBehavior": "fail"})
    session = await drive.items.by_drive_item_id("root:/Ops/large.bin:").create_upload_session.post(
        CreateUploadSessionPostRequestBody(item=item)
    )
    task = LargeFileUploadTask(session, adapter, io.BytesIO(content), max_chunk_size=327_680)
    try:
        await task.upload()
    except APIError as late:
        # When all is there, msgraph-core sends the last range once more (microsoftgraph/msgraph-sdk-python-core#718).
        assert late.response_status_code == 404, late
    found = await drive.items.by_drive_item_id("root:/Ops/large.bin:").get()
    assert found.size == len(content), found.size


if __name__ == "__main__":
    asyncio.run(graph(identity()))
    print("msal", msal.__version__, "and msgraph-sdk did what they were asked")
