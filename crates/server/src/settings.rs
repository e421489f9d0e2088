//! Settings: the embedded default file, then `longshore.toml`, then the environment, then flags.
//!
//! Every key exists in the default file, which is where its meaning and its first value are written. A key that is not
//! there is an error, wherever it comes from.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_core::event_invocation::Policy;
use longshore_core::manifest::ROWS_MAX;
use longshore_core::rate::Rate;
use longshore_functions::host::{HostSettings, Network, SandboxSettings};
use longshore_jobs::Dialect;
use longshore_sandbox::{Layer, Mode};
use serde::Deserialize;
use toml::{Table, Value};

use crate::audit::{FILES_MAX, Kept};
use crate::cli::LogFormat;
use crate::endpoints::EndpointSettings;
use crate::failure::{Because, Failure, OF_ANOTHER};
use crate::names;
use crate::remote_functions::FunctionEndpointSettings;
use crate::sinks::{self, SinkSettings};

/// The commented file with every key and its default.
pub const DEFAULTS: &str = include_str!("../longshore.toml");

const FILE: &str = "longshore.toml";
const VARIABLE_PREFIX: &str = "LONGSHORE_";
/// Variables that are not settings: read by the command line and the log, or set for a function's process.
const VARIABLES_APART: [&str; 4] = ["LONGSHORE_DATA_DIR", "LONGSHORE_CONFIG", "LONGSHORE_LOG", "LONGSHORE_ENVIRONMENT"];
const VARIABLES_OF_TESTS: &str = "LONGSHORE_TEST_";

/// Whether policies are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Iam {
    On,
    /// Whoever has the root credentials may do everything, and roles are names.
    Off,
}

/// What a server is told. Meanings and defaults: `longshore.toml` beside this crate's manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub account: String,
    pub region: String,
    #[serde(deserialize_with = "listen_of_text")]
    pub listen: SocketAddr,
    pub allow_plain_http: bool,
    /// `None`: metrics are served on `listen` alone, to whoever signs.
    #[serde(deserialize_with = "metrics_listen_of_text")]
    pub metrics_listen: Option<SocketAddr>,
    pub log_format: LogFormat,
    pub names: Vec<String>,
    pub base_path: String,
    pub unsigned_payload: bool,
    pub iam: Iam,
    pub events: Vec<SinkSettings>,
    pub endpoint: Vec<EndpointSettings>,
    pub function_endpoint: Vec<FunctionEndpointSettings>,
    pub tls: Tls,
    pub limits: Limits,
    pub audit: Audit,
    pub jobs: Jobs,
    pub functions: Functions,
}

/// The certificate that the listeners show. Both paths are empty, or neither is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Tls {
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub stop_seconds: u64,
}

/// How much of the audit log is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub file_mib_max: u64,
    pub files_max: usize,
    pub changes_files_max: usize,
}

