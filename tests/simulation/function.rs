//! Pretend functions: slow, wrong, lost, throttled, or as good as their rows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longshore_core::invocation::Reply;
use longshore_jobs::ports::Invoker;

use crate::defect::Defect;
use crate::machine::Machine;
use crate::plan::{Fault, Manner};
use crate::world::{Call, CallEnd, FUNCTIONS, World, message};

/// The door to functions of one machine.
pub struct Functions(pub Arc<Machine>);

/// Which function a name means.
fn number(name: &str) -> usize {
    let digit = name.bytes().rev().find(u8::is_ascii_digit).unwrap_or(b'0');
    usize::from(digit - b'0') % FUNCTIONS
}

pub fn arn(function: usize) -> String {
    format!("arn:aws:lambda:us-west-2:{}:function:f{function}", crate::world::ACCOUNT)
}

/// What is between two marks, unescaped as JSON is.
fn member(event: &serde_json::Value, name: &str) -> String {
    event[name].as_str().unwrap_or_default().to_owned()
}

/// A call under way; told when it is dropped before its end.
struct UnderWay {
    machine: Arc<Machine>,
    function: usize,
    call: Call,
    end: CallEnd,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.machine.world.call_ends(&self.machine, self.function, &self.call, self.end);
    }
}

#[async_trait::async_trait]
impl Invoker for Functions {
    async fn invoke(&self, function: &str, payload: Bytes) -> Reply {
        let (machine, world) = (&self.0, &self.0.world);
        let event: serde_json::Value = serde_json::from_slice(&payload).expect("an event is JSON");
        let task = &event["tasks"][0];
        let function = number(function);
        machine.alive().await;
        let (id, key) = (member(&event["job"], "id"), member(task, "s3Key"));
        let call = world.call_begins(machine, function, &id, &member(task, "taskId"), &key);
        let mut under_way = UnderWay { machine: Arc::clone(machine), function, call, end: CallEnd::Abandoned };
        let call = &under_way.call;
        if world.dies_at_call() {
            machine.die_here(Fault::CrashAtCall).await;
        }
        if world.fault(Fault::SlowCall) {
            let ms = if world.one_in(10) { 60_000 } else { 2_000 };
            world.sleep_up_to(ms).await;
        } else if !world.one_in(4) {
            // Now and then it is over before anybody has waited.
            world.sleep_up_to(20).await;
        }
        let (reply, end) = if world.fault(Fault::LostAnswer) && world.may_disturb(call) {
            (Reply::Unreachable { cause: "lost".into() }, CallEnd::Again)
        } else if world.fault(Fault::Throttle) && world.may_disturb(call) {
            let retry_after_ms = world.one_in(3).then_some(50);
            (Reply::Throttled { message: "Rate Exceeded.".into(), retry_after_ms }, CallEnd::Again)
        } else {
            answer(world, call)
        };
        under_way.end = end;
        reply
    }

    fn slots(&self, function: &str) -> Option<u32> {
        let (machine, function) = (&self.0, number(function));
        let slots = machine.world.slots_told(machine, function);
        // A limit that is forgotten at a restart.
        let forgotten = machine.world.has(Defect::LimitForgotten) && machine.life > 0;
        Some(if forgotten { 2 * slots } else { slots })
    }
}

/// What a row's function says by itself.
fn answer(world: &World, call: &Call) -> (Reply, CallEnd) {
    let row =
        if world.has(Defect::AnswerOfTheNextRow) && call.row % 50 == 7 { world.next_task(call) } else { call.row };
    let words = message(row, call.number);
    let said = |id: &str, code: &str| {
        let result = format!(r#"{{"results":[{{"taskId":"{id}","resultCode":"{code}","resultString":"{words}"}}]}}"#);
        Reply::Answer(Bytes::from(result))
    };
    let tried_again = if world.attempt(call) < 5 { CallEnd::Redriven } else { CallEnd::Final };
    match world.plan.jobs[call.job].rows[call.row].manner {
        Manner::Succeeds => (said(&call.task_id, "Succeeded"), CallEnd::Final),
        Manner::FailsForGood => (said(&call.task_id, "PermanentFailure"), CallEnd::Final),
        Manner::Busy(times) if world.attempt(call) <= times => (said(&call.task_id, "TemporaryFailure"), tried_again),
        Manner::Busy(_) => (said(&call.task_id, "Succeeded"), CallEnd::Final),
        Manner::Throws => (Reply::FunctionError(Bytes::from_static(b"{}")), CallEnd::Final),
        Manner::AnswersGarbage => (Reply::Answer(Bytes::from_static(b"\xff")), CallEnd::Final),
        Manner::AnswersForAnother => (said("somebody-else", "Succeeded"), tried_again),
        Manner::HasNoVersion => panic!("row {} has no version and was called", call.row),
    }
}

/// How long a server may wait for what it has asked of a function that is slow: longer than any call here takes.
pub const CALL_MAX: Duration = Duration::from_secs(60);
