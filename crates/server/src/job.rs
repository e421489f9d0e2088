//! `longshore job`: jobs for people. Everything goes through the public API, here or at any other endpoint.
//!
//! Results on standard output, talk on standard error, `--json` in the API's own shape.

mod create;
mod events;
pub mod figures;
pub mod json;
mod results;
mod retry;
mod role;
mod show;
mod so_far;
mod watch;

use longshore_core::job::Status;
use longshore_wire::xml::Element;

use crate::cli::{self, JobCommand, JobTag};
use crate::client::{ClientError, Described};
use crate::failure::{FAILED, Failure, JOB_FAILED, OK, plain};
use crate::output::{self, out};
use crate::place::{Place, told};

/// A page of ListJobs, the API's largest.
const PAGE_MAX: usize = 1_000;

pub async fn job(args: cli::Job) -> Result<u8, Failure> {
    let watches = match &args.command {
        JobCommand::Create(args) => args.watch,
        JobCommand::Retry { watch, .. } => *watch,
        command => matches!(command, JobCommand::Watch { .. }),
    };
    // 1 is for tasks that failed, as with `run`: whoever reads the status must not take an error of ours for that.
    command(args).await.map_err(|failure| match failure.status {
        FAILED if watches => Failure { status: JOB_FAILED, ..failure },
        _ => failure,
    })
}

async fn command(args: cli::Job) -> Result<u8, Failure> {
    let cli::Job { at, command } = args;
    let json = at.at.json;
    if let JobCommand::Create(args) = command {
        return create::create(*args, &at).await;
    }
    let place = Place::of_jobs(&at, None).await?;
    match command {
        // Above, for its request may name the account.
        JobCommand::Create(_) => unreachable!("it was taken above"),
        JobCommand::List { status, limit } => list(&place, &status, limit, json).await,
        JobCommand::Describe { job } => {
            let described = describe(&place, &id_of(&place, &job).await?).await?;
            if json {
                output::json(&with_figures(&place, &described).await);
            } else {
                let id = described.job.child_text("JobId").unwrap_or_default();
                // What AWS tells of a job is told, whatever becomes of what it does not.
                let figures = figures::ask(&place.client, id).await.ok().flatten();
                let figures = figures.map(|figures| figures.told()).unwrap_or_default();
                // What cannot be asked is told as it was meant.
                let unreported = described.is_over() && matches!(results::written(&place, &described).await, Ok(None));
                out(&show::description(&described, &figures, !unreported, output::colours()));
                let (_, _, failed) = described.progress();
                if failed > 0 && !described.is_over() {
                    let id = described.job.child_text("JobId").unwrap_or_default();
                    let so_far = so_far::ask(&place, id).await.map_err(told)?.unwrap_or_default();
                    let lines = so_far.lines().into_iter().map(|line| format!("Failures{line}\n"));
                    out(&lines.collect::<String>());
                }
            }
            Ok(OK)
        }
        JobCommand::Watch { job } => watch::watch(&place, &id_of(&place, &job).await?, json).await,
        JobCommand::Confirm { job, reason } => set_status(&place, &job, "Ready", reason.as_deref(), json).await,
        JobCommand::Cancel { job, reason } => set_status(&place, &job, "Cancelled", reason.as_deref(), json).await,
        JobCommand::Priority { job, priority } => {
            let id = id_of(&place, &job).await?;
            let answer = match place.client.update_job_priority(&id, priority).await {
                Ok(answer) => answer,
                Err(error) => return Err(not_now(&place, &id, error, "its priority cannot be changed").await),
            };
            print_one(&answer, "Priority", json)
        }
        JobCommand::Tag(command) => tag(&place, command, json).await,
        JobCommand::Events { job, follow } => {
            events::print(&place, &id_of(&place, &job).await?, follow, json).await.map(|()| OK)
        }
        JobCommand::Report { job, output } => {
            let id = id_of(&place, &job).await?;
            results::report(&place, &id, output, json).await
        }
        JobCommand::Deliver { job } => results::deliver(&place, &id_of(&place, &job).await?, json).await,
        JobCommand::Failures { job, keys } => {
            let id = id_of(&place, &job).await?;
            if keys { results::keys(&place, &id, json).await } else { results::failures(&place, &id, json).await }
        }
        JobCommand::Retry { job, all, token, confirm, watch } => {
            let id = id_of(&place, &job).await?;
            let made = retry::retry(&place, &id, &retry::Asked { all, token, confirm }).await?;
            print_made(&place, &made, json, watch).await
        }
    }
}

