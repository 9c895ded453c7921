"""Reads the active version of each prompt from Redis. Redis pushes changes, and a lookup needs no network.

Copy this file; it needs redis-py 4.3 or newer.

    reader = Reader("redis://127.0.0.1:6379", ["customer-support"])
    version = reader.active_version("customer-support", key="user-4711")    # no network; from any thread

The reader's own thread listens to the channel of changes and reads changed prompts again. It also reads all prompts every two
seconds, because a plain SET publishes nothing. While Redis is down or holds an invalid value, the last known version stays,
`staleness()` grows, and `error()` and a warning in the log give the reason.

The reader follows the master: to another node of a Redis Cluster, after a failover by Redis Sentinel, and when a DNS name
points to another address. After a fork it starts a new thread with new connections.
"""

import ipaddress
import json
import logging
import os
import queue
import random
import re
import socket
import threading
import time
import weakref
from contextlib import suppress
from urllib.parse import quote
from zlib import crc32

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ResponseError
from redis.retry import Retry

LOG = logging.getLogger(__name__)
PATIENCE = 1.0  # longest wait for Redis or a name server, in seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5  # between attempts to connect; short, so that a failover is noticed quickly
BEAT = 0.5  # interval of probes: a node that hangs, was demoted or lost our slot does not announce it
ASK_EVERY = 0.4  # interval of queries to each sentinel
STAGGER = 0.1  # after this long without an answer, also try the next address
SLICE = 0.2  # longest wait for a message before other checks
LEARN_EVERY = 10.0  # interval of CLUSTER SLOTS: nodes change seldom, and a new replica is not listed at once
RESOLVE_EVERY = 2.0  # interval of DNS lookups
MOST_LEARNED = 16  # enough: each node knows which node has our keys
LONGEST_REFRESH = 24 * 60 * 60.0
LONGEST_NAME = 128
READ_AT_ONCE = 100  # prompts per transaction, which blocks Redis while it runs

# Versions may become file names and metric labels, so the reader never returns any other value.
VERSION = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")
REDIRECTED = re.compile(r"(\S*):([0-9]{1,5})$")  # host:port at the end of MOVED and ASK
HOST = re.compile(r"[^\s/,]+")
HASH_TAG = re.compile("^[^{]*{[^}]+}")  # keeps all keys in one slot of a cluster
PERCENT = re.compile(rb"[0-9]{1,3}")
PADDING = b" \t\n\x0b\x0c\r\0"  # trimmed around a value, such as the line feed of `echo v2 | redis-cli -x SET ...`


def key_bytes(key):
    """The bytes that determine the version of a key: bytes unchanged, anything else as the UTF-8 of its str(). None is
    refused, because all users without an id would count as one user and change versions together."""
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    if key is None:
        raise TypeError("key: expected the id of a user or of a request, found None")
    return str.encode(key if isinstance(key, str) else str(key), "utf-8", "surrogatepass")