impl Audit {
    pub fn kept(&self) -> Kept {
        Kept {
            file_bytes_max: self.file_mib_max.saturating_mul(1 << 20),
            files_max: self.files_max,
            changes_files_max: self.changes_files_max,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jobs {
    pub active_max: usize,
    pub preparing_max: usize,
    pub concurrency_total_max: u32,
    pub concurrency_max: u32,
    pub concurrency_initial: u32,
    pub attempts_max: u32,
    pub retry_ms: u64,
    pub retry_ms_max: u64,
    pub redrive_function_errors: u32,
    pub failure_tasks_min: u64,
    pub failure_ratio: f64,
    pub unrecorded_max: usize,
    pub strict: bool,
    pub rows_max: u64,
    pub confirmation_default: bool,
    pub confirmation_days: u32,
    pub retention_days: u32,
    pub retained_max: usize,
    pub error_dialect: Dialect,
    pub requests_per_second: u32,
    pub requests_burst: u32,
    pub requests_limit_loopback: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Functions {
    pub environments_max: u32,
    pub memory_max_mib: u64,
    pub account_concurrency: u32,
    pub queue_wait_ms: u64,
    pub scale_up: u32,
    pub idle_seconds: u64,
    #[serde(deserialize_with = "seconds_of_patterns")]
    pub idle_seconds_of: Vec<(String, u64)>,
    pub age_hours_max: u32,
    pub freeze: Freeze,
    pub freeze_ms: u64,
    pub init_limit: InitLimit,
    pub strict_runtimes: bool,
    pub calls_waiting_max: usize,
    pub code_bytes_max: u64,
    pub variables_key_file: PathBuf,
    pub events_max: usize,
    pub events_mib_max: u64,
    pub event_retry_seconds: u64,
    pub sandbox: Mode,
    pub sandbox_without: BTreeSet<Layer>,
    pub sandbox_paths: Vec<PathBuf>,
    #[serde(deserialize_with = "uids_of_text")]
    pub sandbox_uids: (u32, u32),
    pub network: Network,
    pub cpu: Cpu,
}

/// When a function's processes are stopped between two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freeze {
    Off,
    /// After `freeze_ms` without a call.
    Idle,
    Always,
}

/// What happens to a start that takes longer than Lambda's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitLimit {
    Continue,
    Restart,
}

/// How much of the CPU an environment gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cpu {
    Unlimited,
    Proportional,
}

impl Settings {
    /// What the engine is told.
    pub fn jobs(&self) -> longshore_jobs::Settings {
        let mut jobs = longshore_jobs::Settings::new(&self.account, &self.region);
        jobs.columnar = std::sync::Arc::new(longshore_inventory::Tables);
        jobs.active_slots = self.jobs.active_max;
        jobs.preparing_slots = self.jobs.preparing_max;
        jobs.concurrency_total_max = self.jobs.concurrency_total_max;
        jobs.rows_max = self.jobs.rows_max;
        jobs.confirmation_ms_max = i64::from(self.jobs.confirmation_days) * 24 * 60 * 60 * 1_000;
        jobs.confirmation_default = self.jobs.confirmation_default;
        jobs.retention_ms = i64::from(self.jobs.retention_days) * 24 * 60 * 60 * 1_000;
        jobs.retained_max = self.jobs.retained_max;
        jobs.dialect = self.jobs.error_dialect;
        let limited = self.jobs.requests_limit_loopback || !self.listen.ip().is_loopback();
        if limited && self.jobs.requests_per_second > 0 {
            jobs.rate = Some(Rate { per_second: self.jobs.requests_per_second, burst: self.jobs.requests_burst });
        }
        jobs.run.ramp.initial = self.jobs.concurrency_initial;
        jobs.run.ramp.max = self.jobs.concurrency_max;
        jobs.run.retry.attempts_max = self.jobs.attempts_max;
        jobs.run.retry.redrive.base_ms = self.jobs.retry_ms;
        jobs.run.retry.redrive.cap_ms = self.jobs.retry_ms_max;
        jobs.run.retry.function_error_redrives_max = self.jobs.redrive_function_errors;
        jobs.run.threshold.tasks_min = self.jobs.failure_tasks_min;
        jobs.run.threshold.ratio = self.jobs.failure_ratio;
        jobs.run.unrecorded_max = self.jobs.unrecorded_max;
        jobs.run.strict = self.jobs.strict;
        jobs
    }

    /// What the function host is told.
    pub fn host(&self, data_dir: &Path) -> HostSettings {
        let mut host = HostSettings::new(&self.region, &self.account, data_dir);
        if self.functions.environments_max > 0 {
            host.environments_max = self.functions.environments_max;
        }
        if self.functions.memory_max_mib > 0 {
            host.memory_mib_max = self.functions.memory_max_mib;
        }
        host.account_concurrency = self.functions.account_concurrency;
        host.scale_up = Some(self.functions.scale_up).filter(|size| *size > 0);
        host.age_max = Duration::from_secs(60 * 60 * u64::from(self.functions.age_hours_max));
        host.freeze_after = match self.functions.freeze {
            Freeze::Off => None,
            Freeze::Idle => Some(Duration::from_millis(self.functions.freeze_ms)),
            Freeze::Always => Some(Duration::ZERO),
        };
        host.init_restarts = self.functions.init_limit == InitLimit::Restart;
        host.idle_timeout = Duration::from_secs(self.functions.idle_seconds);
        let of = self.functions.idle_seconds_of.iter();
        host.idle_timeouts = of.map(|(pattern, seconds)| (pattern.clone(), Duration::from_secs(*seconds))).collect();
        host.strict_runtimes = self.functions.strict_runtimes;
        host.calls_waiting_max = self.functions.calls_waiting_max;
        host.sandbox = self.sandbox();
        host
    }

