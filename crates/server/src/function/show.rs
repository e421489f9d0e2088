//! `longshore function list`, `describe`, `versions` and `aliases`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{bytes, text, told};
use crate::failure::{Failure, OK, plain};
use crate::output::{self, out, time};
use crate::place::{self, Place};

/// Prints all functions; as JSON in the shape of ListFunctions.
pub async fn list(place: &Place, json: bool) -> Result<u8, Failure> {
    if json {
        let functions = place.client.functions(false).await.map_err(place::told)?;
        output::json(&json!({"Functions": functions}));
        return Ok(OK);
    }
    let all = place.client.functions(true).await.map_err(place::told)?;
    let mut functions: BTreeMap<&str, (&Value, u64)> = BTreeMap::new();
    for version in &all {
        let entry = functions.entry(text(version, "FunctionName")).or_insert((version, 0));
        if text(version, "Version") == "$LATEST" {
            entry.0 = version;
        } else {
            entry.1 += 1;
        }
    }
    let mut rows = Vec::with_capacity(functions.len());
    for (name, (latest, versions)) in functions {
        // One that was deleted since has none.
        let reserved = match place.client.reserved_concurrency(name).await {
            Err(error) if error.code() == "ResourceNotFoundException" => None,
            reserved => reserved.map_err(place::told)?,
        };
        rows.push(row(name, latest, versions, reserved));
    }
    if rows.is_empty() {
        eprintln!("there are no functions");
        return Ok(OK);
    }
    let heading = ["NAME", "RUNTIME", "VERSIONS", "MEMORY", "TIMEOUT", "MODIFIED", "CONCURRENCY"];
    out(&output::table(heading, &rows, |_, cell| cell.to_owned()));
    Ok(OK)
}

fn row(name: &str, latest: &Value, versions: u64, reserved: Option<u64>) -> [String; 7] {
    let number = |member: &str| latest.get(member).and_then(Value::as_u64).unwrap_or(0);
    [
        plain(name),
        plain(runtime(latest)),
        versions.to_string(),
        format!("{} MB", number("MemorySize")),
        format!("{} s", number("Timeout")),
        time(text(latest, "LastModified")),
        reserved.map_or_else(|| "-".to_owned(), |n| n.to_string()),
    ]
}

/// Functions of images have no runtime.
fn runtime(configuration: &Value) -> &str {
    Some(text(configuration, "Runtime")).filter(|runtime| !runtime.is_empty()).unwrap_or("-")
}

/// Prints one function; as JSON the answer of GetFunction.
pub async fn describe(place: &Place, function: &str, json: bool) -> Result<u8, Failure> {
    let found = match place.client.function(function, None).await {
        Ok(found) => found,
        Err(error) => return Err(told(place, function, error).await),
    };
    if json {
        output::json(&found);
    } else {
        out(&description(&found));
    }
    Ok(OK)
}

fn description(function: &Value) -> String {
    let none = Value::Null;
    let c = function.get("Configuration").unwrap_or(&none);
    let mut lines: Vec<(&str, String)> = Vec::new();
    let mut say = |name, value: &str| {
        if !value.is_empty() {
            lines.push((name, plain(value)));
        }
    };
    let number = |member: &str| c.get(member).and_then(Value::as_u64).unwrap_or(0);
    let reasons = [("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")];
    say("Function", text(c, "FunctionName"));
    say("ARN", text(c, "FunctionArn"));
    say("Version", text(c, "Version"));
    say("Description", text(c, "Description"));
    for (member, reason) in reasons {
        let (state, reason) = (text(c, member), text(c, reason));
        let name = if member == "State" { "State" } else { "Last update" };
        say(name, &if reason.is_empty() { state.to_owned() } else { format!("{state}: {reason}") });
    }
    say("Runtime", text(c, "Runtime"));
    say("Handler", text(c, "Handler"));
    say("Memory", &format!("{} MB", number("MemorySize")));
    say("Timeout", &format!("{} s", number("Timeout")));
    say("Role", text(c, "Role"));
    say("Code", &format!("{}, SHA-256 {}", bytes(number("CodeSize")), text(c, "CodeSha256")));
    for layer in c.get("Layers").and_then(Value::as_array).into_iter().flatten() {
        say("Layer", text(layer, "Arn"));
    }
    // Values may be secrets, and this is printed where others look on.
    let variables = c.pointer("/Environment/Variables").and_then(Value::as_object);
    let names: Vec<&str> = variables.into_iter().flat_map(|v| v.keys()).map(String::as_str).collect();
    say("Environment", &names.join(", "));
    let reserved = function.pointer("/Concurrency/ReservedConcurrentExecutions").and_then(Value::as_u64);
    say("Reserved", &reserved.map_or_else(String::new, |n| format!("{n} invocations at once")));
    for (key, value) in function.get("Tags").and_then(Value::as_object).into_iter().flatten() {
        say("Tag", &format!("{key}={}", value.as_str().unwrap_or("")));
    }
    say("Modified", &time(text(c, "LastModified")));
    lines.iter().map(|(name, value)| format!("{name:<13}{value}\n")).collect()
}

