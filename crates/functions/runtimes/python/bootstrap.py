"""Longshore's Lambda runtime client for Python 3.8 and newer: nothing but the standard library.

    python3 bootstrap.py HANDLER

It speaks the Lambda Runtime API over one kept connection. The answer to an event and the request for the next one go
out in one piece, so an invocation is one write and one read. What a handler sees (context object, error payloads,
search path, logging) is what AWS's own client gives it.
"""

import sys

try:
    import _socket as socket  # the C module alone: "socket" would import enum and selectors at every cold start
except ImportError:
    import socket
import json
import os
import time

RUNTIME = os.environ["AWS_LAMBDA_RUNTIME_API"]
TASK_ROOT = os.environ.get("LAMBDA_TASK_ROOT", os.getcwd())
INVOCATION = b"/2018-06-01/runtime/invocation/"
HOST = b" HTTP/1.1\r\nHost: " + RUNTIME.encode() + b"\r\n"
NEXT = b"GET " + INVOCATION + b"next" + HOST + b"\r\n"
FROM_US = ("<frozen importlib", "<frozen runpy", __file__)

now = time.time
loads = json.loads


class Fault(Exception):
    """A failure that has a name of Lambda's."""

    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.kind = kind
        self.trace = list(trace)


class Client:
    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")

    def __init__(self, values):
        for name in self.__slots__:
            setattr(self, name, values.get(name))


class ClientContext:
    __slots__ = ("custom", "env", "client")

    def __init__(self, values):
        self.custom = values.get("custom")
        self.env = values.get("env")
        client = values.get("client")
        self.client = Client(client) if isinstance(client, dict) else None


class LambdaContext:
    """What AWS calls the context object."""

    function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
    function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
    memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
    log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
    identity = None
    client_context = None
    tenant_id = None

    def __init__(self, request_id, arn, deadline_ms):
        self.aws_request_id = request_id
        self.invoked_function_arn = arn
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self):
        return max(int(self._deadline_ms - now() * 1000), 0)

    def log(self, message):
        sys.stdout.write(str(message))

    def __repr__(self):
        return "LambdaContext(aws_request_id=%s, function_name=%s, function_version=%s)" % (
            self.aws_request_id,
            self.function_name,
            self.function_version,
        )


request_id_for_logs = ""