    /// What the Lambda API is told.
    pub fn functions(&self) -> longshore_functions::Settings {
        let mut functions = longshore_functions::Settings::new(&self.region, &self.account);
        functions.events.bounds.events_max = self.functions.events_max;
        functions.events.bounds.bytes_max = self.functions.events_mib_max.saturating_mul(1 << 20);
        functions.events.policy = Policy::with_retry_ms(self.functions.event_retry_seconds.saturating_mul(1_000));
        functions.account_concurrency = self.functions.account_concurrency;
        functions.queue_wait = Duration::from_millis(self.functions.queue_wait_ms);
        functions.code_bytes_max = self.functions.code_bytes_max;
        let key = &self.functions.variables_key_file;
        functions.tls = self.tls.is_on();
        functions.variables_key = (!key.as_os_str().is_empty()).then(|| key.clone());
        functions
    }

    /// How functions are kept apart.
    pub fn sandbox(&self) -> SandboxSettings {
        let functions = &self.functions;
        SandboxSettings {
            mode: functions.sandbox,
            without: functions.sandbox_without.clone(),
            network: functions.network,
            uids: functions.sandbox_uids,
            paths: functions.sandbox_paths.clone(),
            closed_ports: Vec::new(),
            cpu_proportional: functions.cpu == Cpu::Proportional,
        }
    }

    /// Puts flags on top.
    pub fn confine(&mut self, flags: &crate::cli::Confine) {
        self.functions.sandbox = flags.sandbox.unwrap_or(self.functions.sandbox);
        self.functions.network = flags.network.unwrap_or(self.functions.network);
    }

    /// Reads all layers but the flags, which the caller puts on top (and calls [`Settings::check`]).
    ///
    /// `file` is the one named by `--config`, which must exist; else the data directory's, which need not.
    pub fn load(
        data_dir: &Path,
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Failure> {
        let mut table: Table = toml::from_str(DEFAULTS).expect("the embedded file parses: a test reads it");
        let path = file.map_or_else(|| data_dir.join(FILE), Path::to_owned);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let read: Table = toml::from_str(&text).map_err(|e| usage_in(&path, e.message()))?;
                merge(&mut table, read, "").map_err(|e| usage_in(&path, &e))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {}
            // The user has said nothing of a settings file: what is wrong is the directory.
            Err(error) if file.is_none() && !path.exists() => {
                return Err(Failure::usage(format!(
                    "the data directory {} cannot be used: {error}",
                    data_dir.display()
                ))
                .hint(match error.kind() {
                    std::io::ErrorKind::PermissionDenied => OF_ANOTHER,
                    _ => "name another directory with --data-dir",
                }));
            }
            Err(error) => return Err(error).because(format!("cannot read {}", path.display())),
        }
        for (name, text) in environment {
            let Some(key) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
            if !VARIABLES_APART.contains(&name.as_str()) && !name.starts_with(VARIABLES_OF_TESTS) {
                set(&mut table, &key.to_ascii_lowercase(), &text).map_err(|e| {
                    Failure::usage(format!("{name}: {e}"))
                        .hint("see \"longshore serve --print-config\" for all settings")
                })?;
            }
        }
        let mut settings: Self = table.try_into().map_err(|e: toml::de::Error| usage_in(&path, e.message()))?;
        settings.check()?;
        if settings.tls.is_on() {
            // An absolute path stays as it is.
            settings.tls.certificate = data_dir.join(&settings.tls.certificate);
            settings.tls.key = data_dir.join(&settings.tls.key);
        }
        Ok(settings)
    }

