#!/usr/bin/env python3
"""An example prompt server that serves the active version of prompt-rollback, and follows each change at once.

To adopt prompt-rollback in an existing prompt server, use prompt_reader.py, the metrics below, and PromptServer.answer. The
rest is a demo: fake completions, generated traffic, and misbehaviour on demand:

    prompt_server.py --rps 10
    curl 'localhost:9100/?prompt=customer-support&user=4711'
    curl localhost:9100/misbehave -d '{"version": "v2.0.0", "error_ratio": 0.3}'
"""

import argparse
import itertools
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

# Set before the import, which reads it: the `_created` series of each counter is not needed here.
os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "true")

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest  # noqa: E402
from prompt_reader import Reader, key_of  # noqa: E402

REQUESTS = Counter("prompt_requests", "Requests answered.", ["prompt", "version", "outcome"])
DURATION = Histogram(
    "prompt_request_duration_seconds",
    "Time to answer a request.",
    ["prompt", "version", "outcome"],
    buckets=[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
)
QUALITY = Histogram(
    "prompt_quality_score",
    "Score of an answer, 0 to 1.",
    ["prompt", "version"],
    buckets=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1],
)


def expose_at_zero(prompt, versions):
    """Exposes each series at 0, because a counter that starts above 0 hides its first errors from Prometheus."""
    for version in versions:
        for outcome in ("ok", "error"):
            REQUESTS.labels(prompt, version, outcome)
            DURATION.labels(prompt, version, outcome)
        QUALITY.labels(prompt, version)
    log(f"{prompt} is now {' and '.join(versions)}")


class Model:
    """A fake model. Its versions can fail, be slow or answer badly on demand."""

    GOOD = {"error_ratio": 0.0, "delay_seconds": 0.02, "quality": 0.9}

    def __init__(self):
        self._lock = threading.Lock()
        self._behaviour = {}
        self._failures_owed = {}

    def misbehave(self, wish):
        """Takes a dict with `version` and the values that differ from GOOD; `version` alone restores GOOD."""
        behaviour = dict(self.GOOD)
        for key, value in wish.items():
            if key in behaviour:
                behaviour[key] = float(value)
            elif key != "version":
                raise ValueError(f"unknown key {key}: expected version, {', '.join(behaviour)}")
        with self._lock:
            self._behaviour[str(wish["version"])] = behaviour
        return {"version": wish["version"], **behaviour}

    def complete(self, version):
        """Waits for the version's delay, then returns whether the call worked and the quality of the answer."""
        with self._lock:
            behaviour = self._behaviour.get(version, self.GOOD)
            # Failures are spread evenly instead of drawn at random, so that each demo is the same.
            owed = self._failures_owed.get(version, 0.0) + behaviour["error_ratio"]
            failed = owed >= 1 - 1e-9
            self._failures_owed[version] = owed - 1 if failed else owed
        time.sleep(behaviour["delay_seconds"])
        return not failed, behaviour["quality"]


class PromptServer:
    """Answers requests with the active version, and counts them. `keys`: the encoded form of each name."""

    def __init__(self, reader, keys, model):
        self.reader, self.keys, self.model = reader, keys, model
        self._numbers = itertools.count()

    def answer(self, prompt, text, user=None):
        """Status and JSON body of a completion. While traffic is split, a user keeps one version."""
        key = f"request-{next(self._numbers)}" if user in (None, "") else str(user)
        version = self.reader.active_version(self.keys[prompt], key) if prompt in self.keys else None
        if version is None:
            return 503, {"error": f"no known version of {prompt}"}
        started = time.monotonic()
        worked, quality = self.model.complete(version)
        outcome = "ok" if worked else "error"
        REQUESTS.labels(prompt, version, outcome).inc()
        DURATION.labels(prompt, version, outcome).observe(time.monotonic() - started)
        if not worked:
            return 500, {"prompt": prompt, "version": version, "error": "the model failed"}
        QUALITY.labels(prompt, version).observe(quality)
        return 200, {"prompt": prompt, "version": version, "completion": f"{version} says: {text or 'hello'}"}


