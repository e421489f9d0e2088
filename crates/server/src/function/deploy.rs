//! `longshore function deploy`: from a file to a function that can be invoked. What is there already and does not differ is
//! left alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longshore_functions::host::newest_installed;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{bytes, text};
use crate::cli::{At, Deploy};
use crate::client::ClientError;
use crate::failure::{BecauseGiven, Failure, OK, plain};
use crate::output::{self, out};
use crate::place::{self, Place};
use crate::run::check;
use crate::run::package::{self, Language, Package};
use crate::server::runtimes_dirs;

/// What a new function gets where nothing else is asked for, as with `longshore run`. Lambda's own are 3 s and 128 MB,
/// hardly enough for an object.
const TIMEOUT_SECONDS: u32 = 60;
const MEMORY_MIB: u32 = 512;
/// The role where a Longshore answers, which checks its form and assumes nothing.
const ROLE: &str = crate::access::ROLE;
/// From here on an upload elsewhere takes a while, and it is said for what.
const UPLOAD_TOLD_BYTES: u64 = 1_000_000;
/// Between two looks whether the function is ready: on this machine, and elsewhere.
const LOOK_EVERY_NEAR: Duration = Duration::from_millis(50);
const LOOK_EVERY_FAR: Duration = Duration::from_secs(1);

pub async fn deploy(args: Deploy, at: &At) -> Result<u8, Failure> {
    // What can be known to be wrong is told before anything is asked.
    let path = package::path_of(&args.path)?;
    let name = name_of(args.name.as_deref(), &path)?;
    if let Some(alias) = &args.alias {
        check_alias(alias)?;
    }
    let file = args.env_file.as_deref().map(read_variables).transpose()?;
    check::variables(&file.iter().flatten().chain(&args.variables).cloned().collect::<Vec<_>>())?;
    let place = Place::of_functions(at).await?;
    let every = if place.near { LOOK_EVERY_NEAR } else { LOOK_EVERY_FAR };
    let client = &place.client;

    let found = client.find_function(&name).await.map_err(place::told)?;
    let current = match &found {
        // One that failed may be what this is to mend.
        Some(_) => Some(client.function_at_rest(&name, every).await.map_err(place::told)?),
        None => None,
    };
    let (package, mut guessed) = read_package(&args, current.as_ref(), &installed(&place))?;
    // What would take the place of other code should be seen to do so.
    if args.name.is_none() && !current.as_ref().is_some_and(|current| has_code(current, &package.zip)) {
        guessed.insert(0, format!("the name {name}; --name gives another"));
    }
    // What runs there already was looked at when it came, and looking takes an interpreter's start.
    if !current.as_ref().is_some_and(|current| has_code(current, &package.zip)) {
        check_syntax(&package, &place)?;
        if !place.near && package.zip.len() as u64 >= UPLOAD_TOLD_BYTES {
            eprintln!("{} are to be sent", bytes(package.zip.len() as u64));
        }
    }
    if current.as_ref().is_none_or(|c| text(c, "Runtime") != package.runtime || !has_code(c, &package.zip)) {
        warn_of_runtime(&package.runtime, &place);
    }
    for guess in &guessed {
        eprintln!("guessed: {guess}");
    }
    if let Some(left_out) = &package.left_out {
        eprintln!("{left_out}");
    }
    let role = role(&args, current.is_some(), &place).await?;
    let variables = variables(current.as_ref(), file, &args.variables)?;
    let wanted = Wanted { args: &args, package: &package, role, variables };

    let (configuration, mut changed) = match current {
        None => {
            let request = wanted.to_create(&name);
            if let Err(error) = client.create_function_of(request, &package.zip).await {
                return Err(wanted.refused(&place, error).await);
            }
            (client.function_settled(&name, every).await.map_err(place::told)?, Vec::new())
        }
        Some(current) => update(&place, &name, current, &wanted, every).await?,
    };
    let created = found.is_none();
    // What was done stays done, and whoever reads the error should know.
    let touched = created || !changed.is_empty();
    let after = |failure| {
        if touched {
            eprintln!("{name} itself was {}; what follows failed", if created { "created" } else { "updated" });
        }
        failure
    };
    if let Some(reservation) = args.concurrency {
        let there = found.as_ref().and_then(|f| f.pointer("/Concurrency/ReservedConcurrentExecutions"));
        let there = there.and_then(Value::as_u64);
        let asked = reservation.0;
        if there != asked.map(u64::from) {
            client.reserve_concurrency(&name, asked).await.map_err(|error| after(refused(error)))?;
            let shown = |n: Option<u64>| n.map_or_else(|| "none".to_owned(), |n| n.to_string());
            changed.push(format!("reserved concurrency {} → {}", shown(there), shown(asked.map(u64::from))));
        }
    }
    let size = bytes(configuration.get("CodeSize").and_then(Value::as_u64).unwrap_or(0));
    if created {
        let c = &configuration;
        let number = |member: &str| c.get(member).and_then(Value::as_u64).unwrap_or(0);
        eprintln!(
            "created {name}: {}, {}, {} MB, {} s, {size} of code",
            plain(text(c, "Runtime")),
            plain(text(c, "Handler")),
            number("MemorySize"),
            number("Timeout"),
        );
        for change in &changed {
            eprintln!("{change}");
        }
    } else if changed.is_empty() {
        eprintln!("{name} is up to date: nothing was changed");
    } else {
        eprintln!("updated {name}: {}", plain(&changed.join(", ")));
    }
    let mut arn = text(&configuration, "FunctionArn").to_owned();
    let mut document = json!({"Created": created, "Changed": changed, "Configuration": configuration});
    if args.publish || args.alias.is_some() {
        let version = publish(&place, &name, &configuration, every).await.map_err(after)?;
        arn = text(&version, "FunctionArn").to_owned();
        let number = text(&version, "Version").to_owned();
        document["Version"] = version;
        if let Some(alias) = &args.alias {
            let made = lead(&place, &name, alias, &number).await.map_err(after)?;
            arn = text(&made, "AliasArn").to_owned();
            document["Alias"] = made;
        }
    }
    document["FunctionArn"] = arn.as_str().into();
    if at.json {
        output::json(&document);
    } else {
        out(&format!("{}\n", plain(&arn)));
    }
    Ok(OK)
}