/// Prints the ID of a job that was created, and goes on to watch it if that was asked for.
async fn print_made(place: &Place, id: &str, json: bool, watch: bool) -> Result<u8, Failure> {
    if json {
        output::json(&serde_json::json!({"JobId": id}));
    } else {
        out(&format!("{}\n", plain(id)));
    }
    if watch { watch::watch(place, id, false).await } else { Ok(OK) }
}

/// A job as DescribeJob has it, and beside it what a Longshore tells of how it goes.
async fn with_figures(place: &Place, described: &Described) -> serde_json::Value {
    let mut answer = serde_json::json!({"Job": json::of(&described.job)});
    let id = described.job.child_text("JobId").unwrap_or_default();
    if let Ok(Some(figures)) = figures::ask(&place.client, id).await {
        answer["Figures"] = figures.0;
    }
    answer
}

async fn describe(place: &Place, id: &str) -> Result<Described, Failure> {
    place.client.describe_job(id).await.map_err(told)
}

/// The whole ID for what was typed: an ID, or the beginning of one that no other job's ID has.
async fn id_of(place: &Place, typed: &str) -> Result<String, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if typed.is_empty() || typed.len() > 36 || !typed.chars().all(fits) {
        return Err(Failure::usage(format!("{typed} is no job ID, nor the beginning of one")));
    }
    // AWS's IDs are UUIDs; what is as long cannot be a beginning.
    if typed.len() == 36 {
        return Ok(typed.to_owned());
    }
    let (jobs, _) = pages(place, &[], None).await?;
    let ids = jobs.iter().filter_map(|job| job.child_text("JobId"));
    choose(typed, ids)
}

fn choose<'a>(typed: &str, ids: impl Iterator<Item = &'a str>) -> Result<String, Failure> {
    let mut found: Vec<&str> = ids.filter(|id| id.starts_with(typed)).collect();
    // One that is typed whole is meant, however many go on where it ends.
    if let Some(whole) = found.iter().find(|id| **id == typed) {
        found = vec![whole];
    }
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Failure::new(format!("there is no job whose ID begins with {typed}"))
            .hint("list the jobs that there are with \"longshore job list\"")),
        many => {
            Err(Failure::new(format!("the IDs of {} jobs begin with {typed}", many.len())).hint("type more of the ID"))
        }
    }
}

/// Jobs, the newest first, of all pages or up to a limit; and the token of the page after that limit.
async fn pages(
    place: &Place,
    statuses: &[Status],
    limit: Option<u32>,
) -> Result<(Vec<Element>, Option<String>), Failure> {
    let mut jobs = Vec::new();
    let mut token = None;
    loop {
        let left = limit.map_or(PAGE_MAX, |limit| (limit as usize).saturating_sub(jobs.len()).min(PAGE_MAX));
        let page = place.client.list_jobs(statuses, left, token.as_deref()).await.map_err(told)?;
        token = page.child_text("NextToken").filter(|token| !token.is_empty()).map(str::to_owned);
        let found = page.children.into_iter().find(|child| child.name == "Jobs").unwrap_or_default();
        jobs.extend(found.children);
        if token.is_none() || limit.is_some_and(|limit| jobs.len() >= limit as usize) {
            return Ok((jobs, token));
        }
    }
}

async fn list(place: &Place, statuses: &[Status], limit: Option<u32>, json: bool) -> Result<u8, Failure> {
    let (jobs, token) = pages(place, statuses, limit).await?;
    if json {
        let mut answer = serde_json::json!({"Jobs": jobs.iter().map(json::of).collect::<Vec<_>>()});
        if let Some(token) = token {
            answer["NextToken"] = token.into();
        }
        output::json(&answer);
    } else if jobs.is_empty() {
        eprintln!("there are no jobs{}", if statuses.is_empty() { "" } else { " of that status" });
    } else {
        out(&show::table(&jobs, output::colours()));
    }
    Ok(OK)
}

