"""Which version of a prompt to serve, as prompt-rollback says: pushed by Redis, at hand without asking.

One file to copy; it needs redis-py 4.3 or newer.

    reader = Reader("redis://127.0.0.1:6379", ["customer-support"])
    version = reader.active_version("customer-support", key="user-4711")    # no network; from any thread

A thread of the reader's own listens to the channel of changes, reads again what has changed, and everything every two
seconds, because a plain SET announces nothing. While Redis is away, or holds what is no version, the last known version
stays, `age()` grows and `error()` says why, as does a warning in the log. Threads do not survive a fork: make the reader in the worker process.
"""

import json
import logging
import random
import re
import threading
import time
from zlib import crc32

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

LOG = logging.getLogger(__name__)
PATIENCE = 1.0  # longest wait for Redis, in seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # between attempts to connect
LONGEST_REFRESH = 24 * 60 * 60.0
READ_AT_ONCE = 100  # Redis does nothing else meanwhile

# Names of versions may become file names and metric labels, so nothing else is ever handed out.
VERSION = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")
PERCENT = re.compile(rb"[0-9]{1,3}")
PADDING = b" \t\n\x0b\x0c\r\0"  # around a value, as of `echo v2 | redis-cli -x SET ...`: no part of it


def key_bytes(key):
    """The bytes that choose the version of a key: bytes as they are, anything else as the UTF-8 of its str(). None is
    refused: all who have no id would be one user, and change their version together."""
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    if key is None:
        raise TypeError("key: expected the id of a user or of a request, found None")
    return str.encode(key if isinstance(key, str) else str(key), "utf-8", "surrogatepass")


class Split:
    """The versions that are served now, and which requests each of them gets. Never changed once made."""

    def __init__(self, active, routing=None):
        """`active` and the fields of `routing`, as bytes. A routing that does not hold `active` does not count;
        `problem` says what is wrong with one that is none."""
        self.problem = None
        self._shares = [(active.decode(), 100)]
        trimmed = {field.strip(PADDING): value.strip(PADDING) for field, value in (routing or {}).items()}
        if active not in trimmed:
            return
        if len(trimmed) < len(routing):
            self.problem = "a version that is there twice"
            return
        routing = trimmed
        if not all(VERSION.fullmatch(field) for field in routing):
            self.problem = "a field that is no version"
        elif not all(PERCENT.fullmatch(value) for value in routing.values()):
            self.problem = "a percentage that is no number from 0 to 100"
        elif sum(map(int, routing.values())) != 100:
            self.problem = "percentages that do not sum to 100"
        else:
            end, self._shares = 0, []
            for version, percent in sorted((field, int(value)) for field, value in routing.items()):
                end += percent
                if percent:
                    self._shares.append((version.decode(), end))

    def version(self, key):
        """The version for a request's or user's key; the same one while shares stay as they are."""
        key = key_bytes(key)  # first: a key that is refused during a split is refused before it, too
        if len(self._shares) == 1:
            return self._shares[0][0]
        bucket = crc32(key) % 100
        return next(version for version, end in self._shares if bucket < end)

    def versions(self):
        """All versions that some requests get."""
        return [version for version, _ in self._shares]


class _Known:
    """What is known of one prompt. Replaced as a whole, so that readers need no lock."""

    def __init__(self, split=None, asked=None, problem=None):
        self.split, self.asked, self.problem = split, asked, problem