/// The name of the function: what was said, or that of the file or folder.
fn name_of(named: Option<&str>, path: &std::path::Path) -> Result<String, Failure> {
    let fits = |name: &str| {
        !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let rule = "a name has 1 to 64 letters, digits, - and _";
    if let Some(name) = named {
        return if fits(name) { Ok(name.to_owned()) } else { Err(Failure::usage(format!("--name {name}: {rule}"))) };
    }
    // `.` has no name of its own.
    let whole = path.canonicalize().because_given(format!("cannot read {}", path.display()))?;
    let name = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if fits(&name) {
        return Ok(name);
    }
    Err(Failure::usage(format!("{name:?} cannot be the name of a function: {rule}")).hint("name it with --name"))
}

fn check_alias(alias: &str) -> Result<(), Failure> {
    let fits = !alias.is_empty()
        && alias.len() <= 128
        && alias.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !alias.bytes().all(|b| b.is_ascii_digit());
    if fits {
        Ok(())
    } else {
        Err(Failure::usage(format!("--alias {alias}: it has letters, digits, - and _, not digits alone")))
    }
}

/// Variables from a file: `KEY=VALUE` a line, with or without `export` before it and quotes around the value; empty lines and
/// those that begin with # are passed over.
fn read_variables(path: &std::path::Path) -> Result<Vec<(String, String)>, Failure> {
    let text = std::fs::read_to_string(path).because_given(format!("cannot read {}", path.display()))?;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let bare = bare.strip_prefix("export ").unwrap_or(bare);
        let pair = bare.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        let Some((key, value)) = pair.filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format!("{}, line {}: it must be KEY=VALUE", path.display(), number + 1)));
        };
        let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        found.push((key.to_owned(), unquoted.unwrap_or(value).to_owned()));
    }
    Ok(found)
}

