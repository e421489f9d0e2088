//! The life of a job: its statuses and every legal move.

/// A job's status. Names and meaning: S3 Batch spec 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    New,
    Preparing,
    Suspended,
    Ready,
    Active,
    Pausing,
    Paused,
    Completing,
    Complete,
    Cancelling,
    Cancelled,
    Failing,
    Failed,
}

use Status::{
    Active, Cancelled, Cancelling, Complete, Completing, Failed, Failing, New, Paused, Pausing, Preparing, Ready,
    Suspended,
};

impl Status {
    pub const ALL: [Status; 13] = [
        New, Preparing, Suspended, Ready, Active, Pausing, Paused, Completing, Complete, Cancelling, Cancelled,
        Failing, Failed,
    ];

    /// As AWS spells it.
    pub fn name(self) -> &'static str {
        match self {
            New => "New",
            Preparing => "Preparing",
            Suspended => "Suspended",
            Ready => "Ready",
            Active => "Active",
            Pausing => "Pausing",
            Paused => "Paused",
            Completing => "Completing",
            Complete => "Complete",
            Cancelling => "Cancelling",
            Cancelled => "Cancelled",
            Failing => "Failing",
            Failed => "Failed",
        }
    }

    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|s| s.name() == text)
    }

    /// Whether a job in this status never changes again.
    pub fn is_terminal(self) -> bool {
        matches!(self, Complete | Cancelled | Failed)
    }

    /// Whether a job in this status holds one of the account's active slots (spec 8.2).
    pub fn holds_slot(self) -> bool {
        matches!(self, Active | Pausing)
    }

    /// Whether the priority may still be changed (spec 1.8, C-12).
    pub fn takes_priority(self) -> bool {
        matches!(self, New | Preparing | Suspended | Ready | Active | Pausing | Paused)
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The engine picks the job up.
    PickedUp,
    /// The manifest was read to its end and found good.
    ManifestRead { confirmation_required: bool },
    /// The first rows were found good, and the job may start on them while the others are checked (decision 0013).
    RowsChecked,
    /// UpdateJobStatus `Ready`.
    Confirmed,
    /// Nobody confirmed for 30 days.
    ConfirmationTimedOut,
    /// The scheduler gives the job a slot.
    SlotGranted,
    /// The scheduler takes the slot for a job of higher priority.
    Preempted,
    /// UpdateJobStatus `Cancelled`.
    CancelRequested,
    /// A reason of section 2.7.
    Failed,
    /// Too many tasks have failed, or rows cannot be read any more. Unlike [`Event::Failed`] it comes too late once a
    /// cancel was accepted (spec 2.4, race rules).
    TasksFailed,
    /// The last running invocation of a winding-down job is over and everything is recorded.
    Drained,
    /// Every task has its final result.
    TasksFinished,
    /// Every task of a sample has its final result, and the others wait for a confirmation (decision 0013).
    SampleFinished,
    /// [`Event::CancelRequested`] of a job whose sample has run: unlike others it has something to report.
    SampleCancelRequested,
    /// Nobody confirmed for 30 days what stood behind the sample.
    PromotionTimedOut,
    /// The completion report is written, or none was due.
    ReportWritten,
    /// The report that its bucket did not take when the job failed is there now. What the job ended as it stays (decision 0048).
    ReportDelivered,
}

impl Event {
    /// The event as it is for a job whose sample has run.
    pub fn after_sample(self) -> Self {
        match self {
            Event::CancelRequested => Event::SampleCancelRequested,
            Event::ConfirmationTimedOut => Event::PromotionTimedOut,
            event => event,
        }
    }
}

/// A move that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IllegalMove {
    pub from: Status,
    pub event: Event,
}

impl std::fmt::Display for IllegalMove {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a job that is {} cannot take {:?}", self.from.name(), self.event)
    }
}

impl std::error::Error for IllegalMove {}

