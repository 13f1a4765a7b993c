"""The one outgoing client: what it refuses to call, whatever DNS says, and what it says of it."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from endpoints import outgoing
from endpoints.outgoing import OutgoingError, Refused, allowed, send

SECRET = "canary-6f1d2c"  # what a server says and nobody may repeat
LOOPBACK = ["public", "private", "127.0.0.0/8"]


class Server:
    """Does with each connection what the test says; `seen` are the requests that arrived."""

    def __init__(self, answer: Any, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[bytes] = []
        self._answer = answer
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            peer = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with peer:
                self.seen.append(peer.recv(65536))
                self._answer(peer)

    def close(self) -> None:
        self._socket.close()


def says(text: bytes) -> Any:
    return lambda peer: peer.sendall(text)


def plain(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.fixture
def serve() -> Iterator[Any]:
    running: list[Server] = []

    def start(answer: Any, tls: ssl.SSLContext | None = None) -> Server:
        running.append(Server(answer, tls))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let DNS say this: for each name its answers, one list after the other, the last for ever."""

    def say(**answers: list[list[str]]) -> list[str]:
        asked: list[str] = []

        def look_up(host: str, port: int, family: int) -> Any:
            name = host.partition(".")[0]
            asked.append(name)
            if name not in answers:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            given = answers[name]
            now = given.pop(0) if len(given) > 1 else given[0]
            return [
                (
                    socket.AF_INET6 if ":" in each else socket.AF_INET,
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (each, port),
                )
                for each in now
            ]

        monkeypatch.setattr(outgoing, "look_up", look_up)
        return asked

    return say


# Which addresses

HOSTILE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.1.1",
    "100.100.100.200",
    "100.64.0.1",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.251",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
]


@pytest.mark.parametrize("address", HOSTILE)
@pytest.mark.parametrize("listed", [["public", "private"], ["0.0.0.0/0", "::/0"]])
def test_what_no_wide_network_opens(settings, address, listed):
    settings.KEYTURN_OUTGOING_NETWORKS = listed
    assert not allowed(ip_address(address))


@pytest.mark.parametrize(
    ("listed", "yes", "no"),
    [
        ("public", "1.1.1.1", "10.0.0.1"),
        ("public", "2606:4700::1111", "fd12::1"),
        ("public", "2000::1", "4000::1"),  # not given to anybody yet
        ("public", "64:ff9b::101:101", "64:ff9b::a00:1"),  # NAT64 of 1.1.1.1 and of 10.0.0.1
        ("private", "172.31.255.255", "172.32.0.0"),
        ("private", "fd12::1", "2606:4700::1111"),
        ("10.20.0.0/16", "10.20.1.1", "10.21.1.1"),
        ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.1/32", "::ffff:127.0.0.1", "::1"),
        ("::1/128", "::1", "::"),
        ("169.254.0.0/16", "169.254.7.7", "169.254.169.254"),
        ("169.254.169.254/32", "169.254.169.254", "169.254.170.2"),
        ("fd00::/8", "fd00:1::1", "fd00:ec2::254"),
        ("100.64.0.0/10", "100.64.0.1", "100.100.100.200"),
    ],
)
def test_what_is_listed_and_nothing_beside_it(settings, listed, yes, no):
    settings.KEYTURN_OUTGOING_NETWORKS = [listed]
    assert allowed(ip_address(yes))
    assert not allowed(ip_address(no))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "localhost",
        "localhost.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "0",
        "0.0.0.0",  # noqa: S104
        "169.254.169.254",
        "2852039166",
        "[fe80::1%25lo]",
        "①②⑦.⓪.⓪.①",
        "me:secret@127.0.0.1",
        "1.1.1.1\\@127.0.0.1",
        "1.1.1.1 @127.0.0.1",
        "127.0.0.1%00.example.com",
        "a" * 64,
        "..",
    ],
)
def test_no_spelling_of_loopback_is_called(settings, serve, host):
    settings.KEYTURN_OUTGOING_NETWORKS = ["public", "private"]
    server = serve(says(plain(b"inside")))
    with pytest.raises(OutgoingError) as error:
        send("GET", f"http://{host}:{server.port}/", timeout=3)
    assert not error.value.sent
    assert not server.seen


@pytest.mark.parametrize("url", ["ftp://h/", "file:///etc/passwd", "gopher://h:70/", "//h/", ""])
def test_only_http(url):
    with pytest.raises(Refused):
        send("GET", url)