/// Prints the versions of a function; as JSON in the shape of ListVersionsByFunction.
pub async fn versions(place: &Place, function: &str, json: bool) -> Result<u8, Failure> {
    let versions = match place.client.versions(function).await {
        Ok(versions) => versions,
        Err(error) => return Err(told(place, function, error).await),
    };
    if json {
        output::json(&json!({"Versions": versions}));
        return Ok(OK);
    }
    let rows: Vec<[String; 5]> = versions
        .iter()
        .map(|version| {
            [
                plain(text(version, "Version")),
                plain(runtime(version)),
                bytes(version.get("CodeSize").and_then(Value::as_u64).unwrap_or(0)),
                time(text(version, "LastModified")),
                plain(text(version, "Description")),
            ]
        })
        .collect();
    let heading = ["VERSION", "RUNTIME", "CODE", "MODIFIED", "DESCRIPTION"];
    out(&output::table(heading, &rows, |_, cell| cell.to_owned()));
    Ok(OK)
}

/// Prints the aliases of a function; as JSON in the shape of ListAliases.
pub async fn aliases(place: &Place, function: &str, json: bool) -> Result<u8, Failure> {
    let aliases = match place.client.aliases(function).await {
        Ok(aliases) => aliases,
        Err(error) => return Err(told(place, function, error).await),
    };
    if json {
        output::json(&json!({"Aliases": aliases}));
        return Ok(OK);
    }
    if aliases.is_empty() {
        eprintln!("{} has no aliases", plain(function));
        return Ok(OK);
    }
    let rows: Vec<[String; 3]> = aliases
        .iter()
        .map(|alias| [plain(text(alias, "Name")), leads_to(alias), plain(text(alias, "Description"))])
        .collect();
    out(&output::table(["ALIAS", "VERSION", "DESCRIPTION"], &rows, |_, cell| cell.to_owned()));
    Ok(OK)
}

/// `3`, or `3, and 10 % to 4`.
fn leads_to(alias: &Value) -> String {
    let mut to = plain(text(alias, "FunctionVersion"));
    let weights = alias.pointer("/RoutingConfig/AdditionalVersionWeights").and_then(Value::as_object);
    for (version, weight) in weights.into_iter().flatten() {
        let percent = (weight.as_f64().unwrap_or(0.0) * 1e4).round() / 1e2;
        to.push_str(&format!(", and {percent} % to {}", plain(version)));
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_described_without_the_values_of_its_variables() {
        let said = description(&json!({
            "Configuration": {
                "FunctionName": "f", "FunctionArn": "arn:f", "Version": "$LATEST", "State": "Pending",
                "StateReason": "The function is being created.", "Runtime": "python3.12", "Handler": "app.f",
                "MemorySize": 512, "Timeout": 60, "Role": "r", "CodeSize": 1234, "CodeSha256": "x=",
                "Environment": {"Variables": {"A": "secret", "B": "secret"}}, "Description": "a\u{1b}[2J",
                "LastModified": "2026-01-31T10:00:00.000+0000",
            },
            "Concurrency": {"ReservedConcurrentExecutions": 0}, "Tags": {"team": "blue"},
        }));
        for line in [
            "Function     f\n",
            "Description  a\u{fffd}[2J\n",
            "State        Pending: The function is being created.\n",
            "Memory       512 MB\n",
            "Code         1.2 kB, SHA-256 x=\n",
            "Environment  A, B\n",
            "Reserved     0 invocations at once\n",
            "Tag          team=blue\n",
            "Modified     2026-01-31 10:00:00Z\n",
        ] {
            assert!(said.contains(line), "{line:?} is not in {said}");
        }
        assert!(!said.contains("secret") && !said.contains("Last update"), "{said}");
    }

    #[test]
    fn an_alias_tells_where_its_invocations_go() {
        assert_eq!(leads_to(&json!({"FunctionVersion": "3"})), "3");
        let weighted =
            json!({"FunctionVersion": "3", "RoutingConfig": {"AdditionalVersionWeights": {"4": 0.1, "5": 0.25}}});
        assert_eq!(leads_to(&weighted), "3, and 10 % to 4, and 25 % to 5");
    }
}
