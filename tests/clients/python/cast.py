"""Who acts in the Python scripts: drivers of mattermostautodriver, unchanged, whose traffic is kept, and what they hear."""

import asyncio
import json
import logging
import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from urllib.parse import urlsplit

from mattermostautodriver import AsyncTypedDriver, TypedDriver

PASSWORD = "correct horse battery 9"
PATIENCE_S = 30

# What is refused is expected; the driver would report each time.
logging.getLogger("mattermostautodriver.websocket").setLevel(logging.CRITICAL)


class Traffic:
    """What was asked and answered: one JSON line each in the file that HOLDFAST_TRAFFIC names, if it does."""

    def __init__(self):
        path = os.environ.get("HOLDFAST_TRAFFIC")
        self.file = open(path, "a") if path else None
        self.lock = threading.Lock()

    def keep(self, method, path, status, body=None):
        if self.file:
            with self.lock:
                line = {"method": method, "path": path, "status": status, "body": body}
                print(json.dumps(line), file=self.file, flush=True)

    def answered(self, response):
        """A hook of httpx."""
        response.read()
        is_json = response.headers.get("content-type", "").startswith("application/json")
        self.keep(response.request.method, response.request.url.path, response.status_code,
                  response.json() if is_json and response.content else None)


TRAFFIC = Traffic()


def options(side="EDGE", **more):
    url = urlsplit(os.environ[f"HOLDFAST_{side}_URL"])
    return {"scheme": url.scheme, "url": url.hostname, "port": url.port, "request_timeout": 60, "max_retries": 0, **more}


def signed_in(login=None, password=PASSWORD, side="EDGE", **more):
    """A driver after its login, with a password or with `token=`."""
    driver = TypedDriver(options(side, login_id=login, password=password, **more))
    driver.client.client.event_hooks["response"].append(TRAFFIC.answered)
    driver.login()
    return driver


def administrator(side="EDGE"):
    return signed_in(os.environ[f"HOLDFAST_{side}_ADMIN"], os.environ[f"HOLDFAST_{side}_PASSWORD"], side)


def same(what, seen, expected=True):
    assert seen == expected, f"{what}: {seen!r}, not {expected!r}"
    print(f"ok - python: {what}", flush=True)


def refused(what, error, call, error_id=None):
    """That the call ends with the driver's exception, and with Mattermost's id of the error where one is given."""
    try:
        answer = call()
    except error as problem:
        assert error_id in (None, problem.error_id), f"{what}: {problem.error_id}, not {error_id}"
        print(f"ok - python: {what} is refused", flush=True)
        return
    raise AssertionError(f"{what} is not refused: {answer!r}")


def eventually(what, look, patience_s=PATIENCE_S):
    """Calls `look` until it returns something true."""
    deadline = time.monotonic() + patience_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {patience_s} s; last seen: {seen!r}"
        time.sleep(0.05)
    return seen


class Ears:
    """A WebSocket of the library in a thread of its own, and the events that came over it."""

    def __init__(self, driver):
        self.events = []
        self.driver = driver
        self.thread = threading.Thread(target=lambda: asyncio.run(self.listen()), daemon=True)
        self.thread.start()
        self.hear("hello")
        TRAFFIC.keep("GET", "/api/v4/websocket", 101)

    async def listen(self):
        async with AsyncTypedDriver(options(token=self.driver.client.token)) as listener:
            self.listener = listener
            await listener.login()
            self.stopping = asyncio.Event()
            self.loop = asyncio.get_running_loop()
            socket = asyncio.create_task(listener.init_websocket(self.heard))
            await self.stopping.wait()
            listener.disconnect()
            socket.cancel()
            await asyncio.gather(socket, return_exceptions=True)

    async def heard(self, message):
        event = json.loads(message)
        if "event" in event:
            self.events.append(event)

    def hear(self, kind, fits=lambda data: True):
        """Waits for an event whose data fit, and returns them with the JSON texts in them read."""
        def look():
            return next((data for event in list(self.events) if event["event"] == kind and fits(data := opened(event))), None)
        found = eventually(f"event {kind}", lambda: [look()] if look() is not None else None)[0]
        print(f"ok - python: event {kind}", flush=True)
        return found

    def close(self):
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(PATIENCE_S)
        numbers = [event["seq"] for event in self.events]
        same("the event numbers have no gap", numbers, list(range(len(numbers))))


def opened(event):
    """An event's data; what is JSON in a string is read."""
    data = dict(event.get("data") or {})
    for key, value in data.items():
        if isinstance(value, str) and value[:1] in ("{", "["):
            data[key] = json.loads(value)
    return data


@contextmanager
def program(answer):
    """Another program that integrations call: yields its URL and a queue of (path, headers, body) that came in.

    `answer(path, body)` returns what it says, as an object.
    """
    calls = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(raw) if "json" in self.headers.get("Content-Type", "") else raw.decode()
            calls.put((self.path, self.headers, body))
            said = json.dumps(answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        server.server_close()
