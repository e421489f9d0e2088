//! The state machine of the Runtime API, for one execution environment.
//!
//! ```text
//! Started --/next--> Ready --(event)--> Running --/response, /error begins--> Receiving --(body read)--> Answered
//!    |                 ^                                                                                   |
//!    |                 +------------------------------------- /next ---------------------------------------+
//!    \--/init/error--> InitError                     (any) --the process ended, its time is up--> Closed
//! ```
//!
//! It decides and holds what is in flight; sockets, processes and clocks are its callers'. Source: Lambda specification
//! 1.2 to 1.4 (`[R]`, AWS's own runtime interface).

use bytes::Bytes;

/// What a session keeps for an event that was given to it: `W` is the caller's (whom to answer, and how).
#[derive(Debug)]
pub(super) struct Work<W> {
    pub request_id: String,
    /// Names this attempt; a runtime that knows the header echoes it.
    pub attempt_id: String,
    /// The whole answer to `/next`, rendered once: head, and body where it is too large to be copied behind the head.
    pub event: Event,
    /// Whether a runtime was sent the event. Until then another environment may serve the call just as well.
    pub handed_out: bool,
    pub context: W,
}

/// An answer to `/next`, as bytes. Cloning copies no bytes.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub head: Bytes,
    /// Empty if `head` already ends with the body.
    pub body: Bytes,
}

#[derive(Debug)]
enum State<W> {
    Started,
    Ready,
    Running(Work<W>),
    Receiving(Work<W>, AnswerKind),
    /// Answered; the name of the last request, so that a second answer is told apart from a wrong name.
    Answered {
        request_id: String,
    },
    InitError,
    Closed,
}

/// What `GET /next` leads to.
#[derive(Debug)]
pub(super) enum Next {
    /// The environment is up: say so to the pool, then ask again.
    FirstPoll,
    /// The last invocation is over: say so to the pool, then ask again.
    Free,
    /// Answer with this.
    Event(Event),
    /// Nothing to do yet: wait.
    Wait,
    /// The runtime has no right to ask any more.
    Refused(Refusal),
}

/// An error answer of the Runtime API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub error_type: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, error_type: &'static str, message: impl Into<String>) -> Self {
        Self { status, error_type, message: message.into() }
    }

    fn transition(from: &str, to: &str) -> Self {
        Self::new(
            403,
            "InvalidStateTransition",
            format!("State transition from {from} to {to} failed for runtime. Error: State transition is not allowed"),
        )
    }

    fn request_id() -> Self {
        Self::new(400, "InvalidRequestID", "Invalid request ID")
    }
}

/// Which of the two answers a runtime gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerKind {
    Response,
    Error,
}

#[derive(Debug)]
pub(super) struct Session<W> {
    state: State<W>,
}

impl<W> Session<W> {
    pub fn new() -> Self {
        Self { state: State::Started }
    }

