"""Tests of prompt_reader.py, on a real redis-server: python3 -m unittest test_prompt_reader"""

import enum
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
import traceback
import unittest
import unittest.mock
import uuid

import redis
from prompt_reader import Reader, Split, _Sentinel, key_of
from redis.backoff import NoBackoff
from redis.retry import Retry

ROOT = pathlib.Path(__file__).resolve().parents[2]
ACTIVE, ROUTING = "{prompts}:active:support", "{prompts}:routing:support"
# The commit of the receiver.
COMMIT = """
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('PUBLISH', '{prompts}:changes', '{"prompt":"support"}')
"""


class Server:
    """A redis-server on a unix socket, with the users that ship. Readers log in as prompt-server, the tests as test."""

    def __init__(self, port=0):
        self.port, self.dir = port, tempfile.mkdtemp(prefix="prompt-reader-")
        password = hashlib.sha256(b"password").hexdigest()
        users = (ROOT / "config/users.acl").read_text().replace("RECEIVER_PASSWORD_SHA256", password).replace("PROMPT_SERVER_PASSWORD_SHA256", password)
        pathlib.Path(self.dir, "users.acl").write_text(users + "user test on nopass ~* &* +@all\n")
        self.url = f"unix://prompt-server:password@{self.dir}/redis.sock"
        self.start()

    def start(self):
        arguments = ["--port", str(self.port), "--unixsocket", f"{self.dir}/redis.sock", "--dir", self.dir, "--save", "", "--aclfile", f"{self.dir}/users.acl"]
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", "redis-server", *arguments], stdout=subprocess.DEVNULL)
        self.client = redis.Redis.from_url(f"unix://test:any@{self.dir}/redis.sock", decode_responses=True)
        eventually(self.answers)

    def answers(self):
        try:
            return self.client.ping()
        except redis.RedisError:
            return False

    def commit(self, active, **routing):
        fields = [text for field in routing.items() for text in field]
        self.client.eval(COMMIT, 2, ACTIVE, ROUTING, active, *fields)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.dir)


def eventually(holds, seconds=10):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


class Lookups:
    """Resolves the name redis.test, unless it hangs: each time to the next of these sets of addresses."""

    def __init__(self, *found):
        self.real, self.answers, self.waiting, self.count = socket.getaddrinfo, threading.Event(), 0, 0
        self.found = found
        self.answers.set()

    def __call__(self, host, *more, **options):
        if host != "redis.test":
            return self.real(host, *more, **options)
        self.waiting += 1
        self.answers.wait()
        self.waiting -= 1
        self.count += 1
        return [found for host in self.found[self.count % len(self.found)] for found in self.real(host, *more, **options)]