def handler(server, prompts):
    """The HTTP routes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes. With Nagle's algorithm the second would wait for an acknowledgement.
        disable_nagle_algorithm = True

        def do_GET(self):
            url = urlsplit(self.path)
            if url.path == "/metrics":
                self.reply(200, generate_latest(), CONTENT_TYPE_LATEST)
            elif url.path == "/-/healthy":
                self.reply(200, b"healthy\n", "text/plain")
            elif url.path == "/":
                query = parse_qs(url.query)
                prompt, text = query.get("prompt", prompts)[0], query.get("input", [""])[0]
                self.reply_json(*server.answer(prompt, text, query.get("user", [None])[0]))
            else:
                self.reply_json(404, {"error": "not found"})

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                wish = json.loads(body)
                if self.path == "/complete":
                    prompt, text = wish.get("prompt", prompts[0]), wish.get("input")
                    self.reply_json(*server.answer(prompt, text, wish.get("user")))
                elif self.path == "/misbehave":
                    self.reply_json(200, server.model.misbehave(wish))
                else:
                    self.reply_json(404, {"error": "not found"})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.reply_json(400, {"error": repr(error)})

        def reply_json(self, status, body):
            self.reply(status, json.dumps(body).encode(), "application/json")

        def reply(self, status, body, kind):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def generate_traffic(server, prompts, rps):
    """Generates `rps` requests per second for each prompt."""
    with ThreadPoolExecutor(max_workers=64) as pool:
        due = time.monotonic()
        while True:
            for prompt in prompts:
                pool.submit(server.answer, prompt, "generated")
            due += 1 / rps
            time.sleep(max(0.0, due - time.monotonic()))


def log(line):
    print(line, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description="Example prompt server that reads the active version from Redis.")
    parser.add_argument("--listen", default="127.0.0.1:9100", help="address and port for /, /complete and /metrics")
    parser.add_argument(
        "--redis", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), help="Redis URL; default $REDIS_URL"
    )
    parser.add_argument(
        "--node",
        action="append",
        help="host:port of another node of a Redis Cluster, or of each sentinel; repeatable; default $REDIS_NODES, comma-separated",
    )
    parser.add_argument(
        "--sentinel-master",
        default=os.environ.get("REDIS_SENTINEL_MASTER"),
        help="name of the master in Sentinel; default $REDIS_SENTINEL_MASTER. $REDIS_SENTINEL_USERNAME and "
        "$REDIS_SENTINEL_PASSWORD are the login to the sentinels",
    )
    parser.add_argument("--namespace", default="{prompts}", help="namespace of prompt-rollback in Redis")
    parser.add_argument("--prompt", action="append", help="prompt to serve; repeatable (default customer-support)")
    parser.add_argument("--rps", type=float, default=0, help="generated traffic, in requests per second for each prompt")
    parser.add_argument(
        "--misbehave",
        action="append",
        type=json.loads,
        default=[],
        help='same body as POST /misbehave: {"version": "v2.0.0", "error_ratio": 0.3, "delay_seconds": 2, "quality": 0.5}',
    )
    args = parser.parse_args()
    prompts = args.prompt or ["customer-support"]
    # Metrics have the name of a prompt; Redis, and so the reader, has its encoded form.
    keys = {name: key_of(name) for name in prompts}
    names = {key: name for name, key in keys.items()}

    reader = Reader(
        args.redis,
        list(names),
        args.namespace,
        on_change=lambda key, versions: expose_at_zero(names[key], versions),
        nodes=args.node or os.environ.get("REDIS_NODES", ""),
        sentinel_master=args.sentinel_master,
        sentinel_username=os.environ.get("REDIS_SENTINEL_USERNAME"),
        sentinel_password=os.environ.get("REDIS_SENTINEL_PASSWORD"),
    )
    server = PromptServer(reader, keys, Model())
    for wish in args.misbehave:
        server.model.misbehave(wish)
    if args.rps > 0:
        threading.Thread(target=generate_traffic, args=(server, prompts, args.rps), daemon=True).start()

    host, _, port = args.listen.rpartition(":")
    ThreadingHTTPServer.daemon_threads = True
    http = ThreadingHTTPServer((host, int(port)), handler(server, prompts))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log(f"serving {', '.join(prompts)} on http://{args.listen}")
    try:
        http.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
