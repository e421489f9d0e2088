//! The life of jobs under random sequences, beside a slow and obvious model: the tables of S3 Batch spec 2.2 and 2.4 and
//! the points of 8.2, written down as they stand there, with names in place of types.

use longshore_core::job::{Event, Status};
use longshore_core::schedule::{Candidate, Decision, schedule};
use proptest::prelude::*;

/// From, what happens, to. Everything that is not here is refused.
const MOVES: &[(&str, &str, &str)] = &[
    ("New", "picked up", "Preparing"),
    ("Preparing", "manifest read, to be confirmed", "Suspended"),
    ("Preparing", "manifest read", "Ready"),
    ("Suspended", "confirmed", "Ready"),
    ("Suspended", "timed out", "Failed"),
    ("Ready", "slot granted", "Active"),
    ("Paused", "slot granted", "Active"),
    ("Active", "preempted", "Pausing"),
    ("Pausing", "drained", "Paused"),
    ("Active", "tasks finished", "Completing"),
    ("Pausing", "tasks finished", "Completing"),
    ("Active", "tasks failed", "Failing"),
    ("Pausing", "tasks failed", "Failing"),
    ("Completing", "report written", "Complete"),
    ("Cancelling", "report written", "Cancelled"),
    ("Failing", "report written", "Failed"),
    ("New", "failed", "Failing"),
    ("Preparing", "failed", "Failing"),
    ("Ready", "failed", "Failing"),
    ("Active", "failed", "Failing"),
    ("Pausing", "failed", "Failing"),
    ("Paused", "failed", "Failing"),
    ("Completing", "failed", "Failing"),
    ("Cancelling", "failed", "Failing"),
    ("Failing", "failed", "Failed"),
    // The matrix of 2.4, its column `Cancelled`.
    ("New", "cancel", "Cancelling"),
    ("Preparing", "cancel", "Cancelling"),
    ("Suspended", "cancel", "Cancelled"),
    ("Ready", "cancel", "Cancelled"),
    ("Active", "cancel", "Cancelling"),
    ("Pausing", "cancel", "Cancelling"),
    ("Paused", "cancel", "Cancelling"),
    ("Cancelling", "cancel", "Cancelling"),
    ("Cancelled", "cancel", "Cancelled"),
    // Beyond AWS, decision 0013: a start on the first rows, and a sample that runs before the others are confirmed.
    ("Preparing", "first rows checked", "Ready"),
    ("Active", "sample finished", "Suspended"),
    ("Pausing", "sample finished", "Suspended"),
    ("Suspended", "timed out after the sample", "Failing"),
    ("New", "cancel after the sample", "Cancelling"),
    ("Preparing", "cancel after the sample", "Cancelling"),
    ("Suspended", "cancel after the sample", "Cancelling"),
    ("Ready", "cancel after the sample", "Cancelling"),
    ("Active", "cancel after the sample", "Cancelling"),
    ("Pausing", "cancel after the sample", "Cancelling"),
    ("Paused", "cancel after the sample", "Cancelling"),
    ("Cancelling", "cancel after the sample", "Cancelling"),
    ("Cancelled", "cancel after the sample", "Cancelled"),
    // Beyond AWS, decision 0048.
    ("Failed", "report delivered later", "Failed"),
];

const EVENTS: [(&str, Event); 18] = [
    ("picked up", Event::PickedUp),
    ("manifest read, to be confirmed", Event::ManifestRead { confirmation_required: true }),
    ("manifest read", Event::ManifestRead { confirmation_required: false }),
    ("confirmed", Event::Confirmed),
    ("timed out", Event::ConfirmationTimedOut),
    ("slot granted", Event::SlotGranted),
    ("preempted", Event::Preempted),
    ("cancel", Event::CancelRequested),
    ("failed", Event::Failed),
    ("tasks failed", Event::TasksFailed),
    ("drained", Event::Drained),
    ("tasks finished", Event::TasksFinished),
    ("report written", Event::ReportWritten),
    ("first rows checked", Event::RowsChecked),
    ("sample finished", Event::SampleFinished),
    ("timed out after the sample", Event::PromotionTimedOut),
    ("cancel after the sample", Event::SampleCancelRequested),
    ("report delivered later", Event::ReportDelivered),
];

fn moved(from: &str, what: &str) -> Option<&'static str> {
    MOVES.iter().find(|(f, w, _)| *f == from && *w == what).map(|(_, _, to)| *to)
}