class Confused(socketserver.BaseRequestHandler):
    """A server that sends the client to another one when it wants to read, and does not say where that is."""

    ANSWERS = {b"GET": b"$2\r\nv1\r\n", b"SUBSCRIBE": b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"}

    def handle(self):
        while asked := self.request.recv(65536):
            commands = re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", asked)
            answers = {} if b"MULTI" in commands else self.ANSWERS
            self.server.redirections += b"MULTI" in commands
            unknown = b"-MOVED 3999 elsewhere\r\n" if b"MULTI" in commands else b"-ERR unknown command\r\n"
            self.request.sendall(b"".join(answers.get(command, unknown) for command in commands))


class Vectors(unittest.TestCase):
    def test_shared_vectors(self):
        vectors = json.loads((ROOT / "tests/fixtures/routing.json").read_text())
        for case in vectors["cases"]:
            routing = {field.encode(): value.encode() for field, value in case["routing"].items()}
            split = Split(case["active"].encode(), routing)
            found = [split.version(key["key"]) for key in vectors["keys"]]
            self.assertEqual(found, case["versions"], case["name"])

    def test_bytes_that_are_no_text(self):
        split = Split(b"v1", {b"v1": b"50", b"\xff": b"50"})
        self.assertEqual((split.versions(), split.problem), (["v1"], "a field that is not a version"))
        split = Split(b"v1", {b"v1": b"50", b"v2": b"\xb2\xb2"})
        self.assertEqual((split.versions(), bool(split.problem)), (["v1"], True))


class Names(unittest.TestCase):
    def test_shared_vectors(self):
        vectors = json.loads((ROOT / "tests/fixtures/names.json").read_text())
        for case in vectors["names"]:
            self.assertEqual(key_of(case["name"]), case["encoded"])
        self.assertEqual(len({key_of(case["name"]) for case in vectors["names"]}), len(vectors["names"]))
        for name in ["", *vectors["too_long"]]:
            with self.assertRaisesRegex(ValueError, "expected 1 to 128 bytes"):
                key_of(name)
        for name in [b"a", None, 7]:
            with self.assertRaises(TypeError):
                key_of(name)


class Sentinels(unittest.TestCase):
    def test_a_master_that_is_the_master_again_has_a_later_epoch(self):
        node, sentinel = unittest.mock.Mock(), _Sentinel.__new__(_Sentinel)
        sentinel._master, sentinel.said = "main", None
        node.at = lambda host, port: (host, int(port))
        for epoch in (1, 3):
            node.ask.side_effect = [[[b"a", b"6379"]], [[b"config-epoch", b"%d" % epoch]]]
            sentinel._ask(node)
            self.assertEqual(sentinel.said, (epoch, ("a", 6379)))

    def test_a_sentinel_that_is_listed_twice_has_one_vote(self):
        reader = Reader("redis://h:1", ["support"], nodes="127.0.0.1:1,127.0.0.1:2,127.0.0.1:1", sentinel_master="main")
        self.addCleanup(reader.close)
        self.assertEqual(reader._sentinel_addresses, [("127.0.0.1", 1), ("127.0.0.1", 2)])

    def test_the_last_known_master_is_known_after_a_fork(self):
        reader = Reader("redis://h:1", ["support"], nodes="127.0.0.1:1", sentinel_master="main")
        self.addCleanup(reader.close)
        self.addCleanup(reader._closed.set)  # of the threads that a real fork would not copy
        reader._last_master = ("127.0.0.1", 2)
        reader._begin_anew()
        self.assertEqual(reader._master(), ("127.0.0.1", 2))


class Plan(str, enum.Enum):
    FREE = "user-4711"


KEYS = [
    # a key, and the text that another language has for it
    (4711, b"4711"),
    (-1, b"-1"),
    (True, b"True"),
    (1.5, b"1.5"),
    (uuid.UUID("6BA7B810-9DAD-11D1-80B4-00C04FD430C8"), b"6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    (Plan.FREE, b"user-4711"),
    ("müller", b"m\xc3\xbcller"),
    ("", b""),
    ("\udcff", b"\xed\xb3\xbf"),  # a surrogate for an undecodable byte
    (b"\xff\xfe", b"\xff\xfe"),
    (bytearray(b"user-4711"), b"user-4711"),
    (memoryview(b"user-4711"), b"user-4711"),
    (("a", 1), b"('a', 1)"),
]
HALVES = Split(b"v1", {b"v1": b"50", b"v2": b"50"})
ONE_BY_ONE = Split(b"b0", {f"b{bucket}".encode(): b"1" for bucket in range(100)})


class Keys(unittest.TestCase):
    def test_any_key_is_taken_with_and_without_a_split(self):
        for key, same in KEYS:
            with self.subTest(key=key):
                self.assertEqual(Split(b"v1").version(key), "v1")
                self.assertEqual(HALVES.version(key), HALVES.version(same))
                self.assertEqual(ONE_BY_ONE.version(key), ONE_BY_ONE.version(same))

    def test_what_is_refused_during_a_split_is_refused_before_it(self):
        class Odd:
            def __str__(self):
                raise ValueError("no text")

        for key, error in [(None, TypeError), (Odd(), ValueError)]:
            for split in (Split(b"v1"), HALVES):
                self.assertRaises(error, split.version, key)


class Following(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)

    def reader(self, **settings):
        self.changes = []
        reader = Reader(self.server.url, ["support"], on_change=lambda *change: self.changes.append(change), **settings)
        self.addCleanup(reader.close)
        return reader

    def test_a_commit_is_pushed(self):
        self.server.commit("v1")
        reader = self.reader(refresh=60)  # so that only the channel reports the change
        self.assertTrue(reader.wait_ready(10))
        eventually(lambda: self.server.client.pubsub_numsub("{prompts}:changes")[0][1] == 1)
        self.server.commit("v2", v1="25", v2="75")
        eventually(lambda: reader.versions("support") == ["v1", "v2"])
        served = {reader.active_version("support", f"user-{number}") for number in range(100)}
        self.assertEqual(served, {"v1", "v2"})
        self.server.commit("v1")
        eventually(lambda: reader.versions("support") == ["v1"])
        self.assertEqual(self.changes, [("support", ["v1"]), ("support", ["v1", "v2"]), ("support", ["v1"])])
        self.assertIsNone(reader.error("support"))

    def test_the_node_is_probed_however_often_the_keys_are_read(self):
        self.server.commit("v1")
        reader = self.reader(refresh=0.1)
        self.assertTrue(reader.wait_ready(10))
        probes = lambda: self.server.client.info("commandstats").get("cmdstat_hello", {"calls": 0})["calls"]
        before = probes()
        eventually(lambda: probes() >= before + 2)

    def test_an_exception_of_on_change_is_no_problem_of_redis(self):
        def fails(prompt, versions):
            raise KeyError(prompt)

        self.server.commit("v1")
        with self.assertLogs("prompt_reader", "ERROR") as logs:
            reader = Reader(self.server.url, ["support"], on_change=fails, refresh=60)
            self.addCleanup(reader.close)
            self.assertTrue(reader.wait_ready(10))
        self.assertIn("support: on_change failed", logs.output[0])
        self.assertIsNone(reader.error("support"))
        eventually(lambda: reader.mode() == "pushed")

    def test_what_a_shell_puts_around_a_version_is_not_part_of_it(self):
        self.server.commit("v1")
        reader = self.reader(refresh=0.1)
        for value, version in (("v2\n", "v2"), ("v3\r\n", "v3"), (" v4\0", "v4")):
            self.server.client.set(ACTIVE, value)
            eventually(lambda: reader.versions("support") == [version])
            self.assertIsNone(reader.error("support"))
        self.server.client.set(ACTIVE, "v5 v6")
        eventually(lambda: "not a version" in (reader.error("support") or ""))
        self.assertEqual(reader.versions("support"), ["v4"])

    def test_a_key_is_refused_from_the_first_call_on(self):
        reader = self.reader(refresh=0.1)
        with self.assertRaisesRegex(TypeError, "expected the id of a user or of a request, found None"):
            reader.active_version("support", None)
        self.assertIsNone(reader.active_version("support", 4711))
        self.server.commit("v1")
        eventually(lambda: reader.active_version("support", 4711) == "v1")
        self.assertRaises(TypeError, reader.active_version, "support", None)
        self.server.commit("v1", v1="50", v2="50")
        eventually(lambda: reader.versions("support") == ["v1", "v2"])
        self.assertEqual(reader.active_version("support", 4711), reader.active_version("support", "4711"))
        self.assertRaises(TypeError, reader.active_version, "support", None)

    def follows(self, url, **options):
        """The reader follows a change and a split, and notices that Redis is down."""
        self.server.commit("v1")
        reader = Reader(url, ["support"], refresh=0.2, **options)
        self.addCleanup(reader.close)
        self.assertTrue(reader.wait_ready(10), reader.error("support"))
        self.server.commit("v2", v1="25", v2="75")
        eventually(lambda: reader.versions("support") == ["v1", "v2"])
        self.assertIsNone(reader.error("support"))
        self.server.kill()
        eventually(lambda: "redis can't be asked" in (reader.error("support") or ""))
        self.server.start()
        self.server.commit("v3")
        eventually(lambda: reader.versions("support") == ["v3"])
        self.server.client.delete(ACTIVE, ROUTING)

    def test_options_of_the_url_that_would_break_it_do_not(self):
        for query in (
            "decode_responses=true",
            "decode_responses=true&encoding=utf-16",
            "protocol=3",
            "single_connection_client=true",
            "max_connections=1",
            "retry_on_timeout=true&health_check_interval=1",
        ):
            with self.subTest(query=query):
                self.follows(f"{self.server.url}?{query}")

    def test_options_that_would_break_it_do_not(self):
        for options in (
            {"decode_responses": True, "encoding_errors": "ignore"},
            {"retry": Retry(NoBackoff(), -1), "retry_on_error": [redis.ConnectionError, redis.TimeoutError]},
            {"single_connection_client": True, "max_connections": 1},
            {"protocol": 3, "socket_timeout": 2},
        ):
            with self.subTest(options=options):
                self.follows(self.server.url, **options)

    def test_a_login_may_be_in_the_options_of_a_unix_socket(self):
        path = f"{self.server.dir}/redis.sock"
        for url in (f"redis+unix://{path}", f"unix://{path}"):
            with self.subTest(url=url):
                self.follows(f"{url}?user=prompt-server&pass=password")

    def test_settings_that_cannot_work_are_refused_at_once(self):
        threads = threading.active_count()
        for error, message, url, prompts, settings in (
            (TypeError, "prompts: expected a list of str, found 'support'", self.server.url, "support", {}),
            (TypeError, "prompts: expected a list of str", self.server.url, [b"support"], {}),
            (TypeError, "namespace: expected a str", self.server.url, ["support"], {"namespace": b"{prompts}"}),
            (TypeError, "on_change: expected a function", self.server.url, ["support"], {"on_change": "print"}),
            (ValueError, "refresh: expected seconds", self.server.url, ["support"], {"refresh": 0}),
            (ValueError, "refresh: expected seconds", self.server.url, ["support"], {"refresh": -1}),
            (ValueError, "refresh: expected seconds", self.server.url, ["support"], {"refresh": None}),
            (ValueError, "refresh: expected seconds", self.server.url, ["support"], {"refresh": "2"}),
            (ValueError, "refresh: expected seconds", self.server.url, ["support"], {"refresh": float("nan")}),
            (ValueError, "refresh: expected seconds", self.server.url, ["support"], {"refresh": float("inf")}),
            (ValueError, "socket_timeout: expected seconds", self.server.url, ["support"], {"socket_timeout": None}),
            (ValueError, "socket_timeout: expected seconds", f"{self.server.url}?socket_timeout=0", ["support"], {}),
            (ValueError, "socket_connect_timeout: ", "redis://h:1", ["support"], {"socket_connect_timeout": None}),
            (ValueError, "cache: ", self.server.url, ["support"], {"cache": object()}),
            (TypeError, "unexpected keyword argument", self.server.url, ["support"], {"decode_response": True}),
            (TypeError, "unexpected keyword argument", f"{self.server.url}?typo=1", ["support"], {}),
            (ValueError, "redis://", "localhost:6379", ["support"], {}),
            (ValueError, "nodes: expected host:port, found 'redis-2'", "redis://h:1", ["support"], {"nodes": ["redis-2"]}),
            (ValueError, "nodes: expected host:port, found ':6379'", "redis://h:1", ["support"], {"nodes": "redis-2:6379, :6379"}),
            (ValueError, "nodes: expected host:port, found 'h:99999'", "redis://h:1", ["support"], {"nodes": ["h:99999"]}),
            (ValueError, "nodes: expected host:port, found None", "redis://h:1", ["support"], {"nodes": [None]}),
            (ValueError, "nodes: expected host:port, found 'redis://h:1'", "redis://h:1", ["support"], {"nodes": [" redis://h:1 "]}),
            (ValueError, "nodes: expected host:port, found 'a:1,b:2'", "redis://h:1", ["support"], {"nodes": ["a:1,b:2"]}),
            (ValueError, "nodes: expected host:port, found 'a b:1'", "redis://h:1", ["support"], {"nodes": ["a b:1"]}),
            (ValueError, "nodes: expected host:port, found an address with a login", "redis://h:1", ["support"], {"nodes": ["u:s3cret@h:1"]}),
            (ValueError, "nodes: expected host:port, found an address with a login", "redis://h:1", ["support"], {"nodes": "u:s3,cret@h:1"}),
            (ValueError, "nodes: expected a redis://", self.server.url, ["support"], {"nodes": ["h:1"]}),
            (ValueError, "nodes: expected a redis://", self.server.url, ["support"], {"sentinel_master": "main"}),
            (ValueError, "sentinel_master: expected the master's name", "redis://h:1", ["support"], {"sentinel_password": "s"}),
        ):
            with self.subTest(url=url, prompts=prompts, settings=settings):
                with self.assertRaisesRegex(error, message) as raised:
                    Reader(url, prompts, **settings)
                self.assertNotRegex(str(raised.exception), "s3|cret")
        self.assertEqual(threading.active_count(), threads)
        Reader("redis://127.0.0.1:1", ["support"], nodes=[" 127.0.0.1:2 "]).close()

    def test_a_plain_set_is_found_by_reading_again(self):
        reader = self.reader(refresh=0.1)
        self.assertIsNone(reader.active_version("support", "user-1"))
        self.assertIsNone(reader.staleness("support"))
        eventually(lambda: reader.error("support") == "no version is active")
        self.server.client.set(ACTIVE, "v1")
        eventually(lambda: reader.active_version("support", "user-1") == "v1")
        self.assertIsNone(reader.error("support"))

    def test_a_message_about_others_or_about_nothing_does_no_harm(self):
        self.server.commit("v1")
        reader = self.reader(refresh=0.1)
        self.assertTrue(reader.wait_ready(10))
        for message in ("", "[]", "{}", "7", '{"prompt":{}}', '{"prompt":"other"}', b"\xff"):
            self.server.client.publish("{prompts}:changes", message)
        self.server.commit("v2")
        eventually(lambda: reader.active_version("support", "user-1") == "v2")
        self.assertIsNone(reader.error("support"))

    def test_while_redis_is_away_the_last_known_version_stays(self):
        self.server.commit("v2", v1="25", v2="75")
        reader = self.reader(refresh=0.1)
        self.assertTrue(reader.wait_ready(10))
        self.server.kill()
        eventually(lambda: "redis can't be asked" in (reader.error("support") or ""))
        age = reader.staleness("support")
        self.assertEqual(reader.versions("support"), ["v1", "v2"])
        eventually(lambda: reader.staleness("support") > age + 0.3)
        self.server.start()  # without data
        eventually(lambda: reader.error("support") == "no version is active")
        self.assertEqual(reader.versions("support"), ["v1", "v2"])
        self.server.commit("v1")
        eventually(lambda: reader.versions("support") == ["v1"])
        eventually(lambda: reader.error("support") is None and reader.staleness("support") < 0.3)

    def test_until_redis_has_answered_the_error_says_so(self):
        self.server.commit("v1")
        self.server.process.send_signal(19)
        reader = self.reader()
        self.assertEqual(reader.error("support"), "redis can't be asked: it has not answered yet")
        self.assertEqual((reader.mode(), reader.staleness("support"), reader.versions("support")), ("away", None, []))
        self.server.process.send_signal(18)
        self.assertTrue(reader.wait_ready(10))
        self.assertIsNone(reader.error("support"))

    def test_waiting_for_a_reader_that_has_ended_fails_at_once(self):
        self.server.commit("v1")

        def exits(prompt, versions):
            raise SystemExit

        ready, ended = self.reader(), Reader(self.server.url, ["support", "other"], on_change=exits)
        self.assertTrue(ready.wait_ready(10))
        ready.close()
        self.assertTrue(ready.wait_ready(60), "the last known versions stay")
        eventually(lambda: "thread has ended" in ended.error("support"))
        self.server.client.delete(ACTIVE)
        closed, woken = self.reader(), self.reader()
        closed.close()
        threading.Timer(0.2, woken.close).start()
        for reader in (ended, closed, woken):
            began = time.monotonic()
            with self.assertRaisesRegex(RuntimeError, "the reader is closed or its thread has ended"):
                reader.wait_ready(60)
            self.assertLess(time.monotonic() - began, 30)

    def test_on_change_may_close_the_reader(self):
        self.server.commit("v1")
        own = []

        def closes(prompt, versions):
            eventually(lambda: own)
            own[0].close()

        with self.assertNoLogs("prompt_reader"):
            own.append(Reader(self.server.url, ["support"], on_change=closes))
            self.assertTrue(own[0].wait_ready(10))
            own[0].close()
        self.assertEqual((own[0].mode(), own[0].versions("support")), ("away", ["v1"]))

    def by_name(self, *found):
        """A reader that finds its server by the name redis.test, which resolves to `found`; the server and the lookups."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server, lookups = Server(port), Lookups(*found)
        self.addCleanup(server.close)
        patch = unittest.mock.patch("socket.getaddrinfo", lookups)
        patch.start()
        self.addCleanup(patch.stop)
        server.commit("v1")
        reader = Reader(f"redis://prompt-server:password@redis.test:{port}", ["support"])
        self.addCleanup(reader.close)
        self.addCleanup(lookups.answers.set)
        self.assertTrue(reader.wait_ready(10))
        return reader, server, lookups

    def test_a_name_that_loses_the_address_in_use_is_followed(self):
        patch = unittest.mock.patch("prompt_reader.RESOLVE_EVERY", 0.05)
        patch.start()
        self.addCleanup(patch.stop)
        reader, server, lookups = self.by_name(["127.0.0.1", "127.0.0.2"])
        connections = lambda: {(one["id"], one["laddr"].partition(":")[0]) for one in server.client.client_list() if one["user"] == "prompt-server"}
        eventually(lambda: reader.mode() == "pushed")
        before = connections()
        self.assertEqual([address for _, address in before], ["127.0.0.1"] * 2)
        # a resolver that returns a part of the addresses
        lookups.found = (["127.0.0.1"], ["127.0.0.2"])
        count = lookups.count
        eventually(lambda: lookups.count > count + 10)
        self.assertEqual(connections(), before)
        lookups.found = (["127.0.0.2"],)
        eventually(lambda: connections() and all(address == "127.0.0.2" for _, address in connections()))
        server.commit("v2")
        eventually(lambda: reader.versions("support") == ["v2"])

    def test_connections_to_two_addresses_of_a_name_stay(self):
        patch = unittest.mock.patch("prompt_reader.RESOLVE_EVERY", 0.05)
        patch.start()
        self.addCleanup(patch.stop)
        reader, server, lookups = self.by_name(["127.0.0.1"], ["127.0.0.2"])  # one after the other
        eventually(lambda: reader.mode() == "pushed")
        own = lambda: {one["id"] for one in server.client.client_list() if one["user"] == "prompt-server"}
        before, count = own(), lookups.count
        eventually(lambda: lookups.count > count + 10)
        self.assertEqual(own(), before)

    def test_a_lookup_that_hangs_does_not_hold_the_reader(self):
        reader, server, lookups = self.by_name(["127.0.0.1"])
        lookups.answers.clear()
        server.kill()
        server.start()
        server.commit("v2")
        eventually(lambda: "no connection within 1 s" in (reader.error("support") or ""))
        self.assertEqual((reader.mode(), reader.versions("support")), ("away", ["v1"]))
        self.assertLessEqual(lookups.waiting, 2, "one to connect, and one to find out whether the name has moved")
        lookups.answers.set()
        eventually(lambda: reader.versions("support") == ["v2"])
        eventually(lambda: reader.error("support") is None)
        lookups.answers.clear()
        server.kill()
        eventually(lambda: lookups.waiting)
        closing = threading.Thread(target=reader.close, daemon=True)
        closing.start()
        closing.join(10)
        self.assertFalse(closing.is_alive(), "the lookup still hangs")
        # an attempt that ends after that leaves no connection
        server.start()
        lookups.answers.set()
        eventually(lambda: not any(thread.name == "prompt-reader-connect" for thread in threading.enumerate()))
        eventually(lambda: not any(one["user"] == "prompt-server" for one in server.client.client_list()))

    def test_a_redirection_to_nowhere_is_an_error_like_others(self):
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Confused)
        server.daemon_threads, server.redirections = True, 0
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        reader = Reader("redis://127.0.0.1:%d" % server.server_address[1], ["support"])
        self.addCleanup(reader.close)
        eventually(lambda: server.redirections > 1)
        self.assertIn("redis can't be asked: 127.0.0.1", reader.error("support"))

    def test_a_redis_that_hangs_is_left(self):
        self.server.commit("v1")
        reader = self.reader(refresh=0.1)
        self.assertTrue(reader.wait_ready(10))
        self.server.process.send_signal(19)  # SIGSTOP: connections stay open, nothing is answered
        eventually(lambda: "redis can't be asked" in (reader.error("support") or ""))
        self.assertEqual(reader.active_version("support", "user-1"), "v1")
        self.server.process.send_signal(18)
        eventually(lambda: reader.error("support") is None)

    def test_what_is_no_version_changes_nothing(self):
        self.server.commit("v1")
        reader = self.reader(refresh=0.1)
        self.assertTrue(reader.wait_ready(10))
        client = self.server.client
        for value in ("", "../etc/passwd", "v" * 65, b"\xff\xfe", "\n", "v2\nv3", '"v2"'):
            client.set(ACTIVE, value)
            eventually(lambda: "not a version name" in (reader.error("support") or ""))
            self.assertEqual(reader.active_version("support", "user-1"), "v1")
            client.set(ACTIVE, "v1")
            eventually(lambda: reader.error("support") is None)
        client.delete(ACTIVE)
        client.rpush(ACTIVE, "v2")
        eventually(lambda: "wrong kind of value" in (reader.error("support") or ""))
        self.assertEqual(reader.active_version("support", "user-1"), "v1")

    def test_a_routing_that_is_none_leaves_everybody_with_the_active_version(self):
        self.server.commit("v1", v1="50", v2="49")
        reader = self.reader(refresh=0.1)
        eventually(lambda: "do not sum to 100" in (reader.error("support") or ""))
        self.assertEqual(reader.versions("support"), ["v1"])
        self.server.commit("v3", v1="50", v2="50")  # a routing without the active version
        eventually(lambda: reader.versions("support") == ["v3"])
        self.assertIsNone(reader.error("support"))
        self.server.client.delete(ROUTING)
        self.server.client.set(ROUTING, "50")
        eventually(lambda: "the routing is invalid" in (reader.error("support") or ""))
        self.server.client.set(ACTIVE, "v4")
        eventually(lambda: reader.versions("support") == ["v4"])

    def sockets(self):
        return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}"))

    def in_a_fork(self, check):
        """Runs `check` in a forked process, which reports the result."""
        pid = os.fork()
        if pid == 0:
            try:
                check()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        return lambda: self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_a_process_that_is_forked_follows_by_itself(self):
        self.server.commit("v1")
        reader = self.reader(refresh=60)
        self.assertTrue(reader.wait_ready(10))
        eventually(lambda: reader.mode() == "pushed")
        sockets, (ready, tell) = self.sockets(), os.pipe()

        def check():
            eventually(lambda: reader.mode() == "pushed" and reader.error("support") is None)
            assert reader.wait_ready(0) and self.sockets() == sockets, "the parent's connections are its own"
            os.write(tell, b"!")
            eventually(lambda: reader.versions("support") == ["v2"])
            reader.close()

        holds = self.in_a_fork(check)
        os.close(tell)  # so that a failing child ends the wait
        os.read(ready, 1)
        os.close(ready)
        self.server.commit("v2")
        holds()
        eventually(lambda: reader.versions("support") == ["v2"])
        self.assertIsNone(reader.error("support"))

    def test_a_fork_without_contact_says_so_at_once(self):
        self.server.commit("v1")
        reader = self.reader(refresh=60)
        self.assertTrue(reader.wait_ready(10))
        self.server.process.send_signal(19)

        def check():
            assert "redis can't be asked" in reader.error("support") and reader.mode() == "away"
            assert reader.active_version("support", "user-1") == "v1"
            before = reader.staleness("support")
            eventually(lambda: reader.staleness("support") > before + 0.2)
            assert reader.error("support")

        self.in_a_fork(check)()
        self.server.process.send_signal(18)

    def test_a_reader_that_is_closed_stays_closed_in_a_fork_and_says_so(self):
        self.server.commit("v1")
        reader = self.reader(refresh=60)
        self.assertTrue(reader.wait_ready(10))
        reader.close()

        def check():
            assert threading.active_count() == 1
            assert (reader.mode(), reader.versions("support")) == ("away", ["v1"])
            assert "the reader's thread has ended" in reader.error("support")

        self.in_a_fork(check)()
        check()

    def test_without_the_channel_changes_are_polled(self):
        self.server.client.execute_command("ACL", "SETUSER", "prompt-server", "-subscribe")
        self.server.commit("v1")
        reader = self.reader(refresh=0.1)
        for version in ("v1", "v2", "v3"):
            self.server.commit(version, **{version: "60", "other": "40"})
            eventually(lambda: reader.versions("support") == ["other", version])
            self.assertEqual((reader.mode(), reader.error("support")), ("polling", None))
        self.server.kill()
        eventually(lambda: reader.mode() == "away")

    def test_any_number_of_threads_and_prompts(self):
        self.server.commit("v1")
        names = [f"other-{number}" for number in range(250)]
        for name in names:
            self.server.client.set(f"{{prompts}}:active:{name}", f"v-{name}")
        reader = Reader(self.server.url, ["support", *names], refresh=0.1)
        self.addCleanup(reader.close)
        self.assertTrue(reader.wait_ready(10))
        self.assertTrue(all(reader.active_version(name, "user-1") == f"v-{name}" for name in names))
        seen, done = set(), threading.Event()

        def ask():
            while not done.is_set():
                seen.add(reader.active_version("support", "user-1"))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in ("v2", "v3"):
            self.server.commit(version)
            eventually(lambda: reader.active_version("support", "user-1") == version)
        done.set()
        for thread in threads:
            thread.join()
        self.assertLessEqual(seen, {"v1", "v2", "v3"})

    def test_an_address_of_nothing_is_no_error(self):
        reader = Reader("redis://127.0.0.1:1", ["support"])
        self.addCleanup(reader.close)
        eventually(lambda: "redis can't be asked" in (reader.error("support") or ""))
        self.assertFalse(reader.wait_ready(0))


if __name__ == "__main__":
    unittest.main()