def _seconds(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST_REFRESH:
        raise ValueError(f"{name}: expected seconds, more than 0 and at most a day, found {value!r}")
    return value


def _pool(url, options):
    """Connections as the reader needs them: a URL that is shared with other clients may ask for what would break it."""
    if options.get("cache") or options.get("cache_config"):
        raise ValueError("cache: the reader keeps what it knows itself")
    timeouts = {"socket_timeout": PATIENCE}
    if not url.startswith("unix:"):  # redis-py 4 refuses it there
        timeouts["socket_connect_timeout"] = PATIENCE
    settings = {**timeouts, **options, **parse_url(url)}
    for name in timeouts:
        _seconds(name, settings[name])
    settings.update(decode_responses=False, encoding="utf-8", encoding_errors="strict")  # answers are bytes
    settings.update(retry=Retry(NoBackoff(), 0), retry_on_timeout=False, retry_on_error=[])  # the reader does that itself
    for name in ("single_connection_client", "max_connections", "protocol"):  # it needs two connections, and no pushes
        settings.pop(name, None)
    if int(redis.__version__.split(".")[0]) >= 5:
        settings["protocol"] = 2
    pool = redis.ConnectionPool(**settings)
    pool.connection_class(**pool.connection_kwargs)  # an option that redis-py does not know fails here, not on the thread
    return pool


class Reader:
    """Follows some prompts until `close()`. May be used by any number of threads."""

    def __init__(self, url, prompts, namespace="{prompts}", refresh=2.0, on_change=None, **options):
        """`on_change(prompt, versions)` is called before new versions are served, on the reader's thread; `options`
        are those of redis.ConnectionPool.from_url, such as ssl_ca_certs. Redis may be away; that is no error. A setting that
        cannot work is a TypeError or ValueError here."""
        if not isinstance(namespace, str):
            raise TypeError(f"namespace: expected a str, found {namespace!r}")
        names = [None] if isinstance(prompts, (str, bytes)) else list(prompts)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"prompts: expected a list of str, found {prompts!r}")
        if on_change is not None and not callable(on_change):
            raise TypeError(f"on_change: expected a function, found {on_change!r}")
        self._redis = redis.Redis(connection_pool=_pool(url, options))
        self._namespace, self._refresh, self._on_change = namespace, _seconds("refresh", refresh), on_change
        self._known = {name: _Known() for name in names}
        self._closed, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prompt-reader", daemon=True)
        self._thread.start()

    def active_version(self, prompt, key):
        """The version to serve to the request or user `key`, the last known one while Redis is away; None only if
        there has never been one. The same key changes its version at most once while a split moves. A key is anything
        with a str(), or bytes; None is a TypeError."""
        key, split = key_bytes(key), self._known[prompt].split
        return split and split.version(key)

    def versions(self, prompt):
        """All versions that are served now: one, or those of a split."""
        split = self._known[prompt].split
        return split.versions() if split else []

    def age(self, prompt):
        """Seconds since Redis was asked and confirmed the version; None if it never was. Below three while all is
        well."""
        asked = self._known[prompt].asked
        return None if asked is None else time.monotonic() - asked

    def error(self, prompt):
        """Why the version is not confirmed, or the split not followed; None while all is well."""
        return self._known[prompt].problem

    def wait_ready(self, timeout=None):
        """Waits until each prompt has a version; False if that took too long."""
        return self._ready.wait(timeout)

    def close(self):
        """Follows no longer; the last known versions stay."""
        self._closed.set()
        self._thread.join()

    def _run(self):
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                self._follow()
            except Exception as error:  # whatever it is, the next attempt may work
                self._failed(f"redis can't be asked: {error}")
            if time.monotonic() - began > self._refresh:
                pause = FIRST_PAUSE  # it did work for a while
            self._closed.wait(pause * random.uniform(0.5, 1))  # not all prompt servers at once
            pause = min(2 * pause, LONGEST_PAUSE)
        self._redis.connection_pool.disconnect()

    def _follow(self):
        """Over one pair of connections, for as long as they live."""
        with self._redis.pubsub() as channel:
            channel.subscribe(f"{self._namespace}:changes")
            while not self._closed.is_set():
                self._read(list(self._known))
                again_at, heard = time.monotonic() + self._refresh, False
                channel.ping()
                while not self._closed.is_set() and (left := again_at - time.monotonic()) > 0:
                    message = channel.get_message(timeout=min(left, 0.5))
                    if message is None:
                        continue
                    heard = True
                    if message["type"] == "message":
                        self._read(self._named(message["data"]))
                    elif message["type"] == "subscribe":  # redis-py may have connected again by itself
                        self._read(list(self._known))
                if not heard and not self._closed.is_set():
                    raise ConnectionError("the channel does not answer")  # its other end is gone

    def _named(self, message):
        """The prompts that a message on the channel is about."""
        try:
            prompt = json.loads(message)["prompt"]
            return [prompt] if prompt in self._known else []
        except (ValueError, KeyError, TypeError):
            return list(self._known)

    def _read(self, prompts):
        for first in range(0, len(prompts), READ_AT_ONCE):
            some, asked = prompts[first : first + READ_AT_ONCE], time.monotonic()
            with self._redis.pipeline(transaction=True) as both:
                for prompt in some:
                    both.get(f"{self._namespace}:active:{prompt}").hgetall(f"{self._namespace}:routing:{prompt}")
                answers = both.execute(raise_on_error=False)
            for prompt, active, routing in zip(some, answers[::2], answers[1::2]):
                self._answered(prompt, asked, active, routing)
        if all(known.split for known in self._known.values()):
            self._ready.set()

    def _answered(self, prompt, asked, active, routing):
        """Takes what `active` and `routing` hold, whatever someone may have put there; an exception is a wrong type."""
        before = self._known[prompt]
        problem = None
        if isinstance(active, bytes):
            active = active.strip(PADDING)
        if active is None:
            problem = "no version is active"
        elif isinstance(active, Exception):
            problem = f"the active version can't be used: {active}"
        elif not VERSION.fullmatch(active):
            problem = "the active version can't be used: not a version's name"
        if problem:
            self._know(prompt, before.split, before.asked, problem)
            return
        unreadable = str(routing) if isinstance(routing, Exception) else None
        split = Split(active, None if unreadable else routing)
        why = unreadable or split.problem
        problem = why and f"the routing can't be used, all get the active version: {why}"
        try:
            if self._on_change and (before.split is None or before.split.versions() != split.versions()):
                self._on_change(prompt, split.versions())
        finally:
            self._know(prompt, split, asked, problem)

    def _failed(self, problem):
        for prompt, known in self._known.items():
            self._know(prompt, known.split, known.asked, problem)

    def _know(self, prompt, split, asked, problem):
        if problem and problem != self._known[prompt].problem:
            LOG.warning("%s: %s", prompt, problem)
        self._known[prompt] = _Known(split, asked, problem)
