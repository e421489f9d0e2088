//! How far a job is: a bar on a terminal, a line every few seconds elsewhere. On standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::failure::plain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Before so much time has passed, and so many tasks have ended, what is left is not reckoned: as the server has it.
const RECKONED_AFTER: Duration = Duration::from_secs(3);
const RECKONED_FROM: u64 = 3;

/// How a job goes, where the server tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Going {
    /// Tasks, lately.
    pub per_second: f64,
    /// Until its end; `None` if that is not known, and then in words why.
    pub left: Option<Duration>,
    pub why_unknown: String,
}

pub struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    /// What was done when this process began to look: a resumed job did that before.
    done_before: Option<u64>,
    last_line: Option<Instant>,
    ended: bool,
    /// What the server told last; where it tells nothing, it is reckoned here.
    going: Option<Going>,
}

impl Progress {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            let style =
                ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid: a test reads it");
            bar.set_style(style);
            bar.set_message("preparing");
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, began: Instant::now(), done_before: None, last_line: None, ended: false, going: None }
    }

    /// Takes what the server tells of how the job goes, for what is shown from here on.
    pub fn tell(&mut self, going: Option<Going>) {
        self.going = going;
    }

    /// Shows the state of the job. `total` is 0 until the manifest is read, and may grow while it is.
    pub fn show(&mut self, status: &str, total: u64, succeeded: u64, failed: u64) {
        let done = succeeded + failed;
        let before = *self.done_before.get_or_insert(done);
        if total == 0 {
            return;
        }
        let left = total - done.min(total);
        let (per_second, left) = match &self.going {
            Some(going) => (going.per_second, going.left.filter(|_| left > 0)),
            None => reckoned(self.began.elapsed(), done - before.min(done), left),
        };
        match &self.bar {
            Some(bar) => {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_style(style());
                }
                bar.set_position(done);
                bar.set_message(message(status, succeeded, failed, per_second, left));
            }
            None => {
                // All that is known may be done while more of the manifest is being checked.
                let over = done == total && status != "Active";
                let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
                // The last line is due at once, and once.
                if self.ended || !(due || over) {
                    return;
                }
                eprintln!("{done} of {total}: {}", message(status, succeeded, failed, per_second, left));
                self.last_line = Some(Instant::now());
                self.ended = over;
            }
        }
    }

    /// Says something without spoiling the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away: its numbers are not the last ones.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Leaves the bar as it is and goes to the next line. What comes after the first call does nothing.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
            eprintln!();
        }
    }
}

/// Tasks a second, and the time until `left` more have ended, once that says something.
fn reckoned(elapsed: Duration, done: u64, left: u64) -> (f64, Option<Duration>) {
    let per_second = done as f64 / elapsed.as_secs_f64().max(0.001);
    let known = left > 0 && elapsed >= RECKONED_AFTER && done >= RECKONED_FROM;
    (per_second, known.then(|| Duration::from_secs_f64(left as f64 / per_second)))
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} [{bar:20}] {pos}/{len}  {wide_msg}")
        .expect("the template is valid: a test reads it")
        .progress_chars("=> ")
}

fn message(status: &str, succeeded: u64, failed: u64, per_second: f64, left: Option<Duration>) -> String {
    let mut text = format!("{succeeded} succeeded, {failed} failed, {per_second:.0} a second");
    if let Some(left) = left {
        text.push_str(&format!(", {} left", duration(left)));
    }
    if !matches!(status, "Active" | "Complete" | "Completing") {
        text.push_str(&format!(" ({})", plain(status)));
    }
    text
}

/// `42 s`, `3 min 20 s`, `5 h 12 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_two_units_at_most() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([text(5), text(200), text(18_720)], ["5 s", "3 min 20 s", "5 h 12 min"]);
        assert_eq!(
            message("Active", 10, 2, 4.0, Some(Duration::from_secs(25))),
            "10 succeeded, 2 failed, 4 a second, 25 s left"
        );
        assert_eq!(message("Paused", 1, 0, 0.0, None), "1 succeeded, 0 failed, 0 a second (Paused)");
    }

    #[test]
    fn what_is_left_is_not_reckoned_from_next_to_nothing() {
        let second = Duration::from_secs(1);
        for (seconds, done, left, wanted) in
            [(2, 500, 500, None), (10, 2, 500, None), (10, 500, 0, None), (10, 500, 100, Some(2 * second))]
        {
            assert_eq!(reckoned(seconds * second, done, left).1, wanted, "{done} in {seconds} s");
        }
        assert_eq!(reckoned(2 * second, 500, 500).0, 250.0);
    }

    #[test]
    fn the_bars_template_is_valid() {
        let _ = style();
    }
}
