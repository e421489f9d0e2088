//! Settings of functions beside code and layers, and operations that answer harmless defaults. Source: Lambda spec 0,
//! 1.11, 3.1 to 3.4.

use super::*;

const CONFIGURATION: &str = "/2015-03-31/functions/f/configuration";
const PARAMETER: &str = "InvalidParameterValueException";

#[tokio::test]
async fn how_a_function_logs_is_set_shown_and_told_to_it() {
    let api = Api::new();
    let created = api.create().await.body;
    assert_eq!(created["LoggingConfig"], json!({"LogFormat": "Text", "LogGroup": "/aws/lambda/f"}));
    let set = async |logging: Value| {
        let answer = api.put(CONFIGURATION, json!({"LoggingConfig": logging})).await.ok(200);
        api.configuration().await;
        answer.body["LoggingConfig"].clone()
    };
    let json_with = |application: &str, system: &str, group: &str| json!({"LogFormat": "JSON", "ApplicationLogLevel": application, "SystemLogLevel": system, "LogGroup": group});
    assert_eq!(set(json!({"LogFormat": "JSON"})).await, json_with("INFO", "INFO", "/aws/lambda/f"));
    assert_eq!(set(json!({"ApplicationLogLevel": "TRACE"})).await, json_with("TRACE", "INFO", "/aws/lambda/f"));
    assert_eq!(
        set(json!({"SystemLogLevel": "WARN", "LogGroup": "/my/group"})).await,
        json_with("TRACE", "WARN", "/my/group")
    );
    api.invoke("f", &[], "{}").await.ok(200);
    let deployment = api.host.seen.lock().unwrap().last().unwrap().0.clone();
    let told = (
        deployment.log_format,
        deployment.application_log_level.as_deref(),
        deployment.system_log_level.as_deref(),
        deployment.log_group.as_str(),
    );
    assert_eq!(told, (crate::host::LogFormat::Json, Some("TRACE"), Some("WARN"), "/my/group"));
    assert_eq!(set(json!({"LogFormat": "Text"})).await, json!({"LogFormat": "Text", "LogGroup": "/my/group"}));
    assert_eq!(set(json!({"LogFormat": "JSON"})).await, json_with("INFO", "INFO", "/my/group"));
    set(json!({"LogFormat": "Text"})).await;
    let level = api.put(CONFIGURATION, json!({"LoggingConfig": {"SystemLogLevel": "INFO"}})).await;
    level.fails(400, PARAMETER, "ApplicationLogLevel and SystemLogLevel can be set only if LogFormat is JSON.");
    let wrong =
        json!({"LogFormat": "XML", "ApplicationLogLevel": "LOUD", "SystemLogLevel": "FATAL", "LogGroup": "a b"});
    api.put(CONFIGURATION, json!({"LoggingConfig": wrong})).await.fails(400, "ValidationException", "4 validation errors detected: Value 'XML' at 'loggingConfig.logFormat' failed to satisfy constraint: Member must satisfy enum value set: [JSON, Text]; Value 'LOUD' at 'loggingConfig.applicationLogLevel' failed to satisfy constraint: Member must satisfy enum value set: [TRACE, DEBUG, INFO, WARN, ERROR, FATAL]; Value 'FATAL' at 'loggingConfig.systemLogLevel' failed to satisfy constraint: Member must satisfy enum value set: [DEBUG, INFO, WARN]; Value 'a b' at 'loggingConfig.logGroup' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+");
    let created = api.create_with(json!({"FunctionName": "g", "LoggingConfig": {"LogFormat": "JSON"}})).await.ok(201);
    assert_eq!(created.body["LoggingConfig"], json_with("INFO", "INFO", "/aws/lambda/g"));
}

#[tokio::test]
async fn the_first_thing_that_is_wrong_with_a_new_function_is_told_in_the_order_of_the_specification() {
    let api = Api::new();
    api.create_with(json!({"FunctionName": "taken"})).await.ok(201);
    let tags: std::collections::BTreeMap<String, &str> = (0..51).map(|n| (format!("k{n}"), "v")).collect();
    let mut wrong = json!({
        "FunctionName": "taken",
        "Timeout": 0,
        "Runtime": "python3.6",
        "Role": "arn:aws:iam::222222222222:role/r",
        "Code": {"ZipFile": encoded(b"this is not a zip archive")},
        "Layers": ["arn:aws:lambda:us-east-1:111111111111:layer:none:1"],
        "Environment": {"Variables": {"AWS_REGION": "x"}},
        "Tags": tags,
    });
    let steps = [
        ("at 'timeout'", "Timeout", json!(3)),
        ("The runtime parameter of python3.6 is no longer supported", "Runtime", json!("python3.12")),
        ("Function already exist: taken", "FunctionName", json!("f")),
        ("Cross-account pass role is not allowed", "Role", json!(ROLE)),
        ("Could not unzip uploaded file.", "Code", json!({"ZipFile": encoded(&package())})),
        ("Layer version arn:aws:lambda:us-east-1:111111111111:layer:none:1 does not exist.", "Layers", json!([])),
        ("contains reserved keys", "Environment", json!({"Variables": {}})),
        ("Number of tags exceeds resource tag limit.", "Tags", json!({})),
    ];
    for (told, member, right) in steps {
        let answer = api.create_with(wrong.clone()).await;
        assert!(answer.error().2.contains(told), "{told}: {answer:?}");
        wrong[member] = right;
    }
    api.create_with(wrong).await.ok(201);
}

