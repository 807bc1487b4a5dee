"""grpcio, the gRPC implementation in C++ that Python, Ruby and PHP use.

The messages are made of the descriptors; nothing is generated.
"""

import os
import re
import threading

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PORT = os.environ["ONEPORT_ADDR"].rsplit(":", 1)[1]
PLAIN = os.environ["ONEPORT_PLAIN"]
TIMEOUT = 10  # seconds, for every call

pool = descriptor_pool.DescriptorPool()
with open(os.environ["ONEPORT_DESCRIPTORS"], "rb") as f:
    for file in descriptor_pb2.FileDescriptorSet.FromString(f.read()).file:
        pool.Add(file)
service = pool.FindServiceByName("oneport.echo.v1.Echo")
# GetMessageClass is what protobuf 4.22 and later call it.
message_class = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(pool).GetPrototype


class Echo:
    """A stub: echo.Unary(message="m") calls the method with that request."""

    def __init__(self, channel):
        for method in service.methods:
            kind = {
                (False, False): channel.unary_unary,
                (False, True): channel.unary_stream,
                (True, False): channel.stream_unary,
                (True, True): channel.stream_stream,
            }[method.client_streaming, method.server_streaming]
            call = kind(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=message_class(method.output_type).FromString,
            )
            setattr(self, method.name, call)


def request(method, **fields):
    return message_class(service.methods_by_name[method].input_type)(**fields)


def read(name):
    with open(os.environ[name], "rb") as f:
        return f.read()


# Steps that are about the client's own connection, and so not for a server behind a proxy.
SKIP = os.environ.get("ONEPORT_SKIP")


def step(what):
    """Runs a function at once, and says that it came to its end."""

    def run(check):
        if SKIP and re.search(SKIP, what):
            return
        check()
        print("ok   ", what)

    return run


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def fails(code, call):
    try:
        call()
    except grpc.RpcError as err:
        same(err.code(), code)
        return err
    raise AssertionError(f"no error, want {code}")


tls = grpc.secure_channel(f"localhost:{PORT}", grpc.ssl_channel_credentials(read("ONEPORT_CA")))
echo = Echo(tls)


@step("unary")
def _():
    same(echo.Unary(request("Unary", message="grüße"), timeout=TIMEOUT).message, "grüße")


@step("unary, 3 MiB")
def _():
    text = "x" * (3 << 20)
    assert echo.Unary(request("Unary", message=text), timeout=TIMEOUT).message == text


@step("300 unary calls at once")
def _():
    calls = [echo.Unary.future(request("Unary", message=str(i)), timeout=TIMEOUT) for i in range(300)]
    same([call.result().message for call in calls], [str(i) for i in range(300)])


@step("server stream")
def _():
    answers = echo.ServerStream(request("ServerStream", message="m", count=1000), timeout=TIMEOUT)
    same([answer.index for answer in answers], list(range(1000)))


@step("client stream")
def _():
    messages = (request("ClientStream", message=m) for m in "abc")
    answer = echo.ClientStream(messages, timeout=TIMEOUT)
    same((answer.message, answer.count), ("a b c", 3))


@step("bidi")
def _():
    messages = (request("Bidi", message=str(i)) for i in range(100))
    same([answer.message for answer in echo.Bidi(messages, timeout=TIMEOUT)], [str(i) for i in range(100)])


@step("an error has its code and its text")
def _():
    err = fails(
        grpc.StatusCode.INVALID_ARGUMENT,
        lambda: list(echo.ServerStream(request("ServerStream", count=5000), timeout=TIMEOUT)),
    )
    same(err.details(), "count 5000 is not within 1 to 1000")


@step("an unknown method is UNIMPLEMENTED")
def _():
    nothing = tls.unary_unary("/oneport.echo.v1.Echo/Nothing")
    fails(grpc.StatusCode.UNIMPLEMENTED, lambda: nothing(b"", timeout=TIMEOUT))


@step("deadline")
def _():
    done = threading.Event()

    def silence():
        done.wait(TIMEOUT)
        yield from ()

    fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: list(echo.Bidi(silence(), timeout=0.3)))
    done.set()


@step("cancel")
def _():
    done = threading.Event()

    def messages():
        yield request("Bidi", message="first")
        done.wait(TIMEOUT)

    call = echo.Bidi(messages(), timeout=TIMEOUT)
    same(next(call).message, "first")
    call.cancel()
    fails(grpc.StatusCode.CANCELLED, lambda: next(call))
    done.set()


@step("metadata reaches the call")
def _():
    who = echo.Whoami(
        request("Whoami"),
        timeout=TIMEOUT,
        metadata=[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
    )
    same(who.trace_id, "0af7651916cd43dd8448eb211c80319c")


@step("client certificate")
def _():
    alice = grpc.ssl_channel_credentials(read("ONEPORT_CA"), read("ONEPORT_KEY"), read("ONEPORT_CERT"))
    with grpc.secure_channel(f"localhost:{PORT}", alice) as channel:
        who = Echo(channel).Whoami(request("Whoami"), timeout=TIMEOUT)
    same((who.protocol, who.http_version), ("grpc", "HTTP/2.0"))
    same(
        (who.tls.version, who.tls.alpn, who.tls.sni, who.tls.client_subject),
        ("TLS 1.3", "h2", "localhost", "CN=alice"),
    )


@step("gzip")
def _():
    text = "z" * 1000
    answer = echo.Unary(request("Unary", message=text), timeout=TIMEOUT, compression=grpc.Compression.Gzip)
    same(answer.message, text)


@step("plaintext")
def _():
    with grpc.insecure_channel(PLAIN) as channel:
        assert not Echo(channel).Whoami(request("Whoami"), timeout=TIMEOUT).HasField("tls")


tls.close()
