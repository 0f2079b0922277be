"""Load test of `mfdn serve` on loopback: throughput against one request at a time, latency, memory, and none lost.

    mfdn export --model mfdn --output mfdn_onnx
    python tests/benchmarks/bench_serve.py --model mfdn_onnx --pictures mini_booru/512px --output bench_serve.json

Every 20th request is broken: no picture, cut, or too large. Client and server share the processor.
"""

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from modeling_mfdn.tagging.picture_folder import find_pictures  # noqa: E402

EDGE = "edge-of-a-part"
BROKEN = (b"<html>no picture</html>", b"\x89PNG\r\n\x1a\n", bytes(300_000))
MAX_BYTES = 250_000
SERVER = """
import sys
sys.argv[0] = "mfdn"  # as the command is called: an ONNX folder imports no torch
from modeling_mfdn.commands import main
sys.exit(main())
"""


def body_of(content: bytes) -> bytes:
    """A form as curl -F sends it."""
    head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    tail = f'\r\n--{EDGE}\r\nContent-Disposition: form-data; name="format"\r\n\r\njson\r\n--{EDGE}--\r\n'
    return f"--{EDGE}\r\n{head}".encode() + content + tail.encode()


class Load:
    """Requests from several threads, and what became of them."""

    def __init__(self, port: int, pictures: list[bytes], process: int):
        self.port, self.process = port, process
        self.pictures, self.broken = [*map(body_of, pictures)], [*map(body_of, BROKEN)]
        self.statuses: Counter = Counter()
        self.seconds: list[float] = []
        self.memory: list[tuple[int, float]] = []
        self.lock = threading.Lock()

    def run(self, number: int, threads: int, broken_every: int = 0) -> float:
        """Seconds that `number` requests took."""
        self.numbers, self.number, self.broken_every = count(), number, broken_every
        workers = [threading.Thread(target=self.work) for _ in range(threads)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - started

    def work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while (index := next(self.numbers)) < self.number:
            is_broken = self.broken_every and index % self.broken_every == 0
            chosen = self.broken if is_broken else self.pictures
            body = chosen[index // (self.broken_every or 1) % len(chosen)]
            started = time.perf_counter()
            try:
                connection.request(
                    "POST", "/evaluate", body, {"Content-Type": f"multipart/form-data; boundary={EDGE}"}
                )
                answer = connection.getresponse()
                content, status = answer.read(), answer.status
                json.loads(content)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                status = type(error).__name__
            with self.lock:
                self.statuses["broken" if is_broken else "whole", str(status)] += 1
                self.seconds.append(time.perf_counter() - started)
                if index % 500 == 0:
                    self.memory.append((index, memory_of(self.process)))


def memory_of(process: int) -> float:
    """MB that a process holds."""
    (found,) = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return round(int(found) / 1024, 1)


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--one_by_one", type=int, default=400, help="requests of the reference")
    parser.add_argument("--threads", type=int, default=16, help="that ask at the same time")
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    pictures = [path.read_bytes() for path in find_pictures(Path(args.pictures), True)[0][:200]]
    command = [
        sys.executable,
        "-c",
        SERVER,
        "serve",
        "--model",
        args.model,
        "--port",
        "0",
        "--max_bytes",
        str(MAX_BYTES),
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        port = next(int(found[1]) for line in server.stdout if (found := re.search(r":(\d+)/docs", line)))
        load = Load(port, pictures, server.pid)
        load.run(100, 4)
        alone = load.run(args.one_by_one, 1)
        load.seconds.clear(), load.statuses.clear(), load.memory.clear()
        together = load.run(args.requests, args.threads, broken_every=20)
    finally:
        server.terminate()
        server.wait()
    percentiles = statistics.quantiles(load.seconds, n=100)
    rates = {"one_by_one": args.one_by_one / alone, "together": args.requests / together}
    results = {
        "requests": args.requests,
        "threads": args.threads,
        "requests_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": round(rates["together"] / rates["one_by_one"], 2),
        "milliseconds": {"p50": round(1000 * percentiles[49], 1), "p99": round(1000 * percentiles[98], 1)},
        "statuses": {" ".join(names): number for names, number in sorted(load.statuses.items())},
        "memory_mb": [megabytes for _, megabytes in sorted(load.memory)],
    }
    print(json.dumps(results, indent=2))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