class WatchForLogging:
    """Gives the root logger Lambda's handler when, and only if, somebody imports logging: importing it is a good part
    of a cold start."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(WatchForLogging)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                run = spec.loader.exec_module

                def exec_module(module):
                    run(module)
                    set_up_logging(module)

                try:
                    spec.loader.exec_module = exec_module
                except AttributeError:
                    pass  # a frozen module's loader: then there is plain logging
                return spec
        return None


def set_up_logging(logging):
    class Filter(logging.Filter):
        def filter(self, record):
            record.aws_request_id = request_id_for_logs
            return True

    class Handler(logging.Handler):
        def emit(self, record):
            sys.stdout.write(self.format(record))

    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":

        class JsonFormatter(logging.Formatter):
            def format(self, record):
                entry = {
                    "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
                    "level": record.levelname,
                    "message": record.getMessage(),
                    "logger": record.name,
                }
                if record.exc_info:
                    entry["stackTrace"] = self.formatException(record.exc_info).split("\n")
                    entry["errorType"] = record.exc_info[0].__name__
                    entry["errorMessage"] = str(record.exc_info[1])
                if request_id_for_logs:
                    entry["requestId"] = request_id_for_logs
                return json.dumps(entry, default=str, ensure_ascii=False) + "\n"

        formatter = JsonFormatter()
    else:
        formatter = logging.Formatter(
            "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        plain = formatter.format
        formatter.format = lambda record: plain(record) + "\n"
    handler = Handler()
    handler.setFormatter(formatter)
    handler.addFilter(Filter())
    logging.getLogger().addHandler(handler)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "")
    if level:
        logging.getLogger().setLevel({"TRACE": "DEBUG", "FATAL": "CRITICAL"}.get(level, level))


def set_up_path():
    """The task root first, then layers, as on AWS; this file's own folder is not the function's business."""
    ours = os.path.dirname(os.path.abspath(__file__))
    first = [TASK_ROOT]
    layers = os.environ.get("LONGSHORE_LAYERS_DIR")
    if layers:
        version = "python%d.%d" % sys.version_info[:2]
        first += [layers + "/python/lib/" + version + "/site-packages", layers + "/python"]
    rest = sys.path[1:] if sys.path and os.path.abspath(sys.path[0]) == ours else sys.path
    sys.path[:] = first + [entry for entry in rest if entry not in first]


def hint_for(error):
    """What to do about a missing boto3: AWS's runtimes bring it, this machine's Python may not have it."""
    missing = (getattr(error, "name", None) or "").split(".")[0]
    if not isinstance(error, ImportError) or missing not in ("boto3", "botocore"):
        return ""
    runtime = os.environ.get("AWS_EXECUTION_ENV", "").replace("AWS_Lambda_", "") or "python3.12"
    return (
        ". boto3 is not part of Python: bundle it in the function's zip, add it as a layer, "
        'or run "longshore runtimes install %s"' % runtime
    )


def find_handler(name):
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '%s': not enough values to unpack (expected 2, got 1)" % name)
    import importlib

    try:
        if module_name.split(".")[0] in sys.builtin_module_names:
            raise ImportError("Cannot use built-in module %s as a handler module" % module_name)
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        print_trace(error)
        raise Fault(
            "Runtime.ImportModuleError", "Unable to import module '%s': %s%s" % (module_name, error, hint_for(error))
        ) from None
    except SyntaxError as error:
        trace = ['  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)]
        raise Fault(
            "Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module_name, error), trace
        ) from None
    try:
        return getattr(module, function_name)
    except AttributeError:
        raise Fault(
            "Runtime.HandlerNotFound", "Handler '%s' missing on module '%s'" % (function_name, module_name)
        ) from None


def frames(error):
    """The part of a traceback that is the function's own, as text."""
    import traceback

    entries = traceback.extract_tb(error.__traceback__)
    while entries and (entries[0].filename.startswith(FROM_US) or "/importlib/" in entries[0].filename):
        del entries[0]
    return traceback.format_list(entries)