#[tokio::test]
async fn limits_of_settings_hold_to_the_last_character() {
    let api = Api::new();
    let variables = |bytes: usize| json!({"Environment": {"Variables": {"AB": "v".repeat(bytes - 9)}}});
    let fits = json!({
        "FunctionName": "n".repeat(64),
        "Description": "d".repeat(256),
        "Handler": "h".repeat(128),
        "Timeout": 900,
        "MemorySize": 10_240,
        "EphemeralStorage": {"Size": 10_240},
        "Environment": variables(4_096)["Environment"],
        "Tags": (0..50).map(|n| (format!("k{n}"), "v")).collect::<std::collections::BTreeMap<_, _>>(),
    });
    let created = api.create_with(fits).await.ok(201).body;
    assert_eq!(created["EphemeralStorage"], json!({"Size": 10_240}));
    let one = |text: &str| format!("1 validation error detected: {text}");
    let constraint = "ValidationException";
    let cases = [
        (
            json!({"Description": "d".repeat(257)}),
            constraint,
            one(&format!(
                "Value '{}' at 'description' failed to satisfy constraint: Member must have length less than or equal to 256",
                "d".repeat(257)
            )),
        ),
        (
            json!({"Handler": "h".repeat(129)}),
            constraint,
            one(&format!(
                "Value '{}' at 'handler' failed to satisfy constraint: Member must have length less than or equal to 128",
                "h".repeat(129)
            )),
        ),
        (
            json!({"Handler": "a b"}),
            constraint,
            one(
                "Value 'a b' at 'handler' failed to satisfy constraint: Member must satisfy regular expression pattern: [^\\s]+",
            ),
        ),
        (
            json!({"MemorySize": 127}),
            constraint,
            one(
                "Value '127' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128",
            ),
        ),
        (
            json!({"MemorySize": 10_241}),
            constraint,
            one(
                "Value '10241' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 10240",
            ),
        ),
        (
            json!({"EphemeralStorage": {"Size": 511}}),
            constraint,
            one(
                "Value '511' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value greater than or equal to 512",
            ),
        ),
        (
            json!({"EphemeralStorage": {"Size": 10_241}}),
            constraint,
            one(
                "Value '10241' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value less than or equal to 10240",
            ),
        ),
        (
            json!({"EphemeralStorage": {}}),
            constraint,
            one("Value null at 'ephemeralStorage.size' failed to satisfy constraint: Member must not be null"),
        ),
        (
            variables(4_097),
            PARAMETER,
            format!(
                "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: {{\"AB\":\"{}\"}}",
                "v".repeat(4_088)
            ),
        ),
    ];
    for (changes, code, message) in &cases {
        api.create_with(changes.clone()).await.fails(400, code, message);
    }
    api.create().await;
    for (changes, code, message) in &cases {
        api.put(CONFIGURATION, changes.clone()).await.fails(400, code, message);
    }
}

#[tokio::test]
async fn every_variable_that_the_host_sets_is_reserved() {
    let api = Api::new();
    for key in [
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    ] {
        let answer = api.create_with(json!({"Environment": {"Variables": {"MINE": "1", key: "x"}}})).await;
        answer.fails(400, PARAMETER, &format!("Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: {key}"));
    }
    for key in ["_HANDLER", "_X_AMZN_TRACE_ID", "1A", "A", "A-B", ""] {
        let answer = api.create_with(json!({"Environment": {"Variables": {key: "x"}}})).await;
        answer.fails(400, "ValidationException", &format!("1 validation error detected: Value '{key}' at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]"));
    }
    // Those that the table of the specification lets a function set.
    let own = [
        "TZ",
        "LANG",
        "PATH",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "NODE_PATH",
        "AWS_LAMBDA_LOG_FORMAT",
        "AWS_LAMBDA_LOG_LEVEL",
        "AWS_XRAY_CONTEXT_MISSING",
    ];
    let variables: std::collections::BTreeMap<&str, &str> = own.iter().map(|key| (*key, "x")).collect();
    api.create_with(json!({"Environment": {"Variables": variables}})).await.ok(201);
}

