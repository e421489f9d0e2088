//! Measures the function host alone: invocations a second and processor time an invocation, ours and the function's.
//!
//!     cargo build --release -p longshore-functions --bins --examples
//!     target/release/examples/host_speed [RUNTIME [CALLS [IN_FLIGHT [ENVIRONMENTS [THREADS [FREEZE]]]]]]
//!
//! RUNTIME is `python3.11`, `nodejs20.x`, or the path of a bootstrap. THREADS of the tokio runtime; 0 is a
//! current-thread one. FREEZE is after how many milliseconds without a call an environment is frozen, or `off`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore_functions::host::{Call, Deployment, Host, HostSettings, Launcher, LogFormat, Outcome, Patience, S3Door};

/// An event of S3 Batch Operations, as each task sends one.
const EVENT: &str = r#"{"invocationSchemaVersion":"1.0","invocationId":"YXNkbGZqYWRmaiBhc2RmdW9hZHNmZGpmaGFzbGtkaGZza2RmaAo","job":{"id":"f3cc4f60-61f6-4a2b-8a21-d07600c373ce"},"tasks":[{"taskId":"dGFza2lkZ29lc2hlcmUK","s3Key":"customerImage1.jpg","s3VersionId":"1","s3BucketArn":"arn:aws:s3:::amzn-s3-demo-bucket"}]}"#;

fn main() {
    let mut args = std::env::args().skip(1);
    let runtime = args.next().unwrap_or_else(|| "python3.11".into());
    let mut number = |or: usize| args.next().map_or(or, |n| n.parse().expect("a number"));
    let (calls, in_flight, environments, threads) = (number(50_000), number(8), number(4), number(0));
    let freeze_after = match args.next().as_deref() {
        Some("off") => None,
        Some(ms) => Some(Duration::from_millis(ms.parse().expect("a number, or off"))),
        None => Some(Duration::from_millis(50)),
    };
    let mut tokio = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        n => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(n);
            builder
        }
    };
    tokio.enable_all().build().expect("a runtime").block_on(run(
        &runtime,
        calls,
        in_flight,
        environments,
        freeze_after,
    ));
}

async fn run(runtime: &str, calls: usize, in_flight: usize, environments: usize, freeze_after: Option<Duration>) {
    let temp = std::env::temp_dir().join(format!("host-speed-{}", std::process::id()));
    let code_dir = temp.join("code");
    std::fs::create_dir_all(&code_dir).expect("a folder");
    let python = "def handler(event, context):\n    task = event['tasks'][0]\n    return {'invocationSchemaVersion': '1.0', 'treatMissingKeysAs': 'PermanentFailure', 'invocationId': event['invocationId'], 'results': [{'taskId': task['taskId'], 'resultCode': 'Succeeded', 'resultString': ''}]}\n";
    let node = "exports.handler = async (event) => ({ invocationSchemaVersion: '1.0', treatMissingKeysAs: 'PermanentFailure', invocationId: event.invocationId, results: [{ taskId: event.tasks[0].taskId, resultCode: 'Succeeded', resultString: '' }] });\n";
    std::fs::write(code_dir.join("app.py"), python).expect("a file");
    std::fs::write(code_dir.join("app.js"), node).expect("a file");
    let mut name = runtime.to_owned();
    if runtime.contains('/') {
        std::fs::copy(runtime, code_dir.join("bootstrap")).expect("the bootstrap");
        name = "provided.al2023".into();
    }
    let own = std::env::current_exe().expect("a path");
    let launcher = own.parent().and_then(|examples| examples.parent()).expect("target/release");
    let settings = HostSettings {
        environments_max: environments as u32,
        freeze_after,
        launcher: Launcher { program: launcher.join("longshore-launch"), arguments: Vec::new() },
        ..HostSettings::new("us-east-1", "000000000000", temp.join("data"))
    };
    let door: S3Door = Arc::new(|_, _| unreachable!("it asks S3 for nothing"));
    let host = Host::new(settings, door).expect("a host");
    let deployment = Arc::new(Deployment {
        id: "1".into(),
        name: "speed".into(),
        role: "arn:aws:iam::000000000000:role/r".into(),
        version: "$LATEST".into(),
        runtime: name,
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
        log_group: "/aws/lambda/speed".into(),
    });
    let one = |n: usize| {
        let (host, deployment) = (host.clone(), deployment.clone());
        async move {
            let call = Call {
                request_id: format!("00000000-0000-4000-8000-{n:012x}"),
                invoked_arn: "arn:aws:lambda:us-east-1:000000000000:function:speed".into(),
                payload: Bytes::from_static(EVENT.as_bytes()),
                client_context: None,
                trace_id: None,
                want_log_tail: false,
                patience: Patience::Forever,
                start: None,
            };
            match host.invoke(deployment, call).await {
                Outcome::Answered { function_error: false, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let started = Instant::now();
    one(0).await;
    let cold = started.elapsed();
    futures::future::join_all((0..in_flight).map(one)).await;
    let (began, own, theirs) = (Instant::now(), cpu_us("self"), functions_cpu_us());
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers = (0..in_flight).map(|_| {
        let next = next.clone();
        let one = &one;
        async move {
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n >= calls {
                    return;
                }
                one(n).await;
            }
        }
    });
    futures::future::join_all(workers).await;
    let took = began.elapsed();
    let (own, theirs) = (cpu_us("self") - own, functions_cpu_us() - theirs);
    println!(
        "{runtime}: {:.0}/s, host {:.1} us, function {:.1} us an invocation; first one after {:.0} ms, {} environments",
        calls as f64 / took.as_secs_f64(),
        own as f64 / calls as f64,
        theirs as f64 / calls as f64,
        cold.as_secs_f64() * 1e3,
        host.environments()
    );
    host.shutdown(Duration::from_secs(1)).await;
    std::fs::remove_dir_all(temp).expect("removed");
}

/// Processor time of a process in microseconds, from the scheduler's own figures of each thread.
fn cpu_us(pid: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum::<u64>()
        / 1000
}

fn functions_cpu_us() -> u64 {
    let own = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|e| e.file_name().into_string().ok())
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)).is_some_and(|parent| parent == own)
        })
        .map(|pid| cpu_us(&pid))
        .sum()
}
