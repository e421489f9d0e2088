//! `longshore function`: functions for people. Everything goes through Lambda's API, here or at any other endpoint; logs and
//! figures through Longshore's own beside it.
//!
//! Results on standard output, talk on standard error, `--json` in the API's own shape.

mod deploy;
mod invoke;
mod logs;
mod show;
mod stats;

use serde_json::{Value, json};

use crate::cli::{self, FunctionCommand};
use crate::client::{ClientError, is_missing};
use crate::failure::{Failure, OK, plain};
use crate::output::{self, out};
use crate::place::{self, Place};

/// Names of functions that a hint may list.
const NEAR_MAX: usize = 3;

pub async fn function(args: cli::Function) -> Result<u8, Failure> {
    let cli::Function { at, command } = args;
    let json = at.json;
    match command {
        FunctionCommand::Deploy(args) => deploy::deploy(*args, &at).await,
        FunctionCommand::Invoke(args) => invoke::invoke(args, &at).await,
        FunctionCommand::Logs(args) => logs::print(args, &Place::of_functions(&at).await?, json).await,
        FunctionCommand::Stats { function } => {
            stats::print(&Place::of_functions(&at).await?, function.as_deref(), json).await
        }
        FunctionCommand::List => show::list(&Place::of_functions(&at).await?, json).await,
        FunctionCommand::Describe { function } => {
            show::describe(&Place::of_functions(&at).await?, &function, json).await
        }
        FunctionCommand::Versions { function } => {
            show::versions(&Place::of_functions(&at).await?, &function, json).await
        }
        FunctionCommand::Aliases { function } => show::aliases(&Place::of_functions(&at).await?, &function, json).await,
        FunctionCommand::Delete { function } => delete(&Place::of_functions(&at).await?, &function, json).await,
    }
}

async fn delete(place: &Place, function: &str, json: bool) -> Result<u8, Failure> {
    if let Err(error) = place.client.delete_function(function, None).await {
        return Err(told(place, function, error).await);
    }
    if json {
        output::json(&json!({}));
    } else {
        out(&format!("{}\n", plain(function)));
        eprintln!("deleted");
    }
    Ok(OK)
}

/// A refusal, with what helps: for a function that is not there, those with names like it.
async fn told(place: &Place, typed: &str, error: ClientError) -> Failure {
    if error.code() != "ResourceNotFoundException" {
        return place::told(error);
    }
    // The hint is a kindness; whatever is wrong with it is not what went wrong.
    let Ok(functions) = place.client.functions(false).await else { return place::told(error) };
    let names: Vec<&str> = functions.iter().map(|function| text(function, "FunctionName")).collect();
    let name = bare(typed);
    let hint = match near(name, &names)[..] {
        _ if names.contains(&name) => {
            format!("its versions are listed by \"longshore function versions {}{}\"", plain(name), place.flags)
        }
        _ if names.is_empty() => "there are no functions; \"longshore function deploy\" makes one".to_owned(),
        [] => format!("list the functions that there are with \"longshore function list{}\"", place.flags),
        ref near => format!("there is {}", near.join(", ")),
    };
    Failure::from(error).hint(hint)
}

/// What only a Longshore has is refused elsewhere before anything is sent.
async fn needs_longshore(place: &Place, what: &str, instead: &str) -> Result<(), Failure> {
    if place.client.functions_are_of_longshore().await.map_err(place::told)? {
        return Ok(());
    }
    Err(Failure::new(format!("{what} by Longshore alone; AWS has CloudWatch for that")).hint(instead.to_owned()))
}

/// As [`told`], where an earlier Longshore may not know the path.
async fn own_told(place: &Place, typed: &str, error: ClientError) -> Failure {
    if is_missing(&error) {
        return Failure::new("this Longshore does not tell that yet").hint("a later version does");
    }
    told(place, typed, error).await
}

/// The name in what names a function: `f`, `f:1`, an ARN, a partial ARN.
fn bare(typed: &str) -> &str {
    let after = typed.rsplit_once("function:").map_or(typed, |(_, name)| name);
    after.split(':').next().unwrap_or(after)
}

/// Names that somebody may have meant, the nearest first.
fn near<'n>(typed: &str, names: &[&'n str]) -> Vec<&'n str> {
    let typed = typed.to_lowercase();
    let allowed = (typed.chars().count() / 3).max(1);
    let mut found: Vec<(usize, &str)> = names
        .iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let within = typed.len() >= 3 && (lower.contains(&typed) || typed.contains(&lower));
            let distance = distance(&typed, &lower);
            (distance <= allowed || within).then_some((distance, *name))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

/// How many letters are to be put in, left out or changed to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// A member of an answer as text; empty if it is none.
fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value.get(member).and_then(Value::as_str).unwrap_or("")
}

/// Bytes for people: `812 bytes`, `3.4 kB`, `20.1 MB`.
fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_like_the_one_that_was_typed_are_found_the_nearest_first() {
        let names = ["thumbs", "thumbnail", "checksum", "Report"];
        assert_eq!(near("thumb", &names), ["thumbs", "thumbnail"]);
        assert_eq!(near("cheksum", &names), ["checksum"]);
        assert_eq!(near("report", &names), ["Report"]);
        assert_eq!(near("x", &names), [""; 0]);
        assert_eq!(near("other", &names), [""; 0]);
        assert_eq!([distance("", "abc"), distance("abc", "abc"), distance("kitten", "sitting")], [3, 0, 3]);
    }

    #[test]
    fn the_name_is_found_in_every_form_that_names_a_function() {
        for typed in ["f", "f:1", "arn:aws:lambda:us-east-1:000000000000:function:f:live", "000000000000:function:f"] {
            assert_eq!(bare(typed), "f", "{typed}");
        }
    }
}