def key_of(name):
    """The encoded form of a prompt's name, which its Redis keys contain and a Reader expects. Percent-encodes each byte that is
    not one of A-Z a-z 0-9 . _ / -, and a first byte that is not a letter or digit; a name without such bytes is returned
    unchanged. Different names have different encoded forms. Do not encode a name twice. In metrics, the label `prompt` holds
    the name itself.

        >>> key_of("Support bot: v2@eu")
        'Support%20bot%3A%20v2%40eu'
        >>> key_of("team/refund.v2")
        'team/refund.v2'
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, found {name!r}")
    key = quote(name, safe="._/-")
    key = key.replace("~", "%7E")  # which quote() never encodes
    if key[:1] in (".", "_", "/", "-"):
        key = f"%{ord(key[0]):02X}{key[1:]}"
    if not 0 < len(key) <= LONGEST_NAME:
        raise ValueError(f"name: expected 1 to {LONGEST_NAME} bytes in its encoded form, found {len(key)}")
    return key


class Split:
    """The versions that are served now, and which requests each of them gets. Immutable."""

    def __init__(self, active, routing=None):
        """`active` and the fields of `routing`, as bytes. A routing without `active` is ignored. If the routing is invalid,
        `problem` gives the reason."""
        self.problem = None
        self._shares = [(active.decode(), 100)]
        trimmed = {field.strip(PADDING): value.strip(PADDING) for field, value in (routing or {}).items()}
        if active not in trimmed:
            return
        if len(trimmed) < len(routing):
            self.problem = "a version that is listed twice"
            return
        routing = trimmed
        if not all(VERSION.fullmatch(field) for field in routing):
            self.problem = "a field that is not a version"
        elif not all(PERCENT.fullmatch(value) for value in routing.values()):
            self.problem = "a percentage that is not a number from 0 to 100"
        elif sum(map(int, routing.values())) != 100:
            self.problem = "percentages that do not sum to 100"
        else:
            end, self._shares = 0, []
            for version, percent in sorted((field, int(value)) for field, value in routing.items()):
                end += percent
                if percent:
                    self._shares.append((version.decode(), end))

    def version(self, key):
        """The version for a request's or user's key. It does not change while the shares do not change."""
        key = key_bytes(key)  # first, so that an invalid key is refused with and without a split
        if len(self._shares) == 1:
            return self._shares[0][0]
        bucket = crc32(key) % 100
        return next(version for version, end in self._shares if bucket < end)

    def versions(self):
        """All versions that get requests."""
        return [version for version, _ in self._shares]


class _Known:
    """The known state of one prompt. Replaced as a whole, so that callers need no lock."""

    def __init__(self, split=None, asked=None, problem=None):
        self.split, self.asked, self.problem = split, asked, problem


def _seconds(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST_REFRESH:
        raise ValueError(f"{name}: expected seconds, more than 0 and at most a day, found {value!r}")
    return value


def _pool(url, options):
    """A connection pool with the settings that the reader needs: a URL that other clients share can contain options that
    would break the reader."""
    if options.get("cache") or options.get("cache_config"):
        raise ValueError("cache: the reader keeps what it knows itself")
    if url.startswith("redis+unix:"):  # as in the receiver's config
        url = url[len("redis+"):]
    timeouts = {"socket_timeout": PATIENCE}
    if not url.startswith("unix:"):  # redis-py 4 refuses it there
        timeouts["socket_connect_timeout"] = PATIENCE
    of_url = parse_url(url)
    if url.startswith("unix:"):  # named as in the receiver's config
        of_url = {{"user": "username", "pass": "password"}.get(name, name): value for name, value in of_url.items()}
    settings = {**timeouts, **options, **of_url}
    for name in timeouts:  # a longer one would hide a server that hangs
        settings[name] = min(_seconds(name, settings[name]), PATIENCE)
    settings.update(decode_responses=False, encoding="utf-8", encoding_errors="strict")  # answers are bytes
    settings.update(retry=Retry(NoBackoff(), 0), retry_on_timeout=False, retry_on_error=[])  # the reader itself retries
    for name in ("single_connection_client", "max_connections", "protocol"):  # the reader makes its own connections, with RESP2
        settings.pop(name, None)
    if int(redis.__version__.split(".")[0]) >= 5:
        settings["protocol"] = 2
    pool = redis.ConnectionPool(**settings)
    pool.connection_class(**pool.connection_kwargs)  # an unknown option fails here, not on the thread
    return pool


def _addresses(nodes):
    """Parses nodes like redis.nodes in the receiver's config: a list of host:port, or one comma-separated str."""
    if isinstance(nodes, str):
        nodes = [node for node in nodes.split(",") if node.strip()]
    nodes = [node.strip() if isinstance(node, str) else node for node in nodes or ()]
    if any("@" in node for node in nodes if isinstance(node, str)):  # any part may belong to the password
        raise ValueError("nodes: expected host:port, found an address with a login")
    addresses = []
    for node in nodes:
        host, _, port = node.rpartition(":") if isinstance(node, str) else ("", "", "")
        if not HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"nodes: expected host:port, found {node!r}")
        addresses.append((host.strip("[]"), int(port)))
    return addresses


