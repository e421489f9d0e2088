//! What a job's run has counted: what its calls came to, and how long calls and tasks took.

use crate::histogram::Histogram;
use crate::invocation::Reply;
use crate::task::ResultCode;

/// What one call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The function answered; what it answered is the task's matter.
    Succeeded,
    /// The function threw, died, or answered too much.
    FunctionError,
    /// The function's time was up.
    TimedOut,
    /// There was no room for it.
    Throttled,
    /// Nobody answered.
    Unreachable,
    /// Any other answer: no such function, no permission, a fault on the other side.
    Refused,
    /// It was called off before it began.
    NotStarted,
}

impl Call {
    /// In the order of their counts, in which the result log has them: another one comes last.
    pub const ALL: [Call; 7] = [
        Call::Succeeded,
        Call::FunctionError,
        Call::TimedOut,
        Call::Throttled,
        Call::Unreachable,
        Call::Refused,
        Call::NotStarted,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Call::Succeeded => "succeeded",
            Call::FunctionError => "function_error",
            Call::TimedOut => "timed_out",
            Call::Throttled => "throttled",
            Call::Unreachable => "unreachable",
            Call::Refused => "refused",
            Call::NotStarted => "not_started",
        }
    }

    pub fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Answer(_) => Call::Succeeded,
            Reply::FunctionError(payload) if is_timeout(payload) => Call::TimedOut,
            Reply::FunctionError(_) => Call::FunctionError,
            Reply::NotStarted => Call::NotStarted,
            Reply::Throttled { .. } => Call::Throttled,
            Reply::Unreachable { .. } => Call::Unreachable,
            Reply::Refused { .. } => Call::Refused,
        }
    }

    /// Whether the function, or what stands before it, was asked and answered: then it has taken its time.
    fn took_time(self) -> bool {
        matches!(self, Call::Succeeded | Call::FunctionError | Call::TimedOut | Call::Refused)
    }
}

/// Bytes of an error's payload that are looked at: its type comes first, at AWS too.
const ERROR_HEAD: usize = 200;

/// Whether an error tells of a time-out: by Lambda's own type of error, or by its message, where there is no type.
fn is_timeout(payload: &[u8]) -> bool {
    let head = &payload[..payload.len().min(ERROR_HEAD)];
    [&b"\"Sandbox.Timedout\""[..], b"Task timed out after "]
        .iter()
        .any(|words| head.windows(words.len()).any(|found| found == *words))
}

/// What a run has counted. Adds up over the runs of a job, and over jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    calls: [u64; Call::ALL.len()],
    /// What the answers said of their tasks.
    answers: [u64; ResultCode::ALL.len()],
    /// Attempts that used themselves up and were followed by another, which the function's answer asked for.
    pub retries: u64,
    /// From the call to the answer, of calls that reached the function.
    pub attempts: Histogram,
    /// From a task's first dispatch to the answer that settled it.
    pub tasks: Histogram,
    /// Cold starts of the job's function while it ran; none where nobody counts them, elsewhere.
    pub cold_starts: Histogram,
}

impl Figures {
    /// Adds to one count of calls, or of answers, what was kept of it.
    pub fn add_calls(&mut self, call: Call, count: u64) {
        add(&mut self.calls[call as usize], count);
    }

    /// See [`Figures::add_calls`].
    pub fn add_answers(&mut self, code: ResultCode, count: u64) {
        add(&mut self.answers[code as usize], count);
    }

    pub fn answered(&mut self, call: Call, took_us: Option<u64>) {
        self.calls[call as usize] += 1;
        if let Some(took_us) = took_us.filter(|_| call.took_time()) {
            self.attempts.add(took_us);
        }
    }

    pub fn settled(&mut self, took_us: Option<u64>) {
        if let Some(took_us) = took_us {
            self.tasks.add(took_us);
        }
    }

    pub fn calls(&self, call: Call) -> u64 {
        self.calls[call as usize]
    }

    pub fn answers(&self, code: ResultCode) -> u64 {
        self.answers[code as usize]
    }

    pub fn merge(&mut self, other: &Self) {
        self.calls.iter_mut().zip(other.calls).for_each(|(count, more)| add(count, more));
        self.answers.iter_mut().zip(other.answers).for_each(|(count, more)| add(count, more));
        add(&mut self.retries, other.retries);
        self.attempts.merge(&other.attempts);
        self.tasks.merge(&other.tasks);
        self.cold_starts.merge(&other.cold_starts);
    }