def print_error(kind, message, trace, request_id):
    """Logs an error: one JSON line for a function that logs in JSON, the lines of a traceback for any other."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        entry = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "level": "ERROR",
            "errorMessage": message,
            "errorType": kind,
            "requestId": request_id,
            "stackTrace": trace,
        }
        sys.stderr.write(json.dumps(entry, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write("[ERROR] %s: %s\n%s" % (kind, message, "".join(trace)))


def print_trace(error, request_id=""):
    trace = frames(error)
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") != "JSON":
        trace = ["Traceback (most recent call last):\n"] + trace
    print_error(type(error).__name__, str(error), trace, request_id)


def describe(error, request_id):
    """An exception as the payload that AWS's client sends."""
    if isinstance(error, Fault):
        print_error(error.kind, str(error), error.trace, request_id)
        fields = (str(error), error.kind, error.trace)
    else:
        print_trace(error, request_id)
        fields = (str(error) + hint_for(error), type(error).__name__, frames(error))
    message, kind, trace = fields
    return json.dumps({"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}).encode(
        "utf-8", "backslashreplace"
    )


def not_json(value):
    if type(value).__name__ == "Decimal":
        return float(value)
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


encode = json.JSONEncoder(default=not_json).encode


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # closed or replaced by the function: its own affair
            pass


def connect():
    host, _, port = RUNTIME.rpartition(":")
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.connect((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def send(connection, data):
    connection.sendall(data)


def receive(connection, data):
    """One message: its head, its body and what came behind it."""
    end = data.find(b"\r\n\r\n")
    while end < 0:
        more = connection.recv(65536)
        if not more:
            flush()
            os._exit(0)  # the host is gone
        data += more
        end = data.find(b"\r\n\r\n")
    head = data[: end + 2]
    low = head.lower()
    at = low.find(b"\r\ncontent-length:")
    length = int(head[at + 17 : head.find(b"\r\n", at + 17)]) if at >= 0 else 0
    start = end + 4
    if len(data) - start < length:
        parts = [data[start:]]
        missing = length - len(parts[0])
        while missing:
            more = connection.recv(min(missing, 1048576))
            if not more:
                flush()
                os._exit(0)
            parts.append(more)
            missing -= len(more)
        return head, low, b"".join(parts), b""
    return head, low, data[start : start + length], data[start + length :]


def value(head, low, name):
    at = low.find(name)
    if at < 0:
        return None
    at += len(name)
    return head[at : head.find(b"\r\n", at)].strip()


def post(path, body, extra=b""):
    return b"POST %s%sContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (path, HOST, extra, len(body), body)


def fail_to_start(connection, error):
    body = describe(error, "")
    flush()
    kind = error.kind if isinstance(error, Fault) else "Runtime." + type(error).__name__
    header = b"Lambda-Runtime-Function-Error-Type: " + kind.encode() + b"\r\n"
    send(connection, post(b"/2018-06-01/runtime/init/error", body, header))
    receive(connection, b"")
    sys.exit(1)


def serve(connection, handler):
    global request_id_for_logs
    environ = os.environ
    waiting_for_ack = False
    data = b""
    send(connection, NEXT)
    while True:
        head, low, body, data = receive(connection, data)
        if waiting_for_ack:
            # What the host says to the last answer: nothing can be done about a refusal but to name it.
            waiting_for_ack = False
            if head[9:12] != b"202":
                sys.stderr.write("[ERROR] The answer was refused: %s\n" % body.decode("utf-8", "replace"))
                flush()
            continue
        raw_id = value(head, low, b"\r\nlambda-runtime-aws-request-id:")
        attempt = value(head, low, b"\r\nlambda-runtime-invocation-id:")
        trace = value(head, low, b"\r\nlambda-runtime-trace-id:")
        request_id = request_id_for_logs = raw_id.decode()
        if trace:
            environ["_X_AMZN_TRACE_ID"] = trace.decode()
        kind = b"/response"
        try:
            context = LambdaContext(
                request_id,
                value(head, low, b"\r\nlambda-runtime-invoked-function-arn:").decode(),
                int(value(head, low, b"\r\nlambda-runtime-deadline-ms:")),
            )
            client_context = value(head, low, b"\r\nlambda-runtime-client-context:")
            if client_context:
                context.client_context = ClientContext(loads(client_context))
            try:
                event = loads(body)
            except ValueError as error:
                raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % error) from None
            result = handler(event, context)
            try:
                answer = encode(result).encode()
            except Exception as error:
                raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % error) from None
        except Exception as error:
            kind = b"/error"
            answer = describe(error, request_id)
            error = None
        flush()
        extra = b"Lambda-Runtime-Invocation-Id: %s\r\n" % attempt if attempt else b""
        send(connection, post(INVOCATION + raw_id + kind, answer, extra) + NEXT)
        waiting_for_ack = True


def main():
    # A line that was printed is in the log even if the process is killed right after it.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.reconfigure(line_buffering=True)
        except AttributeError:
            pass
    set_up_path()
    sys.meta_path.insert(0, WatchForLogging)
    connection = connect()
    name = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("_HANDLER", "")
    sys.argv[:] = [""]
    try:
        handler = find_handler(name)
    except Exception as error:
        fail_to_start(connection, error)
    serve(connection, handler)


if __name__ == "__main__":
    main()
