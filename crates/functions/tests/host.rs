//! The function host with real processes: our runtime clients, and runtimes that misbehave in scripted ways.
//!
//! Evidence for what is expected: Lambda specification 1.2 to 1.9 and 11.3.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use longshore_functions::host::layers::Mode;
use longshore_functions::host::{
    self, Call, Deployment, FunctionCredentials, Host, HostSettings, Launcher, LogFormat, Outcome, Patience, S3Door,
    Terms,
};
use serde_json::{Value, json};

/// A host with a data directory of its own and a folder for code.
struct Bench {
    host: Host,
    temp: tempfile::TempDir,
    /// What functions asked of S3: method, target, and whose credentials.
    s3: Arc<Mutex<Vec<String>>>,
}

fn settings(data_dir: &Path) -> HostSettings {
    HostSettings {
        launcher: Launcher { program: env!("CARGO_BIN_EXE_longshore-launch").into(), arguments: Vec::new() },
        environments_max: 4,
        starts_at_once: 2,
        ..HostSettings::new("eu-west-1", "123456789012", data_dir)
    }
}

fn bench() -> Bench {
    bench_with(|_| {})
}

fn bench_with(change: impl FnOnce(&mut HostSettings)) -> Bench {
    let temp = tempfile::tempdir().unwrap();
    let mut settings = settings(&temp.path().join("data"));
    change(&mut settings);
    let s3: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = s3.clone();
    let door: S3Door = Arc::new(move |credentials: Arc<FunctionCredentials>, request| {
        let seen = seen.clone();
        Box::pin(async move {
            let line = format!("{} {} {}", request.method(), request.uri(), credentials.function_name);
            let key = request.headers().get("x-key").is_some_and(|key| key == credentials.access_key_id.as_str());
            seen.lock().unwrap().push(line);
            let body = if key { "yours" } else { "whose?" };
            http::Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed())
        })
    });
    Bench { host: Host::new(settings, door).unwrap(), temp, s3 }
}

/// Where a test looks at processes or files from outside: without a sandbox they are the same on both sides.
fn unconfined(settings: &mut HostSettings) {
    settings.sandbox.mode = Mode::Off;
}

/// Where a test is about one environment: a runtime that a busy machine keeps from polling again for a moment would
/// else get a second one beside it.
fn bench_of_one() -> Bench {
    bench_with(|s| s.environments_max = 1)
}

impl Bench {
    /// A function of one file.
    fn function(&self, runtime: &str, file: &str, text: &str) -> Deployment {
        let code_dir = self.temp.path().join(format!("code-{}", uuid::Uuid::new_v4()));
        let path = code_dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        if file == "bootstrap" {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let stem = Path::new(file).with_extension("");
        Deployment {
            id: code_dir.display().to_string(),
            name: "f".into(),
            role: "arn:aws:iam::000000000000:role/r".into(),
            version: "$LATEST".into(),
            runtime: runtime.into(),
            handler: format!("{}.handler", stem.display()),
            code_dir,
            layers_dir: None,
            variables: BTreeMap::new(),
            timeout_s: 10,
            memory_mib: 128,
            ephemeral_storage_mib: 512,
            concurrency: None,
            log_format: LogFormat::Text,
            application_log_level: None,
            system_log_level: None,
            log_group: "/aws/lambda/f".into(),
        }
    }

    fn python(&self, text: &str) -> Arc<Deployment> {
        Arc::new(self.function("python3.11", "app.py", text))
    }

    fn node(&self, file: &str, text: &str) -> Arc<Deployment> {
        Arc::new(self.function("nodejs20.x", file, text))
    }

    /// A runtime of a few lines of Python that has `request`, `next` and `answer` at hand.
    fn fake(&self, script: &str) -> Arc<Deployment> {
        let text = format!("#!/usr/bin/env -S python3 -SE\n{FAKE}\n{script}\n");
        Arc::new(self.function("provided.al2023", "bootstrap", &text))
    }

    async fn invoke(&self, d: &Arc<Deployment>, payload: impl Into<Bytes>) -> Outcome {
        self.host.invoke(d.clone(), call(payload)).await
    }

    /// The answer as JSON, and whether it is a function error.
    async fn answer(&self, d: &Arc<Deployment>, event: Value) -> (Value, bool) {
        match self.invoke(d, event.to_string()).await {
            Outcome::Answered { payload, function_error, .. } => {
                let value = serde_json::from_slice(&payload);
                (value.unwrap_or_else(|_| panic!("{payload:?} is not JSON")), function_error)
            }
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    async fn ok(&self, d: &Arc<Deployment>, event: Value) -> Value {
        let (value, function_error) = self.answer(d, event).await;
        assert!(!function_error, "{value}\n{}", self.log());
        value
    }

    async fn error(&self, d: &Arc<Deployment>, event: Value) -> Value {
        let (value, function_error) = self.answer(d, event).await;
        assert!(function_error, "{value}");
        value
    }

    fn log(&self) -> String {
        self.host.flush_logs();
        let bytes = host::logs::read_tail(&self.temp.path().join("data"), "f", 1 << 20).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn call(payload: impl Into<Bytes>) -> Call {
    let id = uuid::Uuid::new_v4().to_string();
    Call {
        request_id: id,
        invoked_arn: "arn:aws:lambda:eu-west-1:123456789012:function:f:live".into(),
        payload: payload.into(),
        client_context: None,
        trace_id: None,
        want_log_tail: false,
        patience: Patience::Forever,
        start: None,
    }
}

/// A Runtime API client that does as it is told.
const FAKE: &str = r#"
import http.client, json, os, signal, socket, sys, time
api = os.environ["AWS_LAMBDA_RUNTIME_API"]
base = "/2018-06-01/runtime/"
host, port = api.split(":")
def connect():
    return http.client.HTTPConnection(host, int(port), timeout=20)
connection = connect()
def request(method, path, body=None, headers={}, on=None):
    on = on or connection
    on.request(method, path if path.startswith("/") else base + path, body, headers)
    response = on.getresponse()
    data = response.read()
    return response.status, data, {k.lower(): v for k, v in response.getheaders()}
def next(on=None):
    status, body, headers = request("GET", "invocation/next", on=on)
    assert status == 200, (status, body)
    return headers["lambda-runtime-aws-request-id"], body, headers
def answer(id, value, **kw):
    return request("POST", "invocation/%s/response" % id, json.dumps(value).encode(), **kw)[:2]
def raw(data, until_closed=True):
    s = socket.create_connection((host, int(port)))
    s.sendall(data)
    got = b""
    while True:
        more = s.recv(65536)
        got += more
        if not more or (not until_closed and b"\r\n\r\n" in got):
            return got
def told(result):
    status, body = result[:2]
    return [status, json.loads(body)["errorType"]]
"#;

fn is_running(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()), None | Some('Z') | Some('X'))
}

fn parent_of(pid: i64) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processes in whose command line a text stands.
fn processes_with(text: &str) -> Vec<i64> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
    let has = |pid: &i64| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_running(*pid) && String::from_utf8_lossy(&line).contains(text)
    };
    pids.filter(has).collect()
}

/// Control groups of a server by its process ID, down to a depth.
fn groups_of(server: u32, folder: &Path, depth: usize) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = folders.filter(|entry| depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = folders.flat_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("longshore-") && name.contains(&format!("-{server}-")) {
            return vec![entry.path()];
        }
        groups_of(server, &entry.path(), depth - 1)
    });
    found.collect()
}