/// The variables that the function is to have; `None` if they stay as they are. A file says what there is; without one, what
/// is said goes over what there is. What there is and is not shown (AWS puts an error in its place for whoever may not decrypt
/// it) would be lost.
fn variables(
    current: Option<&Value>,
    file: Option<Vec<(String, String)>>,
    over: &[(String, String)],
) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let mut variables: BTreeMap<String, String> = match file {
        Some(file) => file.into_iter().collect(),
        None if over.is_empty() => return Ok(None),
        None => match current.and_then(|c| c.pointer("/Environment/Error")).filter(|error| !error.is_null()) {
            Some(error) => {
                let why = plain(text(error, "Message"));
                return Err(Failure::new(format!("the function's environment variables are not shown: {why}"))
                    .hint("say with --env-file which variables there are to be; --env alone would remove the others"));
            }
            None => variables_of(current),
        },
    };
    variables.extend(over.iter().cloned());
    check::variables_together(&variables)?;
    Ok(Some(variables))
}

fn variables_of(configuration: Option<&Value>) -> BTreeMap<String, String> {
    let there = configuration.and_then(|c| c.pointer("/Environment/Variables")).and_then(Value::as_object);
    let there = there.into_iter().flatten();
    there.map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned())).collect()
}

/// The package, and what was guessed for it. Of a function that there is, runtime and handler stay where they still fit.
fn read_package(
    args: &Deploy,
    current: Option<&Value>,
    installed: &[PathBuf],
) -> Result<(Package, Vec<String>), Failure> {
    let there = |member: &str| current.map(|c| text(c, member)).filter(|value| !value.is_empty());
    if let (Some(runtime), Some(handler)) = (&args.runtime, &args.handler)
        && !["python", "nodejs", "provided"].iter().any(|ours| runtime.starts_with(ours))
    {
        // A language that is not looked into here, for a Lambda elsewhere.
        return Ok((Package::read_unseen(&args.path, handler, runtime)?, Vec::new()));
    }
    let kept_handler =
        there("Handler").filter(|handler| args.handler.is_none() && package::has_handler(&args.path, handler));
    let handler = args.handler.as_deref().or(kept_handler);
    let read = |runtime: Option<&str>| Package::read(&args.path, handler, runtime, installed);
    let package = match there("Runtime").filter(|_| args.runtime.is_none()) {
        Some(kept) => match read(Some(kept)) {
            Ok(package) if runs(kept, package.language) => package,
            _ => read(None)?,
        },
        None => read(args.runtime.as_deref())?,
    };
    let mut guessed = Vec::new();
    guessed.extend(package.chosen.clone());
    if args.runtime.is_none() && there("Runtime") != Some(&package.runtime) {
        let prefix = package.language.map(|language| if language == Language::Python { "python" } else { "nodejs" });
        let for_functions = prefix.is_some_and(|p| newest_installed(p, installed).as_ref() == Some(&package.runtime));
        let why = match package.language {
            Some(_) if for_functions => ", which \"longshore runtimes install\" has made; --runtime names another",
            Some(_) => ", which is installed here; --runtime names another",
            None => "",
        };
        guessed.push(format!("the runtime {}{why}", package.runtime));
    }
    Ok((package, guessed))
}

fn runs(runtime: &str, language: Option<Language>) -> bool {
    runtime.starts_with(match language {
        Some(Language::Python) => "python",
        Some(Language::Node) => "nodejs",
        None => "provided",
    })
}

