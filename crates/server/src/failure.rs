//! Why a command did not do it: one line, perhaps a hint, and the exit status.

use std::fmt::Display;

/// It worked.
pub const OK: u8 = 0;
/// `run`: some tasks failed. Other commands: the command failed.
pub const FAILED: u8 = 1;
/// `run`: the job itself failed.
pub const JOB_FAILED: u8 = 2;
/// `job watch`: nobody may be told how the job goes.
pub const UNTOLD: u8 = 3;
/// The command line or the settings are wrong.
pub const USAGE: u8 = 64;
/// Stopped by Ctrl-C, as a shell reports it (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;

/// What the user is told on standard error, and how the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: u8,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: FAILED, message: message.into(), hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: USAGE, ..Self::new(message) }
    }

    pub fn job(message: impl Into<String>) -> Self {
        Self { status: JOB_FAILED, ..Self::new(message) }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Two lines at most on standard error.
    pub fn print(&self) {
        eprintln!("error: {}", plain(&self.message));
        if let Some(hint) = &self.hint {
            eprintln!("hint: {}", plain(hint));
        }
    }
}

/// What helps where a directory cannot be read because it is somebody else's.
pub const OF_ANOTHER: &str = "this directory is another user's; ask for an access key (docs/iam.md)";

/// Puts `doing` before an error of any kind: `cannot read x: No such file or directory`.
pub trait Because<T> {
    fn because(self, doing: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Because<T> for Result<T, E> {
    fn because(self, doing: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("{doing}: {error}")))
    }
}

/// As [`Because`], for what the caller gave: nothing of it was begun, and the exit status says so.
pub trait BecauseGiven<T> {
    fn because_given(self, doing: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> BecauseGiven<T> for Result<T, E> {
    fn because_given(self, doing: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::usage(format!("{doing}: {error}")))
    }
}

/// Text from outside (keys, a function's messages) without control characters: a terminal obeys them.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\td"), "a\u{fffd}[31mb\u{fffd}c\td");
    }
}
