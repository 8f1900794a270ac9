"""Headless Chromium, driven over its DevTools protocol: what a page asks for, says, and looks like."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 90  # seconds


class Page:
    """Tab of the browser.

    Attributes:
      requests: the addresses asked for but for the page itself, data and blobs of its own.
      complaints: what the console and the page's policy said: errors and exceptions.
    """

    def __init__(self, socket):
        self._socket, self._number = socket, 0
        self.requests, self.complaints = [], []
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.do(f"{domain}.enable")

    def do(self, method, **params):
        """Calls a method of the protocol, and returns its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._heard(message.get("method"), message.get("params", {}))

    def _heard(self, event, params):
        if event == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if params.get("type") != "Document" and not address.startswith(("data:", "blob:")):
                self.requests.append(address)
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"].get("exception", params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.complaints.append([one.get("value", one.get("description")) for one in params["args"]])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])

    def run(self, script):
        """Returns the value of an expression; a promise is waited for."""
        told = self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script):
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):  # while a page is left, nothing answers
                if value := self.run(script):
                    return value
            time.sleep(0.05)
        raise AssertionError(f"never came true: {script}; {self.complaints}")

    def open(self, address):
        """Opens a page and waits until it has drawn everything; returns the seconds that took."""
        began = time.monotonic()
        self.do("Page.navigate", url=address)
        self.until("document.body && 'ready' in document.body.dataset")
        return time.monotonic() - began

    def key(self, key, code=0, text=""):
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.do("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def type(self, text):
        """Types text into whatever has the focus."""
        self.do("Input.insertText", text=text)

    def at(self, script):
        """Returns the middle of an element, scrolled into view."""
        self.run(f"{script}.scrollIntoView({{block: 'center'}})")
        box = self.run(f"JSON.stringify({script}.getBoundingClientRect())")
        box = json.loads(box)
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def click(self, script):
        """Clicks on an element."""
        x, y = self.at(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, script):
        """Moves the pointer onto an element."""
        x, y = self.at(script)
        for shift in (3, 0):
            self.do("Input.dispatchMouseEvent", type="mouseMoved", x=x + shift, y=y)

    def screen(self, width, height, dark=False, mobile=False, media=""):
        """Sets the size of the window, and what the user prefers."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.do("Emulation.setDeviceMetricsOverride", **metrics)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", media=media, features=[feature])

    def picture(self, whole=False):
        """Returns a PNG of the window, or of the whole page."""
        return base64.b64decode(self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def pdf(self):
        """Returns the page as it is printed."""
        return base64.b64decode(self.do("Page.printToPDF", printBackground=False)["data"])


@contextlib.contextmanager
def opened():
    """Starts the browser, without a profile of anybody's, and yields its one tab."""
    import websocket

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
        argv = [PROGRAM, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"HOME": profile}
        with subprocess.Popen(argv, **quiet, env=environment, start_new_session=True) as process:
            try:
                port = _port(profile)
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
                    (tab,) = (one for one in json.load(answer) if one["type"] == "page")
                address = tab["webSocketDebuggerUrl"]
                with contextlib.closing(
                    websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
                ) as socket:
                    yield Page(socket)
            finally:
                process.kill()


def _port(profile):
    path, end = os.path.join(profile, "DevToolsActivePort"), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError, ValueError), open(path, encoding="utf-8") as file:
            return int(file.read().split()[0])
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
