//! How log lines look: a past-tense phrase and fields, one event a line, in text or in JSON.
//!
//! Much of what is logged comes from outside: keys, names, what other servers answered. A value is cut at a length, and no
//! byte of it ends a line or reaches a terminal as an order. Source: promise 4.4, item 21.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::LogFormat;

/// Bytes of one value that are shown.
const VALUE_BYTES_MAX: usize = 1_024;
/// Causes of an error that are told, each behind the one that it led to.
const CAUSES_MAX: usize = 8;

/// In which form lines are written from here on.
#[derive(Debug, Clone, Default)]
pub struct Format {
    json: Arc<AtomicBool>,
}

impl Format {
    pub fn set(&self, format: LogFormat) {
        self.json.store(format == LogFormat::Json, Ordering::Relaxed);
    }

    pub fn is_json(&self) -> bool {
        self.json.load(Ordering::Relaxed)
    }
}

/// Writes events as lines.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    colours: bool,
}

impl Lines {
    pub fn new(format: Format) -> Self {
        use std::io::IsTerminal;
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { format, colours }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let now = jiff::Timestamp::now();
        if self.format.json.load(Ordering::Relaxed) {
            writeln!(to, "{}", in_json(now, level, target, fields))
        } else {
            writeln!(to, "{}", in_text(now, level, &fields, self.colours))
        }
    }
}

/// What an event has to say.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.push((field.name(), value.into()));
    }

    fn put_text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut text = Bounded::default();
        // Stops where it is full.
        let _ = text.write_fmt(value);
        // The event's own words come first. What else is called so was told by somebody.
        match field.name() {
            "message" if self.message.is_empty() => self.message = text.finish(),
            "message" => self.others.push(("told", text.finish().into())),
            name => self.others.push((name, text.finish().into())),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        for _ in 0..CAUSES_MAX {
            let Some(error) = cause else { break };
            let said = error.to_string();
            // Many errors say what their cause says.
            if !text.ends_with(&said) {
                let _ = write!(text, ": {said}");
            }
            cause = error.source();
        }
        self.put_text(field, format_args!("{text}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }
}

/// Text up to [`VALUE_BYTES_MAX`], then nothing more.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
    cut: bool,
}

impl Bounded {
    fn finish(mut self) -> String {
        if self.cut {
            self.text.push('…');
        }
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = VALUE_BYTES_MAX - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let mut end = room;
        while !more.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(&more[..end]);
        self.cut = true;
        Err(fmt::Error)
    }
}

/// `2026-01-31T10:00:00.123456Z  WARN task failed, will retry  job=… after_ms=400`.
fn in_text(now: jiff::Timestamp, level: Level, fields: &Fields, colours: bool) -> String {
    let mut line = String::with_capacity(160);
    let (dim, paint, off) = match (colours, level) {
        (false, _) => ("", "", ""),
        (true, Level::ERROR) => ("\u{1b}[2m", "\u{1b}[31m", "\u{1b}[0m"),
        (true, Level::WARN) => ("\u{1b}[2m", "\u{1b}[33m", "\u{1b}[0m"),
        (true, Level::INFO) => ("\u{1b}[2m", "\u{1b}[32m", "\u{1b}[0m"),
        (true, _) => ("\u{1b}[2m", "\u{1b}[34m", "\u{1b}[0m"),
    };
    let _ = write!(line, "{dim}{now:.6}{off} {paint}{level:>5}{off} ");
    escape(&mut line, &fields.message);
    for (place, (name, value)) in fields.others.iter().enumerate() {
        let _ = write!(line, "{}{dim}{name}={off}", if place == 0 { "  " } else { " " });
        match value {
            Value::String(text) if is_plain(text) => line.push_str(text),
            Value::String(text) => {
                line.push('"');
                escape(&mut line, &text.replace('\\', "\\\\").replace('"', "\\\""));
                line.push('"');
            }
            other => {
                let _ = write!(line, "{other}");
            }
        }
    }
    line
}

/// As the subscriber's own JSON has it: `{"timestamp", "level", "fields": {"message", …}, "target"}`.
fn in_json(now: jiff::Timestamp, level: Level, target: &str, fields: Fields) -> Value {
    let mut shown = Map::new();
    shown.insert("message".into(), fields.message.into());
    shown.extend(fields.others.into_iter().map(|(name, value)| (name.to_owned(), value)));
    serde_json::json!({
        "timestamp": format!("{now:.6}"), "level": level.as_str(), "fields": shown, "target": target,
    })
}

/// Whether a value can stand without quotes: what splits a line at its blanks finds it whole.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !is_order(c) && !matches!(c, '"' | '=' | '\\'))
}