/// Refuses a source that cannot be compiled, where an interpreter is here that may say so: the one that will run it, or
/// one of just its version.
fn check_syntax(package: &Package, place: &Place) -> Result<(), Failure> {
    let Some(source) = &package.source else { return Ok(()) };
    let Ok(found) = check::runtime(&package.runtime, &runtimes_dirs(place.data_dir.as_deref())) else { return Ok(()) };
    if place.near || found.notice.is_none() { check::syntax(&found, source) } else { Ok(()) }
}

/// The folders of interpreters that were installed for the functions of this place: none where they run elsewhere.
fn installed(place: &Place) -> Vec<PathBuf> {
    if place.near { runtimes_dirs(place.data_dir.as_deref()) } else { Vec::new() }
}

/// Tells whoever names a runtime that another version of it would run the function here. Whether the server takes it for an
/// error is its own to say.
fn warn_of_runtime(runtime: &str, place: &Place) {
    let found = if place.near { check::runtime(runtime, &installed(place)).ok() } else { None };
    if let Some(notice) = found.and_then(|found| found.notice) {
        eprintln!("warning: {notice}");
    }
}

/// The ARN of the role to be set; `None` if it stays as it is.
async fn role(args: &Deploy, exists: bool, place: &Place) -> Result<Option<String>, Failure> {
    let role = match &args.role {
        Some(role) => role.as_str(),
        None if exists => return Ok(None),
        None if place.client.functions_are_of_longshore().await.map_err(place::told)? => ROLE,
        None => {
            return Err(Failure::usage("a function needs a role there, and none is named")
                .hint("name one that Lambda may assume with --role: its name, or its ARN"));
        }
    };
    if role.starts_with("arn:") {
        return Ok(Some(role.to_owned()));
    }
    let account = match place.client.account() {
        "" => place.client.caller_account().await.map_err(|error| {
            Failure::new(format!("cannot find out whose role is meant (STS GetCallerIdentity): {error}"))
                .hint("name its whole ARN with --role")
        })?,
        account => account.to_owned(),
    };
    Ok(Some(format!("arn:{}:iam::{account}:role/{role}", place::partition(place.client.region()))))
}

/// What is asked for.
struct Wanted<'a> {
    args: &'a Deploy,
    package: &'a Package,
    role: Option<String>,
    variables: Option<BTreeMap<String, String>>,
}