def _code(answer):
    """The first word of an error, such as MOVED; None for any other answer. It does not rely on redis-py's classes: outside its
    cluster client, old releases have no such classes and keep the code in the message."""
    if not isinstance(answer, ResponseError):
        return None
    for code in ("ASK", "MOVED", "TRYAGAIN"):
        if type(answer).__name__.upper() == f"{code}ERROR":
            return code
    return str(answer).partition(" ")[0]


def _redirected(answer, code, address):
    """The address in an answer MOVED or ASK of the node at `address`, which may omit its own host; None for other answers."""
    found = REDIRECTED.search(str(answer)) if address and _code(answer) == code else None
    return found and (found[1].strip("[]") or address[0], int(found[2]))


def _start(call, results, name, closed):
    """Puts `name` and the result of `call`, or its exception, into `results`. On a thread, because DNS and servers may hang."""

    def run():
        try:
            result = call()
        except Exception as error:
            result = error
        results.put((name, result))
        if closed.is_set():
            _close_all(results)

    threading.Thread(target=run, name="prompt-reader-connect", daemon=True).start()


def _close_all(results):
    """Closes the nodes among results that are no longer needed."""
    with suppress(queue.Empty):
        while True:
            _, found = results.get_nowait()
            if isinstance(found, _Node):
                found.close()


class _Elsewhere(Exception):
    """Another node is the master now. Contact is lost only if that node does not answer."""


class _Node:
    """A connection, its address (None is a Unix socket), and the connection that receives the changes, if there is one."""

    def __init__(self, connect, address):
        self.address, self.channel = address, None
        self.replica = self.clustered = self.renamed = False
        self._connection = connect(address)

    def ask(self, *commands):
        """Returns the answers, with errors as values; raises only when the connection is lost."""
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [self._answer() for _ in commands]

    def _answer(self):
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    def probe(self, key):
        """Raises unless the node serves `key`; stores the role and mode that the node reports."""
        hello, value = self.ask(("HELLO",), ("GET", key))
        # ASK: the key is migrating, but the slot is still here
        if _code(value) not in (None, "ASK", "WRONGTYPE"):
            raise value
        said = dict(zip(hello[::2], hello[1::2])) if isinstance(hello, list) else {}  # a proxy may not support HELLO
        self.replica, self.clustered = said.get(b"role") == b"replica", said.get(b"mode") == b"cluster"

    def all_nodes(self):
        """The client addresses of all nodes of its cluster; empty if the node does not report them."""
        (ranges,) = self.ask(("CLUSTER", "SLOTS"))
        nodes = [node for slots in ranges for node in slots[2:]] if isinstance(ranges, list) else []
        return [self.at((node[0] or b"").decode(), node[1]) for node in nodes if node[0] != b"?"]

    def at(self, host, port):
        """Another node's address; a node that does not know its host omits it."""
        return (host or self.address[0], int(port))

    def ping(self):
        """Sends a PING whose answer can be received; redis-py's own health check does not support a subscribed connection."""
        self._connection.send_command("PING", check_health=False)

    def receive(self, timeout):
        """The next message within `timeout`, or None."""
        return self._connection.read_response() if self._connection.can_read(timeout=timeout) else None

    def peers(self):
        """The IP addresses of the servers to which it and its channel are connected."""
        own = {self._connection._sock.getpeername()[0]}
        return own | self.channel.peers() if self.channel else own

    def close(self):
        self._connection.disconnect()
        if self.channel:
            self.channel.close()