#[tokio::test]
async fn environment_variables_never_set_and_set_to_nothing_are_two_things() {
    let api = Api::new();
    assert!(api.create().await.body.get("Environment").is_none());
    let cleared = api.put(CONFIGURATION, json!({"Environment": {"Variables": {}}})).await.ok(200);
    assert_eq!(cleared.body["Environment"], json!({"Variables": {}}));
}

#[tokio::test]
async fn environment_variables_do_not_lie_open_in_the_database() {
    let temp = tempfile::tempdir().unwrap();
    let settings = || Settings::new("us-east-1", ACCOUNT);
    let api = Api::at(temp.path(), settings());
    let secret = "pa55word-that-nobody-reads";
    api.create_with(json!({"Environment": {"Variables": {"SECRET": secret}}, "Publish": true})).await.ok(201);
    let found = || {
        let files = std::fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
        files
            .filter(|path| {
                let bytes = std::fs::read(path).unwrap();
                bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
            })
            .count()
    };
    assert_eq!(found(), 0);
    drop(api);
    let api = Api::at(temp.path(), settings());
    assert_eq!(api.configuration().await["Environment"]["Variables"]["SECRET"], secret);
    drop(api);
    std::fs::rename(temp.path().join("variables.key"), temp.path().join("elsewhere")).unwrap();
    let open = |settings: Settings| {
        let records = Records::open(&temp.path().join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
        let (host, code) = (Arc::new(Scripted::default()), temp.path().join("code"));
        Functions::with_environments(records, host, Arc::new(OneObject), &code, settings).err().map(|e| e.to_string())
    };
    let why = open(settings()).unwrap();
    assert!(why.contains("variables.key is missing, and functions have environment variables"), "{why}");
    assert!(!temp.path().join("variables.key").exists());
    assert_eq!(open(Settings { variables_key: Some(temp.path().join("elsewhere")), ..settings() }), None);
}

#[tokio::test]
async fn what_is_written_of_a_function_for_developers_has_the_names_of_its_variables_alone() {
    let api = Api::new();
    let environment = json!({"Variables": {"SECRET": "a-word-to-be-kept"}});
    api.create_with(json!({"Environment": environment.clone()})).await.ok(201);
    let members: crate::members::FunctionMembers = serde_json::from_value(json!({"Environment": environment})).unwrap();
    let snapshot = api.functions.inner.catalogue.snapshot();
    assert_eq!(
        snapshot["f"].function.latest().configuration.variables.as_ref().unwrap()["SECRET"],
        "a-word-to-be-kept"
    );
    for written in [format!("{snapshot:?}"), format!("{members:?}")] {
        assert!(written.contains("SECRET") && !written.contains("a-word-to-be-kept"), "{written}");
    }
}

#[tokio::test]
async fn rows_that_an_earlier_version_wrote_open_are_read_and_sealed() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("records.db");
    {
        let old = longshore_store::Schema { room: SCHEMA.room, migrations: &SCHEMA.migrations[..1] };
        let records = Records::open(&path, &[old], Fatal::new()).unwrap();
        let sha256 = "ab".repeat(32);
        std::fs::create_dir_all(temp.path().join("code").join(&sha256).join("content")).unwrap();
        records
            .write::<_, crate::error::FunctionError>(move |connection| {
                connection.execute_batch(&format!(
                    r#"INSERT INTO function VALUES ('i', 'f', 0, NULL, '{{}}');
                    INSERT INTO function_version VALUES ('i', 0, 'r', 'd', 'Settled', '{sha256}', 5, 0, '{{
                        "runtime": "python3.12", "handler": "h.h", "role": "{ROLE}", "description": "", "timeout_s": 3,
                        "memory_mib": 128, "ephemeral_storage_mib": 512, "architecture": "x86_64",
                        "variables": {{"SECRET": "a-word-that-lay-open"}}}}');"#
                ))?;
                Ok(())
            })
            .await
            .unwrap();
        records.close().await;
    }
    let api = Api::at(temp.path(), Settings::new("us-east-1", ACCOUNT));
    let shown = api.configuration().await;
    assert_eq!(shown["Environment"]["Variables"], json!({"SECRET": "a-word-that-lay-open"}));
    assert_eq!(shown["LoggingConfig"]["LogFormat"], "Text");
    let catalogue = api.functions.inner.catalogue.clone();
    catalogue.seal_rows().await;
    drop(api);
    let records = Records::open(&path, &[SCHEMA], Fatal::new()).unwrap();
    let open: (String, bool) = records
        .read::<_, crate::error::FunctionError>(|connection| {
            let row = "SELECT configuration, variables IS NOT NULL FROM function_version";
            Ok(connection.query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
        })
        .await
        .unwrap();
    assert!(open.1 && !open.0.contains("SECRET"), "{open:?}");
    drop(records);
    // Nor does it lie on in a page that nobody uses, once the log of writes is taken over.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(20).any(|window| window == b"a-word-that-lay-open"));
    let api = Api::at(temp.path(), Settings::new("us-east-1", ACCOUNT));
    assert_eq!(api.configuration().await["Environment"]["Variables"], json!({"SECRET": "a-word-that-lay-open"}));
}