/// A job of the model.
#[derive(Debug, Clone)]
struct Job {
    id: String,
    status: String,
    priority: u32,
    created: i64,
}

/// One pass of the scheduler, one point after the other, looking at everything anew each time.
fn pass(jobs: &mut [Job], slots: usize) {
    let is = |job: &Job, names: &[&str]| names.contains(&job.status.as_str());
    // Candidates that a slot is on its way to, and slots on their way that are spoken for.
    let mut waits = vec![false; jobs.len()];
    loop {
        // Point 2: priority descending, Paused before Ready, the older first, then the ID.
        let mut first: Option<usize> = None;
        for n in 0..jobs.len() {
            if !is(&jobs[n], &["Ready", "Paused"]) || waits[n] {
                continue;
            }
            let before = |a: &Job, b: &Job| {
                if a.priority != b.priority {
                    return a.priority > b.priority;
                }
                if a.status != b.status {
                    return a.status == "Paused";
                }
                if a.created != b.created {
                    return a.created < b.created;
                }
                a.id < b.id
            };
            if first.is_none_or(|f| before(&jobs[n], &jobs[f])) {
                first = Some(n);
            }
        }
        let Some(first) = first else { return };
        // Points 1 and 3.
        let holders = jobs.iter().filter(|job| is(job, &["Active", "Pausing"])).count();
        if holders < slots {
            jobs[first].status = "Active".into();
            continue;
        }
        // A slot that is being freed is for the first that waits for it.
        let pausing = jobs.iter().filter(|job| is(job, &["Pausing"])).count();
        if pausing > waits.iter().filter(|w| **w).count() {
            waits[first] = true;
            continue;
        }
        // Point 4: the lowest priority, the latest among equals.
        let mut lowest: Option<usize> = None;
        for n in 0..jobs.len() {
            if !is(&jobs[n], &["Active"]) {
                continue;
            }
            let below = |a: &Job, b: &Job| {
                if a.priority != b.priority {
                    return a.priority < b.priority;
                }
                if a.created != b.created {
                    return a.created > b.created;
                }
                a.id < b.id
            };
            if lowest.is_none_or(|l| below(&jobs[n], &jobs[l])) {
                lowest = Some(n);
            }
        }
        match lowest {
            Some(lowest) if jobs[lowest].priority < jobs[first].priority => {
                jobs[lowest].status = "Pausing".into();
                waits[first] = true;
            }
            _ => return,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Create { priority: u32, created: i64 },
    Happens { job: usize, what: usize },
    SetPriority { job: usize, priority: u32 },
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0_u32..4, 0_i64..6).prop_map(|(priority, created)| Step::Create { priority, created }),
        10 => (0_usize..12, 0_usize..EVENTS.len()).prop_map(|(job, what)| Step::Happens { job, what }),
        // Most random events are refused; these bring jobs to where they compete.
        8 => (0_usize..12, prop_oneof![Just(0_usize), Just(2), Just(10)])
            .prop_map(|(job, what)| Step::Happens { job, what }),
        1 => (0_usize..12, 0_u32..4).prop_map(|(job, priority)| Step::SetPriority { job, priority }),
        4 => Just(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn jobs_live_as_the_tables_say(slots in 1_usize..4, steps in prop::collection::vec(step(), 1..120)) {
        let mut model: Vec<Job> = Vec::new();
        let mut real: Vec<Candidate> = Vec::new();
        let mut confirmed_once: Vec<bool> = Vec::new();
        let mut sampled: Vec<bool> = Vec::new();
        for step in steps {
            match step {
                Step::Create { priority, created } if model.len() < 12 => {
                    let id = format!("job-{}", model.len());
                    model.push(Job { id: id.clone(), status: "New".into(), priority, created });
                    real.push(Candidate { job_id: id, status: Status::New, priority, created });
                    confirmed_once.push(false);
                    sampled.push(false);
                }
                Step::Create { .. } => {}
                Step::Happens { job, what } => {
                    let (Some(m), Some(r)) = (model.get_mut(job), real.get_mut(job)) else { continue };
                    let (name, event) = EVENTS[what];
                    // Slots are the scheduler's to give and to take: see the pass.
                    if matches!(name, "slot granted" | "preempted") {
                        continue;
                    }
                    // What is asked of a job whose sample has run is something else.
                    let (name, event) = match (sampled[job], name) {
                        (true, "cancel") => ("cancel after the sample", event.after_sample()),
                        (true, "timed out") => ("timed out after the sample", event.after_sample()),
                        _ => (name, event),
                    };
                    match (moved(&m.status, name), r.status.on(event)) {
                        (Some(wanted), Ok(to)) => {
                            prop_assert_eq!(wanted, to.name(), "{} on {}", &m.status, name);
                            m.status = wanted.into();
                            r.status = to;
                        }
                        (None, Err(_)) => {}
                        (wanted, got) => prop_assert!(false, "{} on {name}: {wanted:?}, not {got:?}", &m.status),
                    }
                    confirmed_once[job] |= name == "confirmed" && m.status == "Ready";
                    if name == "sample finished" && m.status == "Suspended" {
                        (sampled[job], confirmed_once[job]) = (true, false);
                    }
                }
                Step::SetPriority { job, priority } => {
                    let (Some(m), Some(r)) = (model.get_mut(job), real.get_mut(job)) else { continue };
                    let takes = ["New", "Preparing", "Suspended", "Ready", "Active", "Pausing", "Paused"];
                    prop_assert_eq!(r.status.takes_priority(), takes.contains(&m.status.as_str()));
                    if r.status.takes_priority() {
                        m.priority = priority;
                        r.priority = priority;
                    }
                }
                Step::Pass => {
                    pass(&mut model, slots);
                    for decision in schedule(&real, slots) {
                        let (id, event) = match &decision {
                            Decision::Activate(id) => (id, Event::SlotGranted),
                            Decision::Preempt(id) => (id, Event::Preempted),
                        };
                        let waiting = real
                            .iter()
                            .filter(|j| matches!(j.status, Status::Ready | Status::Paused))
                            .map(|j| j.priority)
                            .max();
                        let job = real.iter_mut().find(|j| j.job_id == *id).expect("a job that it was told of");
                        if event == Event::Preempted {
                            prop_assert!(waiting > Some(job.priority), "an equal priority never pre-empts");
                        }
                        job.status = job.status.on(event).expect("the scheduler asks for legal moves alone");
                    }
                    let free = slots.saturating_sub(real.iter().filter(|j| j.status.holds_slot()).count());
                    let waiting = real.iter().filter(|j| matches!(j.status, Status::Ready | Status::Paused)).count();
                    prop_assert!(free == 0 || waiting == 0, "nobody waits beside a free slot");
                }
            }
            let names: Vec<&str> = real.iter().map(|j| j.status.name()).collect();
            let wanted: Vec<&str> = model.iter().map(|j| j.status.as_str()).collect();
            prop_assert_eq!(names, wanted);
            prop_assert!(real.iter().filter(|j| j.status.holds_slot()).count() <= slots);
            for (n, job) in real.iter().enumerate() {
                prop_assert!(!(confirmed_once[n] && job.status == Status::Suspended), "back to Suspended by its sample alone");
            }
        }
    }
}

#[test]
fn the_model_knows_every_event() {
    // An event that is added makes this fail to compile until it has its number, and then to pass until it has its line.
    let number = |event: Event| match event {
        Event::PickedUp => 0,
        Event::ManifestRead { confirmation_required: true } => 1,
        Event::ManifestRead { confirmation_required: false } => 2,
        Event::Confirmed => 3,
        Event::ConfirmationTimedOut => 4,
        Event::SlotGranted => 5,
        Event::Preempted => 6,
        Event::CancelRequested => 7,
        Event::Failed => 8,
        Event::TasksFailed => 9,
        Event::Drained => 10,
        Event::TasksFinished => 11,
        Event::ReportWritten => 12,
        Event::RowsChecked => 13,
        Event::SampleFinished => 14,
        Event::PromotionTimedOut => 15,
        Event::SampleCancelRequested => 16,
        Event::ReportDelivered => 17,
    };
    assert!(EVENTS.iter().map(|(_, event)| number(*event)).eq(0..EVENTS.len()));
}

#[test]
fn the_models_table_and_the_match_have_the_same_moves() {
    for from in Status::ALL {
        for (name, event) in EVENTS {
            assert_eq!(from.on(event).ok().map(Status::name), moved(from.name(), name), "{from:?} on {name}");
        }
    }
}
