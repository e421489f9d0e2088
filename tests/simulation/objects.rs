//! Pretend objects: manifests that change under their jobs, bodies that break off, reports that are put twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use longshore_jobs::ports::{ListPage, ListQuery, ObjectBody, ObjectError, ObjectFacts, Objects, PutBody, PutTerms};
use md5::{Digest, Md5};

use crate::defect::Defect;
use crate::machine::Machine;
use crate::plan::Fault;

/// Bytes in one piece of a body, at most.
const PIECE_MAX: u64 = 8_192;

/// The door to objects of one machine.
pub struct Shelves(pub Arc<Machine>);

fn down(message: &str) -> ObjectError {
    ObjectError { code: "InternalError".into(), message: message.into(), passing: true }
}

pub fn md5(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

impl Shelves {
    /// Where a server may die or stand still.
    async fn crash(machine: &Machine) {
        machine.alive().await;
        if machine.world.fault(Fault::CrashAtObjects) {
            machine.die_here(Fault::CrashAtObjects).await;
        }
        if machine.world.fault(Fault::PauseAtObjects) {
            machine.pause_here().await;
        }
    }
}

#[async_trait::async_trait]
impl Objects for Shelves {
    async fn get(&self, bucket: &str, key: &str, _: Option<&str>) -> Result<ObjectBody, ObjectError> {
        let world = &self.0.world;
        Self::crash(&self.0).await;
        world.sleep_up_to(5).await;
        assert_eq!(bucket, "manifests", "an object is read that nobody has named");
        let job: usize = key.parse().expect("manifests are named by their jobs");
        world.event_told("get", job as u64, format_args!("get the manifest of job {job}"));
        if world.fault(Fault::GetFails) {
            return Err(down("not now"));
        }
        let version = world.state().jobs[job].version;
        let bytes = world.plan.jobs[job].manifest(job, version);
        let size = bytes.len() as u64;
        // A store that is asked for nothing but the object gives what there is now.
        let named =
            if world.has(Defect::EtagUnchecked) { world.plan.jobs[job].manifest(job, 1) } else { bytes.clone() };
        let etag = format!("\"{}\"", md5(&named));
        let breaks_off = world.fault(Fault::GetBreaksOff).then(|| world.below(size + 1));
        let with_error = world.one_in(2);
        let slow = world.fault(Fault::GetSlow);
        let body = Bytes::from(bytes);
        let (machine, end) = (Arc::clone(&self.0), breaks_off.unwrap_or(size));
        let pieces = futures::stream::unfold((0, false), move |(at, over)| {
            let (machine, body) = (Arc::clone(&machine), body.clone());
            async move {
                let world = &machine.world;
                if over {
                    return None;
                }
                if slow {
                    world.sleep_up_to(500).await;
                }
                if at == end {
                    // The end of a body that breaks off is an error, or looks like any other.
                    let broken = end < size && with_error;
                    return broken.then(|| (Err(down("the connection broke off")), (at, true)));
                }
                Self::crash(&machine).await;
                let until = (at + 1 + world.below(PIECE_MAX)).min(end);
                Some((Ok(body.slice(at as usize..until as usize)), (until, false)))
            }
        });
        Ok(ObjectBody { etag, size: Some(size), tags: None, stream: pieces.boxed() })
    }

    async fn put(&self, bucket: &str, key: &str, _: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        let world = &self.0.world;
        Self::crash(&self.0).await;
        world.sleep_up_to(5).await;
        if world.fault(Fault::PutSlow) {
            world.sleep_up_to(20_000).await;
        }
        if world.fault(Fault::PutFailsBefore) {
            return Err(down("not now"));
        }
        let bytes = match body {
            PutBody::Bytes(bytes) => bytes,
            PutBody::File(path, length) => {
                let bytes = std::fs::read(&path).map_err(|error| down(&error.to_string()))?;
                assert_eq!(bytes.len() as u64, length, "a report's part has another length than it is said to have");
                bytes.into()
            }
        };
        assert_eq!(bucket, "reports", "something is put where nothing belongs");
        let id = key.strip_prefix("job-").and_then(|rest| rest.split_once('/')).map(|(id, _)| id);
        let job = id.and_then(|id| world.job_of(id));
        let Some(job) = job else { panic!("{key} is put, which belongs to no job") };
        world.event_told("put", job as u64, format_args!("put {key} of the report of job {job}"));
        crate::audit::put(world, job, key, bytes.clone());
        Self::crash(&self.0).await;
        if world.fault(Fault::PutFailsAfter) {
            return Err(down("it is written, and nobody says so"));
        }
        Ok(format!("\"{}\"", md5(&bytes)))
    }

    async fn list(&self, _: &str, _: &ListQuery) -> Result<ListPage, ObjectError> {
        panic!("no job here generates its manifest");
    }

    async fn facts(&self, _: &str, _: &str, _: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        panic!("no job here generates its manifest");
    }

    async fn check_owner(&self, _: &str, _: &str) -> Result<(), ObjectError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}