def test_nothing_goes_over_the_internet_in_clear(settings, names):
    settings.KEYTURN_OUTGOING_NETWORKS = ["public", "192.0.2.0/24"]
    assert allowed(ip_address("1.1.1.1"))
    assert not allowed(ip_address("1.1.1.1"), in_clear=True)
    assert allowed(ip_address("192.0.2.1"), in_clear=True)
    names(llm=[["1.1.1.1"]])
    for host in ("1.1.1.1", "llm.example"):
        with pytest.raises(Refused, match="is on the Internet: it is called by https alone"):
            send("GET", f"http://{host}/")


# Names


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(settings, serve, names):
    settings.KEYTURN_OUTGOING_NETWORKS = ["127.0.0.2/32"]
    server = serve(says(plain(b"inside")))
    # Good when it's checked, loopback ever after: a client that resolved again would get in.
    asked = names(rebinding=[["127.0.0.2"], ["127.0.0.1"]])
    with pytest.raises(OutgoingError, match="could not be reached"):
        send("GET", f"http://rebinding.example:{server.port}/")
    assert asked == ["rebinding"]
    with pytest.raises(Refused, match=r"rebinding\.example is 127\.0\.0\.1, which may not"):
        send("GET", f"http://rebinding.example:{server.port}/")
    assert not server.seen


def test_every_answer_of_dns_counts(settings, serve, names):
    settings.KEYTURN_OUTGOING_NETWORKS = ["127.0.0.1/32"]
    server = serve(says(plain(b"inside")))
    names(both=[["127.0.0.1", "169.254.169.254"]], mapped=[["127.0.0.1", "::ffff:127.0.0.9"]])
    for name, said in (("both", "169.254.169.254"), ("mapped", "::ffff:127.0.0.9")):
        with pytest.raises(Refused, match=said):
            send("GET", f"http://{name}.example:{server.port}/")
    assert not server.seen


def test_a_socket_is_only_opened_to_an_address_that_is_allowed(settings, serve, names, monkeypatch):
    # Had the resolver missed it: the last look is where the socket is made.
    settings.KEYTURN_OUTGOING_NETWORKS = ["private"]
    server = serve(says(plain(b"inside")))
    names(slipped=[["127.0.0.1"]])
    looks = []
    check = outgoing._check

    def second_only(host: str, addresses: Any, **said: Any) -> None:
        looks.append(host)
        if len(looks) > 1:
            check(host, addresses, **said)

    monkeypatch.setattr(outgoing, "_check", second_only)
    with pytest.raises(Refused):
        send("GET", f"http://slipped.example:{server.port}/")
    assert len(looks) == 2
    assert not server.seen