impl Wanted<'_> {
    /// As [`refused`]; and AWS's words for a role that Lambda cannot have leave open whether there is one.
    async fn refused(&self, place: &Place, error: ClientError) -> Failure {
        let of_role =
            error.code() == "InvalidParameterValueException" && error.to_string().contains("cannot be assumed");
        match &self.role {
            Some(role) if of_role && place.client.has_role_for_functions(role).await == Some(false) => refused(error)
                .hint(match &self.args.role {
                    Some(_) => {
                        format!("there is no role {}; \"aws iam list-roles\" lists those that there are", plain(role))
                    }
                    None => format!("there is no role {}, which is taken where --role names none", plain(role)),
                }),
            Some(role) if of_role => refused(error).hint(format!(
                "there has to be a role {} whose trust policy lets lambda.amazonaws.com assume it",
                plain(role)
            )),
            _ => refused(error),
        }
    }

    /// The request for a new function, but for its code.
    fn to_create(&self, name: &str) -> Value {
        let args = self.args;
        let mut request = json!({
            "FunctionName": name,
            "Runtime": self.package.runtime,
            "Handler": self.package.handler,
            "Role": self.role,
            "Timeout": args.timeout.unwrap_or(TIMEOUT_SECONDS),
            "MemorySize": args.memory.unwrap_or(MEMORY_MIB),
        });
        if let Some(variables) = self.variables.as_ref().filter(|variables| !variables.is_empty()) {
            request["Environment"] = json!({"Variables": variables});
        }
        if !args.layers.is_empty() {
            request["Layers"] = json!(args.layers);
        }
        if let Some(description) = &args.description {
            request["Description"] = description.as_str().into();
        }
        request
    }

    /// The members in which a function differs from what is wanted, and what to say of each.
    fn differences(&self, current: &Value) -> (Map<String, Value>, Vec<String>) {
        let args = self.args;
        let mut request = Map::new();
        let mut told = Vec::new();
        let texts = [
            ("Runtime", "runtime", Some(&self.package.runtime)),
            ("Handler", "handler", Some(&self.package.handler)),
            ("Role", "role", self.role.as_ref()),
        ];
        for (member, name, wanted) in texts {
            if let Some(wanted) = wanted.filter(|wanted| **wanted != text(current, member)) {
                told.push(format!("{name} {} → {wanted}", text(current, member)));
                request.insert(member.into(), wanted.as_str().into());
            }
        }
        let numbers = [("Timeout", "timeout", "s", args.timeout), ("MemorySize", "memory", "MB", args.memory)];
        for (member, name, unit, wanted) in numbers {
            let there = current.get(member).and_then(Value::as_u64).unwrap_or(0);
            if let Some(wanted) = wanted.filter(|wanted| u64::from(*wanted) != there) {
                told.push(format!("{name} {there} → {wanted} {unit}"));
                request.insert(member.into(), wanted.into());
            }
        }
        if let Some(description) = args.description.as_ref().filter(|wanted| **wanted != text(current, "Description")) {
            told.push("description".into());
            request.insert("Description".into(), description.as_str().into());
        }
        let layers = current.get("Layers").and_then(Value::as_array).into_iter().flatten();
        let layers: Vec<&str> = layers.map(|layer| text(layer, "Arn")).collect();
        if !args.layers.is_empty() && args.layers != layers {
            told.push("layers".into());
            request.insert("Layers".into(), json!(args.layers));
        }
        let there = variables_of(Some(current));
        if let Some(wanted) = self.variables.as_ref().filter(|wanted| **wanted != there) {
            told.push(differing_variables(&there, wanted));
            request.insert("Environment".into(), json!({"Variables": wanted}));
        }
        (request, told)
    }
}

