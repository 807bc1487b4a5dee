"""The gRPC server: helloworld.Greeter on port 50051, or $PORT.

helloworld_pb2.py is made by: protoc --python_out=. helloworld.proto
"""

import os
import signal
import threading
from concurrent import futures

import grpc

from helloworld_pb2 import HelloReply, HelloRequest


def say_hello(request, context):
    if not request.name:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a greeting needs a name")
    return HelloReply(message=f"Hello from Python, {request.name}")


def say_hello_stream_reply(request, context):
    for i in range(1, 6):
        yield HelloReply(message=f"Hello {i} from Python, {request.name}")


coding = {"request_deserializer": HelloRequest.FromString, "response_serializer": HelloReply.SerializeToString}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers(
    [
        grpc.method_handlers_generic_handler(
            "helloworld.Greeter",
            {
                "SayHello": grpc.unary_unary_rpc_method_handler(say_hello, **coding),
                "SayHelloStreamReply": grpc.unary_stream_rpc_method_handler(say_hello_stream_reply, **coding),
            },
        )
    ]
)
port = server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', '50051')}")
server.start()
print(f"greeter: 127.0.0.1:{port}", flush=True)

end = threading.Event()
for sig in signal.SIGINT, signal.SIGTERM:
    signal.signal(sig, lambda *_: end.set())
end.wait()
server.stop(grace=5).wait()
