//! `longshore logs`: what a function printed. Read from its file, so it works without a server too.

use std::io::Write;
use std::path::Path;

use longshore_functions::host::logs;

use crate::failure::{Because, Failure};

/// How much of a log is printed: its end. The file itself is told where there is more.
const BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Prints the log, and with `follow` goes on until it is interrupted or nobody reads.
pub async fn print(data_dir: &Path, function: &str, follow: bool) -> Result<(), Failure> {
    let cannot = || format!("cannot read the log of {function}");
    let path = logs::path(data_dir, function);
    let follower = if follow { Some(logs::follow(data_dir, function).because(cannot())?) } else { None };
    let printed = logs::read_tail(data_dir, function, BYTES_MAX).because(cannot())?;
    if printed.is_empty() && !follow && !path.exists() {
        return Err(Failure::new(format!("there is no log of a function {function} in {}", data_dir.display()))
            .hint("a log begins with the function's first invocation; name the server's directory with --data-dir"));
    }
    let mut text = Text::default();
    if write(&text.push(&printed)).is_err() {
        return Ok(());
    }
    let Some(mut follower) = follower else { return Ok(()) };
    loop {
        let new = follower.next().await.because(cannot())?;
        // A reader that is gone (`| head`) is the end, not an error.
        if write(&text.push(&new)).is_err() {
            return Ok(());
        }
    }
}

/// Prints a log that a run has kept.
pub fn print_file(path: &Path) -> Result<(), Failure> {
    use std::io::Read;
    let cannot = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).because(cannot())?;
    let mut text = Text::default();
    let mut piece = vec![0; 256 * 1024];
    loop {
        let length = file.read(&mut piece).because(cannot())?;
        if length == 0 || write(&text.push(&piece[..length])).is_err() {
            return Ok(());
        }
    }
}

fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Makes text of what a function printed: what is not UTF-8, and control characters, which a terminal would obey, become
/// replacement characters. A character cut in two by the end of one piece is put together with the next.
#[derive(Debug, Default)]
struct Text {
    /// The beginning of a character: at most three bytes.
    begun: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.extend(chunk.valid().chars().map(|c| match c {
                '\n' | '\t' => c,
                c if c.is_control() => char::REPLACEMENT_CHARACTER,
                c => c,
            }));
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_begun(invalid) {
                self.begun = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// Whether more bytes could make a character of these.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_printed_cannot_steer_a_terminal_and_is_utf_8() {
        let mut text = Text::default();
        assert_eq!(text.push(b"a\x1b[31m\tb\n"), "a\u{fffd}[31m\tb\n");
        assert_eq!(text.push(b"\xff\n"), "\u{fffd}\n");
        assert_eq!(text.push("ü€".as_bytes()), "ü€");
    }

    #[test]
    fn a_character_cut_in_two_is_put_together() {
        let mut text = Text::default();
        let bytes = "a€b".as_bytes();
        assert_eq!([text.push(&bytes[..2]), text.push(&bytes[2..3]), text.push(&bytes[3..])], ["a", "", "€b"]);
        assert_eq!([text.push(b"\xe2"), text.push(b"x")], ["", "\u{fffd}x"]);
    }
}
