"""What stands before `mfdn serve`: no more requests, bytes and time than are allowed, and counts of all."""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from starlette.responses import JSONResponse

WORK = ("/evaluate", "/tag", "/teach")  # what waits for the model
READ_ON = 8  # times the bytes that are allowed: what is longer is cut off
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds


@dataclass
class ServeOptions:
    """What `mfdn serve` is asked for; `mfdn serve --help` says what each means."""

    model: str
    host: str = "127.0.0.1"
    port: int = 5000
    gallery: str | None = None
    teach: bool = False
    variant: str | None = None
    batch_size: int = 16
    max_bytes: int = 2**25
    max_pixels: int = 2**26
    max_waiting: int = 64
    timeout: float = 30.0
    num_workers: int = 2
    device: str | None = None


@dataclass
class Metrics:
    """What /metrics says."""

    requests: Counter = field(default_factory=Counter)  # by (path, status)
    seconds: defaultdict = field(default_factory=lambda: defaultdict(float))  # by path
    buckets: Counter = field(default_factory=Counter)  # by (path, bound)
    pictures: int = 0
    batches: int = 0
    in_flight: int = 0

    def count(self, path: str, status: int, seconds: float) -> None:
        self.requests[path, status] += 1
        self.seconds[path] += seconds
        self.buckets.update((path, bound) for bound in BUCKETS if seconds <= bound)

    def text(self) -> str:
        lines = ["# TYPE mfdn_requests_total counter"]
        lines += [f'mfdn_requests_total{{path="{p}",status="{s}"}} {n}' for (p, s), n in sorted(self.requests.items())]
        lines += ["# TYPE mfdn_request_seconds histogram"]
        for path, seconds in sorted(self.seconds.items()):
            total = sum(number for (other, _), number in self.requests.items() if other == path)
            bounds = [(str(bound), self.buckets[path, bound]) for bound in BUCKETS] + [("+Inf", total)]
            lines += [f'mfdn_request_seconds_bucket{{path="{path}",le="{bound}"}} {n}' for bound, n in bounds]
            lines += [f'mfdn_request_seconds_sum{{path="{path}"}} {seconds:.6f}']
            lines += [f'mfdn_request_seconds_count{{path="{path}"}} {total}']
        for name, kind in (("pictures", "counter"), ("batches", "counter"), ("in_flight", "gauge")):
            shown = f"mfdn_{name}" + "_total" * (kind == "counter")
            lines += [f"# TYPE {shown} {kind}", f"{shown} {getattr(self, name)}"]
        return "\n".join(lines) + "\n"


class TooLarge(Exception):
    """A request has more bytes than are allowed."""


async def read_on(receive, timeout: float) -> None:
    """Read what is sent and forget it: who is still sending would see a broken connection in place of the answer."""
    async with asyncio.timeout(timeout):
        while (await receive()).get("more_body"):
            pass


class Doorkeeper:
    """Lets in no more requests, bytes and time than are allowed; counts all. An ASGI middleware, since what is too
    much must be turned away before it is read."""

    def __init__(self, app, options: ServeOptions, metrics: Metrics):
        self.app, self.options, self.metrics = app, options, metrics

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status, options = time.perf_counter(), 0, self.options
        num_bytes, is_too_large = 0, False

        async def counted_send(message) -> None:
            nonlocal status
            if not is_too_large:  # else what the application makes of a body that was cut off is no answer
                status = message.get("status", status)
                await send(message)

        async def counted_receive():
            nonlocal num_bytes, is_too_large
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > options.max_bytes:
                is_too_large = True
                raise TooLarge
            return message

        async def refuse(code: int, error: str, message: str, **headers: str) -> None:
            if not status:  # else an answer has begun
                answer = JSONResponse({"error": error, "message": message}, code, headers)
                await answer(scope, receive, counted_send)

        is_work = scope["path"] in WORK and scope["method"] == "POST"
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        too_large = f"Expected at most {options.max_bytes:,} bytes."
        try:
            if not length.isdigit() or int(length) > options.max_bytes:
                if length.isdigit() and int(length) <= READ_ON * options.max_bytes:
                    await read_on(receive, options.timeout)
                await refuse(413, "TooLarge", too_large, Connection="close")
            elif is_work and self.metrics.in_flight >= options.max_waiting:
                await read_on(receive, options.timeout)
                message = f"{options.max_waiting} requests are waiting already: ask again in a moment."
                await refuse(503, "Busy", message, **{"Retry-After": "1", "Connection": "close"})
            elif not is_work:
                await self.app(scope, counted_receive, counted_send)
            else:
                self.metrics.in_flight += 1
                try:
                    async with asyncio.timeout(options.timeout):
                        await self.app(scope, counted_receive, counted_send)
                finally:
                    self.metrics.in_flight -= 1
            if is_too_large and not status:
                raise TooLarge
        except TooLarge:
            is_too_large = False
            await refuse(413, "TooLarge", too_large, Connection="close")
        except TimeoutError:
            await refuse(503, "Timeout", f"It took longer than {options.timeout:g} seconds.", **{"Retry-After": "1"})
        finally:
            known = scope["path"] if scope["path"] in (*WORK, "/forget", "/health", "/metrics") else "other"
            self.metrics.count(known, status or 499, time.perf_counter() - started)
