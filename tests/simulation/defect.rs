//! Defects that the simulator must find, so that a green run means something. Each lies in the wrappers around the
//! engine's ports, or in what the engine is started with: nothing of them is in what ships.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Results are called durable before they are.
    AckBeforeSync,
    /// After a failed sync the same bytes are synced once more, and the second sync says that all is well.
    RetryAfterFailedSync,
    /// A confirmation or a cancel is acknowledged before it is durable.
    MoveBeforeDurable,
    /// A cancel is remembered, and nowhere written.
    CancelInMemory,
    /// After a restart the report is made with rows of the log twice.
    RowTwiceInReport,
    /// The last row of a chunk is missing in the report.
    RowLostAtChunkEdge,
    /// Results are told apart by their keys.
    DedupeByKey,
    /// What a restarted server reads of the results lacks the last frame: rows that are settled are open again.
    SettledForgotten,
    /// A restarted server forgets the attempts that were used up.
    AttemptsForgotten,
    /// A restarted server forgets how many calls it may have under way.
    LimitForgotten,
    /// A server goes on after its lease has run out, and what comes under a lease that is lost is written all the same.
    StaleEpochAccepted,
    /// An answer is given to the wrong row.
    AnswerOfTheNextRow,
    /// A restarted server does not know the tokens of jobs that were made before.
    TokenForgotten,
    /// A restarted server shows no counts of jobs that ran before.
    CountsForgotten,
    /// The manifest is read whatever its object has become.
    EtagUnchecked,
    /// A job fails one task later than it should.
    ThresholdOffByOne,
    /// A job fails one task before it should.
    ThresholdTooEarly,
    /// Leases run by the wall clock.
    WallClockForLeases,
    /// Results that find no space are taken for written.
    FullDiskSwallowed,
    /// What a crash has cut off is taken for a frame.
    TornTailAccepted,
}

pub const DEFECTS: [Defect; 20] = [
    Defect::AckBeforeSync,
    Defect::RetryAfterFailedSync,
    Defect::MoveBeforeDurable,
    Defect::CancelInMemory,
    Defect::RowTwiceInReport,
    Defect::RowLostAtChunkEdge,
    Defect::DedupeByKey,
    Defect::SettledForgotten,
    Defect::AttemptsForgotten,
    Defect::LimitForgotten,
    Defect::StaleEpochAccepted,
    Defect::AnswerOfTheNextRow,
    Defect::TokenForgotten,
    Defect::CountsForgotten,
    Defect::EtagUnchecked,
    Defect::ThresholdOffByOne,
    Defect::ThresholdTooEarly,
    Defect::WallClockForLeases,
    Defect::FullDiskSwallowed,
    Defect::TornTailAccepted,
];