impl Status {
    /// The only way from one status to another.
    ///
    /// ```text
    /// New ─► Preparing ─┬─► Ready ─► Active ─┬─► Completing ─► Complete
    ///                   └─► Suspended ─► Ready ├─► Pausing ─► Paused ─► Active
    /// any but the last three ─► Cancelling ─► Cancelled   └─► Failing ─► Failed
    /// ```
    ///
    /// Beyond AWS, a sample ends in Suspended, with which the job begins again but for what is reported:
    ///
    /// ```text
    /// Active, Pausing ─► Suspended ─► Ready      Suspended, Ready ─► Cancelling     Suspended ─► Failing
    /// ```
    ///
    /// The caller asks for Confirmed and CancelRequested; the scheduler for SlotGranted and Preempted; the engine for
    /// the rest. Source: S3 Batch spec 2.2 and 2.4.
    pub fn on(self, event: Event) -> Result<Status, IllegalMove> {
        use Event::{
            CancelRequested, ConfirmationTimedOut, Confirmed, Drained, ManifestRead, PickedUp, Preempted,
            PromotionTimedOut, ReportDelivered, ReportWritten, RowsChecked, SampleCancelRequested, SampleFinished,
            SlotGranted, TasksFailed, TasksFinished,
        };
        Ok(match (self, event) {
            (New, PickedUp) => Preparing,
            (Preparing, ManifestRead { confirmation_required: true }) => Suspended,
            (Preparing, ManifestRead { confirmation_required: false } | RowsChecked) => Ready,
            (Suspended, Confirmed) => Ready,
            (Suspended, ConfirmationTimedOut) => Failed,
            (Ready | Paused, SlotGranted) => Active,
            (Active, Preempted) => Pausing,
            (Pausing, Drained) => Paused,
            // The last results of a pausing job may be the last of all.
            (Active | Pausing, TasksFinished) => Completing,
            (Active | Pausing, SampleFinished) => Suspended,
            (Suspended, PromotionTimedOut) => Failing,
            (Active | Pausing, TasksFailed) => Failing,
            (Completing, ReportWritten) => Complete,
            // Nothing runs yet: the cancel is over at once. In the others something has to wind down first.
            (Suspended | Ready, CancelRequested) => Cancelled,
            (Suspended | Ready, SampleCancelRequested) => Cancelling,
            (New | Preparing | Active | Pausing | Paused | Cancelling, CancelRequested | SampleCancelRequested) => {
                Cancelling
            }
            (Cancelled, CancelRequested | SampleCancelRequested) => Cancelled,
            (Cancelling, ReportWritten) => Cancelled,
            // A report that cannot be written fails a job all of whose tasks ran (spec 2.2, last row).
            (New | Preparing | Ready | Active | Pausing | Paused | Completing | Cancelling, Event::Failed) => Failing,
            (Failing, ReportWritten | Event::Failed) => Failed,
            (Failed, ReportDelivered) => Failed,
            (from, event) => return Err(IllegalMove { from, event }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 18] = [
        Event::PickedUp,
        Event::ManifestRead { confirmation_required: true },
        Event::ManifestRead { confirmation_required: false },
        Event::Confirmed,
        Event::ConfirmationTimedOut,
        Event::SlotGranted,
        Event::Preempted,
        Event::CancelRequested,
        Event::Failed,
        Event::TasksFailed,
        Event::Drained,
        Event::TasksFinished,
        Event::ReportWritten,
        Event::RowsChecked,
        Event::SampleFinished,
        Event::SampleCancelRequested,
        Event::PromotionTimedOut,
        Event::ReportDelivered,
    ];

    /// The table of the spec's section 2.2, written down a second time: (from, to) pairs and nothing else.
    const DOCUMENTED: &[(Status, Status)] = &[
        (New, Preparing),
        (Preparing, Suspended),
        (Preparing, Ready),
        (Preparing, Failing),
        (Suspended, Ready),
        (Suspended, Failed),
        (Suspended, Cancelled),
        (Ready, Active),
        (Ready, Cancelled),
        (Ready, Failing),
        (Active, Pausing),
        (Pausing, Paused),
        (Paused, Active),
        (Active, Completing),
        (Pausing, Completing),
        (Completing, Complete),
        (Completing, Failing),
        (New, Failing),
        (Active, Failing),
        (Pausing, Failing),
        (Paused, Failing),
        (Cancelling, Failing),
        (Failing, Failed),
        (New, Cancelling),
        (Preparing, Cancelling),
        (Active, Cancelling),
        (Pausing, Cancelling),
        (Paused, Cancelling),
        (Cancelling, Cancelled),
    ];

    /// What decision 0013 adds.
    const BEYOND: &[(Status, Status)] = &[
        (Active, Suspended),
        (Pausing, Suspended),
        (Suspended, Cancelling),
        (Suspended, Failing),
        (Ready, Cancelling),
    ];

    #[test]
    fn every_pair_of_status_and_event_moves_as_documented_or_not_at_all() {
        let mut seen = std::collections::BTreeSet::new();
        for from in Status::ALL {
            for event in EVENTS {
                if let Ok(to) = from.on(event)
                    && from != to
                {
                    let sampled = [Event::SampleFinished, Event::SampleCancelRequested, Event::PromotionTimedOut];
                    let sampled = sampled.contains(&event);
                    let known = DOCUMENTED.contains(&(from, to)) || sampled && BEYOND.contains(&(from, to));
                    assert!(known, "{from:?} -> {to:?} on {event:?}");
                    seen.insert((from, to));
                }
            }
        }
        assert_eq!(seen.len(), DOCUMENTED.len() + BEYOND.len(), "a documented move has no event");
    }

    #[test]
    fn a_terminal_status_never_changes() {
        for from in Status::ALL.into_iter().filter(|s| s.is_terminal()) {
            for event in EVENTS {
                assert!(from.on(event).is_err() || from.on(event) == Ok(from), "{from:?} on {event:?}");
            }
        }
    }

    #[test]
    fn a_cancel_is_answered_as_the_matrix_says() {
        let answers = Status::ALL.map(|s| s.on(Event::CancelRequested).ok());
        let wanted = [
            Some(Cancelling),
            Some(Cancelling),
            Some(Cancelled),
            Some(Cancelled),
            Some(Cancelling),
            Some(Cancelling),
            Some(Cancelling),
            None,
            None,
            Some(Cancelling),
            Some(Cancelled),
            None,
            None,
        ];
        assert_eq!(answers, wanted);
    }

    #[test]
    fn a_job_whose_sample_has_run_is_reported_when_it_is_cancelled_or_times_out() {
        for from in Status::ALL {
            let (plain, sampled) = (from.on(Event::CancelRequested), from.on(Event::CancelRequested.after_sample()));
            match from {
                Suspended | Ready => assert_eq!((plain, sampled), (Ok(Cancelled), Ok(Cancelling))),
                _ => assert_eq!(plain.ok(), sampled.ok(), "{from:?}"),
            }
        }
        assert_eq!(Suspended.on(Event::ConfirmationTimedOut.after_sample()), Ok(Failing));
        assert_eq!(Event::Confirmed.after_sample(), Event::Confirmed);
    }

    #[test]
    fn a_cancel_that_was_accepted_is_not_overtaken_by_the_tasks() {
        assert!(Cancelling.on(Event::TasksFinished).is_err());
        assert!(Cancelling.on(Event::TasksFailed).is_err());
    }

    #[test]
    fn a_confirmation_is_taken_in_suspended_alone() {
        for from in Status::ALL {
            assert_eq!(from.on(Event::Confirmed).is_ok(), from == Suspended);
        }
    }

    #[test]
    fn a_report_that_comes_later_leaves_the_job_failed_and_no_other_takes_one() {
        for from in Status::ALL {
            assert_eq!(from.on(Event::ReportDelivered).ok(), (from == Failed).then_some(Failed), "{from:?}");
        }
    }

    #[test]
    fn names_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.name()), Some(status));
        }
        assert_eq!(Status::parse("active"), None);
    }
}