/// Waits for something that is about to happen.
async fn soon(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !happened() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// --- Python ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_handler_gets_the_event_and_lambdas_context() {
    let b = bench();
    let f = b.python(
        r#"
import os
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    return {"event": event, "id": context.aws_request_id, "arn": context.invoked_function_arn,
            "name": context.function_name, "version": context.function_version, "memory": context.memory_limit_in_mb,
            "group": context.log_group_name, "stream": context.log_stream_name == os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
            "left": 8000 < left <= 10000, "identity": context.identity, "client": context.client_context.custom,
            "trace": os.environ["_X_AMZN_TRACE_ID"], "cwd": os.getcwd() == os.environ["LAMBDA_TASK_ROOT"],
            "tmp": os.stat(os.environ["TMPDIR"]).st_mode & 0o777, "session": os.getsid(0) == os.getpid()}
"#,
    );
    let mut call = call(r#"{"a":"ü"}"#);
    call.client_context = Some(r#"{"custom":{"x":1}}"#.into());
    call.trace_id = Some("Root=1-a-b".into());
    let id = call.request_id.clone();
    let Outcome::Answered { payload, function_error: false, log_tail: None } = b.host.invoke(f, call).await else {
        panic!("{}", b.log())
    };
    assert_eq!(
        serde_json::from_slice::<Value>(&payload).unwrap(),
        json!({
            "event": {"a": "ü"}, "id": id, "arn": "arn:aws:lambda:eu-west-1:123456789012:function:f:live", "name": "f",
            "version": "$LATEST", "memory": "128", "group": "/aws/lambda/f", "stream": true, "left": true, "identity": null,
            "client": {"x": 1}, "trace": "Root=1-a-b", "cwd": true, "tmp": 0o700, "session": true
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_python_environment_is_used_again_and_its_errors_leave_it_warm() {
    let b = bench_of_one();
    let f = b.python(
        "import os\ncount = 0\ndef handler(event, context):\n    global count\n    count += 1\n    if event == 'raise': raise ValueError('boom')\n    return [os.getpid(), count]\n",
    );
    let first = b.ok(&f, json!(1)).await;
    assert_eq!(first[1], 1);
    let error = b.error(&f, json!("raise")).await;
    assert_eq!(error["errorMessage"], "boom");
    assert_eq!(error["errorType"], "ValueError");
    assert_eq!(error["requestId"].as_str().unwrap().len(), 36);
    assert!(error["stackTrace"][0].as_str().unwrap().contains("app.py\", line 6, in handler"), "{error}");
    assert_eq!(b.ok(&f, json!(1)).await, json!([first[0], 3]));
    assert_eq!(b.host.environments(), 1);
    assert!(b.log().contains("[ERROR] ValueError: boom\nTraceback"), "{}", b.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_code_that_cannot_be_loaded_is_told_as_lambda_tells_it() {
    let b = bench();
    let f = |text: &str, handler: &str| {
        Arc::new(Deployment { handler: handler.into(), ..b.function("python3.11", "app.py", text) })
    };
    for (text, handler, error_type, message) in [
        ("", "nope.handler", "Runtime.ImportModuleError", "Unable to import module 'nope': No module named 'nope'"),
        ("", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        (
            "",
            "app",
            "Runtime.MalformedHandlerName",
            "Bad handler 'app': not enough values to unpack (expected 2, got 1)",
        ),
        (
            "def (",
            "app.handler",
            "Runtime.UserCodeSyntaxError",
            "Syntax error in module 'app': invalid syntax (app.py, line 1)",
        ),
        ("raise KeyError('x')", "app.handler", "KeyError", "'x'"),
        (
            "import boto3",
            "app.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'app': No module named 'boto3'. boto3 is not part of Python: bundle it in the function's zip, add it as a layer, or run \"longshore runtimes install python3.11\"",
        ),
    ] {
        let mut d = f(text, handler);
        // Whatever is installed on the machine that runs the test must not matter.
        Arc::get_mut(&mut d).unwrap().variables.insert("PYTHONNOUSERSITE".into(), "1".into());
        if text == "import boto3" {
            std::fs::write(
                d.code_dir.join("boto3.py"),
                "raise ModuleNotFoundError(\"No module named 'boto3'\", name='boto3')",
            )
            .unwrap();
        }
        let error = b.error(&d, json!({})).await;
        assert_eq!((error["errorType"].as_str(), error["errorMessage"].as_str()), (Some(error_type), Some(message)));
        assert_eq!(error["requestId"], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_handlers_are_found_in_folders_and_layers() {
    let b = bench();
    let mut f =
        b.function("python3.11", "pkg/app.py", "import shared\ndef any_name(event, context):\n    return shared.x\n");
    let layers = b.temp.path().join("layers");
    std::fs::create_dir_all(layers.join("python")).unwrap();
    std::fs::write(layers.join("python/shared.py"), "x = 7").unwrap();
    f.layers_dir = Some(layers);
    for handler in ["pkg.app.any_name", "pkg/app.any_name"] {
        let id = format!("{}{handler}", f.id);
        let f = Arc::new(Deployment { handler: handler.into(), id, ..f.clone() });
        assert_eq!(b.ok(&f, json!({})).await, 7);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_json_is_a_marshal_error_and_decimals_are_numbers() {
    let b = bench();
    let f =
        b.python("import decimal\ndef handler(event, context):\n    return {1} if event else decimal.Decimal('1.5')\n");
    let error = b.error(&f, json!(true)).await;
    assert_eq!(error["errorType"], "Runtime.MarshalError");
    assert_eq!(error["errorMessage"], "Unable to marshal response: Object of type set is not JSON serializable");
    assert_eq!(b.ok(&f, json!(false)).await, 1.5);
    match b.invoke(&f, "not json").await {
        Outcome::Answered { payload, function_error: true, .. } => {
            assert!(payload.windows(22).any(|w| w == b"Runtime.UnmarshalError"), "{payload:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_logging_and_print_reach_the_log_between_start_and_report() {
    let b = bench();
    let f = b.python(
        "import logging\nlogger = logging.getLogger()\nlogger.setLevel('INFO')\nprint('loaded')\ndef handler(event, context):\n    print('printed')\n    logger.info('logged %d', 5)\n    print('no end', end='')\n",
    );
    let mut call = call("{}");
    call.want_log_tail = true;
    let id = call.request_id.clone();
    let Outcome::Answered { payload, log_tail: Some(tail), .. } = b.host.invoke(f, call).await else { panic!() };
    assert_eq!(payload, "null");
    let tail = String::from_utf8(tail).unwrap();
    let lines: Vec<&str> = tail.lines().collect();
    assert_eq!(lines[0], format!("START RequestId: {id} Version: $LATEST"));
    assert_eq!(lines[1], "printed");
    assert!(lines[2].starts_with("[INFO]\t20") && lines[2].ends_with(&format!("Z\t{id}\tlogged 5")), "{tail}");
    assert_eq!(lines[3], "no end");
    assert_eq!(lines[4], format!("END RequestId: {id}"));
    assert!(lines[5].starts_with(&format!("REPORT RequestId: {id}\tDuration: ")), "{tail}");
    assert!(lines[5].contains("\tMemory Size: 128 MB\tMax Memory Used: ") && lines[5].contains("\tInit Duration: "));
    assert_eq!(lines.len(), 6);
    let log = b.log();
    assert!(log.starts_with("INIT_START Runtime Version: python:3.11.v"), "{log}");
    assert!(log.lines().next().unwrap().contains("\tRuntime Version ARN: arn:aws:lambda:eu-west-1::runtime:"), "{log}");
    assert_eq!(log.lines().nth(1), Some("loaded"), "{log}");
    assert!(log.lines().nth(2).unwrap().starts_with("START RequestId: "), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_logs_in_json_has_lambdas_records_in_its_log_and_in_its_tail() {
    let b = bench_of_one();
    let text = "print('{\"level\":\"DEBUG\"}')\ndef handler(event, context):\n    if event: print('{\"level\":\"debug\",\"a\":1}\\n{\"level\":\"ERROR\",\"b\":2}\\nplain')\n    else: raise ValueError('x')\n";
    let f = Arc::new(Deployment {
        log_format: host::LogFormat::Json,
        application_log_level: Some("INFO".into()),
        system_log_level: Some("DEBUG".into()),
        ..b.function("python3.11", "app.py", text)
    });
    let mut call = call("true");
    call.want_log_tail = true;
    let id = call.request_id.clone();
    let Outcome::Answered { log_tail: Some(tail), .. } = b.host.invoke(f.clone(), call).await else { panic!() };
    let tail = String::from_utf8(tail).unwrap();
    b.error(&f, json!(false)).await;
    // The log of an invocation is closed with the next poll, behind the answer.
    soon("the second report", || b.log().matches("platform.report").count() == 2).await;
    let log = b.log();
    let kinds = |text: &str| -> Vec<String> {
        let kind = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(line) if line["type"].is_string() => {
                let record = &line["record"];
                format!("{} {}", line["type"].as_str().unwrap(), record["status"].as_str().unwrap_or_default())
            }
            _ => line.to_owned(),
        };
        text.lines().map(kind).collect()
    };
    let invocation = [
        "platform.start ",
        r#"{"level":"ERROR","b":2}"#,
        "plain",
        "platform.runtimeDone success",
        "platform.report success",
    ];
    assert_eq!(kinds(&tail), invocation, "{tail}");
    let start = ["platform.initStart ", "platform.initRuntimeDone success", "platform.initReport success"];
    assert_eq!(kinds(&log)[..8], [&start[..], &invocation[..]].concat(), "{log}");
    assert!(kinds(&log).ends_with(&["platform.runtimeDone error".into(), "platform.report error".into()]), "{log}");
    let report: Value = serde_json::from_str(tail.lines().last().unwrap()).unwrap();
    assert_eq!(report["record"]["requestId"], id);
    assert!(report["record"]["metrics"]["initDurationMs"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["record"]["metrics"]["memorySizeMB"], 128);
}

// --- Node ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_handlers_of_every_style_and_module_kind_answer() {
    let b = bench();
    for (file, text, expected) in [
        (
            "index.js",
            "exports.handler = async (e, c) => [e.a, c.awsRequestId.length, c.getRemainingTimeInMillis() > 8000]",
            json!([1, 36, true]),
        ),
        ("index.mjs", "import os from 'os'; export const handler = async () => typeof os.cpus", json!("function")),
        (
            "index.cjs",
            "module.exports.handler = (e, c, callback) => { setTimeout(() => callback(null, 'later'), 5) }",
            json!("later"),
        ),
        ("dir/index.js", "exports.handler = (e) => Promise.resolve(e)", json!({"a": 1})),
        (
            "index.js",
            "exports.handler = (e, c, cb) => { let n = 0; setTimeout(() => { n = 9 }, 20); cb(null, { get n() { return n } }) }",
            json!({"n": 9}),
        ),
        (
            "index.js",
            "exports.handler = (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; setTimeout(() => {}, 3600e3); cb(null, 1) }",
            json!(1),
        ),
        ("index.js", "exports.handler = (e, c) => { c.succeed('old') }", json!("old")),
        ("index.js", "exports.handler = async () => {}", json!(null)),
        (
            "index.mjs",
            "export const handler = awslambda.streamifyResponse(async (e, stream, c) => { stream.setContentType('x'); stream.write('[' + c.awsRequestId.length); stream.write(Buffer.from(',')); stream.write({ a: e.a }); stream.end(']') })",
            json!([36, {"a": 1}]),
        ),
        (
            "index.js",
            "exports.handler = awslambda.streamifyResponse(async (e, stream) => { setTimeout(() => stream.end('7'), 20) })",
            json!(7),
        ),
        ("index.js", "exports.handler = () => new Promise(() => {})", json!(null)),
    ] {
        assert_eq!(b.ok(&b.node(file, text), json!({"a": 1})).await, expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_errors_are_told_as_lambda_tells_them() {
    let b = bench();
    for (file, text, error_type, message) in [
        ("index.js", "exports.handler = async () => { throw new RangeError('boom') }", "RangeError", "boom"),
        ("index.js", "exports.handler = (e, c, cb) => cb('text')", "string", "text"),
        (
            "index.js",
            "exports.handler = awslambda.streamifyResponse(async (e, stream) => { stream.write('begun'); throw new RangeError('in the middle') })",
            "RangeError",
            "in the middle",
        ),
        (
            "index.js",
            "exports.handler = awslambda.streamifyResponse(async (e, stream) => { stream.write('begun') })",
            "Error",
            "The response stream was not ended",
        ),
        (
            "index.js",
            "exports.handler = awslambda.streamifyResponse((e, stream) => { stream.end('x'.repeat(7e6)) })",
            "Function.ResponseSizeTooLarge",
            "Response payload size exceeded",
        ),
        ("index.js", "exports.other = 1", "Runtime.HandlerNotFound", "index.handler is undefined or not exported"),
        ("index.js", "exports.handler = (", "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected end of input"),
        ("index.js", "throw new TypeError('early')", "TypeError", "early"),
        (
            "index.mjs",
            "import './nope.mjs'; export const handler = 1",
            "Runtime.ImportModuleError",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find module",
        ),
        ("other.js", "", "Runtime.ImportModuleError", "Error: Cannot find module 'index'"),
        (
            "index.js",
            "exports.handler = async () => { Promise.reject(new Error('lost')); await new Promise((r) => setTimeout(r, 5000)) }",
            "Runtime.UnhandledPromiseRejection",
            "Error: lost",
        ),
    ] {
        let mut f = b.node(file, text);
        Arc::get_mut(&mut f).unwrap().handler = "index.handler".into();
        let error = b.error(&f, json!({})).await;
        assert_eq!(error["errorType"], error_type, "{error}");
        assert!(error["errorMessage"].as_str().unwrap().starts_with(message), "{error}");
        assert!(error["trace"].is_array() || error_type == "Function.ResponseSizeTooLarge");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_node_environment_is_used_again_after_an_error_and_for_large_events() {
    let b = bench_of_one();
    let f = b.node(
        "index.js",
        "let n = 0; exports.handler = async (e) => { n++; if (e === 'x') throw new Error('x'); console.log('n', n); return [process.pid, n, e.length] }",
    );
    let first = b.ok(&f, json!("a")).await;
    b.error(&f, json!("x")).await;
    let large = "y".repeat(5_000_000);
    assert_eq!(b.ok(&f, json!(large)).await, json!([first[0], 3, 5_000_000]));
    let log = b.log();
    assert!(log.lines().any(|l| l.contains("\tINFO\tn 3")), "{log}");
}

// --- the ends of processes ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exits_and_signals_are_told_and_the_next_call_gets_a_new_environment() {
    let b = bench();
    let f = b.python(
        "import os\ndef handler(event, context):\n    if isinstance(event, int): os._exit(event)\n    if event.startswith('SIG'):\n        import signal\n        os.kill(os.getpid(), getattr(signal, event))\n        import time; time.sleep(5)\n    return 'fine'\n",
    );
    for (event, message) in [
        (json!(0), "Runtime exited without providing a reason"),
        (json!(7), "Runtime exited with error: exit status 7"),
        (json!("SIGKILL"), "Runtime exited with error: signal: killed"),
        (json!("SIGSEGV"), "Runtime exited with error: signal: segmentation fault"),
        (json!("SIGTERM"), "Runtime exited with error: signal: terminated"),
    ] {
        let error = b.error(&f, event).await;
        assert_eq!(error["errorType"], "Runtime.ExitError");
        let told = error["errorMessage"].as_str().unwrap();
        assert!(told.starts_with("RequestId: ") && told.ends_with(&format!(" Error: {message}")), "{told}");
        assert_eq!(b.ok(&f, json!("")).await, "fine");
    }
    assert!(b.log().contains("Status: error\tError Type: Runtime.ExitError\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_kills_the_whole_process_tree_within_a_second() {
    let b = bench_with(unconfined);
    let mut f = b.function(
        "python3.11",
        "app.py",
        r#"
import json, os, subprocess, time
def handler(event, context):
    if event == "pid": return os.getpid()
    plain = subprocess.Popen(["sleep", "60"])
    # One that leaves the group and the session, and clears its environment as far as it can.
    away = subprocess.Popen(["env", "-i", "/bin/sh", "-c", "sleep 61 & sleep 62 & wait"], start_new_session=True)
    time.sleep(0.1)
    with open(event, "w") as f: f.write(json.dumps([os.getpid(), plain.pid, away.pid]))
    time.sleep(60)
"#,
    );
    f.timeout_s = 1;
    let f = Arc::new(f);
    let pids = b.temp.path().join("pids");
    let began = Instant::now();
    let error = b.error(&f, json!(pids)).await;
    let took = began.elapsed();
    assert_eq!(error["errorType"], "Sandbox.Timedout");
    assert!(error["errorMessage"].as_str().unwrap().ends_with(" Error: Task timed out after 1.00 seconds"), "{error}");
    assert!(took >= Duration::from_millis(1000) && took < Duration::from_millis(2500), "{took:?}");
    let pids: Vec<i64> = serde_json::from_slice(&std::fs::read(pids).unwrap()).unwrap();
    assert_eq!(pids.len(), 3);
    let told = Instant::now();
    soon("the end of the tree", || !pids.iter().any(|pid| is_running(*pid)) && !sleeps_of(b.temp.path())).await;
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    assert_ne!(b.ok(&f, json!("pid")).await, pids[0]);
    let log = b.log();
    assert!(log.contains(" Task timed out after 1.00 seconds\n") && log.contains("\tStatus: timeout\n"), "{log}");
}

/// Whether any process has its working folder below `dir`.
fn sleeps_of(dir: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|p| std::fs::read_link(p.path().join("cwd")).ok()).any(|cwd| cwd.starts_with(dir))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_is_up_also_for_a_function_that_answered_and_does_not_come_back() {
    let b = bench_with(unconfined);
    let mut f = (*b.fake("id, _, _ = next()\nanswer(id, os.getpid())\ntime.sleep(60)")).clone();
    f.timeout_s = 1;
    let f = Arc::new(f);
    let pid = b.ok(&f, json!({})).await.as_i64().unwrap();
    assert!(is_running(pid), "it has its time");
    soon("its end", || !is_running(pid)).await;
    soon("its place", || b.host.environments() == 0).await;
    assert!(!b.log().contains("timed out"), "the invocation itself succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_killed_while_idle_costs_a_cold_start_and_nothing_else() {
    let b = bench_with(|s| {
        unconfined(s);
        s.environments_max = 1;
    });
    let f = b.python("import os\ndef handler(event, context): return os.getpid()");
    for _ in 0..5 {
        let pid = b.ok(&f, json!({})).await.as_i64().unwrap();
        let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(status.success());
        // The host hears of it a moment later, from the environment's first process.
        soon("its death", || !is_running(pid) && b.host.environments() == 0).await;
        assert_ne!(b.ok(&f, json!({})).await, pid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_function_leaves_behind_ends_with_its_environment() {
    let b = bench_with(unconfined);
    let f = b.python(
        "import os, subprocess\ndef handler(event, context):\n    open(os.environ['TMPDIR'] + '/x', 'w').write('x')\n    return [os.environ['TMPDIR'], subprocess.Popen(['sleep', '60'], start_new_session=True).pid]\n",
    );
    let answer = b.ok(&f, json!({})).await;
    let (tmp, pid) = (PathBuf::from(answer[0].as_str().unwrap()), answer[1].as_i64().unwrap());
    assert!(tmp.join("x").exists() && is_running(pid));
    b.host.retire(&f.id);
    soon("the environment's end", || b.host.environments() == 0).await;
    assert!(!tmp.exists() && !is_running(pid));
    assert!(tmp.starts_with(b.temp.path()));
}

// --- starts that fail ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_that_is_missing_or_cannot_run_is_an_invalid_entrypoint() {
    let b = bench();
    for (file, text, mode, message) in [
        ("other", "", 0o755, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        ("bootstrap", "#!/bin/sh\n", 0o644, "fork/exec /var/task/bootstrap: permission denied"),
        ("bootstrap", "#!/no/such/interpreter\n", 0o755, "fork/exec /var/task/bootstrap: no such file or directory"),
        ("bootstrap", "\x7fnothing", 0o755, "fork/exec /var/task/bootstrap: exec format error"),
    ] {
        let f = Arc::new(b.function("provided.al2023", file, text));
        std::fs::set_permissions(f.code_dir.join(file), std::fs::Permissions::from_mode(mode)).unwrap();
        let error = b.error(&f, json!({})).await;
        assert_eq!(error["errorType"], "Runtime.InvalidEntrypoint", "{error}");
        assert!(error["errorMessage"].as_str().unwrap().ends_with(&format!(" Error: {message}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_exits_before_its_first_poll_is_an_exit_error() {
    let b = bench();
    let f = Arc::new(b.function("provided.al2023", "bootstrap", "#!/bin/sh\necho dying\nexit 3\n"));
    let error = b.error(&f, json!({})).await;
    assert!(error["errorMessage"].as_str().unwrap().ends_with("Runtime exited with error: exit status 3"), "{error}");
    assert!(b.log().contains("dying\n"), "{}", b.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_is_slowed_down() {
    let b = bench();
    let f = Arc::new(b.function("provided.al2023", "bootstrap", "#!/bin/sh\nexit 3\n"));
    let began = Instant::now();
    for _ in 0..12 {
        b.error(&f, json!({})).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(6 + 12 + 25), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_beyond_its_limit_goes_on_on_the_first_invocations_clock() {
    let b = bench_with(|s| (s.init_limit, s.environments_max) = (Duration::from_millis(300), 1));
    let slow = b.python(
        "import time\ntime.sleep(0.8)\ndef handler(event, context): return context.get_remaining_time_in_millis()",
    );
    let left = b.ok(&slow, json!({})).await.as_f64().unwrap();
    assert!((8_000.0..9_700.0).contains(&left), "{left}");
    assert!(b.log().contains("INIT_REPORT Init Duration: 300.00 ms\tPhase: init\tStatus: timeout\n"), "{}", b.log());
    let again = b.ok(&slow, json!({})).await.as_f64().unwrap();
    assert!(again > 9_800.0, "{again}");

    let mut hangs = b.function("python3.11", "app.py", "import time\ntime.sleep(60)\n");
    hangs.timeout_s = 1;
    let error = b.error(&Arc::new(hangs), json!({})).await;
    assert_eq!(error["errorType"], "Sandbox.Timedout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_this_machine_has_not_is_named() {
    let b = bench();
    let f = Arc::new(b.function("java21", "x", ""));
    match b.invoke(&f, "{}").await {
        Outcome::Fault(why) => assert!(why.contains("does not run functions of the runtime java21"), "{why}"),
        other => panic!("{other:?}"),
    }
    // 3.99 is not there; the nearest one is used. That is the server's to tell, and no line of the function's.
    let f = Arc::new(b.function("python3.99", "app.py", "def handler(event, context): return 1"));
    assert_eq!(b.ok(&f, json!({})).await, 1);
    let log = b.log();
    assert!(log.contains("INIT_START Runtime Version: python:3.") && !log.contains("longshore: "), "{log}");
    let notice = b.host.check_runtime("python3.99").unwrap().notice.unwrap();
    assert!(notice.starts_with("The runtime python3.99 asks for Python 3.99, which is not installed: "), "{notice}");
    let strict = bench_with(|s| s.strict_runtimes = true);
    let f = Arc::new(strict.function("python3.99", "app.py", "def handler(event, context): return 1"));
    assert!(matches!(strict.invoke(&f, "{}").await, Outcome::Fault(why) if why.contains("strict_runtimes")));
}

// --- the Runtime API, by scripted runtimes ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_poll_gets_the_same_event_and_wrong_answers_are_refused() {
    let b = bench_of_one();
    let f = b.fake(
        r#"
pong = request("GET", "/2018-06-01/ping")[1].decode()
early = told(request("POST", "invocation/x/response", b"1"))
id, body, headers = next()
again = next(connect())
same = (id, body, headers) == (again[0], again[1], again[2])
path = "invocation/%s/" % id
report = [pong, early, same,
    told(request("POST", "invocation/nobody/response", b"1")),
    told(request("POST", path + "response", b"1", {"Lambda-Runtime-Function-Response-Mode": "fast"})),
    told(request("POST", path + "response", b"1", {"Lambda-Runtime-Invocation-Id": "another attempt"})),
    told(request("POST", "init/error", b"{}")),
    told(request("GET", "restore/next")),
    headers["content-type"], json.loads(body), "lambda-runtime-client-context" in headers,
    headers["lambda-runtime-trace-id"].startswith("Root=1-"), len(headers["lambda-runtime-invocation-id"])]
first = request("POST", path + "response", json.dumps(report).encode(), {"Lambda-Runtime-Invocation-Id": headers["lambda-runtime-invocation-id"]})
twice = told(request("POST", path + "response", b"2"))
other = told(request("POST", path + "error", b"2"))
wrong = told(request("POST", "invocation/nobody/response", b"2"))
id, _, _ = next()
answer(id, [first[0], json.loads(first[1]), twice, other, wrong])
next()
"#,
    );
    let forbidden = json!([403, "InvalidStateTransition"]);
    let wrong_id = json!([400, "InvalidRequestID"]);
    assert_eq!(
        b.ok(&f, json!({"k": 1})).await,
        json!([
            "pong", forbidden, true, wrong_id, [400, "InvalidFunctionResponseMode"], wrong_id, forbidden, [404, "NotFound"],
            "application/json", {"k": 1}, false, true, 36
        ])
    );
    assert_eq!(b.ok(&f, json!({})).await, json!([202, {"status": "OK"}, forbidden, forbidden, wrong_id]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_payload_becomes_an_empty_object_and_other_bytes_pass_as_they_are() {
    let b = bench();
    let f = b.fake("while True:\n    id, body, _ = next()\n    request('POST', 'invocation/%s/response' % id, body)");
    for (sent, got) in [("", "{}"), ("not \u{0} json \u{fc}", "not \u{0} json \u{fc}")] {
        match b.invoke(&f, sent).await {
            Outcome::Answered { payload, function_error: false, .. } => assert_eq!(payload, got),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_limit_passes_and_one_byte_more_does_not() {
    let b = bench_of_one();
    let f = b.fake(
        r#"
refused = None
while True:
    id, body, _ = next()
    n = json.loads(body)
    if n == "?": answer(id, refused)
    elif isinstance(n, list):
        chunks = (b"z" * min(65536, n[0] - at) for at in range(0, n[0], 65536))
        on = connect()
        on.request("POST", base + "invocation/%s/response" % id, chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        response = on.getresponse()
        refused = [response.status, json.loads(response.read())]
    else:
        result = request("POST", "invocation/%s/response" % id, b"z" * n)
        refused = [result[0], json.loads(result[1])]
"#,
    );
    let max = 6_291_556;
    for event in [json!(max), json!([max])] {
        match b.invoke(&f, event.to_string()).await {
            Outcome::Answered { payload, function_error: false, .. } => assert_eq!(payload.len(), max),
            other => panic!("{other:?}"),
        }
    }
    for event in [json!(max + 1), json!([max + 1]), json!(8_000_000)] {
        let error = b.error(&f, event).await;
        assert_eq!(error["errorType"], "Function.ResponseSizeTooLarge");
        assert_eq!(
            error["errorMessage"],
            "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
        );
        assert_eq!(
            b.ok(&f, json!("?")).await,
            json!([413, {"errorType": "RequestEntityTooLarge", "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes)."}])
        );
    }
    let python = b.python("def handler(event, context): return 'x' * event");
    assert_eq!(b.ok(&python, json!(max - 2)).await.as_str().unwrap().len(), max - 2);
    assert_eq!(b.error(&python, json!(max - 1)).await["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(b.ok(&python, json!(1)).await, "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_response_is_collected_and_its_error_trailer_is_heard() {
    let b = bench();
    let f = b.fake(
        r#"
import base64
while True:
    id, body, _ = next()
    head = "POST %sinvocation/%s/response HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % (base, id)
    text = head + "5;ext=1\r\nhello\r\n" + "6\r\n world\r\n" + "0\r\n"
    if json.loads(body):
        error = base64.b64encode(b'{"errorType":"Mid","errorMessage":"stream"}').decode()
        text += "Lambda-Runtime-Function-Error-Type: Mid\r\nlambda-runtime-function-error-body: " + error + "\r\n"
    got = raw((text + "\r\n").encode())
    assert got.startswith(b"HTTP/1.1 202"), got
"#,
    );
    match b.invoke(&f, "false").await {
        Outcome::Answered { payload, function_error: false, .. } => assert_eq!(payload, "hello world"),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.error(&f, json!(true)).await, json!({"errorType": "Mid", "errorMessage": "stream"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_with_a_cause_and_with_a_huge_header_are_taken() {
    let b = bench_of_one();
    let f = b.fake(
        r#"
while True:
    id, body, _ = next()
    event = json.loads(body)
    path = "invocation/%s/error" % id
    vendor = {"Content-Type": "application/vnd.aws.lambda.error.cause+json; charset=utf-8"}
    if event == "cause": got = request("POST", path, json.dumps({"errorMessage": "m", "errorType": "T", "errorCause": {"deep": 1}}), vendor)
    elif event == "bad": got = request("POST", path, "{", vendor)
    else: got = request("POST", path, json.dumps("header"), {"Lambda-Runtime-Function-XRay-Error-Cause": "x" * (1 << 20), "Expect": "100-continue"})
    assert got[0] == 202, got
"#,
    );
    assert_eq!(b.error(&f, json!("cause")).await, json!({"errorMessage": "m", "errorType": "T"}));
    assert_eq!(b.error(&f, json!("bad")).await, "Invalid error body");
    assert_eq!(b.error(&f, json!("header")).await, "header");
    assert_eq!(b.host.environments(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_in_an_answer_is_a_truncated_response() {
    let b = bench();
    let f = b.fake(
        r#"
id, _, _ = next()
s = socket.create_connection((host, int(port)))
s.sendall(("POST %sinvocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc" % (base, id)).encode())
s.close()
time.sleep(30)
"#,
    );
    let error = b.error(&f, json!({})).await;
    assert_eq!(error["errorType"], "Runtime.TruncatedResponse", "{error}");
    soon("its end", || b.host.environments() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_and_pipelined_requests_are_served() {
    let b = bench();
    let f = b.fake(
        r#"
id, _, _ = next()
for _ in range(600):
    assert request("GET", "/2018-06-01/ping", on=connect())[0] == 200
held = [connect() for _ in range(300)]
for on in held: on.connect()
data = b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n" * 20 + b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
answer(id, raw(data).count(b"pong"))
next()
"#,
    );
    assert_eq!(b.ok(&f, json!({})).await, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_oversized_requests_hurt_nobody_else() {
    let b = bench();
    let f = b.fake(
        r#"
id, _, _ = next()
report = []
for data in [b"nonsense\r\n\r\n",
             b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
             b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
             b"GET /x HTTP/1.1\r\nA: " + b"b" * 3000000 + b"\r\n\r\n",
             b"POST /x HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
             b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]:
    try: report.append(raw(data).split(b" ")[1].decode())
    except OSError: report.append("cut off")
answer(id, report)
next()
"#,
    );
    let report = b.ok(&f, json!({})).await;
    let report: Vec<&str> = report.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(report[..3], ["400", "400", "431"]);
    assert!(["431", "cut off"].contains(&report[3]), "{report:?}");
    assert_eq!(report[4..], ["413", "400"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_posts_an_init_error_gets_its_word_to_the_caller_and_no_more_calls() {
    let b = bench();
    let f = b.fake(
        "got = request('POST', 'init/error', b'{\"errorType\":\"Mine\"}')\nprint(got[0], told(request('GET', 'invocation/next')), flush=True)\ntime.sleep(30)",
    );
    assert_eq!(b.error(&f, json!({})).await, json!({"errorType": "Mine"}));
    assert!(b.log().contains("202 [403, 'InvalidStateTransition']\n"), "{}", b.log());
}

// --- concurrency, patience, retirement ---

/// Counts how many run at once, by files.
const COUNTS: &str = r#"
import os, time, uuid
def handler(event, context):
    name = os.path.join(event["dir"], uuid.uuid4().hex)
    open(name, "w").close()
    time.sleep(event.get("s", 0.02))
    n = len(os.listdir(event["dir"]))
    os.unlink(name)
    return n
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_run_at_once_than_reserved_and_all_of_it_is_used() {
    let b = bench_with(unconfined);
    let dir = tempfile::tempdir().unwrap();
    let f = Arc::new(Deployment { concurrency: Some(3), ..b.function("python3.11", "app.py", COUNTS) });
    assert_eq!(b.host.slots(&f), 3);
    let event = json!({"dir": dir.path()});
    let all = (0..60).map(|_| b.ok(&f, event.clone()));
    let seen: Vec<i64> = futures::future::join_all(all).await.iter().map(|n| n.as_i64().unwrap()).collect();
    assert_eq!(seen.iter().max(), Some(&3), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_patience_is_throttled_with_the_reason() {
    let b = bench_with(|s| s.environments_max = 1);
    let f = b.python("import time\ndef handler(event, context): time.sleep(0.3)");
    let impatient = |d: &Arc<Deployment>, ms| {
        let call = Call { patience: Patience::For(Duration::from_millis(ms)), ..call("{}") };
        b.host.invoke(d.clone(), call)
    };
    let throttled = |reason| Outcome::Throttled { reason };
    let (first, second, third) = tokio::join!(impatient(&f, 0), impatient(&f, 0), impatient(&f, 50));
    assert!(matches!(first, Outcome::Answered { .. }), "its start is waited for: {first:?}");
    assert_eq!(second, throttled("ConcurrentInvocationLimitExceeded"));
    assert_eq!(third, throttled("ConcurrentInvocationLimitExceeded"));
    let off = Arc::new(Deployment { concurrency: Some(0), ..(*f).clone() });
    assert_eq!(impatient(&off, 9_999).await, throttled("ReservedFunctionConcurrentInvocationLimitExceeded"));
    assert_eq!(b.host.slots(&off), 0);
    let patient = b.host.invoke(f.clone(), call("{}"));
    let (first, second) = tokio::join!(patient, b.host.invoke(f.clone(), call("{}")));
    assert!(matches!((first, second), (Outcome::Answered { .. }, Outcome::Answered { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_frees_nothing_before_the_function_has_finished() {
    let b = bench_with(|s| {
        unconfined(s);
        s.environments_max = 1;
    });
    let dir = tempfile::tempdir().unwrap();
    let f = b.python(COUNTS);
    let event = json!({"dir": dir.path(), "s": 0.3});
    b.ok(&f, json!({"dir": dir.path()})).await;
    let left = tokio::time::timeout(Duration::from_millis(100), b.ok(&f, event.clone())).await;
    assert!(left.is_err(), "it was dropped while it ran");
    assert_eq!(b.ok(&f, event).await, 1, "the second one ran alone");
    // One that waits and leaves is never run.
    let waiting = b.host.invoke(f.clone(), call("{}"));
    drop(waiting);
    assert_eq!(b.host.environments(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_retirement_no_old_environment_serves_a_call() {
    let b = bench_with(|s| {
        unconfined(s);
        s.environments_max = 1;
    });
    let dir = tempfile::tempdir().unwrap();
    let f = b.python("import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.getpid()");
    let idle = b.ok(&f, json!(0)).await;
    let busy = tokio::spawn({
        let (host, f) = (b.host.clone(), f.clone());
        async move { host.invoke(f, call("0.4")).await }
    });
    soon("the long call", || b.log().matches("START RequestId").count() == 2).await;
    b.host.retire(&f.id);
    let Outcome::Answered { payload, function_error: false, .. } = busy.await.unwrap() else { panic!() };
    assert_eq!(payload, idle.to_string(), "what ran was finished");
    let new = b.ok(&f, json!(0)).await;
    assert_ne!(new, idle);
    assert_eq!(b.ok(&f, json!(0)).await, new);
    drop(dir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_deployment_that_is_retired_are_given_back_and_what_runs_is_finished() {
    let b = bench_of_one();
    let f = b.python("import time\ndef handler(event, context): time.sleep(event)");
    let busy = tokio::spawn({
        let (host, f) = (b.host.clone(), f.clone());
        async move { host.invoke(f, call("0.4")).await }
    });
    soon("the long call", || b.log().contains("START RequestId")).await;
    // Asked here and not in a task, so that all of them wait when the deployment is retired.
    let other = Arc::new(Deployment { id: "other".into(), version: "2".into(), ..(*f).clone() });
    let calls = [call("1"), call("2"), call("0")];
    let mut waiting =
        [&f, &f, &other].into_iter().zip(&calls).map(|(d, call)| Box::pin(b.host.invoke(d.clone(), call.clone())));
    let [mut first, mut second, mut third] = [(); 3].map(|()| waiting.next().unwrap());
    for call in [&mut first, &mut second, &mut third] {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    b.host.retire(&f.id);
    let gone = |call: &Call| Outcome::Gone { call: Box::new(call.clone()) };
    assert_eq!((first.await, second.await), (gone(&calls[0]), gone(&calls[1])));
    assert!(matches!(busy.await.unwrap(), Outcome::Answered { function_error: false, .. }));
    assert!(matches!(third.await, Outcome::Answered { function_error: false, .. }));
    assert_eq!(b.log().matches("START RequestId").count(), 2, "{}", b.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_environments_are_reaped() {
    let b = bench_with(|s| (s.idle_timeout, s.environments_max) = (Duration::from_millis(300), 1));
    let f = b.python("def handler(event, context): return 1");
    b.ok(&f, json!({})).await;
    assert_eq!(b.host.environments(), 1);
    soon("its end", || b.host.environments() == 0).await;
}

// --- the account, provisioned concurrency, freezing, age ---

const TELLS: &str = r#"
import os, time
began = time.time()
def handler(event, context):
    return [os.getpid(), os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], time.time() - began]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioned_environments_are_up_before_the_first_call_and_replaced_when_they_die() {
    let b = bench_with(unconfined);
    let f = b.python(TELLS);
    let terms = |n: u32| Terms { reserved: None, provisioned: vec![(f.clone(), n)] };
    b.host.set_terms("f", &terms(2));
    soon("both", || b.host.provisioning(&f.id).ready == 2).await;
    assert!(b.host.provisioning(&f.id).complete);
    let first = b.ok(&f, json!({})).await;
    assert_eq!(first[1], "provisioned-concurrency");
    soon("its log", || b.log().contains("REPORT")).await;
    assert!(!b.log().contains("Init Duration"), "no call waited for it: {}", b.log());
    let pid = first[0].as_i64().unwrap();
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::KILL).unwrap();
    soon("the replacement", || !is_running(pid) && b.host.provisioning(&f.id).ready == 2).await;
    assert_eq!(b.ok(&f, json!({})).await[1], "provisioned-concurrency");
    b.host.set_terms("f", &Terms::default());
    soon("their end", || b.host.environments() == 0).await;
    assert_eq!(b.ok(&f, json!({})).await[1], "on-demand");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_given_to_a_runtime_that_has_ended() {
    let b = bench_with(unconfined);
    let f = b.python(TELLS);
    for n in 1..=20 {
        let pid = b.ok(&f, json!({})).await[0].as_i64().unwrap();
        soon("its next poll", || b.log().matches("REPORT").count() == 2 * n - 1).await;
        rustix::process::kill_process(pid_of(pid), rustix::process::Signal::KILL).unwrap();
        // Without a pause: its init has not told of it yet.
        while is_running(pid) {}
        assert_ne!(b.ok(&f, json!({})).await[0], pid);
        soon("its next poll", || b.log().matches("REPORT").count() == 2 * n).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioned_environments_that_cannot_start_are_the_functions_failure_and_calls_run_on_demand() {
    let b = bench();
    let f = b.python(
        "import os\nif os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'] != 'on-demand': raise ValueError('not like this')\ndef handler(event, context): return 1",
    );
    b.host.set_terms("f", &Terms { reserved: Some(1), provisioned: vec![(f.clone(), 1)] });
    soon("its failure", || b.host.provisioning(&f.id).failed_by_function == Some(true)).await;
    assert_eq!(b.ok(&f, json!({})).await, 1);
    let none = Arc::new(b.function("java21", "app.py", ""));
    b.host.set_terms("f", &Terms { reserved: None, provisioned: vec![(none.clone(), 1)] });
    soon("the host's failure", || b.host.provisioning(&none.id).failed_by_function == Some(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_has_a_limit_of_its_own_and_terms_hold_at_once() {
    let b = bench_with(|s| {
        unconfined(s);
        s.account_concurrency = 2;
    });
    let (f, g) =
        (b.python(COUNTS), Arc::new(Deployment { name: "g".into(), ..b.function("python3.11", "app.py", COUNTS) }));
    let dir = tempfile::tempdir().unwrap();
    let event = json!({"dir": dir.path()});
    let all = (0..40).map(|n| b.ok(if n % 2 == 0 { &f } else { &g }, event.clone()));
    let seen: Vec<i64> = futures::future::join_all(all).await.iter().map(|n| n.as_i64().unwrap()).collect();
    assert_eq!(seen.iter().max(), Some(&2), "{seen:?}");
    b.host.set_terms("f", &Terms { reserved: Some(1), provisioned: vec![] });
    assert_eq!((b.host.slots(&f), b.host.slots(&g)), (1, 1));
    let busy = tokio::spawn({
        let (host, g, event) = (b.host.clone(), g.clone(), json!({"dir": dir.path(), "s": 0.5}));
        async move { host.invoke(g, call(event.to_string())).await }
    });
    soon("g's call", || std::fs::read_dir(dir.path()).unwrap().count() == 1).await;
    let one = Call { patience: Patience::For(Duration::from_secs(9)), ..call(event.to_string()) };
    let throttled = b.host.invoke(g.clone(), one).await;
    assert_eq!(throttled, Outcome::Throttled { reason: "ConcurrentInvocationLimitExceeded" });
    b.ok(&f, event).await;
    assert!(matches!(busy.await.unwrap(), Outcome::Answered { .. }));
}

/// What the processor time of a process was, in clock ticks.
fn ticks(pid: i64) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn state_of(pid: i64) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).unwrap_or('?')
}

fn pid_of(pid: i64) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

const BURNS: &str = r#"
import os, threading
def burn():
    while True: pass
def handler(event, context):
    if threading.active_count() == 1: threading.Thread(target=burn, daemon=True).start()
    return os.getpid()
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_environment_is_frozen_until_its_next_call_and_can_be_ended_all_the_same() {
    let b = bench_with(|s| {
        unconfined(s);
        s.environments_max = 1;
    });
    let f = b.python(BURNS);
    let pid = b.ok(&f, json!({})).await.as_i64().unwrap();
    soon("the freeze", || state_of(pid) == 'T').await;
    let before = ticks(pid);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ticks(pid), before, "it burned");
    assert_eq!(b.ok(&f, json!({})).await, pid, "the same one goes on");
    soon("the next freeze", || state_of(pid) == 'T').await;
    b.host.retire(&f.id);
    soon("its end", || !is_running(pid) && b.host.environments() == 0).await;

    let b = bench_with(|s| {
        unconfined(s);
        (s.freeze_after, s.environments_max) = (None, 1);
    });
    let f = b.python(BURNS);
    let pid = b.ok(&f, json!({})).await.as_i64().unwrap();
    let before = ticks(pid);
    soon("what it burns", || ticks(pid) > before + 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_environment_that_is_killed_costs_a_cold_start_and_nothing_else() {
    let b = bench_with(|s| {
        unconfined(s);
        (s.freeze_after, s.environments_max) = (Some(Duration::ZERO), 1);
    });
    let f = b.python("import os\ndef handler(event, context): return os.getpid()");
    let pid = b.ok(&f, json!({})).await.as_i64().unwrap();
    soon("the freeze", || state_of(pid) == 'T').await;
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::KILL).unwrap();
    // A busy machine takes its time to end a process that was killed.
    soon("its end", || matches!(state_of(pid), 'Z' | 'X' | '?')).await;
    assert_ne!(b.ok(&f, json!({})).await, pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_past_its_age_is_replaced() {
    let b = bench_with(|s| {
        unconfined(s);
        (s.age_max, s.environments_max) = (Duration::from_millis(300), 1);
    });
    let f = b.python("import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.getpid()");
    let old = b.ok(&f, json!(0.3)).await;
    assert_ne!(b.ok(&f, json!(0)).await, old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_beyond_its_limit_begins_anew_on_the_first_invocations_clock_where_that_is_asked_for() {
    let b = bench_with(|s| {
        unconfined(s);
        (s.init_limit, s.init_restarts, s.environments_max) = (Duration::from_millis(400), true, 1);
    });
    let marks = tempfile::tempdir().unwrap();
    // Longer than the limit, shorter than the function's time-out.
    let slow = b.python(&format!(
        "import os, time, uuid\nopen({:?} + '/' + uuid.uuid4().hex, 'w').close()\ntime.sleep(1)\ndef handler(event, context): return context.get_remaining_time_in_millis()",
        marks.path().to_str().unwrap()
    ));
    let left = b.ok(&slow, json!({})).await.as_f64().unwrap();
    assert!((8_000.0..9_100.0).contains(&left), "the second start is on the call's clock: {left}");
    assert_eq!(std::fs::read_dir(marks.path()).unwrap().count(), 2, "static code ran twice");
    assert!(b.log().contains("INIT_REPORT Init Duration: 400.00 ms\tPhase: init\tStatus: timeout\n"), "{}", b.log());

    let mut hangs = b.function("python3.11", "app.py", "import time\ntime.sleep(60)\n");
    hangs.timeout_s = 1;
    let error = b.error(&Arc::new(hangs), json!({})).await;
    assert_eq!(error["errorType"], "Sandbox.Timedout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_are_prepared_for_calls_that_are_announced() {
    let b = bench();
    let f = b.python(TELLS);
    b.host.prepare(&f, 2);
    soon("both", || b.host.environments() == 2).await;
    assert_eq!(b.ok(&f, json!({})).await[1], "on-demand");
    b.host.prepare(&f, 99);
    soon("as many as the machine has room for", || b.host.environments() == 4).await;
}

// --- S3, isolation, shutdown, death ---

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_reaches_s3_with_its_own_credentials_and_sees_nothing_of_the_server() {
    let b = bench();
    let f = b.python(
        r#"
import os, urllib.request
def handler(event, context):
    headers = {"x-key": os.environ["AWS_ACCESS_KEY_ID"]}
    url = os.environ["AWS_ENDPOINT_URL_S3"] + "/bucket/key?versionId=1"
    body = urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read().decode()
    leaks = [k for k in os.environ if k.startswith("CARGO") or k in ("HOME", "USER", "LONGSHORE_DATA_DIR")]
    import resource
    limits = [resource.getrlimit(r)[0] for r in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)]
    fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:3]
    status = open("/proc/self/status").read()
    return [body, leaks, limits, os.readlink("/proc/self/fd/0"), os.environ["AWS_REGION"], "NoNewPrivs:\t1" in status]
"#,
    );
    assert_eq!(b.ok(&f, json!({})).await, json!(["yours", [], [1024, 0], "/dev/null", "eu-west-1", true]));
    assert_eq!(*b.s3.lock().unwrap(), ["GET /bucket/key?versionId=1 f"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_closes_makes_nothing_ready_any_more() {
    let b = bench();
    let f = b.python("def handler(event, context): return event");
    b.host.shutdown(Duration::from_secs(1)).await;
    b.host.prepare(&f, 2);
    b.host.set_terms(&f.name, &Terms { reserved: None, provisioned: vec![(f.clone(), 1)] });
    assert_eq!(b.host.environments(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_calls_finish_within_the_grace_and_leaves_no_process() {
    let b = bench();
    let f = b.python("import os, time\ndef handler(event, context):\n    print('pid', os.getpid())\n    time.sleep(event)\n    return os.getpid()");
    let run = |event: &'static str| {
        let (host, f) = (b.host.clone(), f.clone());
        tokio::spawn(async move { host.invoke(f, call(event)).await })
    };
    let (short, long) = (run("0.3"), run("30"));
    soon("both calls", || b.log().matches("pid ").count() == 2).await;
    let began = Instant::now();
    b.host.shutdown(Duration::from_millis(1_500)).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(matches!(short.await.unwrap(), Outcome::Answered { function_error: false, .. }));
    assert!(matches!(long.await.unwrap(), Outcome::Fault(_)));
    assert_eq!(b.host.environments(), 0);
    assert!(!sleeps_of(b.temp.path()));
    assert_eq!(b.invoke(&f, "0").await, Outcome::Fault("The server is shutting down.".into()));
}

/// Not a test: the server that the next test kills. It runs a function that leaves processes everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_that_is_killed() {
    let Some(data_dir) = std::env::var_os("LONGSHORE_TEST_KILLED_SERVER") else { return };
    let data_dir = PathBuf::from(data_dir);
    let door: S3Door = Arc::new(|_, _| unreachable!("it asks S3 for nothing"));
    let mut settings = settings(&data_dir);
    if std::env::var("LONGSHORE_TEST_CONFINED").is_ok_and(|confined| confined == "yes") {
        settings.sandbox.mode = Mode::Auto;
    } else {
        unconfined(&mut settings);
    }
    let host = Host::new(settings, door).unwrap();
    let code_dir = data_dir.parent().unwrap().join("code");
    let d = Deployment {
        id: "1".into(),
        name: "f".into(),
        role: "arn:aws:iam::000000000000:role/r".into(),
        version: "$LATEST".into(),
        runtime: "python3.11".into(),
        handler: "app.handler".into(),
        code_dir,
        layers_dir: None,
        variables: BTreeMap::new(),
        timeout_s: 60,
        memory_mib: 128,
        ephemeral_storage_mib: 512,
        concurrency: None,
        log_format: LogFormat::Text,
        application_log_level: None,
        system_log_level: None,
        log_group: "/aws/lambda/f".into(),
    };
    host.invoke(Arc::new(d), call("{}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_takes_its_functions_along_and_the_next_one_clears_up() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("code")).unwrap();
    std::fs::write(
        temp.path().join("code/app.py"),
        r#"
import json, os, subprocess, time
def handler(event, context):
    child = subprocess.Popen(["sleep", "60"])
    away = subprocess.Popen(["sleep", "61"], start_new_session=True)
    with open("pids.new", "w") as f: f.write(json.dumps([os.getpid(), child.pid, away.pid]))
    os.rename("pids.new", "pids")
    time.sleep(60)
"#,
    )
    .unwrap();
    let data_dir = temp.path().join("data");
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_server_that_is_killed"])
        .env("LONGSHORE_TEST_KILLED_SERVER", &data_dir)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pids = temp.path().join("code/pids");
    soon("the function's start", || pids.exists()).await;
    let pids: Vec<i64> = serde_json::from_slice(&std::fs::read(pids).unwrap()).unwrap();
    // The environment's init would end what is left as soon as the server is gone: so it goes first, while the server cannot
    // notice.
    let init = parent_of(pids[0]);
    for (signal, pid) in [("-STOP", i64::from(server.id())), ("-KILL", init)] {
        assert!(std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }
    soon("the runtime's end", || !is_running(pids[0])).await;
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(is_running(pids[1]) && is_running(pids[2]), "only the next server can find these");
    assert_eq!(std::fs::read_dir(data_dir.join("environments")).unwrap().count(), 1);
    let door: S3Door = Arc::new(|_, _| unreachable!("it asks S3 for nothing"));
    let _next = Host::new(settings(&data_dir), door).unwrap();
    assert!(!is_running(pids[1]) && !is_running(pids[2]));
    assert_eq!(std::fs::read_dir(data_dir.join("environments")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_environment_outlives_a_killed_server() {
    for mode in [Mode::Auto, Mode::Off] {
        let temp = tempfile::tempdir().unwrap();
        let name = format!("longshore-test-{}", uuid::Uuid::new_v4().simple());
        std::fs::create_dir(temp.path().join("code")).unwrap();
        let app = format!(
            "import subprocess, time\ndef handler(event, context):\n    for apart in (False, True): \
             subprocess.Popen(['sh', '-c', 'sleep 60; : {name}'], start_new_session=apart)\n    print('ready', flush=True)\n    time.sleep(60)\n"
        );
        std::fs::write(temp.path().join("code/app.py"), app).unwrap();
        let data_dir = temp.path().join("data");
        let mut server = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_server_that_is_killed"])
            .env("LONGSHORE_TEST_KILLED_SERVER", &data_dir)
            .env("LONGSHORE_TEST_CONFINED", if mode == Mode::Off { "no" } else { "yes" })
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        soon("the function's children", || processes_with(&name).len() == 2).await;
        server.kill().unwrap();
        server.wait().unwrap();
        soon("the end of all", || processes_with(&name).is_empty()).await;
        soon("the end of its control groups", || groups_of(server.id(), Path::new("/sys/fs/cgroup"), 6).is_empty())
            .await;
    }
}

/// Faults of every kind in many calls at once: each call is answered once, with its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_random_faults_every_call_gets_its_own_answer() {
    let b = bench();
    let f = b.fake(
        r#"
import random
random.seed(os.urandom(8))
if random.random() < 0.05: sys.exit(3)
while True:
    id, body, headers = next()
    dice = random.random()
    if dice < 0.02: os._exit(1)
    if dice < 0.04: os.kill(os.getpid(), signal.SIGKILL)
    if dice < 0.05: request("POST", "invocation/%s/response" % id, b"x" * 6291557); continue
    if dice < 0.06: raw(("POST %sinvocation/%s/response HTTP/1.1\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc" % (base, id)).encode(), False) if False else os._exit(0)
    if dice < 0.09: request("POST", "invocation/%s/error" % id, body); continue
    if dice < 0.12: connection.close()
    request("POST", "invocation/%s/response" % id, body)
    if dice > 0.98: sys.exit(0)
"#,
    );
    let calls = (0..600).map(|n| {
        let (b, f) = (&b, &f);
        async move {
            match b.invoke(f, n.to_string()).await {
                Outcome::Answered { payload, function_error, .. } => {
                    let payload = String::from_utf8_lossy(&payload);
                    assert!(payload == n.to_string() || (function_error && payload.starts_with('{')), "{n}: {payload}");
                }
                other => panic!("{n}: {other:?}"),
            }
        }
    });
    futures::future::join_all(calls).await;
    b.host.shutdown(Duration::from_secs(1)).await;
    assert_eq!(b.host.environments(), 0);
    assert!(!sleeps_of(b.temp.path()));
}

// --- AWS's own clients, unmodified ---

/// The workspace's folder for what builds and tests make.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_longshore-launch")).parent().unwrap().parent().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn awslambdaric_runs_unmodified() {
    let python = target_dir().join("venv/bin/python");
    if !python.exists() {
        eprintln!("SKIPPED: no {} with awslambdaric in it", python.display());
        return;
    }
    // It is no part of the package: the sandbox has to show it, and the interpreter that it is a link to.
    let interpreter = std::fs::canonicalize(&python).unwrap();
    let prefix = interpreter.parent().and_then(Path::parent).unwrap().to_owned();
    let b = bench_with(|s| (s.environments_max, s.sandbox.paths) = (1, vec![target_dir().join("venv"), prefix]));
    let start = format!("#!/bin/sh\nexec {} -m awslambdaric app.$_HANDLER\n", python.display());
    let f = b.function("provided.al2023", "bootstrap", &start);
    let app = "import sys\ndef handler(event, context):\n    if event == 'raise': raise ValueError('boom')\n    if event == 'exit': sys.exit(4)\n    if isinstance(event, int): return 'x' * event\n    return [event, context.aws_request_id, context.get_remaining_time_in_millis() > 8000, context.invoked_function_arn[-5:]]\n";
    std::fs::write(f.code_dir.join("app.py"), app).unwrap();
    let f = Arc::new(Deployment { handler: "handler".into(), ..f });
    for n in 0..50 {
        let answer = b.ok(&f, json!({ "n": n })).await;
        assert_eq!(json!([answer[0], answer[2], answer[3]]), json!([{ "n": n }, true, ":live"]));
    }
    assert_eq!(b.host.environments(), 1);
    let error = b.error(&f, json!("raise")).await;
    assert_eq!((error["errorType"].as_str(), error["errorMessage"].as_str()), (Some("ValueError"), Some("boom")));
    assert_eq!(b.ok(&f, json!(6_291_554)).await.as_str().unwrap().len(), 6_291_554);
    // It ends itself after a refused answer; the next call does not notice.
    assert_eq!(b.error(&f, json!(6_291_555)).await["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(b.ok(&f, json!(1)).await, "x");
    let mut broken = (*f).clone();
    broken.handler = "nope".into();
    broken.id.push('2');
    let error = b.error(&Arc::new(broken), json!({})).await;
    assert_eq!(error["errorType"], "Runtime.HandlerNotFound", "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_lambda_runtime_runs_unmodified() {
    let program = ["debug", "release"].map(|p| target_dir().join(p).join("line-count-rust"));
    let Some(program) = program.into_iter().find(|p| p.exists()) else {
        eprintln!("SKIPPED: examples/functions/line-count-rust is not built");
        return;
    };
    let b = bench_of_one();
    let f = b.function("provided.al2023", "bootstrap", "");
    std::fs::copy(program, f.code_dir.join("bootstrap")).unwrap();
    let f = Arc::new(f);
    let event = json!({
        "invocationSchemaVersion": "1.0", "invocationId": "i", "job": {"id": "j"},
        "tasks": [{"taskId": "t", "s3Key": "a+b", "s3VersionId": null, "s3BucketArn": "arn:aws:s3:::bucket"}]
    });
    for _ in 0..50 {
        let answer = b.ok(&f, event.clone()).await;
        // The object is one line, "whose?".
        let expected = json!([{"taskId": "t", "resultCode": "Succeeded", "resultString": "1"}]);
        assert_eq!(answer["results"], expected, "{}", b.log());
    }
    assert_eq!(b.s3.lock().unwrap()[..2], ["GET /bucket/a%20b f", "GET /bucket/a%20b f"]);
    let error = b.error(&f, json!({})).await;
    assert!(error["errorType"].is_string() && error["errorMessage"].is_string(), "{error}");
    assert_eq!(b.host.environments(), 1, "{}", b.log());
}