class _Sentinel:
    """The address of the master according to one sentinel, polled on a separate thread."""

    def __init__(self, connect, address, master, closed):
        self.said = self.error = None  # (epoch, address), or the error; both None before the first answer
        self._connect, self._address, self._master, self._closed = connect, address, master, closed
        threading.Thread(target=self._run, name="prompt-reader-sentinel", daemon=True).start()

    def _run(self):
        node = None
        while not self._closed.is_set():
            try:
                if node is None:
                    node, self.said = _Node(self._connect, self._address), None
                self._ask(node)
            except Exception as error:  # any error: the next attempt may work
                node = node and node.close()
                self.said, self.error = None, f"the sentinel {_shown(self._address)}: {error}"
            self._closed.wait(ASK_EVERY)
        if node:
            node.close()

    def _ask(self, node):
        (named,) = node.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master))
        if isinstance(named, ResponseError):
            raise named
        if not named:
            raise LookupError(f"knows no master named {self._master!r}")
        # The epoch also of the same master: it may have been replaced, and be the master again in a later epoch.
        (fields,) = node.ask(("SENTINEL", "MASTER", self._master))
        if isinstance(fields, ResponseError):
            raise fields
        epoch = int(dict(zip(fields[::2], fields[1::2])).get(b"config-epoch", 0))
        self.said = (epoch, node.at(named[0].decode(), named[1]))


def _shown(address):
    return "the unix socket" if address is None else "{}:{}".format(*address)


def _hangs(address):
    return ConnectionError(f"{_shown(address)}: no connection within {PATIENCE:g} s")


def _is_name(address):
    if address is None:
        return False
    try:
        ipaddress.ip_address(address[0])
    except ValueError:
        return True
    return False


