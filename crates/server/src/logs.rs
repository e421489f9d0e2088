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
    if write(&printed).is_err() {
        return Ok(());
    }
    let Some(mut follower) = follower else { return Ok(()) };
    loop {
        let new = follower.next().await.because(cannot())?;
        // A reader that is gone (`| head`) is the end, not an error.
        if write(&new).is_err() {
            return Ok(());
        }
    }
}

fn write(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}