/// What a terminal, or whoever cuts text into lines, obeys: control characters, and those that turn the direction of text.
fn is_order(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if is_order(c) => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
            }
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of the events of `work`, without the times, which stand first.
    fn logged(format: LogFormat, work: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let (written, chosen) = (kept.clone(), Format::default());
        chosen.set(format);
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_writer(move || written.clone())
            .event_format(Lines { format: chosen, colours: false })
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| match format {
            LogFormat::Text => line.split_once(' ').unwrap().1.to_owned(),
            LogFormat::Json => line.to_owned(),
        });
        lines.collect()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the manifest cannot be read")]
    struct Outer(#[source] io::Error);

    const HOSTILE: &str = "a\nERROR forged\u{1b}[2J\u{202e}\u{85} \"x\"";

    fn events() {
        tracing::warn!(job = "7f3c", attempt = 2, after_ms = 400, code = "TemporaryFailure", "task failed, will retry");
        let error = Outer(io::Error::other("disk\non fire"));
        tracing::error!(error = &error as &dyn std::error::Error, ratio = 0.5, fine = true, "{HOSTILE}");
        tracing::info!(key = HOSTILE, %error, path = ?HOSTILE, empty = "", "object read");
    }

    #[test]
    fn an_event_is_one_line_of_a_phrase_and_fields_and_nothing_in_it_is_obeyed() {
        let lines = logged(LogFormat::Text, events);
        assert_eq!(
            lines,
            [
                " WARN task failed, will retry  job=7f3c attempt=2 after_ms=400 code=TemporaryFailure",
                "ERROR a\\nERROR forged\\u{1b}[2J\\u{202e}\\u{85} \"x\"  error=\"the manifest cannot be read: disk\\non fire\" \
                 ratio=0.5 fine=true",
                " INFO object read  key=\"a\\nERROR forged\\u{1b}[2J\\u{202e}\\u{85} \\\"x\\\"\" error=\"the manifest cannot be read\" \
                 path=\"\\\"a\\\\nERROR forged\\\\u{1b}[2J\\\\u{202e}\\\\u{85} \\\\\\\"x\\\\\\\"\\\"\" empty=\"\"",
            ]
        );
    }

    #[test]
    fn a_field_called_message_takes_no_place_of_the_events_own_words() {
        let events = || {
            let message = "Rate exceeded";
            tracing::debug!(endpoint = "e", message, "a call was throttled");
        };
        let lines = logged(LogFormat::Text, events);
        assert_eq!(lines, ["DEBUG a call was throttled  endpoint=e told=\"Rate exceeded\""]);
        let read: Value = serde_json::from_str(&logged(LogFormat::Json, events)[0]).unwrap();
        assert_eq!(read["fields"]["message"], "a call was throttled");
        assert_eq!(read["fields"]["told"], "Rate exceeded");
    }

    #[test]
    fn in_json_values_keep_their_types_and_their_text() {
        let lines = logged(LogFormat::Json, events);
        let read: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.len(), 3, "a line each");
        let fields = &read[0]["fields"];
        assert_eq!((&fields["message"], &fields["attempt"]), (&"task failed, will retry".into(), &2.into()));
        assert_eq!((&read[0]["level"], &read[0]["target"]), (&"WARN".into(), &"longshore::log_lines::tests".into()));
        assert!(read[0]["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert_eq!((&read[1]["fields"]["message"], &read[1]["fields"]["fine"]), (&HOSTILE.into(), &true.into()));
        assert_eq!(read[2]["fields"]["key"], HOSTILE);
    }

    #[test]
    fn a_value_is_cut_where_it_gets_long_and_the_next_one_is_not() {
        let long = "ü".repeat(100_000);
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = logged(format, || tracing::info!(long, next = "n", debug = ?long, "{long}"));
            assert_eq!(lines.len(), 1);
            assert!(lines[0].len() < 4 * VALUE_BYTES_MAX, "{} bytes", lines[0].len());
            assert_eq!(lines[0].matches('…').count(), 3, "{}", lines[0]);
        }
        let exact = "x".repeat(VALUE_BYTES_MAX);
        assert!(!logged(LogFormat::Text, || tracing::info!(exact, "said"))[0].contains('…'));
    }
}
