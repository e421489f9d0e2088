//! The sandbox around real functions: what is on, what is masked, and what each layer is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use longshore_functions::host::layers::{Layer, Mode, State};
use longshore_functions::host::sandbox::examine;
use longshore_functions::host::{
    self, Call, Deployment, FunctionCredentials, Host, HostSettings, Launcher, Network, Outcome, Patience, S3Door,
    SandboxRefusal,
};
use serde_json::{Value, json};

fn launcher() -> Launcher {
    Launcher { program: env!("CARGO_BIN_EXE_longshore-launch").into(), arguments: Vec::new() }
}

fn settings(data_dir: &Path) -> HostSettings {
    HostSettings {
        launcher: launcher(),
        environments_max: 4,
        ..HostSettings::new("eu-west-1", "123456789012", data_dir)
    }
}

struct Bench {
    host: Host,
    temp: tempfile::TempDir,
}

fn bench(change: impl FnOnce(&mut HostSettings)) -> Bench {
    let temp = tempfile::tempdir().unwrap();
    let mut settings = settings(&temp.path().join("data"));
    change(&mut settings);
    let door: S3Door = Arc::new(|_: Arc<FunctionCredentials>, _| {
        Box::pin(async {
            let body = Full::new(Bytes::from("s3")).map_err(|never| match never {});
            http::Response::new(body.boxed())
        })
    });
    Bench { host: Host::new(settings, door).unwrap(), temp }
}