    /// Refuses to serve others without policies. For `serve`, after the flags.
    pub fn check_iam(&self) -> Result<(), Failure> {
        if self.iam == Iam::On || self.listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "iam = \"off\" is for throw-away servers on this machine alone, and {} is not",
            self.listen
        ))
        .hint("leave iam on, or listen on 127.0.0.1"))
    }

    /// Refuses to offer plain HTTP to other machines unless that was asked for by name. For `serve`, after the flags.
    /// Our choice: signatures keep requests from being forged, but nothing keeps objects from being read on the way.
    pub fn check_listen(&self) -> Result<(), Failure> {
        if self.listen.ip().to_canonical().is_loopback() || self.tls.is_on() || self.allow_plain_http {
            return Ok(());
        }
        let to = self.listen;
        Err(Failure::usage(format!(
            "{to} is not on the loopback interface, and there is no TLS: others could read along"
        ))
        .hint(
            "name a certificate with --tls-certificate and --tls-key, put a proxy with TLS before 127.0.0.1, or allow it with \
             --allow-plain-http in a network you trust",
        ))
    }

    /// What the types do not say.
    pub fn check(&self) -> Result<(), Failure> {
        if !names::is_account(&self.account) {
            return Err(Failure::usage(format!("account must be twelve digits, not {:?}", self.account)));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.region.is_empty() || !self.region.chars().all(plain) {
            return Err(Failure::usage(format!("region must be like us-east-1, not {:?}", self.region)));
        }
        for name in &self.names {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            if name.is_empty() || !name.chars().all(plain) {
                return Err(Failure::usage(format!("names: {name:?} is not a host name (no port, no scheme)")));
            }
        }
        let segment = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b));
        let fits = |rest: &str| rest.split('/').all(segment);
        if !self.base_path.is_empty() && !self.base_path.strip_prefix('/').is_some_and(fits) {
            let text = format!("base_path must be empty or like /base, not {:?}", self.base_path);
            return Err(Failure::usage(text));
        }
        if self.tls.certificate.as_os_str().is_empty() != self.tls.key.as_os_str().is_empty() {
            return Err(Failure::usage("tls.certificate and tls.key go together, and one of them is empty"));
        }
        self.endpoint.iter().try_for_each(EndpointSettings::check)?;
        self.function_endpoint.iter().try_for_each(FunctionEndpointSettings::check)?;
        let jobs = &self.jobs;
        let at_least_one = [
            ("limits.connections_max", self.limits.connections_max as u64),
            ("limits.connections_per_address_max", self.limits.connections_per_address_max as u64),
            ("audit.file_mib_max", self.audit.file_mib_max),
            ("audit.files_max", self.audit.files_max as u64),
            ("audit.changes_files_max", self.audit.changes_files_max as u64),
            ("jobs.active_max", jobs.active_max as u64),
            ("jobs.preparing_max", jobs.preparing_max as u64),
            ("jobs.retention_days", jobs.retention_days.into()),
            ("jobs.concurrency_total_max", jobs.concurrency_total_max.into()),
            ("jobs.concurrency_max", jobs.concurrency_max.into()),
            ("jobs.concurrency_initial", jobs.concurrency_initial.into()),
            ("jobs.attempts_max", jobs.attempts_max.into()),
            ("jobs.unrecorded_max", jobs.unrecorded_max as u64),
            ("jobs.rows_max", jobs.rows_max),
            ("jobs.requests_burst", jobs.requests_burst.into()),
            ("functions.events_max", self.functions.events_max as u64),
            ("functions.events_mib_max", self.functions.events_mib_max),
            ("functions.account_concurrency", self.functions.account_concurrency.into()),
            ("functions.age_hours_max", self.functions.age_hours_max.into()),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(Failure::usage(format!("{name} must be at least 1")));
        }
        let kept = [("files_max", self.audit.files_max), ("changes_files_max", self.audit.changes_files_max)];
        if let Some((name, _)) = kept.iter().find(|(_, files)| *files > FILES_MAX) {
            return Err(Failure::usage(format!("audit.{name} must be at most {FILES_MAX}")));
        }
        if jobs.rows_max > ROWS_MAX {
            return Err(Failure::usage(format!("jobs.rows_max must be at most {ROWS_MAX}, as on AWS")));
        }
        if !(0.0..=1.0).contains(&jobs.failure_ratio) {
            return Err(Failure::usage("jobs.failure_ratio must be between 0 and 1"));
        }
        if let Some(path) = self.functions.sandbox_paths.iter().find(|path| !path.is_absolute()) {
            return Err(Failure::usage(format!("functions.sandbox_paths: {} is not absolute", path.display())));
        }
        sinks::check(&self.events)?;
        Ok(())
    }
}

/// Reads an address to listen on: `127.0.0.1:7300`, `[::1]:7300`, `localhost:7300`.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!("{text:?} is not an address and a port (0 to 65535): write 127.0.0.1:7300 or localhost:7300")
    })
}

/// As [`listen_address`], of the loopback interface; empty for none.
fn metrics_listen_of_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    metrics_address(&text).map(Some).map_err(|e| serde::de::Error::custom(format!("metrics_listen: {e}")))
}

/// Reads an address where metrics are served to whoever asks: nobody but this machine may.
pub fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let address = listen_address(text)?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "{address} is not on the loopback interface, and nothing is signed there: let a proxy stand before it, or read \
             /_longshore/v1/metrics with a signature"
        ));
    }
    Ok(address)
}

fn listen_of_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    listen_address(&String::deserialize(from)?).map_err(|e| serde::de::Error::custom(format!("listen: {e}")))
}

