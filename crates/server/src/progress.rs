//! How far a job is: a bar on a terminal, a line every few seconds elsewhere. On standard error.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::plain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Before so much time has passed, and so many tasks have ended, what is left is not reckoned: as the server has it.
const RECKONED_AFTER: Duration = Duration::from_secs(3);
const RECKONED_FROM: u64 = 3;

/// After so long without an answer the bar says so: its numbers are old then. Longer than between two looks at a job
/// elsewhere, so that an ordinary wait is not told.
const ANSWER_DUE_AFTER: Duration = Duration::from_secs(5);

/// The width of the bar itself, and that of a terminal that does not tell its own.
const BAR_COLUMNS: usize = 20;
const COLUMNS_DEFAULT: usize = 80;

/// How a job goes, where the server tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Going {
    /// Tasks, lately.
    pub per_second: f64,
    /// Until its end; `None` if that is not known, and then in words why.
    pub left: Option<Duration>,
    pub why_unknown: String,
}

/// What the bar says behind its numbers.
#[derive(Debug, Clone)]
struct Said {
    /// Empty until the manifest is read.
    status: String,
    succeeded: u64,
    failed: u64,
    per_second: f64,
    left: Option<Duration>,
    /// When the last answer came.
    answered: Instant,
}

pub struct Progress {
    bar: Option<ProgressBar>,
    /// The bar draws itself, also while nobody calls: an answer that does not come is seen there too.
    said: Arc<Mutex<Said>>,
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
        let said = Arc::new(Mutex::new(Said {
            status: String::new(),
            succeeded: 0,
            failed: 0,
            per_second: 0.0,
            left: None,
            answered: Instant::now(),
        }));
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style("{spinner} {said}", said.clone()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, said, began: Instant::now(), done_before: None, last_line: None, ended: false, going: None }
    }

    /// Takes what the server tells of how the job goes, for what is shown from here on.
    pub fn tell(&mut self, going: Option<Going>) {
        self.going = going;
    }

    /// Shows the state of the job. `total` is 0 until the manifest is read, and may grow while it is.
    pub fn show(&mut self, status: &str, total: u64, succeeded: u64, failed: u64) {
        let done = succeeded + failed;
        let before = *self.done_before.get_or_insert(done);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.answered = Instant::now();
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
                *said =
                    Said { status: status.to_owned(), succeeded, failed, per_second, left, answered: said.answered };
                // Whatever draws the bar takes this lock.
                drop(said);
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    let template = format!("{{spinner}} [{{bar:{BAR_COLUMNS}}}] {{pos}}/{{len}}  {{said}}");
                    bar.set_style(style(&template, self.said.clone()));
                }
                bar.set_position(done);
            }
            None => {
                // All that is known may be done while more of the manifest is being checked.
                let over = done == total && status != "Active";
                let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
                // The last line is due at once, and once.
                if self.ended || !(due || over) {
                    return;
                }
                let said =
                    Said { status: status.to_owned(), succeeded, failed, per_second, left, answered: said.answered };
                eprintln!("{done} of {total}: {}", said.told(Duration::ZERO, usize::MAX));
                self.last_line = Some(Instant::now());
                self.ended = over;
            }
        }
    }

    /// Says something without spoiling the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            // Not `println` of the bar, which fills the line with blanks and writes no line break: a recording of the terminal
            // has the bar glued to it.
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
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

/// A bar that says what there is to say at the moment when it is drawn.
fn style(template: &str, said: Arc<Mutex<Said>>) -> ProgressStyle {
    let tell = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let numbers = state.len().map(|total| format!(" [{:BAR_COLUMNS$}] {}/{total} ", "", state.pos()).len());
        // One for the spinner, one for the blank before the text, and the last one stays free: some terminals break the line there.
        let room = columns().saturating_sub(3 + numbers.unwrap_or(0));
        // Where it cannot be written there is no bar either.
        let _ = out.write_str(&said.told(said.answered.elapsed(), room));
    };
    ProgressStyle::with_template(template)
        .expect("the template is valid: a test reads it")
        .with_key("said", tell)
        .progress_chars("=> ")
}

/// The width of the terminal.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS_DEFAULT)
}