/// Which variables differ, by name: values may be secrets.
fn differing_variables(there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> String {
    let set: Vec<&str> =
        wanted.iter().filter(|(key, value)| there.get(*key) != Some(value)).map(|(key, _)| key.as_str()).collect();
    let removed: Vec<&str> = there.keys().filter(|key| !wanted.contains_key(*key)).map(String::as_str).collect();
    let parts = [("set", set), ("removed", removed)];
    let parts = parts.iter().filter(|(_, keys)| !keys.is_empty());
    format!(
        "environment ({})",
        parts.map(|(what, keys)| format!("{what} {}", keys.join(" "))).collect::<Vec<_>>().join(", ")
    )
}

/// Brings a function up to date, as far as it differs: the configuration first, for it is what is more likely refused.
async fn update(
    place: &Place,
    name: &str,
    mut current: Value,
    wanted: &Wanted<'_>,
    every: Duration,
) -> Result<(Value, Vec<String>), Failure> {
    let client = &place.client;
    let (mut request, mut told) = wanted.differences(&current);
    if !request.is_empty() {
        request.insert("RevisionId".into(), current["RevisionId"].clone());
        if let Err(error) = client.update_function_configuration(name, &Value::Object(request)).await {
            return Err(wanted.refused(place, error).await);
        }
        current = client.function_settled(name, every).await.map_err(place::told)?;
    }
    let zip = &wanted.package.zip;
    if !has_code(&current, zip) {
        client.update_function_code(name, zip, &current["RevisionId"]).await.map_err(refused)?;
        current = client.function_settled(name, every).await.map_err(place::told)?;
        told.push(format!("code ({})", bytes(zip.len() as u64)));
    }
    Ok((current, told))
}

/// Whether a function's code is this zip.
fn has_code(configuration: &Value, zip: &[u8]) -> bool {
    text(configuration, "CodeSha256") == STANDARD.encode(Sha256::digest(zip))
}

fn refused(error: ClientError) -> Failure {
    match error.code() {
        "PreconditionFailedException" => {
            Failure::new("somebody else changed the function meanwhile, and it was left as it is").hint("deploy again")
        }
        _ => place::told(error),
    }
}

/// Publishes what was deployed: the answer of PublishVersion. Code that was published already has its version.
async fn publish(place: &Place, name: &str, configuration: &Value, every: Duration) -> Result<Value, Failure> {
    let before = place.client.versions(name).await.map_err(place::told)?;
    let version = place.client.publish_version(name, &configuration["CodeSha256"]).await.map_err(refused)?;
    let number = text(&version, "Version");
    if before.iter().any(|earlier| text(earlier, "Version") == number) {
        eprintln!("it is version {} already", plain(number));
    } else {
        eprintln!("published version {}", plain(number));
    }
    // A new version has a start of its own.
    place.client.function_settled(&format!("{name}:{number}"), every).await.map_err(place::told)?;
    Ok(version)
}

/// Lets an alias lead to a version: the alias as it is then.
async fn lead(place: &Place, name: &str, alias: &str, version: &str) -> Result<Value, Failure> {
    let client = &place.client;
    let cannot = |error: ClientError| {
        let failure = refused(error);
        Failure {
            message: format!(
                "version {version} is published, but the alias {alias} could not be set: {}",
                failure.message
            ),
            ..failure
        }
    };
    match client.find_alias(name, alias).await.map_err(cannot)? {
        None => {
            let made = client.create_alias(name, alias, version).await.map_err(cannot)?;
            eprintln!("alias {alias}: made, to version {}", plain(version));
            Ok(made)
        }
        Some(there) => {
            let weights = there.pointer("/RoutingConfig/AdditionalVersionWeights").and_then(Value::as_object);
            let alone = weights.is_none_or(Map::is_empty);
            let before = text(&there, "FunctionVersion");
            if before == version && alone {
                return Ok(there);
            }
            let moved = client.move_alias(name, alias, version).await.map_err(cannot)?;
            let also = if alone { "" } else { ", with no other version beside it" };
            eprintln!("alias {alias}: version {} → {}{also}", plain(before), plain(version));
            Ok(moved)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(runtime: &str, handler: &str) -> Package {
        Package {
            zip: b"zip".to_vec(),
            runtime: runtime.into(),
            handler: handler.into(),
            chosen: None,
            source: None,
            language: Some(Language::Python),
            left_out: None,
        }
    }

    fn current() -> Value {
        json!({
            "Runtime": "python3.12", "Handler": "app.handler", "Role": "arn:r", "Timeout": 3, "MemorySize": 128,
            "Description": "", "Environment": {"Variables": {"AA": "1", "BB": "2"}}, "Layers": [{"Arn": "l:1", "CodeSize": 1}],
        })
    }

    fn differences(args: &Deploy, package: &Package, role: Option<&str>) -> (Value, Vec<String>) {
        let current = current();
        let variables = variables(Some(&current), None, &args.variables).unwrap();
        let wanted = Wanted { args, package, role: role.map(str::to_owned), variables };
        let (request, told) = wanted.differences(&current);
        (Value::Object(request), told)
    }

    #[test]
    fn what_is_not_asked_for_or_is_so_already_is_not_changed() {
        let same = package("python3.12", "app.handler");
        assert_eq!(differences(&Deploy::default(), &same, None), (json!({}), vec![]));
        let args = Deploy {
            timeout: Some(3),
            memory: Some(128),
            variables: vec![("AA".into(), "1".into())],
            layers: vec!["l:1".into()],
            description: Some(String::new()),
            ..Deploy::default()
        };
        assert_eq!(differences(&args, &same, Some("arn:r")), (json!({}), vec![]));
    }

    #[test]
    fn what_differs_is_sent_and_told_without_the_values_of_variables() {
        let args = Deploy {
            timeout: Some(60),
            memory: Some(512),
            variables: vec![("AA".into(), "secret".into()), ("CC".into(), String::new())],
            layers: vec!["l:2".into()],
            description: Some("d".into()),
            ..Deploy::default()
        };
        let (request, told) = differences(&args, &package("python3.13", "app.other"), Some("arn:s"));
        let wanted = json!({
            "Runtime": "python3.13", "Handler": "app.other", "Role": "arn:s", "Timeout": 60, "MemorySize": 512,
            "Description": "d", "Environment": {"Variables": {"AA": "secret", "BB": "2", "CC": ""}}, "Layers": ["l:2"],
        });
        assert_eq!(request, wanted);
        let told = told.join("; ");
        assert_eq!(
            told,
            "runtime python3.12 → python3.13; handler app.handler → app.other; role arn:r → arn:s; timeout 3 → 60 s; \
             memory 128 → 512 MB; description; layers; environment (set AA CC)"
        );
    }

    #[test]
    fn a_file_says_which_variables_there_are_and_flags_go_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "# comment\n\nAA=1\nexport CC='x y'\nDD=\"a=b\"\nEE=\n").unwrap();
        let file = read_variables(&path).unwrap();
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let wanted: BTreeMap<String, String> = pairs(&[("AA", "2"), ("CC", "x y"), ("DD", "a=b"), ("EE", "")]);
        let found = variables(Some(&current()), Some(file), &[("AA".into(), "2".into())]).unwrap().unwrap();
        assert_eq!(found, wanted);
        assert_eq!(
            differing_variables(&variables_of(Some(&current())), &found),
            "environment (set AA CC DD EE, removed BB)"
        );
        assert_eq!(variables(Some(&current()), None, &[]), Ok(None));
        std::fs::write(&path, "AA=1\nno pair\n").unwrap();
        assert!(read_variables(&path).unwrap_err().message.ends_with("line 2: it must be KEY=VALUE"));
    }

    #[test]
    fn variables_that_are_not_shown_are_neither_removed_by_one_more_nor_in_the_way_of_a_file() {
        let error = json!({"ErrorCode": "AccessDeniedException", "Message": "no leave to decrypt"});
        let hidden = json!({"Environment": {"Error": error}});
        let one = [("AA".to_owned(), "1".to_owned())];
        let failure = variables(Some(&hidden), None, &one).unwrap_err();
        assert!(failure.message.contains("no leave to decrypt") && failure.hint.unwrap().contains("--env-file"));
        assert_eq!(variables(Some(&hidden), None, &[]), Ok(None));
        assert_eq!(variables(Some(&hidden), Some(one.to_vec()), &[]), Ok(Some(one.into_iter().collect())));
    }

    #[test]
    fn variables_that_are_too_many_together_are_refused_here_without_their_values() {
        let there = json!({"Environment": {"Variables": {"AA": "secret".repeat(600)}}});
        let more = |bytes: usize| variables(Some(&there), None, &[("BB".to_owned(), "v".repeat(bytes))]);
        assert!(more(400).is_ok());
        let failure = more(600).unwrap_err();
        assert!(failure.message.contains("bytes as JSON") && !failure.message.contains("secret"), "{failure:?}");
    }

    #[test]
    fn a_function_is_named_after_its_file_or_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("thumb-nails");
        std::fs::create_dir(&folder).unwrap();
        for file in ["app.py", "two.words.zip"] {
            std::fs::write(folder.join(file), "").unwrap();
        }
        assert_eq!(name_of(None, &folder).unwrap(), "thumb-nails");
        assert_eq!(name_of(None, &folder.join(".")).unwrap(), "thumb-nails");
        assert_eq!(name_of(None, &folder.join("app.py")).unwrap(), "app");
        assert!(name_of(None, &folder.join("two.words.zip")).unwrap_err().hint.unwrap().contains("--name"));
        assert_eq!(name_of(Some("x"), &folder).unwrap(), "x");
        assert!(name_of(Some("a b"), &folder).is_err());
        assert!(check_alias("live").is_ok() && check_alias("12").is_err() && check_alias("$LATEST").is_err());
    }
}
