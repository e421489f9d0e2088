//! The environment variables of a function's process, built from nothing.
//!
//! Source: Lambda specification 1.11. Paths are those of this machine, since there is no file system of its own yet:
//! a folder that AWS calls `/var/task` is `LAMBDA_TASK_ROOT`.

use std::collections::BTreeMap;
use std::path::Path;

use longshore_core::pool::Kind;

use super::runtimes::{Found, Language};
use super::{Deployment, FunctionCredentials, LogFormat};

/// What differs between two environments of one deployment.
pub(super) struct Addresses<'a> {
    /// `host:port`, as clients of the Runtime API expect it.
    pub runtime_api: String,
    pub s3_endpoint: String,
    pub log_stream: String,
    pub region: &'a str,
    pub tmp_dir: &'a Path,
    pub clients_dir: &'a Path,
    pub credentials: &'a FunctionCredentials,
}

pub(super) fn variables(
    d: &Deployment,
    kind: Kind,
    language: Language,
    found: &Found,
    a: &Addresses<'_>,
) -> BTreeMap<String, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let code = text(&d.code_dir);
    let layers = d.layers_dir.as_deref().map(text);
    let in_layers = |sub: &str| layers.as_ref().map(|layers| format!("{layers}/{sub}"));
    let joined = |parts: Vec<Option<String>>| parts.into_iter().flatten().collect::<Vec<_>>().join(":");

    // Those that a function's own configuration may replace come first.
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        variables.insert(name.to_owned(), value);
    };
    set("TZ", ":UTC".into());
    set("LANG", "en_US.UTF-8".into());
    let interpreter = found.program.parent().filter(|dir| !dir.as_os_str().is_empty()).map(text);
    set("PATH", joined(vec![interpreter, Some("/usr/local/bin:/usr/bin/:/bin".into()), in_layers("bin")]));
    let libraries = vec![Some(format!("/lib64:/usr/lib64:{code}:{code}/lib")), in_layers("lib")];
    set("LD_LIBRARY_PATH", joined(libraries));
    set("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".into());
    set("TMPDIR", text(a.tmp_dir));
    match language {
        Language::Python { .. } => set("PYTHONPATH", text(&a.clients_dir.join("python"))),
        Language::Node { major } => {
            let path = vec![
                in_layers(&format!("nodejs/node{major}/node_modules")),
                in_layers("nodejs/node_modules"),
                Some(text(&a.clients_dir.join("node/node_modules"))),
            ];
            set("NODE_PATH", joined(path));
        }
        Language::Provided => {}
    }
    if d.log_format == LogFormat::Json {
        set("AWS_LAMBDA_LOG_FORMAT", "JSON".into());
        if let Some(level) = &d.application_log_level {
            set("AWS_LAMBDA_LOG_LEVEL", level.clone());
        }
    }
    for (name, value) in &d.variables {
        set(name, value.clone());
    }

    // The host's own win.
    set("AWS_LAMBDA_RUNTIME_API", a.runtime_api.clone());
    set("_HANDLER", d.handler.clone());
    set("LAMBDA_TASK_ROOT", code);
    set("LAMBDA_RUNTIME_DIR", text(a.clients_dir));
    set("AWS_LAMBDA_FUNCTION_NAME", d.name.clone());
    set("AWS_LAMBDA_FUNCTION_VERSION", d.version.clone());
    set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", d.memory_mib.to_string());
    set("AWS_LAMBDA_LOG_GROUP_NAME", d.log_group.clone());
    set("AWS_LAMBDA_LOG_STREAM_NAME", a.log_stream.clone());
    let initialization = if kind == Kind::Provisioned { "provisioned-concurrency" } else { "on-demand" };
    set("AWS_LAMBDA_INITIALIZATION_TYPE", initialization.into());
    set("AWS_REGION", a.region.to_owned());
    set("AWS_DEFAULT_REGION", a.region.to_owned());
    set("AWS_ACCESS_KEY_ID", a.credentials.access_key_id.clone());
    set("AWS_SECRET_ACCESS_KEY", a.credentials.secret_access_key.clone());
    set("AWS_SESSION_TOKEN", a.credentials.session_token.clone());
    set("AWS_ENDPOINT_URL_S3", a.s3_endpoint.clone());
    // Where layers are, for our own runtime clients: on AWS it is always /opt.
    if let Some(layers) = &layers {
        set("LONGSHORE_LAYERS_DIR", layers.clone());
    }
    if language != Language::Provided {
        set("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", d.runtime));
    }
    // Its mere presence would switch AWS's clients into serving several events at once.
    variables.remove("AWS_LAMBDA_MAX_CONCURRENCY");
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_specification_is_complete_and_the_hosts_values_win() {
        let own =
            [("TZ", "Europe/Berlin"), ("AWS_REGION", "mars"), ("COLOUR", "red"), ("AWS_LAMBDA_MAX_CONCURRENCY", "3")];
        let d = Deployment {
            id: "1".into(),
            name: "f".into(),
            role: "arn:aws:iam::000000000000:role/r".into(),
            version: "7".into(),
            runtime: "nodejs20.x".into(),
            handler: "index.handler".into(),
            code_dir: "/code".into(),
            layers_dir: Some("/layers".into()),
            variables: own.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            timeout_s: 3,
            memory_mib: 128,
            ephemeral_storage_mib: 512,
            concurrency: None,
            log_format: LogFormat::Text,
            application_log_level: None,
            system_log_level: None,
            log_group: "/aws/lambda/f".into(),
        };
        let found = Found { program: "/usr/bin/node".into(), version: "20.0.0".into(), notice: None };
        let credentials = FunctionCredentials::random("f", "arn:aws:iam::000000000000:role/r").unwrap();
        let a = Addresses {
            runtime_api: "127.0.0.1:9".into(),
            s3_endpoint: "http://127.0.0.1:8".into(),
            log_stream: "2026/01/01/[7]ab".into(),
            region: "eu-west-1",
            tmp_dir: Path::new("/env/tmp"),
            clients_dir: Path::new("/rt"),
            credentials: &credentials,
        };
        let mut v = variables(&d, Kind::OnDemand, Language::of(&d.runtime).unwrap(), &found, &a);
        assert_eq!(v.remove("AWS_ACCESS_KEY_ID").unwrap(), credentials.access_key_id);
        assert_eq!(v.remove("AWS_SECRET_ACCESS_KEY").unwrap(), credentials.secret_access_key);
        assert_eq!(v.remove("AWS_SESSION_TOKEN").unwrap(), credentials.session_token);
        let got: Vec<(&str, &str)> = v.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            got,
            [
                ("AWS_DEFAULT_REGION", "eu-west-1"),
                ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8"),
                ("AWS_EXECUTION_ENV", "AWS_Lambda_nodejs20.x"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
                ("AWS_LAMBDA_FUNCTION_NAME", "f"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "7"),
                ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
                ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/f"),
                ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/01/01/[7]ab"),
                ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"),
                ("AWS_REGION", "eu-west-1"),
                ("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR"),
                ("COLOUR", "red"),
                ("LAMBDA_RUNTIME_DIR", "/rt"),
                ("LAMBDA_TASK_ROOT", "/code"),
                ("LANG", "en_US.UTF-8"),
                ("LD_LIBRARY_PATH", "/lib64:/usr/lib64:/code:/code/lib:/layers/lib"),
                ("LONGSHORE_LAYERS_DIR", "/layers"),
                ("NODE_PATH", "/layers/nodejs/node20/node_modules:/layers/nodejs/node_modules:/rt/node/node_modules"),
                ("PATH", "/usr/bin:/usr/local/bin:/usr/bin/:/bin:/layers/bin"),
                ("TMPDIR", "/env/tmp"),
                ("TZ", "Europe/Berlin"),
                ("_HANDLER", "index.handler"),
            ]
        );

        let logs = |own: &[(&str, &str)]| {
            let own = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let d = Deployment {
                log_format: LogFormat::Json,
                application_log_level: Some("WARN".into()),
                log_group: "/shared/group".into(),
                variables: own,
                ..d.clone()
            };
            let v = variables(&d, Kind::OnDemand, Language::of(&d.runtime).unwrap(), &found, &a);
            ["AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL", "AWS_LAMBDA_LOG_GROUP_NAME"].map(|name| v[name].clone())
        };
        assert_eq!(logs(&[]), ["JSON", "WARN", "/shared/group"]);
        let own = [("AWS_LAMBDA_LOG_FORMAT", "Text"), ("AWS_LAMBDA_LOG_LEVEL", "DEBUG")];
        assert_eq!(logs(&own), ["Text", "DEBUG", "/shared/group"]);
    }
}