def test_a_name_server_that_hangs_holds_nothing_up(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(outgoing, "look_up", lambda *_: over.wait(20) and [])
    begun = time.monotonic()
    with pytest.raises(OutgoingError, match="could not be reached in time") as error:
        send("GET", "http://slow.example/", timeout=0.2)
    assert time.monotonic() - begun < 5
    assert not error.value.sent
    over.set()


def test_names_that_hang_are_few_at_once_when_they_are_entered(monkeypatch):
    over, asked = threading.Event(), []

    def hang(host: str, *_: Any) -> Any:
        asked.append(host)
        over.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(outgoing, "look_up", hang)
    enter = [
        threading.Thread(target=outgoing.check, args=[f"https://n{number}.example/"])
        for number in range(20)
    ]
    for each in enter:
        each.start()
    for each in enter[4:]:
        each.join(1)
        assert not each.is_alive(), "it doesn't wait behind others"
    assert len(asked) <= 4
    over.set()
    for each in enter:
        each.join()
    outgoing.check("https://again.example/")
    assert asked[-1] == "again.example"


def test_a_name_without_an_address(names):
    names()
    with pytest.raises(OutgoingError, match=r"nobody\.example has no address"):
        send("GET", "http://nobody.example/")


# Answers


def test_what_is_sent_and_what_comes_back(serve, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server = serve(says(plain(b'{"a": 1}', "201 Created", "X-Id: 7", "Set-Cookie: a=b")))
    url = f"http://127.0.0.1:{server.port}/v1/a%2Fb?c=d"
    answer = send("POST", url, headers={"Authorization": "Bearer k"}, json={"é": 1})
    assert (answer.status, answer.headers["x-id"], answer.json()) == (201, "7", {"a": 1})
    assert SECRET not in repr(answer)
    sent = server.seen[0]
    assert sent.startswith(b"POST /v1/a%2Fb?c=d HTTP/1.1\r\n")
    assert b"Bearer k" in sent
    assert sent.endswith(b'{"\\u00e9": 1}')
    send("GET", url)
    assert b"Cookie" not in server.seen[1]


def test_a_redirect_is_an_answer(settings, serve):
    inside = serve(says(plain(b"inside")))
    there = f"Location: http://127.0.0.1:{inside.port}/"
    outside = serve(says(plain(b"", "302 Found", there)))
    assert send("GET", f"http://127.0.0.1:{outside.port}/").status == 302
    assert not inside.seen


def _trickle(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(1000):
            peer.sendall(b"x")
            time.sleep(0.02)


def _endless(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            peer.sendall(b"x" * 65536)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (_trickle, "gave no answer within 0.5 s"),
        (_endless, "more than 1,000,000 bytes"),
        (lambda _: None, "broke off"),
        (says(f"SSH-2.0-{SECRET}\r\n".encode()), "no HTTP"),
        (says(b"HTTP/1.1 200 OK\r\nX: " + SECRET.encode() * 5000 + b"\r\n\r\n"), "no HTTP"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + SECRET[:3].encode()), "broke off"),
    ],
    ids=["trickle", "endless", "hangs up", "another protocol", "huge header", "cut short"],
)
def test_a_bad_answer_is_bounded_and_never_repeated(serve, caplog, answer, why):
    server = serve(answer)
    begun = time.monotonic()
    with pytest.raises(OutgoingError, match=why) as error:
        send("POST", f"http://127.0.0.1:{server.port}/", timeout=0.5 if "0.5" in why else 5)
    assert time.monotonic() - begun < 5
    assert error.value.sent
    assert error.value.__cause__ is None
    assert error.value.__context__ is None or error.value.__suppress_context__
    assert SECRET not in str(error.value) + caplog.text


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "POST"])
def test_nothing_is_sent_twice(serve, method):
    server = serve(lambda _: None)
    with pytest.raises(OutgoingError) as error:
        send(method, f"http://127.0.0.1:{server.port}/")
    assert error.value.sent
    assert len(server.seen) == 1


def test_what_is_no_json(serve):
    server = serve(says(plain(SECRET.encode())))
    with pytest.raises(OutgoingError, match="200 and something that is no JSON") as error:
        send("GET", f"http://127.0.0.1:{server.port}/").json()
    assert error.value.sent
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", f"Bearer {SECRET}\r\nX-Admin: yes"),
        ("Authorization", f"Bearer {SECRET}\n"),
        ("Authorization", f"Bearer {SECRET}\0"),
        ("Authorization", f"Bearer {SECRET}é"),
        ("X: y\r\nX-Admin", "yes"),
    ],
)
def test_a_header_cannot_be_broken_out_of(serve, name, value):
    server = serve(says(plain(b"")))
    with pytest.raises(Refused) as error:
        send("GET", f"http://127.0.0.1:{server.port}/", headers={name: value})
    assert SECRET not in str(error.value)
    assert not server.seen


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own issuer for llm.example."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
            " -subj /CN=llm.example -addext subjectAltName=DNS:llm.example"
            f" -keyout {path} -out {path}"
        ).split(),
        check=True,
        capture_output=True,
    )
    return path


def test_the_certificate_is_the_names_not_the_addresses(serve, names, certificate, monkeypatch):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = serve(says(plain(b"in private")), tls)
    names(llm=[["127.0.0.1"]], other=[["127.0.0.1"]])
    with pytest.raises(OutgoingError, match=r"certificate of llm\.example is not") as error:
        send("GET", f"https://llm.example:{server.port}/")
    assert not error.value.sent

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    outgoing._tls.cache_clear()
    try:
        assert send("GET", f"https://llm.example:{server.port}/").body == b"in private"
        for host in ("other.example", "127.0.0.1"):
            with pytest.raises(OutgoingError, match="is not accepted") as error:
                send("GET", f"https://{host}:{server.port}/")
            assert not error.value.sent
    finally:
        outgoing._tls.cache_clear()
