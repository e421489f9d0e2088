//! `longshore job watch`: how far a job is, until it is over.

use std::time::{Duration, Instant};

use crate::client::{ClientError, Described};
use crate::failure::{Failure, INTERRUPTED, UNTOLD, plain};
use crate::interrupt::Interrupt;
use crate::job::{figures, results, so_far};
use crate::output;
use crate::place::{Place, told};
use crate::progress::Progress;
use crate::report::Wanted;
use crate::run::summarize;

/// Between two looks at a job on this machine, and elsewhere, where requests are counted and cost time.
const LOOK_EVERY_NEAR: Duration = Duration::from_millis(250);
const LOOK_EVERY_FAR: Duration = Duration::from_secs(2);
/// How long an endpoint may give no answer, or one that says "later": a restart, a network that comes back.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Watches a job and returns the exit status: 0 all tasks succeeded, 1 some failed, 2 the job itself did. The
/// failure of one whom the server tells nothing of the job has a status of its own.
pub async fn watch(place: &Place, id: &str, json_wanted: bool) -> Result<u8, Failure> {
    let mut interrupt = Interrupt::listen()?;
    let mut progress = Progress::new();
    let outcome = tokio::select! {
        outcome = follow(place, id, &mut progress) => Some(outcome),
        () = interrupt.asked() => None,
    };
    let Some(outcome) = outcome else {
        progress.clear();
        eprintln!("the job goes on; \"longshore job watch {id}{}\" shows it again", place.flags);
        return Ok(INTERRUPTED);
    };
    if outcome.is_err() {
        progress.clear();
    }
    progress.end();
    let described = outcome?;
    if json_wanted {
        output::json(&super::with_figures(place, &described).await);
    }
    let (_, succeeded, failed) = described.progress();
    let (at, unknown) = match results::written(place, &described).await {
        Ok(at) => (at, None),
        Err(error) => (None, Some(error)),
    };
    let mut failures = None;
    if failed > 0 && at.is_some() {
        match results::download(place, &described, None, Wanted::Failed, |_| Ok(())).await {
            Ok(report) => failures = Some(report.failures),
            // How the job ended is known all the same.
            Err(failure) => eprintln!("what failed cannot be told: {}", plain(&failure.message)),
        }
    }
    // Without a report a Longshore can tell all the same.
    let mut so_far = None;
    if failed > 0 && at.is_none() && !results::is_damaged(&described) {
        match so_far::ask(place, id).await {
            Ok(found) => so_far = found,
            Err(error) => eprintln!("what failed cannot be told: {}", plain(&error.to_string())),
        }
    }
    let has_no_report = at.is_none() && results::place_of(&described).is_some();
    let shown = at.map(|(bucket, base)| plain(&format!("s3://{bucket}/{base}")));
    let status = summarize(&described, failures.as_ref(), shown.as_deref());
    for line in so_far.unwrap_or_default().lines() {
        eprintln!("{line}");
    }
    // How it went is no reason to fail.
    if let Ok(Some(figures)) = figures::ask(&place.client, id).await {
        for (name, text) in figures.told() {
            eprintln!("{}: {text}", name.to_lowercase());
        }
    }
    match unknown {
        Some(error) => eprintln!("whether it left a report cannot be told: {}", plain(&error.to_string())),
        // Of any other the reasons that were told say what can be done.
        None if has_no_report && succeeded + failed > 0 && !results::is_damaged(&described) => {
            eprintln!("hint: {}", plain(&results::without_report(&described, &place.flags)));
        }
        None => {}
    }
    Ok(status)
}

async fn follow(place: &Place, id: &str, progress: &mut Progress) -> Result<Described, Failure> {
    let mut said_suspended = false;
    let mut silent_since: Option<Instant> = None;
    let mut answered = false;
    let mut failures = so_far::Watched::default();
    let mut pace = figures::Watched::default();
    loop {
        match place.client.describe_job(id).await {
            Ok(described) => {
                (answered, silent_since) = (true, None);
                let (total, succeeded, failed) = described.progress();
                if let Some(news) = pace.news(&place.client, id).await {
                    progress.tell(Some(news.going()));
                }
                progress.show(described.status(), total, succeeded, failed);
                if described.is_over() {
                    return Ok(described);
                }
                for line in failures.news(place, id, failed).await {
                    progress.say(&line);
                }
                let suspended = described.status() == "Suspended";
                if suspended && !said_suspended {
                    progress.say(&format!("the job waits to be confirmed: longshore job confirm {id}{}", place.flags));
                }
                said_suspended = suspended;
            }
            // A first question without an answer is more likely asked at the wrong place.
            Err(error) if answered && passes(&error) => {
                if silent_since.is_none() {
                    progress.say(&format!("{}; asking again", plain(&error.to_string())));
                }
                place.look_again();
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= SILENCE_MAX {
                    return Err(told(error).hint(format!(
                        "the job goes on if its server does; \"longshore job watch {id}{}\" shows it again",
                        place.flags
                    )));
                }
            }
            // That nobody may look at it says nothing of the job.
            Err(error) if is_denied(&error) => {
                let failure = Failure::new(format!("job {id} cannot be watched: {error}"));
                let failure = failure.hint("the job itself is not touched by that; watching it takes s3:DescribeJob");
                return Err(Failure { status: UNTOLD, ..failure });
            }
            Err(error) => return Err(told(error)),
        }
        tokio::time::sleep(if place.near { LOOK_EVERY_NEAR } else { LOOK_EVERY_FAR }).await;
    }
}

/// Whether the caller is known and may not do this.
fn is_denied(error: &ClientError) -> bool {
    matches!(error.code(), "AccessDenied" | "AccessDeniedException")
}

/// Whether asking again may help.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { status, code, .. } => {
            status.is_server_error() || status.as_u16() == 429 || code == "TooManyRequestsException"
        }
        ClientError::Broken(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let refused = |status: u16, code: &str| ClientError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            code: code.into(),
            message: String::new(),
        };
        assert!(passes(&refused(503, "SlowDown")) && passes(&refused(400, "TooManyRequestsException")));
        assert!(passes(&ClientError::Broken(String::new())));
        assert!(!passes(&refused(404, "NoSuchJob")) && !passes(&refused(403, "AccessDenied")));
    }
}