/// `thumb*=600`: a function's name, or a pattern of names, and seconds.
fn seconds_of_patterns<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<(String, u64)>, D::Error> {
    let one = |text: String| {
        let parts = text.split_once('=').and_then(|(name, seconds)| Some((name.trim(), seconds.trim().parse().ok()?)));
        let name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_*".contains(&b));
        let read = parts.filter(|(pattern, _)| !pattern.is_empty() && name(pattern));
        read.map(|(pattern, seconds)| (pattern.to_owned(), seconds)).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "functions.idle_seconds_of must be a list of functions with their seconds, like \"thumb*=600\", not {text:?}"
            ))
        })
    };
    Vec::<String>::deserialize(from)?.into_iter().map(one).collect()
}

/// Whose files and processes of other namespaces seem to be: nobody's, and of many programs.
const OVERFLOW_UID: u32 = 65_534;

/// Reads a range of user IDs, `60000-60999`. Root and the overflow user are nobody's own.
fn uids_of_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<(u32, u32), D::Error> {
    let text = String::deserialize(from)?;
    let range =
        text.split_once('-').and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    let fine = |first: u32, last: u32| {
        0 < first && first <= last && last < u32::MAX && !(first..=last).contains(&OVERFLOW_UID)
    };
    range.filter(|(first, last)| fine(*first, *last)).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "functions.sandbox_uids must be two numbers above 0 like 60000-60999, without {OVERFLOW_UID}, not {text:?}"
        ))
    })
}

/// The variables of this process. One that is not UTF-8 is no setting of ours.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The data directory when no flag names one: `$LONGSHORE_DATA_DIR`, `$XDG_DATA_HOME/longshore`,
/// `~/.local/share/longshore`.
pub fn data_dir(flag: Option<&Path>, environment: impl Fn(&str) -> Option<String>) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| environment(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    flag.map(Path::to_owned)
        .or_else(|| absolute("LONGSHORE_DATA_DIR"))
        .or_else(|| absolute("XDG_DATA_HOME").map(|p| p.join("longshore")))
        .or_else(|| absolute("HOME").map(|p| p.join(".local/share/longshore")))
        .ok_or_else(|| Failure::usage("no data directory: HOME is not set").hint("name one with --data-dir"))
}

fn usage_in(path: &Path, message: &str) -> Failure {
    Failure::usage(format!("{}: {}", path.display(), message.trim()))
        .hint("see \"longshore serve --print-config\" for all settings")
}

/// Puts `over` on `base`, key by key. A key that `base` lacks, or has with another type, is an error.
fn merge(base: &mut Table, over: Table, section: &str) -> Result<(), String> {
    for (key, value) in over {
        let Some(old) = base.get_mut(&key) else {
            return Err(format!("there is no setting {section}{key}"));
        };
        match (old, value) {
            (Value::Table(old), Value::Table(value)) => merge(old, value, &format!("{section}{key}."))?,
            (old, value) if old.same_type(&value) => *old = value,
            (old, value) => {
                return Err(format!("{section}{key} must be a {}, not a {}", old.type_str(), value.type_str()));
            }
        }
    }
    Ok(())
}