impl Bench {
    fn python(&self, text: &str) -> Deployment {
        let code_dir = self.temp.path().join(format!("code-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&code_dir).unwrap();
        std::fs::write(code_dir.join("app.py"), text).unwrap();
        Deployment {
            id: code_dir.display().to_string(),
            name: "f".into(),
            role: "arn:aws:iam::000000000000:role/r".into(),
            version: "$LATEST".into(),
            runtime: "python3.11".into(),
            handler: "app.handler".into(),
            code_dir,
            layers_dir: None,
            variables: BTreeMap::new(),
            timeout_s: 20,
            memory_mib: 128,
            ephemeral_storage_mib: 512,
            concurrency: None,
            log_format: host::LogFormat::Text,
            application_log_level: None,
            system_log_level: None,
            log_group: "/aws/lambda/f".into(),
        }
    }

    async fn call(&self, f: &Arc<Deployment>, event: Value) -> Outcome {
        let call = Call {
            request_id: uuid::Uuid::new_v4().to_string(),
            invoked_arn: "arn:aws:lambda:eu-west-1:123456789012:function:f".into(),
            payload: event.to_string().into(),
            client_context: None,
            trace_id: None,
            want_log_tail: false,
            patience: Patience::Forever,
            start: None,
        };
        self.host.invoke(f.clone(), call).await
    }

    async fn ok(&self, f: &Arc<Deployment>, event: Value) -> Value {
        match self.call(f, event).await {
            Outcome::Answered { payload, function_error: false, .. } => serde_json::from_slice(&payload).unwrap(),
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    async fn error(&self, f: &Arc<Deployment>, event: Value) -> Value {
        match self.call(f, event).await {
            Outcome::Answered { payload, function_error: true, .. } => serde_json::from_slice(&payload).unwrap(),
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    fn log(&self) -> String {
        self.host.flush_logs();
        let bytes = host::logs::read_tail(&self.temp.path().join("data"), "f", 1 << 20).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What a function sees of itself and of the machine.
const LOOK: &str = r#"
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tries(what):
    try: return what() or "yes"
    except OSError as e: return "no"
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"): return line.split(None, 1)[1].strip()
def handler(event, context):
    secret = event["secret"]
    s3 = os.environ["AWS_ENDPOINT_URL_S3"].split("//")[1].split(":")
    return {
        "uid": os.getuid(), "uids": status("Uid"), "groups": [g for g in os.getgroups() if g != 65534],
        "caps": [status(c) for c in ("CapEff", "CapPrm", "CapInh", "CapAmb")], "bounding": status("CapBnd"),
        "nnp": status("NoNewPrivs"), "seccomp": status("Seccomp"),
        "secret": tries(lambda: open(secret).read()),
        "etc/shadow": tries(lambda: open("/etc/shadow").read()[:0]),
        "write": tries(lambda: open(os.path.join(os.environ["LAMBDA_TASK_ROOT"], "x"), "w").close()),
        "tmp": tries(lambda: open(os.environ["TMPDIR"] + "/x", "w").close()),
        "processes": len([p for p in os.listdir("/proc") if p.isdigit()]) < 10,
        "init": tries(lambda: open("/proc/1/environ").read()[:0]),
        "udp": tries(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 53))),
        "other port": tries(lambda: socket.create_connection(("127.0.0.1", event["port"]), 1).close()),
        "s3": tries(lambda: socket.create_connection((s3[0], int(s3[1])), 1).close()),
        # Of no effect where they are allowed: this runs without a sandbox, too, and may be root then.
        "unshare": libc.unshare(0),
        "root": os.environ["LAMBDA_TASK_ROOT"], "hostname": socket.gethostname(), "host": event["hostname"],
        "limits": [__import__("resource").getrlimit(n)[0] for n in (7, 4)],
        "umask": os.umask(0o22),
        "stdin": os.readlink("/proc/self/fd/0"), "fds": sorted(int(f) for f in os.listdir("/proc/self/fd"))[:3],
    }
"#;

async fn look(b: &Bench) -> Value {
    let secret = b.temp.path().join("secret");
    std::fs::write(&secret, "the secret").unwrap();
    // Something else on this machine that listens.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let f = Arc::new(b.python(LOOK));
    b.ok(&f, json!({"secret": secret, "port": port, "hostname": hostname.trim()})).await
}

const NOTHING: &str = "0000000000000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_sees_nothing_but_what_is_its_own() {
    let b = bench(|_| {});
    let report = b.host.sandbox();
    let seen = look(&b).await;
    assert_eq!(
        (&seen["secret"], &seen["etc/shadow"], &seen["write"]),
        (&json!("no"), &json!("no"), &json!("no")),
        "{seen}"
    );
    assert_eq!(
        (&seen["tmp"], &seen["s3"], &seen["other port"]),
        (&json!("yes"), &json!("yes"), &json!("no")),
        "{seen}"
    );
    assert_eq!(seen["caps"], json!([NOTHING, NOTHING, NOTHING, NOTHING]));
    assert_eq!((&seen["nnp"], &seen["seccomp"]), (&json!("1"), &json!("2")));
    assert_eq!((&seen["unshare"], &seen["udp"]), (&json!(-1), &json!("no")), "{seen}");
    assert_eq!(
        (&seen["limits"], &seen["umask"], &seen["stdin"]),
        (&json!([1024, 0]), &json!(0o22), &json!("/dev/null"))
    );
    assert_ne!(seen["uid"], 0);
    if report.root {
        assert_eq!((&seen["groups"], &seen["bounding"]), (&json!([]), &json!(NOTHING)), "{seen}");
        assert!((60_000..=60_999).contains(&seen["uid"].as_i64().unwrap()), "{seen}");
    }
    if report.is_on(Layer::PidNamespace) {
        assert_eq!((&seen["processes"], &seen["init"]), (&json!(true), &json!("no")), "{seen}");
    }
    if report.is_on(Layer::MountNamespace) {
        assert_eq!(seen["root"], "/var/task");
    }
    if report.is_on(Layer::UtsNamespace) {
        assert_ne!(seen["hostname"], seen["host"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sandbox_the_same_function_sees_all_that_the_server_sees() {
    let b = bench(|s| s.sandbox.mode = Mode::Off);
    assert!(b.host.sandbox().layers.values().all(|state| !state.is_on()));
    let seen = look(&b).await;
    assert_eq!(
        (&seen["secret"], &seen["other port"], &seen["tmp"]),
        (&json!("the secret"), &json!("yes"), &json!("yes"))
    );
    assert_eq!((&seen["seccomp"], &seen["unshare"]), (&json!("0"), &json!(0)));
    assert_eq!(seen["hostname"], seen["host"]);
    assert_eq!(i64::from(rustix_uid()), seen["uid"].as_i64().unwrap());
}

fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// What is left to hold where namespaces are missing, as in a container without privileges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_namespaces_the_other_layers_still_keep_files_processes_and_ports_apart() {
    use Layer::*;
    let b = bench(|s| {
        s.sandbox.without = BTreeSet::from([
            UserNamespace,
            MountNamespace,
            PidNamespace,
            NetNamespace,
            IpcNamespace,
            UtsNamespace,
            Cgroup,
        ]);
    });
    if !b.host.sandbox().is_on(Landlock) {
        eprintln!("SKIPPED: no Landlock here");
        return;
    }
    let seen = look(&b).await;
    assert_eq!((&seen["secret"], &seen["write"], &seen["tmp"]), (&json!("no"), &json!("no"), &json!("yes")), "{seen}");
    assert_eq!((&seen["udp"], &seen["other port"], &seen["s3"]), (&json!("no"), &json!("no"), &json!("yes")), "{seen}");
    assert_eq!((&seen["unshare"], &seen["caps"]), (&json!(-1), &json!([NOTHING, NOTHING, NOTHING, NOTHING])));
    if b.host.sandbox().root {
        assert_ne!(seen["uid"], 0);
        let root = seen["root"].as_str().unwrap();
        assert!(!Path::new(root).starts_with(b.temp.path()), "a copy that its user can enter: {root}");
        let stage = Path::new(root).parent().unwrap();
        let count = || std::fs::read_dir(stage).unwrap().count();
        let before = count();
        b.host.shutdown(Duration::from_secs(1)).await;
        assert_eq!(count(), before - 1, "what it wrote goes with it, and the copies are for the next one");
        drop(b.host);
        let gone = || !Path::new(root).exists();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !gone() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone(), "the copies go with the host");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_no_more_environments_than_users_for_them() {
    let b = bench(|s| {
        s.sandbox.uids = (60_100, 60_115);
        s.environments_max = 32;
    });
    let f = b.python("def handler(event, context): return event");
    assert_eq!(b.host.slots(&f), if b.host.sandbox().is_on(Layer::OwnUid) { 14 } else { 32 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_layer_can_be_masked_alone_and_functions_still_run() {
    for layer in Layer::ALL {
        let temp = tempfile::tempdir().unwrap();
        let mut settings = settings(temp.path());
        settings.sandbox.without = BTreeSet::from([layer]);
        let (report, refused) = examine(&settings.sandbox, &launcher(), temp.path()).unwrap();
        assert!(!report.is_on(layer), "{layer}");
        assert_eq!(report.layers[&layer], State::Off("sandbox_without names it"));
        if refused.is_some() {
            continue;
        }
        let b = bench(|s| s.sandbox.without = BTreeSet::from([layer]));
        let f = Arc::new(b.python("def handler(event, context): return event"));
        assert_eq!(b.ok(&f, json!([1])).await, json!([1]), "{layer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_below_the_floor_does_not_start_and_says_what_is_missing() {
    let refused = |change: &dyn Fn(&mut HostSettings)| {
        let temp = tempfile::tempdir().unwrap();
        let mut settings = settings(&temp.path().join("data"));
        change(&mut settings);
        let door: S3Door = Arc::new(|_, _| unreachable!("nothing runs"));
        let error = Host::new(settings, door).err().expect("it is refused");
        let refusal = error.get_ref().and_then(|e| e.downcast_ref::<SandboxRefusal>()).cloned();
        refusal.unwrap_or_else(|| panic!("{error}"))
    };
    let without = |layers: &'static [Layer]| {
        move |s: &mut HostSettings| s.sandbox.without = layers.iter().copied().collect::<BTreeSet<_>>()
    };
    let seccomp = refused(&without(&[Layer::Seccomp]));
    assert!(seccomp.message.ends_with("below the floor, and lacks seccomp"), "{seccomp:?}");
    let locks = refused(&without(&[Layer::Landlock, Layer::MountNamespace]));
    assert!(locks.message.ends_with("lacks landlock or mount-namespace"), "{locks:?}");
    let all = refused(&|s| {
        s.sandbox.mode = Mode::Require;
        s.sandbox.without = BTreeSet::from([Layer::UtsNamespace]);
    });
    assert!(all.message.contains("wants every layer") && all.message.contains("uts-namespace"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twice_the_memory_is_a_kill_and_a_full_tmp_is_not() {
    let b = bench(|_| {});
    let text = r#"
import os, time
def handler(event, context):
    if "mib" in event:
        held = [bytearray(b"x") * (1 << 20) for _ in range(event["mib"])]
        time.sleep(1)
        return len(held)
    with open(os.environ["TMPDIR"] + "/full", "wb") as f:
        try:
            for n in range(4096): f.write(b"x" * (1 << 20)); f.flush()
        except OSError as e: return [n, e.strerror]
"#;
    let mut f = b.python(text);
    f.ephemeral_storage_mib = 256;
    let f = Arc::new(f);
    assert_eq!(b.ok(&f, json!({"mib": 64})).await, 64);
    let error = b.error(&f, json!({"mib": 256})).await;
    assert_eq!(error["errorType"], "Runtime.ExitError");
    assert!(error["errorMessage"].as_str().unwrap().ends_with("Runtime exited with error: signal: killed"), "{error}");
    assert!(b.log().contains("Max Memory Used: 128 MB\tStatus: error"), "{}", b.log());
    assert_eq!(b.ok(&f, json!({"mib": 1})).await, 1, "the next call has an environment of its own");
    if b.host.sandbox().is_on(Layer::MountNamespace) {
        let full = b.ok(&f, json!({})).await;
        assert!((200..=256).contains(&full[0].as_i64().unwrap()) && full[1] == "No space left on device", "{full}");
        assert_eq!(b.ok(&f, json!({"mib": 32})).await, 32);
    }
    let log = b.log();
    let used = log.lines().filter_map(|l| l.split("Max Memory Used: ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
    assert!(used.max().unwrap() >= 64, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_of_processes_is_bounded_and_ends_with_its_environment() {
    let b = bench(|_| {});
    let mut f = b.python(
        "import os, time\ndef handler(event, context):\n    n = 0\n    try:\n        while n < 3000:\n            if os.fork() == 0: time.sleep(60); os._exit(0)\n            n += 1\n    except OSError: pass\n    return n\n",
    );
    f.memory_mib = 1024;
    let f = Arc::new(f);
    let forked = b.ok(&f, json!({})).await.as_i64().unwrap();
    assert!((500..1100).contains(&forked), "{forked}");
    b.host.shutdown(Duration::from_secs(5)).await;
    assert_eq!(b.host.environments(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_network_reaches_other_services_and_not_the_neighbours_runtime_api() {
    let b = bench(|s| s.sandbox.network = Network::Open);
    assert!(!b.host.sandbox().is_on(Layer::NetNamespace));
    let f = Arc::new(b.python(
        "import os, socket\ndef handler(event, context):\n    if event is None: return os.environ['AWS_LAMBDA_RUNTIME_API']\n    host, port = event.split(':')\n    try: socket.create_connection((host, int(port)), 2).close(); return 'yes'\n    except OSError as e: return type(e).__name__\n",
    ));
    let g = Arc::new(Deployment { id: "g".into(), name: "g".into(), ..(*f).clone() });
    let neighbour = b.ok(&g, Value::Null).await;
    // A port below those that Linux hands out.
    let service = (20_000..32_000).find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok()).unwrap();
    assert_eq!(b.ok(&f, json!(service.local_addr().unwrap().to_string())).await, "yes");
    if b.host.sandbox().is_on(Layer::Landlock) {
        assert_eq!(b.ok(&f, neighbour).await, "PermissionError");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_misses_a_network_finds_a_hint_in_its_log_once() {
    let b = bench(|_| {});
    let f = Arc::new(b.python(
        "import urllib.request\ndef handler(event, context):\n    urllib.request.urlopen('http://example.org/', timeout=5)\n",
    ));
    for _ in 0..2 {
        assert_eq!(b.error(&f, json!({})).await["errorType"], "URLError");
    }
    assert_eq!(b.log().matches("--network=open").count(), 1, "{}", b.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_environment_that_is_frozen_costs_nothing_and_answers_when_it_is_thawed() {
    for without in
        [BTreeSet::new(), BTreeSet::from([Layer::Cgroup]), BTreeSet::from([Layer::Cgroup, Layer::PidNamespace])]
    {
        let b = bench(|s| {
            s.freeze_after = Some(Duration::from_millis(50));
            (s.sandbox.without, s.environments_max) = (without.clone(), 1);
        });
        let f = Arc::new(b.python(
            "import threading, time\ncount = 0\ndef burn():\n    global count\n    while True:\n        count += 1\n        time.sleep(0.001)\nthreading.Thread(target=burn, daemon=True).start()\ndef handler(event, context): return count\n",
        ));
        let first = b.ok(&f, json!({})).await.as_i64().unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let second = b.ok(&f, json!({})).await.as_i64().unwrap();
        assert!(second - first < 400, "{without:?}: it ran on, {first} to {second}");
        // One that is frozen can be ended as well.
        tokio::time::sleep(Duration::from_millis(200)).await;
        b.host.shutdown(Duration::from_secs(1)).await;
        assert_eq!(b.host.environments(), 0, "{without:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helper_that_dies_takes_its_environments_along_and_is_replaced() {
    let b = bench(|_| {});
    let f = Arc::new(b.python("import time\ndef handler(event, context):\n    time.sleep(event)\n    return 1"));
    assert_eq!(b.ok(&f, json!(0)).await, 1);
    let busy = tokio::spawn({
        let (host, f) = (b.host.clone(), f.clone());
        async move {
            let call = Call {
                request_id: "r".into(),
                invoked_arn: "arn".into(),
                payload: "20".into(),
                client_context: None,
                trace_id: None,
                want_log_tail: false,
                patience: Patience::Forever,
                start: None,
            };
            host.invoke(f, call).await
        }
    });
    while b.log().matches("START RequestId").count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let helper = b.host.helper_pid().unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &helper.to_string()]).status().unwrap().success());
    match busy.await.unwrap() {
        Outcome::Fault(why) => assert!(why.contains("helper"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.ok(&f, json!(0)).await, 1);
    assert_ne!(b.host.helper_pid().unwrap(), helper);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_environment_has_a_network_of_its_own_also_where_it_was_made_ahead() {
    let b = bench(|s| (s.environments_max, s.starts_at_once) = (6, 3));
    if !matches!(b.host.sandbox().layers[&Layer::NetNamespace], State::On(_)) {
        return;
    }
    let text = "import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.readlink('/proc/self/ns/net')";
    let f = Arc::new(b.python(text));
    // Held until all are there: so each call has an environment to itself.
    let all = futures::future::join_all((0..6).map(|_| b.ok(&f, json!(2)))).await;
    let mut seen: std::collections::HashSet<String> = all.iter().map(|name| name.as_str().unwrap().into()).collect();
    seen.insert(std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap().into());
    assert_eq!(seen.len(), 7, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_ends_its_environments_first_process_has_ended_itself() {
    // Each of the two alone keeps it from that.
    let b = bench(|s| s.sandbox.without = BTreeSet::from([Layer::PidNamespace, Layer::Landlock]));
    let text = "import os, time\ndef handler(event, context):\n    if event:\n        os.kill(os.getppid(), 9)\n        time.sleep(9)\n    return 1";
    let f = Arc::new(b.python(text));
    let told = b.error(&f, json!(true)).await;
    assert_eq!(told["errorType"], "Runtime.ExitError", "{told}");
    assert_eq!(b.ok(&f, json!(false)).await, 1);
}

impl Bench {
    /// Waits until as many environments are made ahead as there are to be; false where none can be.
    async fn all_ahead(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.host.environments_ahead() {
                (_, 0) => return false,
                (ready, wanted) if ready == wanted => return true,
                _ => assert!(Instant::now() < deadline, "none is made ahead"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The folders of environments, which are named by their markers.
    fn folders(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.temp.path().join("data/environments")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Its host name is the beginning of its environment's marker.
const WHICH: &str = r#"
import os, resource, socket
def handler(event, context):
    tmp = os.statvfs("/tmp")
    return {"host": socket.gethostname(), "tmp": tmp.f_blocks * tmp.f_bsize, "file": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
            "uid": os.getuid()}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_on_ground_that_was_laid_ahead_sees_what_any_other_sees_and_has_sizes_of_its_own() {
    let b = bench(|s| s.starts_at_once = 2);
    let anew = look(&b).await;
    if !b.all_ahead().await {
        return;
    }
    let before = b.folders();
    let mut ahead = look(&b).await;
    assert!(before.iter().any(|marker| marker.starts_with(ahead["hostname"].as_str().unwrap())), "{before:?} {ahead}");
    for own in ["uid", "uids", "hostname"] {
        ahead[own] = anew[own].clone();
    }
    assert_eq!(ahead, anew);

    b.all_ahead().await;
    let before = b.folders();
    let mut f = b.python(WHICH);
    (f.memory_mib, f.ephemeral_storage_mib) = (256, 700);
    let other = b.ok(&Arc::new(f), json!(null)).await;
    assert!(before.iter().any(|marker| marker.starts_with(other["host"].as_str().unwrap())), "{before:?} {other}");
    assert_eq!((other["tmp"].as_u64(), other["file"].as_u64()), (Some(700 << 20), Some(701 << 20)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_ahead_are_for_one_start_each_and_end_with_their_host() {
    let b = bench(|s| (s.environments_max, s.starts_at_once) = (6, 2));
    assert_eq!((b.folders().len(), b.host.environments_ahead().0), (0, 0), "none before the first start");
    let text = format!(
        "import time\n{WHICH}\ndef held(event, context):\n    time.sleep(1)\n    return handler(event, context)\n"
    );
    let f = Arc::new(Deployment { handler: "app.held".into(), ..b.python(&text) });
    b.ok(&f, json!(null)).await;
    if !b.all_ahead().await {
        return;
    }
    // More at once than there are: the others are made anew.
    let all = futures::future::join_all((0..4).map(|_| b.ok(&f, json!(null)))).await;
    let hosts: BTreeSet<&str> = all.iter().map(|seen| seen["host"].as_str().unwrap()).collect();
    let uids: BTreeSet<u64> = all.iter().map(|seen| seen["uid"].as_u64().unwrap()).collect();
    assert_eq!(hosts.len(), 4, "{all:?}");
    assert!(uids.len() == 4 || uids == BTreeSet::from([1051]), "{all:?}");
    b.all_ahead().await;
    b.host.shutdown(Duration::from_secs(5)).await;
    assert_eq!((b.folders(), b.host.environments_ahead().0), (BTreeSet::new(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_ahead_that_died_with_their_helper_are_passed_over_and_made_anew() {
    let b = bench(|s| s.starts_at_once = 2);
    b.ok(&Arc::new(b.python(WHICH)), json!(null)).await;
    if !b.all_ahead().await {
        return;
    }
    let before = b.folders();
    let helper = b.host.helper_pid().unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &helper.to_string()]).status().unwrap().success());
    // Their end follows the helper's: the one that is taken while it is still there may answer that it was ended.
    let f = Arc::new(b.python(WHICH));
    while b.host.helper_pid() == Some(helper) {
        b.call(&f, json!(null)).await;
    }
    let seen = b.ok(&f, json!(null)).await;
    assert!(!before.iter().any(|marker| marker.starts_with(seen["host"].as_str().unwrap())), "{before:?} {seen}");
    assert!(b.all_ahead().await && b.folders().is_disjoint(&before));
}