impl Said {
    /// The text for `room` columns, `silent` after the last answer: what matters least goes first where it is narrow.
    fn told(&self, silent: Duration, room: usize) -> String {
        let no_answer = (silent >= ANSWER_DUE_AFTER).then(|| format!("no answer for {}", duration(silent)));
        if self.status.is_empty() {
            return cut(no_answer.as_deref().unwrap_or("preparing"), room);
        }
        let succeeded = format!("{} succeeded", self.succeeded);
        let failed = format!("{} failed", self.failed);
        let rate = format!("{:.0} a second", self.per_second);
        let left = self.left.map(|left| format!("{} left", duration(left)));
        let state = match self.status.as_str() {
            "Active" | "Complete" | "Completing" => String::new(),
            status => format!(" ({})", plain(status)),
        };
        let forms: [Vec<Option<&str>>; 4] = match &no_answer {
            Some(none) => [
                vec![Some(&succeeded), Some(&failed), Some(none)],
                vec![Some(&failed), Some(none)],
                vec![Some(none)],
                vec![Some(none)],
            ],
            None => [
                vec![Some(&succeeded), Some(&failed), Some(&rate), left.as_deref()],
                vec![Some(&failed), Some(&rate), left.as_deref()],
                vec![Some(&failed), left.as_deref().or(Some(&rate))],
                vec![left.as_deref().or(Some(&failed))],
            ],
        };
        let texts = forms.map(|parts| parts.into_iter().flatten().collect::<Vec<_>>().join(", ") + &state);
        let fits = texts.iter().find(|text| text.chars().count() <= room);
        cut(fits.unwrap_or(&texts[3]), room)
    }
}

fn cut(text: &str, room: usize) -> String {
    text.chars().take(room).collect()
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
        let wide = |said: Said| said.told(Duration::ZERO, usize::MAX);
        assert_eq!(
            wide(said("Active", 10, 2, 4.0, Some(Duration::from_secs(25)))),
            "10 succeeded, 2 failed, 4 a second, 25 s left"
        );
        assert_eq!(wide(said("Paused", 1, 0, 0.0, None)), "1 succeeded, 0 failed, 0 a second (Paused)");
    }

    fn said(status: &str, succeeded: u64, failed: u64, per_second: f64, left: Option<Duration>) -> Said {
        Said { status: status.to_owned(), succeeded, failed, per_second, left, answered: Instant::now() }
    }

    #[test]
    fn what_matters_fits_where_the_terminal_is_narrow() {
        // As many columns as 80 leave behind a bar of a job of 20000 tasks, and of one of ten million.
        let small = said("Active", 2_027, 0, 342.0, Some(Duration::from_secs(3_254)));
        let large = said("Active", 1_234_567, 123_456, 34_200.0, Some(Duration::from_secs(3_254)));
        for (said, room, wanted) in [
            (&small, 80, "2027 succeeded, 0 failed, 342 a second, 54 min 14 s left"),
            (&small, 42, "0 failed, 342 a second, 54 min 14 s left"),
            (&large, 36, "123456 failed, 54 min 14 s left"),
            (&large, 20, "54 min 14 s left"),
            (&large, 4, "54 m"),
        ] {
            assert_eq!(said.told(Duration::ZERO, room), wanted, "{room}");
        }
    }

    #[test]
    fn while_there_is_no_answer_the_bar_says_so_in_place_of_a_rate() {
        let second = Duration::from_secs(1);
        let mut active = said("Active", 2_027, 3, 342.0, Some(54 * second));
        assert!(active.told(4 * second, 80).contains("342 a second"), "an ordinary wait");
        for (room, wanted) in [(80, "2027 succeeded, 3 failed, no answer for 9 s"), (42, "3 failed, no answer for 9 s")]
        {
            assert_eq!(active.told(9 * second, room), wanted);
        }
        assert_eq!(active.told(9 * second, 20), "no answer for 9 s");
        active.status = String::new();
        assert_eq!(active.told(second, 80), "preparing");
        assert_eq!(active.told(70 * second, 80), "no answer for 1 min 10 s");
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
        let said = Arc::new(Mutex::new(said("Active", 1, 0, 1.0, None)));
        for template in ["{spinner} {said}", "{spinner} [{bar:20}] {pos}/{len}  {said}"] {
            let _ = style(template, said.clone());
        }
    }
}