async fn set_status(place: &Place, job: &str, to: &str, reason: Option<&str>, json: bool) -> Result<u8, Failure> {
    if reason.is_some_and(|reason| reason.is_empty() || reason.chars().count() > 256) {
        return Err(Failure::usage("a reason has 1 to 256 characters"));
    }
    let id = id_of(place, job).await?;
    let not = if to == "Ready" { "cannot be confirmed" } else { "cannot be cancelled" };
    match place.client.update_job_status(&id, to, reason).await {
        Ok(answer) => print_one(&answer, "Status", json),
        Err(error) => Err(not_now(place, &id, error, not).await),
    }
}

/// A refusal that lies in the job's status names that status.
async fn not_now(place: &Place, id: &str, error: ClientError, not: &str) -> Failure {
    if !matches!(error.code(), "InvalidRequest" | "JobStatusException" | "BadRequestException") {
        return told(error);
    }
    match place.client.describe_job(id).await {
        Ok(described) => Failure::new(format!("job {id} is {} and {not}: {error}", plain(described.status())))
            .hint(format!("look at it with \"longshore job describe {id}{}\"", place.flags)),
        Err(_) => told(error),
    }
}

/// Prints what a change came to: one member on a line, or the whole answer as JSON.
fn print_one(answer: &Element, member: &str, json: bool) -> Result<u8, Failure> {
    if json {
        output::json(&json::of(answer));
    } else {
        out(&format!("{}\n", plain(answer.child_text(member).unwrap_or(""))));
    }
    Ok(OK)
}

async fn tag(place: &Place, command: JobTag, json: bool) -> Result<u8, Failure> {
    let (job, change) = match command {
        JobTag::List { job } => (job, None),
        JobTag::Set { job, tags } => (job, Some((tags, Vec::new()))),
        JobTag::Remove { job, all: true, .. } => {
            let id = id_of(place, &job).await?;
            place.client.delete_job_tags(&id).await.map_err(told)?;
            print_tags(&[], json);
            return Ok(OK);
        }
        JobTag::Remove { job, keys, .. } => (job, Some((Vec::new(), keys))),
    };
    let id = id_of(place, &job).await?;
    let mut tags = place.client.job_tags(&id).await.map_err(told)?;
    if let Some((set, remove)) = change {
        change_tags(&mut tags, set, &remove)?;
        place.client.put_job_tags(&id, &tags).await.map_err(told)?;
    }
    print_tags(&tags, json);
    Ok(OK)
}

/// The API replaces the whole set; here it is changed in place. A key that is to go must be there.
fn change_tags(tags: &mut Vec<(String, String)>, set: Vec<(String, String)>, remove: &[String]) -> Result<(), Failure> {
    for (key, value) in set {
        match tags.iter_mut().find(|(k, _)| *k == key) {
            Some(tag) => tag.1 = value,
            None => tags.push((key, value)),
        }
    }
    for key in remove {
        let at = tags.iter().position(|(k, _)| k == key);
        tags.remove(at.ok_or_else(|| Failure::new(format!("the job has no tag {key}; nothing was changed")))?);
    }
    Ok(())
}

fn print_tags(tags: &[(String, String)], json: bool) {
    if json {
        let tags: Vec<_> = tags.iter().map(|(k, v)| serde_json::json!({"Key": k, "Value": v})).collect();
        output::json(&serde_json::json!({"Tags": tags}));
    } else {
        let lines = tags.iter().map(|(key, value)| format!("{}={}\n", plain(key), plain(value)));
        out(&lines.collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_enough_where_it_is_the_only_one() {
        let ids = ["aaaa1-b", "aaaa2-b", "bbbbb", "bbbbb-c"];
        let choose = |typed| choose(typed, ids.into_iter());
        assert_eq!(choose("aaaa1").unwrap(), "aaaa1-b");
        assert_eq!(choose("bbbbb").unwrap(), "bbbbb", "typed whole");
        assert!(choose("aaaa").unwrap_err().message.contains("2 jobs"));
        assert!(choose("c").unwrap_err().message.contains("no job"));
    }

    #[test]
    fn tags_are_changed_one_by_one() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let mut tags = vec![pair("a", "1"), pair("b", "2")];
        change_tags(&mut tags, vec![pair("b", "3"), pair("c", "4")], &["a".to_owned()]).unwrap();
        assert_eq!(tags, [pair("b", "3"), pair("c", "4")]);
        assert!(change_tags(&mut tags, Vec::new(), &["x".to_owned()]).is_err());
    }
}