/// Sets the key that a variable names: `region`, or `limits_connections_max` for `[limits] connections_max`. The
/// default's type says how the text is read; a list is separated by commas.
fn set(table: &mut Table, name: &str, text: &str) -> Result<(), String> {
    for (key, value) in table.iter_mut() {
        if let Value::Table(section) = value {
            if let Some(rest) = name.strip_prefix(key.as_str()).and_then(|r| r.strip_prefix('_'))
                && section.contains_key(rest)
            {
                return set(section, rest, text);
            }
        } else if key == name {
            let wrong = |kind: &str| format!("must be {kind}, not {text:?}");
            *value = match value {
                Value::Integer(_) => Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?),
                Value::Float(_) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
                Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
                Value::Array(_) => {
                    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
                    Value::Array(parts.map(|p| Value::String(p.to_owned())).collect())
                }
                _ => Value::String(text.to_owned()),
            };
            return Ok(());
        }
    }
    Err("there is no such setting".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Settings, Failure> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), file).unwrap();
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Settings::load(dir.path(), None, variables)
    }

    #[test]
    fn the_embedded_file_holds_every_setting_and_is_valid() {
        let settings = load("", &[]).unwrap();
        assert_eq!((settings.account.as_str(), settings.region.as_str()), ("000000000000", "us-east-1"));
        assert_eq!(settings.listen, "127.0.0.1:7300".parse().unwrap());
    }

    #[test]
    fn the_defaults_are_those_of_the_engine_and_the_host() {
        let (ours, theirs) =
            (load("", &[]).unwrap().jobs(), longshore_jobs::Settings::new("000000000000", "us-east-1"));
        assert_eq!(format!("{:?}", ours.run), format!("{:?}", theirs.run));
        assert_eq!(ours.active_slots, theirs.active_slots);
        assert_eq!(ours.concurrency_total_max, theirs.concurrency_total_max);
        assert_eq!(ours.rows_max, theirs.rows_max);
        assert_eq!(ours.confirmation_ms_max, theirs.confirmation_ms_max);
        assert_eq!(ours.preparing_slots, theirs.preparing_slots);
        assert_eq!((ours.retention_ms, ours.retained_max), (theirs.retention_ms, theirs.retained_max));
        assert_eq!((ours.confirmation_default, ours.dialect), (theirs.confirmation_default, theirs.dialect));
        assert_eq!(ours.rate, theirs.rate);
        let dir = Path::new("/d");
        let (ours, theirs) = (load("", &[]).unwrap().host(dir), HostSettings::new("us-east-1", "000000000000", dir));
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        let (ours, theirs) =
            (load("", &[]).unwrap().functions(), longshore_functions::Settings::new("us-east-1", "000000000000"));
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }

    #[test]
    fn freezing_and_the_limit_of_a_start_are_words_and_anything_else_is_refused() {
        let host =
            |text: &str| load(&format!("[functions]\n{text}"), &[]).map(|settings| settings.host(Path::new("/d")));
        assert_eq!(host("freeze = \"off\"").unwrap().freeze_after, None);
        assert_eq!(host("freeze = \"always\"").unwrap().freeze_after, Some(Duration::ZERO));
        assert_eq!(host("freeze_ms = 70").unwrap().freeze_after, Some(Duration::from_millis(70)));
        assert!(host("init_limit = \"restart\"").unwrap().init_restarts);
        assert_eq!(host("scale_up = 1000").unwrap().scale_up, Some(1_000));
        for wrong in ["freeze = \"sometimes\"", "init_limit = \"kill\"", "age_hours_max = 0", "account_concurrency = 0"]
        {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn code_has_a_limit_and_environment_variables_a_key_of_the_operators_choice() {
        let variables = [
            ("LONGSHORE_FUNCTIONS_CODE_BYTES_MAX", "1000"),
            ("LONGSHORE_FUNCTIONS_VARIABLES_KEY_FILE", "/run/secrets/key"),
        ];
        let functions = load("", &variables).unwrap().functions();
        assert_eq!(functions.code_bytes_max, 1_000);
        assert_eq!(functions.variables_key.as_deref(), Some(Path::new("/run/secrets/key")));
    }

    #[test]
    fn functions_may_stay_idle_for_a_time_of_their_own() {
        let of = |list: &str| load(&format!("[functions]\nidle_seconds_of = {list}"), &[]);
        let told = of("[\"thumb*=600\", \"once = 0\"]").unwrap().host(Path::new("/d")).idle_timeouts;
        let expected = [("thumb*".to_owned(), Duration::from_secs(600)), ("once".to_owned(), Duration::ZERO)];
        assert_eq!(told, expected);
        for wrong in ["[\"thumb*\"]", "[\"=5\"]", "[\"a b=5\"]", "[\"f=soon\"]", "[\"f=-1\"]"] {
            assert!(of(wrong).unwrap_err().message.contains("thumb*=600"), "{wrong}");
        }
    }

    #[test]
    fn the_sandbox_is_on_unless_it_is_said_otherwise_and_its_settings_are_checked() {
        let usual = load("", &[]).unwrap().sandbox();
        assert_eq!((usual.mode, usual.network, usual.uids), (Mode::Auto, Network::S3, (60_000, 60_999)));
        let file = "[functions]\nsandbox_without = [\"own-uid\", \"cgroup\"]\ncpu = \"proportional\"";
        let given = load(file, &[("LONGSHORE_FUNCTIONS_SANDBOX", "require")]).unwrap();
        let sandbox = given.sandbox();
        assert_eq!((sandbox.mode, sandbox.cpu_proportional), (Mode::Require, true));
        assert_eq!(sandbox.without, BTreeSet::from([Layer::OwnUid, Layer::Cgroup]));
        let mut flags = given.clone();
        flags.confine(&crate::cli::Confine { sandbox: Some(Mode::Off), network: Some(Network::Open) });
        assert_eq!((flags.sandbox().mode, flags.sandbox().network), (Mode::Off, Network::Open));
        for (variable, value, said) in [
            ("SANDBOX", "on", "`auto`"),
            ("SANDBOX_WITHOUT", "selinux", "`own-uid`"),
            ("SANDBOX_UIDS", "0-10", "60000-60999"),
            ("SANDBOX_UIDS", "10-9", "60000-60999"),
            ("SANDBOX_UIDS", "60000-70000", "without 65534"),
            ("SANDBOX_PATHS", "models", "is not absolute"),
            ("NETWORK", "none", "`s3`"),
            ("CPU", "half", "`proportional`"),
        ] {
            let told = load("", &[(&format!("LONGSHORE_FUNCTIONS_{variable}"), value)]).unwrap_err().message;
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn a_limit_of_rows_above_awss_own_is_refused() {
        assert!(load("[jobs]\nrows_max = 20000000000", &[]).is_ok());
        let refused = load("[jobs]\nrows_max = 20000000001", &[]).unwrap_err();
        assert!(refused.message.contains("jobs.rows_max") && refused.message.contains("20000000000"));
        for name in ["files_max", "changes_files_max"] {
            assert!(load(&format!("[audit]\n{name} = 1000"), &[]).is_ok());
            let refused = load(&format!("[audit]\n{name} = 1001"), &[]).unwrap_err();
            assert!(refused.message.contains(&format!("audit.{name} must be at most 1000")), "{}", refused.message);
        }
    }

    #[test]
    fn an_address_is_numeric_or_localhost_and_public_only_if_that_was_asked_for() {
        assert_eq!(listen_address("localhost:7444").unwrap(), "127.0.0.1:7444".parse().unwrap());
        for wrong in ["foo", "foo:1", "127.0.0.1:80000", "127.0.0.1", ":7300", "localhost"] {
            assert!(listen_address(wrong).unwrap_err().contains("127.0.0.1:7300"), "{wrong}");
            assert!(load("", &[("LONGSHORE_LISTEN", wrong)]).unwrap_err().message.contains("127.0.0.1:7300"));
        }
        for (listen, allowed, fine) in
            [("[::1]:1", "false", true), ("0.0.0.0:1", "false", false), ("10.0.0.1:1", "true", true)]
        {
            let variables = [("LONGSHORE_LISTEN", listen), ("LONGSHORE_ALLOW_PLAIN_HTTP", allowed)];
            assert_eq!(load("", &variables).unwrap().check_listen().is_ok(), fine, "{listen}");
        }
    }

    #[test]
    fn metrics_are_served_without_a_signature_on_the_loopback_interface_alone_and_only_if_asked() {
        assert_eq!(load("", &[]).unwrap().metrics_listen, None);
        for (listen, fine) in
            [("127.0.0.1:0", true), ("[::1]:9300", true), ("0.0.0.0:9300", false), ("10.0.0.1:9300", false)]
        {
            let loaded = load("", &[("LONGSHORE_METRICS_LISTEN", listen)]);
            assert_eq!(loaded.as_ref().map(|s| s.metrics_listen).ok(), fine.then(|| listen.parse().ok()), "{listen}");
            assert_eq!(metrics_address(listen).is_ok(), fine);
        }
        assert!(load("metrics_listen = \"x\"", &[]).unwrap_err().message.contains("metrics_listen"));
    }

    #[test]
    fn the_format_of_the_log_is_a_setting() {
        assert_eq!(load("", &[]).unwrap().log_format, LogFormat::Text);
        assert_eq!(load("log_format = \"json\"", &[]).unwrap().log_format, LogFormat::Json);
        let variable = [("LONGSHORE_LOG_FORMAT", "text")];
        assert_eq!(load("log_format = \"json\"", &variable).unwrap().log_format, LogFormat::Text);
        assert!(load("log_format = \"xml\"", &[]).unwrap_err().message.contains("expected `text` or `json`"));
    }

    #[test]
    fn requests_are_limited_where_others_can_connect_or_where_that_is_asked_for() {
        let usual = Some(Rate { per_second: 100, burst: 200 });
        for (listen, loopback, per_second, wanted) in [
            ("127.0.0.1:1", "false", "100", None),
            ("[::1]:1", "false", "100", None),
            ("127.0.0.1:1", "true", "100", usual),
            ("10.0.0.1:1", "false", "100", usual),
            ("10.0.0.1:1", "false", "0", None),
        ] {
            let variables = [
                ("LONGSHORE_LISTEN", listen),
                ("LONGSHORE_JOBS_REQUESTS_LIMIT_LOOPBACK", loopback),
                ("LONGSHORE_JOBS_REQUESTS_PER_SECOND", per_second),
            ];
            assert_eq!(load("", &variables).unwrap().jobs().rate, wanted, "{listen} {loopback} {per_second}");
        }
    }

    #[test]
    fn a_base_path_and_a_dialect_are_checked() {
        for (base, fine) in [
            ("", true),
            ("/s3", true),
            ("/a/b.c", true),
            ("s3", false),
            ("/", false),
            ("/s3/", false),
            ("//s3", false),
            ("/a b", false),
        ] {
            assert_eq!(load("", &[("LONGSHORE_BASE_PATH", base)]).is_ok(), fine, "{base:?}");
        }
        let dialect = |name| load("", &[("LONGSHORE_JOBS_ERROR_DIALECT", name)]).map(|s| s.jobs().dialect);
        assert_eq!(dialect("modeled").unwrap(), Dialect::Modeled);
        assert_eq!(dialect("observed").unwrap(), Dialect::Observed);
        assert!(dialect("Modeled").unwrap_err().message.contains("expected `observed` or `modeled`"));
    }

    #[test]
    fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
        let file = "region = \"eu-west-1\"\naccount = \"123456789012\"\n[limits]\nconnections_max = 7";
        let variables = [
            ("LONGSHORE_REGION", "eu-north-1"),
            ("LONGSHORE_NAMES", "a.example, b.example"),
            ("LONGSHORE_LIMITS_STOP_SECONDS", "3"),
            ("LONGSHORE_LOG", "debug"),
            ("HOME", "/"),
        ];
        let settings = load(file, &variables).unwrap();
        assert_eq!((settings.account.as_str(), settings.region.as_str()), ("123456789012", "eu-north-1"));
        assert_eq!((settings.limits.connections_max, settings.limits.stop_seconds), (7, 3));
        assert_eq!(settings.names, ["a.example", "b.example"]);
    }

    #[test]
    fn an_unknown_or_ill_typed_key_is_an_error_wherever_it_stands() {
        for file in
            ["regoin = \"x\"", "[limits]\nnone = 1", "[limit]\nconnections_max = 1", "region = 1", "limits = 1", "a ="]
        {
            assert_eq!(load(file, &[]).unwrap_err().status, crate::failure::USAGE, "{file}");
        }
        for variable in ["LONGSHORE_REGOIN", "LONGSHORE_LIMITS", "LONGSHORE_LIMITS_STOP_SECONDS", "LONGSHORE_ACCOUNT"] {
            let error = load("", &[(variable, "x")]).unwrap_err();
            assert_eq!(error.status, crate::failure::USAGE, "{variable}");
        }
    }

    #[test]
    fn sinks_for_events_come_from_the_file_and_are_checked() {
        let settings = load("[[events]]\nname = \"log\"\nkind = \"file\"\npath = \"events.jsonl\"", &[]).unwrap();
        assert_eq!(settings.events.len(), 1);
        for wrong in [
            "[[events]]\nname = \"log\"\nkind = \"file\"",
            "[[events]]\nkind = \"stdout\"",
            "[[events]]\nname = \"log\"\nkind = \"stdout\"\ncolour = 1",
            "[events]\nname = \"log\"",
        ] {
            assert_eq!(load(wrong, &[]).unwrap_err().status, crate::failure::USAGE, "{wrong}");
        }
    }

    #[test]
    fn the_data_directory_is_the_flags_then_the_variables_then_below_home() {
        let variables = |names: &'static [&'static str]| {
            move |n: &str| names.contains(&n).then(|| format!("/{}", n.to_ascii_lowercase()))
        };
        let all = &["LONGSHORE_DATA_DIR", "XDG_DATA_HOME", "HOME"];
        assert_eq!(data_dir(Some(Path::new("/x")), variables(all)).unwrap(), Path::new("/x"));
        assert_eq!(data_dir(None, variables(all)).unwrap(), Path::new("/longshore_data_dir"));
        assert_eq!(data_dir(None, variables(&all[1..])).unwrap(), Path::new("/xdg_data_home/longshore"));
        assert_eq!(data_dir(None, variables(&all[2..])).unwrap(), Path::new("/home/.local/share/longshore"));
        assert!(data_dir(None, |_| None).is_err());
    }
}
