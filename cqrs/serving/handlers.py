"""Wraps a service's methods with what every call needs: admission, error answers, counts and times.

This runs for every call, so it is thin: each method is wrapped once, in a closure, and found by its path in one
dictionary. There is no gRPC interceptor, which would cost each call another coroutine, and methods are not "registered"
with gRPC core, which would have the server's loop wait on one future per method instead of one in all.
"""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from cqrs.errors import DeadlinePassed, ServiceError
from cqrs.serving.admission import Admission
from cqrs.serving.deadlines import remaining_seconds
from cqrs.serving.errors import answer_of, answer_to, malformed_message
from cqrs.serving.metrics import MethodMetrics, ServerMetrics

_OK = grpc.StatusCode.OK
_UNKNOWN = grpc.StatusCode.UNKNOWN

if TYPE_CHECKING:  # Generic in the stubs only.
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]


class _Wrapped(NamedTuple):
    """What grpc.aio asks of a method handler."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: Callable[[bytes], Any] | None
    response_serializer: Callable[[Any], bytes] | None
    unary_unary: Callable[..., Any] | None = None
    unary_stream: Callable[..., Any] | None = None
    stream_unary: Callable[..., Any] | None = None
    stream_stream: Callable[..., Any] | None = None


class Router(grpc.GenericRpcHandler):
    """Finds the wrapped handler of a method. Generated `add_…Servicer_to_server` functions take it for a server."""

    def __init__(self, admission: Admission, metrics: ServerMetrics) -> None:
        self._admission = admission
        self._metrics = metrics
        self._methods: dict[str, _Wrapped] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Part of grpc.aio.Server: what generated code calls."""
        self.add_service(service, handlers)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Part of grpc.aio.Server. What a handler answers must depend on the method only: it is asked once for each."""
        self._generic.extend(handlers)

    def add_service(self, service: str, handlers: Mapping[str, Handler], *, admitted: bool = True) -> None:
        """Add a service's methods; `admitted` False lets their calls in always, and no drain waits for them."""
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._methods[path] = self._wrap(path, handler, self._admission if admitted else None)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The wrapped handler of a call's method; None if there is none."""
        wrapped = self._methods.get(handler_call_details.method)
        if wrapped is not None:
            return wrapped
        for generic in self._generic:
            handler = generic.service(handler_call_details)
            if handler is not None:
                path = handler_call_details.method
                wrapped = self._methods[path] = self._wrap(path, handler, self._admission)
                return wrapped
        return None

    def _wrap(self, path: str, handler: Handler, admission: Admission | None) -> _Wrapped:
        gate = admission if admission is not None else _Always()
        parse: Callable[[bytes], Any] = handler.request_deserializer or _identity
        serialize = handler.response_serializer
        kind = _KINDS[handler.request_streaming, handler.response_streaming]
        metrics = self._metrics.method(path, kind)
        behaviours = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
        behaviour: Callable[..., Any] = next(each for each in behaviours if each is not None)
        is_generator = inspect.isasyncgenfunction(behaviour)
        if not (is_generator or inspect.iscoroutinefunction(behaviour)):
            raise TypeError(f"{path}: its implementation must be `async`")
        call = _Call(path, behaviour, gate, metrics)
        if handler.request_streaming:
            streamed_parse = _checked(parse)
            if not handler.response_streaming:
                return _Wrapped(True, False, streamed_parse, serialize, stream_unary=call.coroutine(_identity))
            stream_stream = call.generator(_identity) if is_generator else call.coroutine(_identity)
            return _Wrapped(True, True, streamed_parse, serialize, stream_stream=stream_stream)
        # A single request is parsed by the wrapper itself: so a malformed one is answered like any other error.
        if not handler.response_streaming:
            return _Wrapped(False, False, None, serialize, unary_unary=call.coroutine(parse))
        unary_stream = call.generator(parse) if is_generator else call.coroutine(parse)
        return _Wrapped(False, True, None, serialize, unary_stream=unary_stream)


_KINDS = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}


class _Call:
    """Makes the wrapper of one method."""

    def __init__(
        self, path: str, behaviour: Callable[..., Any], gate: Admission | _Always, metrics: MethodMetrics
    ) -> None:
        self._path = path
        self._behaviour = behaviour
        self._gate = gate
        self._metrics = metrics

    def coroutine(self, parse: Callable[[Any], Any]) -> Callable[[Any, Context], Awaitable[Any]]:
        """For behaviours that are coroutine functions."""
        behaviour, gate, metrics, observe, answer = (
            self._behaviour, self._gate, self._metrics, self._metrics.observe, self._answer,
        )  # fmt: skip

        async def handle(raw: Any, context: Context) -> Any:
            metrics.started += 1
            if gate.running >= gate.limit or remaining_seconds(context) == 0:
                raw = None
                await self._refuse(context)
            started = perf_counter()
            gate.running += 1
            request = None
            try:
                try:
                    request = parse(raw)
                except DecodeError:
                    raise malformed_message() from None
                response = await behaviour(request, context)
                observe(_code_of(context) or _OK, perf_counter() - started)
                return response
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is answered, counted and raised again
                code, reply = answer(error, context)
                # Counted first: whoever has seen the answer finds it in the metrics.
                observe(code, perf_counter() - started)
                # grpc.aio keeps the error with the call's state, in a cycle: it must not keep the request as well.
                raw = request = error.__traceback__ = None
                await reply
            finally:
                gate.running -= 1
                if not gate.limit:
                    gate.leave_idle()

        return handle

    def generator(self, parse: Callable[[Any], Any]) -> Callable[[Any, Context], Awaitable[None]]:
        """For behaviours that are asynchronous generators."""
        behaviour = self._behaviour

        async def stream(request: Any, context: Context) -> None:
            responses: AsyncIterator[Any] = behaviour(request, context)
            async with aclosing(responses):  # type: ignore[type-var]
                async for response in responses:
                    await context.write(response)

        return _Call(self._path, stream, self._gate, self._metrics).coroutine(parse)

    async def _refuse(self, context: Context) -> None:
        error = DeadlinePassed() if remaining_seconds(context) == 0 else self._gate.refusal()
        self._metrics.observe(error.code, 0.0)
        await context.abort(*answer_of(error))

    def _answer(self, error: BaseException, context: Context) -> tuple[grpc.StatusCode, Awaitable[Any]]:
        """The code that the call ends with, and what to await to end it so."""
        if isinstance(error, grpc.aio.AbortError):
            return _code_of(context) or _UNKNOWN, _raise(error)
        if isinstance(error, Exception):
            reply = answer_to(error, self._path)
            return reply.code, context.abort(*reply)
        if isinstance(error, CancelledError) and remaining_seconds(context) == 0:
            return grpc.StatusCode.DEADLINE_EXCEEDED, _raise(error)
        return grpc.StatusCode.CANCELLED, _raise(error)


class _Always:
    """The gate of services that are always let in."""

    running = 0
    limit = 1 << 62

    def leave_idle(self) -> None:
        """Nobody waits for these."""

    def refusal(self) -> ServiceError:
        """Never asked for."""
        raise AssertionError("an unlimited gate refuses nothing")


def _code_of(context: Context) -> grpc.StatusCode | None:
    """The code that the implementation has set by itself, if it has."""
    # The stubs promise a code; grpc.aio answers None while there is none.
    code: grpc.StatusCode | None = context.code()
    return code


async def _raise(error: BaseException) -> None:
    raise error


def _identity(value: Any) -> Any:
    return value


def _checked(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """As `parse`; bytes that are no message become the error that clients get."""

    def checked(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            raise malformed_message() from None

    return checked