#[tokio::test]
async fn the_runtime_version_changes_with_the_interpreter_alone() {
    let api = Api::new();
    let arn = |shape: &Value| shape["RuntimeVersionConfig"]["RuntimeVersionArn"].as_str().unwrap().to_owned();
    let created = arn(&api.create().await.body);
    let hash = created.strip_prefix("arn:aws:lambda:us-east-1::runtime:").unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    let other = api.put(CONFIGURATION, json!({"Runtime": "python3.11"})).await.ok(200).body;
    assert_ne!(arn(&other), created);
    api.configuration().await;
    let same = api.put(CONFIGURATION, json!({"Timeout": 5})).await.ok(200).body;
    assert_eq!(arn(&same), arn(&other));
}

#[tokio::test]
async fn what_tools_ask_for_and_nobody_has_here_is_answered_with_harmless_defaults() {
    let api = Api::new();
    let gone = "The resource you requested does not exist.";
    let missing = "ResourceNotFoundException";
    let not_found = format!("Function not found: {ARN}");
    api.get("/2021-10-31/functions/f/url").await.fails(404, missing, gone);
    api.get("/2021-10-31/functions/f/urls").await.fails(404, missing, "Function does not exist");
    for path in [
        "/2024-08-31/functions/f/recursion-config",
        "/2021-07-20/functions/f/runtime-management-config",
        "/2020-06-30/functions/f/code-signing-config",
    ] {
        api.get(path).await.fails(404, missing, &not_found);
    }
    api.create().await;
    api.get("/2021-10-31/functions/f/url").await.fails(404, missing, gone);
    let defaults = [
        ("/2021-10-31/functions/f/urls", json!({"FunctionUrlConfigs": []})),
        ("/2024-08-31/functions/f/recursion-config", json!({"RecursiveLoop": "Terminate"})),
        ("/2021-07-20/functions/f/runtime-management-config", json!({"UpdateRuntimeOn": "Auto", "FunctionArn": ARN})),
        (
            "/2021-07-20/functions/f/runtime-management-config?Qualifier=%24LATEST",
            json!({"UpdateRuntimeOn": "Auto", "FunctionArn": format!("{ARN}:$LATEST")}),
        ),
        ("/2020-06-30/functions/f/code-signing-config", json!({"FunctionName": "f"})),
        ("/2015-03-31/event-source-mappings/", json!({"EventSourceMappings": []})),
        ("/2015-03-31/event-source-mappings?FunctionName=f", json!({"EventSourceMappings": []})),
    ];
    for (path, body) in defaults {
        assert_eq!(api.get(path).await.ok(200).body, body, "{path}");
    }
    api.delete("/2020-06-30/functions/f/code-signing-config").await.ok(204);

    let management = "/2021-07-20/functions/f/runtime-management-config";
    let auto = api.put(management, json!({"UpdateRuntimeOn": "Auto"})).await.ok(200);
    assert_eq!(auto.body, json!({"UpdateRuntimeOn": "Auto", "FunctionArn": ARN}));
    let manual = api.put(management, json!({"UpdateRuntimeOn": "Manual"})).await;
    manual.fails(400, PARAMETER, "UpdateRuntimeOn other than Auto is not supported by this server.");
    let wrong = api.put(management, json!({"UpdateRuntimeOn": "Never"})).await;
    wrong.fails(400, "ValidationException", "1 validation error detected: Value 'Never' at 'updateRuntimeOn' failed to satisfy constraint: Member must satisfy enum value set: [Auto, Manual, FunctionUpdate]");
    let recursion = "/2024-08-31/functions/f/recursion-config";
    let same = api.put(recursion, json!({"RecursiveLoop": "Terminate"})).await.ok(200);
    assert_eq!(same.body, json!({"RecursiveLoop": "Terminate"}));
    let allow = api.put(recursion, json!({"RecursiveLoop": "Allow"})).await;
    allow.fails(400, PARAMETER, "RecursiveLoop other than Terminate is not supported by this server.");
}