def _resolved(address):
    """The addresses of a DNS name; empty if the lookup fails."""
    try:
        return {found[4][0] for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


_READERS = weakref.WeakSet()


def _after_fork():
    for reader in list(_READERS):
        reader._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Reader:
    """Follows prompts until `close()`. Thread-safe."""

    def __init__(
        self,
        url,
        prompts,
        namespace="{prompts}",
        refresh=2.0,
        on_change=None,
        nodes=(),
        sentinel_master=None,
        sentinel_username=None,
        sentinel_password=None,
        **options,
    ):
        """The reader calls `on_change(prompt, versions)` on its thread before it serves new versions. `options` are those of
        redis.ConnectionPool.from_url, such as ssl_ca_certs.

        `nodes` and `sentinel_…` work as in the receiver's config: additional nodes of a cluster, or all sentinels if
        `sentinel_master` names the master. In a cluster the namespace must contain a hash tag, as the default does.

        An unreachable Redis is not an error. An invalid setting raises TypeError or ValueError."""
        if not isinstance(namespace, str):
            raise TypeError(f"namespace: expected a str, found {namespace!r}")
        names = [None] if isinstance(prompts, (str, bytes)) else list(prompts)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"prompts: expected a list of str, found {prompts!r}")
        if on_change is not None and not callable(on_change):
            raise TypeError(f"on_change: expected a function, found {on_change!r}")
        if (sentinel_username or sentinel_password) and not sentinel_master:
            raise ValueError("sentinel_master: expected the master's name, because a login for sentinels is given")
        pool = _pool(url, options)
        self._connection_class, self._settings = pool.connection_class, pool.connection_kwargs
        unix = "path" in self._settings
        listed = list(dict.fromkeys(_addresses(nodes)))  # a sentinel that is listed twice has one vote
        if unix and (listed or sentinel_master):
            raise ValueError("nodes: expected a redis:// or rediss:// URL, because nodes and sentinels are not unix sockets")
        of_url = None if unix else (self._settings.get("host", "localhost"), int(self._settings.get("port", 6379)))
        self._given, self._learned = [of_url, *listed], []
        # As in the receiver's config: if sentinels are listed, the URL only provides the login to Redis.
        self._sentinel_addresses = (listed or [of_url]) if sentinel_master else []
        self._sentinel_master = sentinel_master
        self._latest_epoch, self._last_master = 0, None  # also valid after a fork
        self._sentinel_login = {"username": sentinel_username, "password": sentinel_password, "db": 0}
        self._namespace, self._refresh, self._on_change = namespace, _seconds("refresh", refresh), on_change
        self._known = {name: _Known(problem="redis can't be asked: it has not answered yet") for name in names}
        self._probed = f"{namespace}:active:{names[0] if names else ''}"
        self._settled, self._thread = threading.Event(), None  # ready, or ended
        self._begin()
        _READERS.add(self)

    def _begin(self):
        self._closed, self._mode, self._connections = threading.Event(), "away", weakref.WeakSet()
        self._forget_attempts()
        self._sentinels = [
            _Sentinel(self._connect_sentinel, address, self._sentinel_master, self._closed)
            for address in self._sentinel_addresses
        ]
        self._thread = threading.Thread(target=self._run, name="prompt-reader", daemon=True)
        self._thread.start()

    def _begin_anew(self):
        """Restarts after a fork: the threads do not exist in the child, and the connections belong to the parent."""
        if self._closed.is_set():
            return
        for connection in list(self._connections):
            connection.disconnect()  # affects only this process: redis-py detects the fork
        self._settled = threading.Event()
        if all(known.split for known in self._known.values()):
            self._settled.set()
        for name, known in self._known.items():
            self._known[name] = _Known(known.split, known.asked, "redis can't be asked: not yet since this process was forked")
        self._begin()

    def active_version(self, prompt, key):
        """The version to serve to the request or user `key`; the last known one while Redis is down. None only if no version
        was ever known. While a split moves in one direction, a key changes its version at most once. A key is bytes or any
        value with a str(); None raises TypeError."""
        key, split = key_bytes(key), self._known[prompt].split
        return split and split.version(key)

    def versions(self, prompt):
        """All versions that are served now: one, or those of a split."""
        split = self._known[prompt].split
        return split.versions() if split else []

    def staleness(self, prompt):
        """Seconds since Redis last confirmed the version; None if it never did. In normal operation below three, or below
        `refresh` plus one second."""
        asked = self._known[prompt].asked
        return None if asked is None else time.monotonic() - asked

    def error(self, prompt):
        """Why the version is not confirmed or the split is not followed; before the first answer, that Redis has not answered
        yet. None if there is no problem."""
        problem = self._known[prompt].problem
        return problem if self._thread.is_alive() else "redis can't be asked: the reader's thread has ended"

    def mode(self):
        """How the reader currently learns of changes: "pushed" (the receiver publishes each), "polling" (the reader reads
        everything every `refresh` seconds, because the user may not SUBSCRIBE) or "away" (no server is reachable)."""
        return self._mode if self._thread.is_alive() else "away"

    def wait_ready(self, timeout=None):
        """Waits until each prompt has a version; False after `timeout` seconds. Raises RuntimeError if the reader is closed or
        its thread has ended before that."""
        ended = not self._thread.is_alive() or self._settled.wait(timeout)
        if all(known.split for known in self._known.values()):
            return True
        if ended:
            raise RuntimeError("wait_ready: the reader is closed or its thread has ended, and not every prompt has a version")
        return False

    def close(self):
        """Stops following. The last known versions stay available."""
        self._closed.set()
        _READERS.discard(self)
        if threading.current_thread() is not self._thread:  # on_change may close it
            self._thread.join()

    def _run(self):
        try:
            self._follow_until_closed()
        finally:
            _close_all(self._tried)
            self._settled.set()

    def _follow_until_closed(self):
        pause, first = FIRST_PAUSE, None
        while not self._closed.is_set():
            began, node = time.monotonic(), None
            try:
                node, first = self._find(first), None
                self._follow(node)
            except _Elsewhere:
                pass
            except Exception as error:  # any error: the next attempt may work
                first = node and _redirected(error, "MOVED", node.address)
                if not first:  # otherwise contact is lost only if the other node does not answer
                    self._mode = "away"
                    self._failed(f"redis can't be asked: {_shown(node.address) + ': ' if node else ''}{error}")
            if node:
                node.close()
            if time.monotonic() - began > BEAT:
                pause = FIRST_PAUSE  # the connection worked for a while
            self._closed.wait(pause * random.uniform(0.5, 1))  # spreads the reconnects of all prompt servers
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connect(self, address, login=None):
        settings = {**self._settings, **(login or {})}
        if address is not None:
            settings["host"], settings["port"] = address
        connection = self._connection_class(**settings)
        self._connections.add(connection)
        connection.connect()
        return connection

    def _connected(self, address):
        """A connection to the node, which may hang."""
        results = queue.Queue()
        _start(lambda: _Node(self._connect, address), results, address, self._closed)
        try:
            _, found = results.get(timeout=PATIENCE)
        except queue.Empty:
            raise _hangs(address) from None
        if isinstance(found, Exception):
            raise ConnectionError(f"{_shown(address)}: {found}") from found
        return found

    def _connect_sentinel(self, address):
        others = {name: None for name in ("client_name", "credential_provider") if name in self._settings}
        return self._connect(address, {**self._sentinel_login, **others})

    def _master(self):
        """The master: among the answers with the latest epoch, the address that most sentinels name. A lower epoch than before
        counts only if a majority answers, as when all sentinels were set up again. Without a valid answer it is the last one
        that was named; None before the first answer."""
        said = [said for said in (sentinel.said for sentinel in self._sentinels) if said]
        latest = max((epoch for epoch, _ in said), default=-1)
        if said and (latest >= self._latest_epoch or 2 * len(said) > len(self._sentinels)):
            self._latest_epoch = max(latest, self._latest_epoch)
            addresses = [address for epoch, address in said if epoch == latest]
            self._last_master = max(addresses, key=addresses.count)
        return self._last_master

    def _forget_attempts(self):
        self._trying, self._tried = set(), queue.Queue()

    def _try(self, address):
        if address not in self._trying:
            self._trying.add(address)
            _start(lambda: self._open(address), self._tried, address, self._closed)

    def _next_tried(self):
        """The next attempt that ends: its address, and the node or an exception. Raises queue.Empty if none ends soon."""
        address, found = self._tried.get(timeout=STAGGER)
        self._trying.discard(address)
        return address, found

    def _find(self, first):
        """A connection to the node that serves our keys; tries `first` first. An attempt that hangs, such as in DNS, goes on, and
        its result counts the next time."""
        if self._sentinels:
            return self._find_master()
        places = list(dict.fromkeys(([first] if first else []) + self._given + self._learned))
        waiting, failed, fault = list(places), [], None
        deadline = time.monotonic() + PATIENCE
        while waiting or self._trying:
            if waiting:
                self._try(waiting.pop(0))
            try:
                address, found = self._next_tried()
            except queue.Empty:
                if waiting:
                    continue
                if time.monotonic() >= deadline:
                    raise fault or _hangs(next(iter(self._trying)))
                waiting, failed = failed, []  # one hangs, and another may have become the master
                continue
            failed.append(address)
            if to := _redirected(found, "MOVED", address):
                if to not in places:
                    places.append(to)
                    waiting.insert(0, to)
            elif isinstance(found, Exception):
                fault = fault or ConnectionError(f"{_shown(address)}: {found}")
            # With several addresses, a replica may have lost its master. A single address of a replica is intended.
            elif found.replica and len(places) > 1:
                fault = fault or ConnectionError(f"{_shown(address)}: it is a replica")
                found.close()
            else:
                self._forget_attempts()
                return found
        raise fault or ConnectionError("no node has the prompts' slot")

    def _find_master(self):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not self._closed.is_set():
            said = sum(bool(sentinel.said) for sentinel in self._sentinels)
            if 2 * said > len(self._sentinels) or all(sentinel.said or sentinel.error for sentinel in self._sentinels):
                break
            self._closed.wait(0.01)
        master = self._master()
        if master is None:
            raise ConnectionError(next((s.error for s in self._sentinels if s.error), "no sentinel answers"))
        self._try(master)
        address, deadline = None, time.monotonic() + PATIENCE
        while address != master:
            try:
                address, found = self._next_tried()
            except queue.Empty:
                if self._master() not in (None, master):
                    raise _Elsewhere from None  # the old master may hang
                if time.monotonic() >= deadline:
                    raise _hangs(master) from None
        if isinstance(found, Exception) or found.replica:
            raise ConnectionError(f"{_shown(master)}: {found if isinstance(found, Exception) else 'it is a replica'}")
        self._forget_attempts()
        return found

    def _open(self, address):
        node = _Node(self._connect, address)
        try:
            node.probe(self._probed)
            node.channel = self._subscribe(address)
            peers = node.peers() if _is_name(address) else None
        except Exception:
            node.close()
            raise
        if peers:
            threading.Thread(target=self._watch_name, args=[weakref.ref(node), peers], name="prompt-reader-name", daemon=True).start()
        return node

    def _watch_name(self, watched, peers):
        """Marks the node when its DNS name no longer resolves to the addresses of its connections, because a failover by DNS
        leaves those to the old master open. Some resolvers return a part of the addresses, so one lookup is not enough."""
        closed, missing = self._closed, dict.fromkeys(peers, 0)
        while not closed.wait(RESOLVE_EVERY) and (node := watched()):
            if now := _resolved(node.address):
                missing = {peer: 0 if peer in now else count + 1 for peer, count in missing.items()}
                node.renamed = max(missing.values()) > 1
            del node

    def _subscribe(self, address):
        """A connection subscribed to the channel of changes; None if the user may not SUBSCRIBE."""
        channel = _Node(self._connect, address)
        (answer,) = channel.ask(("SUBSCRIBE", f"{self._namespace}:changes"))
        if not isinstance(answer, ResponseError):
            return channel
        channel.close()
        return None

    def _follow(self, node):
        """Reads from this node while its connections work and it is the master."""
        channel = node.channel
        if node.clustered and not HASH_TAG.search(self._namespace):
            raise ValueError("the namespace has no hash tag such as {prompts}: in a cluster, its keys are spread over several nodes")
        was_replica, learn_at, beat_at, pinged_at = node.replica, 0, time.monotonic() + BEAT, None
        while not self._closed.is_set():
            scattered = self._read(node, list(self._known))
            now = time.monotonic()
            self._mode, again_at = "pushed" if channel else "polling", now + self._refresh
            while not self._closed.is_set() and (left := again_at - time.monotonic()) > 0:
                message, left = None, max(0, min(left, beat_at - time.monotonic(), SLICE))
                if channel:
                    message = channel.receive(left)
                else:
                    self._closed.wait(left)
                if message:
                    pinged_at = None
                    if message[0] == b"message":
                        scattered |= self._read(node, self._named(message[2]))
                if node.renamed or self._sentinels and self._master() not in (None, node.address):
                    raise _Elsewhere
                if time.monotonic() < beat_at:
                    continue
                beat_at = time.monotonic() + BEAT
                node.probe(self._probed)
                if node.replica and not was_replica:
                    raise _Elsewhere
                if node.clustered and (time.monotonic() >= learn_at or len(self._learned) < 2):
                    learn_at, self._learned = time.monotonic() + LEARN_EVERY, node.all_nodes()[:MOST_LEARNED] or self._learned
                if channel:
                    if pinged_at is None:
                        pinged_at = time.monotonic()
                        channel.ping()
                    elif time.monotonic() - pinged_at > PATIENCE:
                        raise ConnectionError("the channel does not answer")  # the other end is gone
                if scattered:
                    break

    def _named(self, message):
        """The prompts that a message on the channel names."""
        try:
            prompt = json.loads(message)["prompt"]
            return [prompt] if prompt in self._known else []
        except (ValueError, KeyError, TypeError, RecursionError):
            return list(self._known)

    def _read(self, node, prompts):
        """Reads these prompts. True if some of their keys were on the node to which the slot migrates."""
        scattered = False
        for first in range(0, len(prompts), READ_AT_ONCE):
            some, asked, questions = prompts[first : first + READ_AT_ONCE], time.monotonic(), []
            for prompt in some:
                questions += [("GET", f"{self._namespace}:active:{prompt}"), ("HGETALL", f"{self._namespace}:routing:{prompt}")]
            *queued, answers = node.ask(("MULTI",), *questions, ("EXEC",))
            if not isinstance(answers, list):
                errors = [error for error in queued if _code(error)]
                if not errors or not all(_code(error) in ("ASK", "TRYAGAIN") for error in errors):
                    raise errors[0] if errors else answers or ResponseError("no answer to EXEC")
                # No node has all keys of the transaction, so read each key separately.
                scattered, answers = True, self._read_scattered(node, questions)
            for prompt, active, routing in zip(some, answers[::2], answers[1::2]):
                if isinstance(routing, list):
                    routing = dict(zip(routing[::2], routing[1::2]))
                self._answered(prompt, asked, active, routing)
        if all(known.split for known in self._known.values()):
            self._settled.set()
        return scattered

    def _read_scattered(self, node, questions):
        answers, there = node.ask(*questions), []
        for index, answer in enumerate(answers):
            if _redirected(answer, "ASK", node.address):
                there.append(index)
            elif _code(answer) not in (None, "WRONGTYPE"):
                raise answer
        if there:
            to = self._connected(_redirected(answers[there[0]], "ASK", node.address))
            try:
                found = to.ask(*(command for index in there for command in (("ASKING",), questions[index])))
            finally:
                to.close()
            for index, answer in zip(there, found[1::2]):
                if _code(answer) not in (None, "WRONGTYPE"):  # a plain MOVED would count as an answer of `node`
                    raise ConnectionError(f"{_shown(to.address)}: {answer}")
                answers[index] = answer
        return answers

    def _answered(self, prompt, asked, active, routing):
        """Processes the values of `active` and `routing`, valid or not; an exception means a wrong type."""
        before = self._known[prompt]
        problem = None
        if isinstance(active, bytes):
            active = active.strip(PADDING)
        if active is None:
            problem = "no version is active"
        elif isinstance(active, Exception):
            problem = f"the active version is invalid: {active}"
        elif not VERSION.fullmatch(active):
            problem = "the active version is invalid: not a version name"
        if problem:
            self._know(prompt, before.split, before.asked, problem)
            return
        unreadable = str(routing) if isinstance(routing, Exception) else None
        split = Split(active, None if unreadable else routing)
        why = unreadable or split.problem
        problem = why and f"the routing is invalid, every request gets the active version: {why}"
        try:
            if self._on_change and (before.split is None or before.split.versions() != split.versions()):
                self._on_change(prompt, split.versions())
        except Exception:  # of the caller: Redis and the other prompts are not affected
            LOG.exception("%s: on_change failed", prompt)
        finally:
            self._know(prompt, split, asked, problem)

    def _failed(self, problem):
        for prompt, known in self._known.items():
            self._know(prompt, known.split, known.asked, problem)

    def _know(self, prompt, split, asked, problem):
        if problem and problem != self._known[prompt].problem:
            LOG.warning("%s: %s", prompt, problem)
        self._known[prompt] = _Known(split, asked, problem)
