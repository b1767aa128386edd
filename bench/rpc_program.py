"""The peer of a call: gRPC's own server, whose one method gives back the bytes it got."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

THREADS = 16


def _echo(request: bytes, _: grpc.ServicerContext) -> bytes:
    return request


def serve(address: str) -> None:
    """Serves until it is killed; prints a line once it does."""
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.max_receive_message_length", -1)])
    echo: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"echo": echo}),))
    server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(sys.argv[1])