    fn state_name(&self) -> &'static str {
        match self.state {
            State::Started => "Started",
            State::Ready => "Ready",
            State::Running(_) => "Running",
            State::Receiving(_, AnswerKind::Response) => "InvocationResponse",
            State::Receiving(_, AnswerKind::Error) => "InvocationErrorResponse",
            State::Answered { .. } => "RuntimeResponseSentState",
            State::InitError => "InitError",
            State::Closed => "Closed",
        }
    }

    /// A runtime asks for an event.
    pub fn next(&mut self) -> Next {
        match &mut self.state {
            State::Started => {
                self.state = State::Ready;
                Next::FirstPoll
            }
            State::Answered { .. } => {
                self.state = State::Ready;
                Next::Free
            }
            State::Running(work) => {
                // The same event again if it was asked for before: that makes a repeated GET harmless.
                work.handed_out = true;
                Next::Event(work.event.clone())
            }
            // While an answer still arrives on another connection, its end decides. Closed: the process is about to be
            // killed, and any answer but an event would make it print a trace first.
            State::Ready | State::Receiving(..) | State::Closed => Next::Wait,
            State::InitError => Next::Refused(Refusal::transition("InitError", "Ready")),
        }
    }

    /// The work that the next [`Session::next`] hands out for the first time, if that is what it does.
    pub fn about_to_hand_out(&self) -> Option<&Work<W>> {
        match &self.state {
            State::Running(work) if !work.handed_out => Some(work),
            _ => None,
        }
    }

    /// Takes back an event that no runtime was sent.
    pub fn take_back(&mut self) -> Option<Work<W>> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Running(work) if !work.handed_out => Some(work),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Gives an idle environment its event. The work comes back if the environment is not waiting for one.
    pub fn assign(&mut self, work: Work<W>) -> Result<(), Work<W>> {
        match self.state {
            State::Ready => {
                self.state = State::Running(work);
                Ok(())
            }
            _ => Err(work),
        }
    }

    /// A runtime begins to answer; its body may be read if this is `Ok`.
    pub fn begin_answer(
        &mut self,
        request_id: &str,
        attempt_id: Option<&str>,
        kind: AnswerKind,
    ) -> Result<(), Refusal> {
        let to = match kind {
            AnswerKind::Response => "InvocationResponse",
            AnswerKind::Error => "InvocationErrorResponse",
        };
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Running(work)
                if work.handed_out
                    && work.request_id == request_id
                    && attempt_id.is_none_or(|attempt| attempt == work.attempt_id) =>
            {
                self.state = State::Receiving(work, kind);
                Ok(())
            }
            other => {
                self.state = other;
                Err(match &self.state {
                    State::Running(_) | State::Ready => Refusal::request_id(),
                    State::Receiving(work, _) if work.request_id != request_id => Refusal::request_id(),
                    State::Answered { request_id: last } if last != request_id => Refusal::request_id(),
                    _ => Refusal::transition(self.state_name(), to),
                })
            }
        }
    }

    /// The body that [`Session::begin_answer`] allowed is complete, or it will never be. Returns the work to settle;
    /// `None` if it was settled meanwhile (time-out).
    pub fn end_answer(&mut self) -> Option<Work<W>> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Receiving(mut work, _) => {
                self.state = State::Answered { request_id: std::mem::take(&mut work.request_id) };
                Some(work)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The runtime says that it could not start.
    pub fn init_error(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::Started => {
                self.state = State::InitError;
                Ok(())
            }
            _ => Err(Refusal::transition(self.state_name(), "InitError")),
        }
    }

    /// Whether the runtime has not polled yet.
    pub fn is_starting(&self) -> bool {
        matches!(self.state, State::Started | State::InitError)
    }

    /// Whether an event is in it that is not answered and polled behind.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Receiving(..) | State::Answered { .. })
    }

    /// Whether it waits for an event.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Whether the last event is answered and the next poll has not come.
    pub fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered { .. })
    }

    /// The environment ends. Returns the unanswered work, and whether an answer to it was arriving.
    pub fn close(&mut self) -> (Option<Work<W>>, bool) {
        if matches!(self.state, State::InitError) {
            // It is over already, and its answers stay what they are.
            return (None, false);
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Running(work) => (Some(work), false),
            State::Receiving(work, _) => (Some(work), true),
            _ => (None, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(id: &str) -> Work<()> {
        Work {
            request_id: id.into(),
            attempt_id: format!("{id}-1"),
            event: Event { head: Bytes::from(id.to_owned()), body: Bytes::new() },
            handed_out: false,
            context: (),
        }
    }

    /// A session in the named state, and the only way there.
    fn in_state(name: &str) -> Session<()> {
        let mut s = Session::new();
        let path: &[&str] = match name {
            "Started" => &[],
            "InitError" => &["init error"],
            "Ready" => &["next"],
            "Running" => &["next", "assign", "next"],
            "Receiving" => &["next", "assign", "next", "begin"],
            "Answered" => &["next", "assign", "next", "begin", "end"],
            "Closed" => &["close"],
            other => panic!("{other}"),
        };
        for step in path {
            match *step {
                "next" => drop(s.next()),
                "assign" => s.assign(work("a")).unwrap(),
                "begin" => s.begin_answer("a", None, AnswerKind::Response).unwrap(),
                "end" => drop(s.end_answer().unwrap()),
                "init error" => s.init_error().unwrap(),
                _ => drop(s.close()),
            }
        }
        s
    }

    const STATES: [&str; 7] = ["Started", "InitError", "Ready", "Running", "Receiving", "Answered", "Closed"];

    #[test]
    fn an_event_can_be_taken_back_until_a_runtime_was_sent_it() {
        for state in STATES {
            assert!(in_state(state).take_back().is_none(), "{state}");
        }
        let mut s = in_state("Ready");
        s.assign(work("a")).unwrap();
        assert_eq!(s.take_back().unwrap().request_id, "a");
        assert!(s.is_ready());
        s.assign(work("b")).unwrap();
        assert!(matches!(s.next(), Next::Event(event) if event.head == "b"));
    }

    #[test]
    fn next_is_answered_as_the_table_says_in_every_state() {
        for state in STATES {
            let got = match in_state(state).next() {
                Next::FirstPoll => "first poll",
                Next::Free => "free",
                Next::Event(_) => "event",
                Next::Wait => "wait",
                Next::Refused(r) if r.status == 403 => "403",
                Next::Refused(_) => "?",
            };
            let expected = match state {
                "Started" => "first poll",
                "Running" => "event",
                "Answered" => "free",
                "InitError" => "403",
                _ => "wait",
            };
            assert_eq!(got, expected, "{state}");
        }
    }

    #[test]
    fn an_answer_is_taken_in_running_alone() {
        for state in STATES {
            for (id, kind) in [("a", AnswerKind::Response), ("a", AnswerKind::Error), ("b", AnswerKind::Response)] {
                let got = in_state(state).begin_answer(id, None, kind).map_err(|r| (r.status, r.error_type));
                let expected = match (state, id) {
                    ("Running", "a") => Ok(()),
                    ("Ready" | "Running", _) | ("Receiving" | "Answered", "b") => Err((400, "InvalidRequestID")),
                    _ => Err((403, "InvalidStateTransition")),
                };
                assert_eq!(got, expected, "{state} {id} {kind:?}");
            }
        }
    }

    #[test]
    fn the_refusal_names_both_states() {
        let message = |from: &str, to: &str| {
            format!("State transition from {from} to {to} failed for runtime. Error: State transition is not allowed")
        };
        for (state, kind, from, to) in [
            ("Answered", AnswerKind::Response, "RuntimeResponseSentState", "InvocationResponse"),
            ("Answered", AnswerKind::Error, "RuntimeResponseSentState", "InvocationErrorResponse"),
            ("Receiving", AnswerKind::Response, "InvocationResponse", "InvocationResponse"),
            ("Started", AnswerKind::Response, "Started", "InvocationResponse"),
            ("InitError", AnswerKind::Error, "InitError", "InvocationErrorResponse"),
        ] {
            assert_eq!(in_state(state).begin_answer("a", None, kind).unwrap_err().message, message(from, to));
        }
        assert_eq!(in_state("Running").init_error().unwrap_err().message, message("Running", "InitError"));
        let Next::Refused(refusal) = in_state("InitError").next() else { panic!("no event after an init error") };
        assert_eq!(refusal.message, message("InitError", "Ready"));
        let mut failing = in_state("Running");
        failing.begin_answer("a", None, AnswerKind::Error).unwrap();
        let refusal = failing.begin_answer("a", None, AnswerKind::Response).unwrap_err();
        assert_eq!(refusal.message, message("InvocationErrorResponse", "InvocationResponse"));
    }

    #[test]
    fn an_answer_of_another_attempt_is_refused_and_one_without_attempt_is_taken() {
        let mut s = in_state("Running");
        assert_eq!(s.begin_answer("a", Some("a-0"), AnswerKind::Response).unwrap_err().status, 400);
        s.begin_answer("a", Some("a-1"), AnswerKind::Response).unwrap();
    }

    #[test]
    fn an_event_is_handed_out_for_the_first_time_once() {
        let mut s = in_state("Ready");
        assert!(s.about_to_hand_out().is_none());
        s.assign(work("a")).unwrap();
        assert_eq!(s.about_to_hand_out().unwrap().request_id, "a");
        s.next();
        assert!(s.about_to_hand_out().is_none());
    }

    #[test]
    fn an_answer_to_an_event_that_nobody_was_sent_is_refused() {
        let mut s = in_state("Ready");
        s.assign(work("a")).unwrap();
        assert_eq!(s.begin_answer("a", None, AnswerKind::Response).unwrap_err().status, 400);
    }

    #[test]
    fn an_init_error_is_taken_before_the_first_poll_alone() {
        for state in STATES {
            assert_eq!(in_state(state).init_error().is_ok(), state == "Started", "{state}");
        }
    }

    #[test]
    fn closing_gives_back_what_was_not_answered() {
        for state in STATES {
            let (work, arriving) = in_state(state).close();
            assert_eq!(work.is_some(), ["Running", "Receiving"].contains(&state), "{state}");
            assert_eq!(arriving, state == "Receiving", "{state}");
        }
        let mut s = in_state("Receiving");
        s.close();
        assert!(s.end_answer().is_none(), "a late end of the body settles nothing twice");
    }
}