    /// What these have that `other` has not, count by count: with two states of the same figures, what came between them.
    pub fn since(&self, other: &Self) -> Self {
        let mut calls = self.calls;
        calls.iter_mut().zip(other.calls).for_each(|(count, less)| *count = count.saturating_sub(less));
        let mut answers = self.answers;
        answers.iter_mut().zip(other.answers).for_each(|(count, less)| *count = count.saturating_sub(less));
        Self {
            calls,
            answers,
            retries: self.retries.saturating_sub(other.retries),
            attempts: self.attempts.since(&other.attempts),
            tasks: self.tasks.since(&other.tasks),
            cold_starts: self.cold_starts.since(&other.cold_starts),
        }
    }

    /// Nothing is counted any more; the memory of the histograms stays.
    pub fn clear(&mut self) {
        (self.calls, self.answers, self.retries) = Default::default();
        self.histograms_mut().into_iter().for_each(Histogram::clear);
    }

    /// In the order in which the result log has them: another one comes last.
    pub(crate) fn histograms(&self) -> [&Histogram; 3] {
        [&self.tasks, &self.attempts, &self.cold_starts]
    }

    pub(crate) fn histograms_mut(&mut self) -> [&mut Histogram; 3] {
        [&mut self.tasks, &mut self.attempts, &mut self.cold_starts]
    }
}

fn add(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_reply_is_counted_as_what_it_came_to() {
        let error = |payload: &'static str| Reply::FunctionError(Bytes::from_static(payload.as_bytes()));
        for (reply, wanted) in [
            (Reply::Answer(Bytes::new()), Call::Succeeded),
            (error(r#"{"errorType":"KeyError","errorMessage":"'k'"}"#), Call::FunctionError),
            (error(r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 1 Error: Task…"}"#), Call::TimedOut),
            (error(r#"{"errorMessage":"2026-01-31T10:00:00Z 8a Task timed out after 3.00 seconds"}"#), Call::TimedOut),
            (Reply::NotStarted, Call::NotStarted),
            (Reply::Throttled { message: String::new(), retry_after_ms: None }, Call::Throttled),
            (Reply::Unreachable { cause: String::new() }, Call::Unreachable),
            (Reply::Refused { status: 404, code: String::new(), message: String::new() }, Call::Refused),
        ] {
            assert_eq!(Call::of(&reply), wanted, "{reply:?}");
        }
        for (place, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, place, "{call:?}");
        }
    }

    #[test]
    fn what_came_between_two_states_is_told_and_added_to_the_first_makes_the_second() {
        let mut first = Figures::default();
        first.answered(Call::Throttled, None);
        first.settled(Some(40));
        let mut second = first.clone();
        second.answered(Call::Throttled, None);
        second.answered(Call::Succeeded, Some(9));
        second.add_answers(ResultCode::TemporaryFailure, 2);
        second.retries += 1;
        second.cold_starts.add(70_000);
        second.settled(Some(50));
        let between = second.since(&first);
        let calls = [Call::Throttled, Call::Succeeded].map(|call| between.calls(call));
        assert_eq!((calls, between.answers(ResultCode::TemporaryFailure), between.retries), ([1, 1], 2, 1));
        assert_eq!((between.tasks.sum_us(), between.attempts.count(), between.cold_starts.count()), (50, 1, 1));
        let mut again = first.clone();
        again.merge(&between);
        assert_eq!(again, second);
        // Of what is not there yet nothing is missing.
        assert_eq!(first.since(&second).tasks.count(), 0);
        again.clear();
        assert_eq!((again.calls(Call::Throttled), again.retries, again.tasks.count()), (0, 0, 0));
        assert_eq!(again.tasks.times(), Default::default());
    }

    #[test]
    fn calls_that_did_not_reach_the_function_are_counted_and_have_no_time() {
        let mut figures = Figures::default();
        for call in Call::ALL {
            figures.answered(call, Some(50));
            figures.answered(call, None);
        }
        figures.settled(Some(70));
        figures.settled(None);
        assert!(Call::ALL.into_iter().all(|call| figures.calls(call) == 2));
        assert_eq!((figures.attempts.count(), figures.tasks.count()), (4, 1));
        let mut both = figures.clone();
        both.merge(&figures);
        assert_eq!((both.calls(Call::Throttled), both.attempts.count(), both.tasks.sum_us()), (4, 8, 140));
    }
}
