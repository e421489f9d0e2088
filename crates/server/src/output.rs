//! What commands for people print, whatever they are about: results on standard output, JSON, tables.

use std::io::{IsTerminal, Write};

use crate::failure::plain;

/// Writes to standard output. A reader that is gone (`| head`) is not an error.
pub fn out(text: &str) {
    let _ = out_bytes(text.as_bytes());
}

/// As [`out`], for whoever would write for ever: an error says that nobody reads.
pub fn out_bytes(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// A line of a log with its control characters, which a terminal would obey, written out: `\x1b`. A tab stays. Within a line
/// runtimes end those of a trace with a carriage return; here each is a line, and a little to the right.
pub fn escaped(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    if !line.contains(|c: char| c.is_control() && c != '\t') {
        return line.to_owned();
    }
    let mut out = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match c {
            '\t' => out.push(c),
            '\r' => out.push_str("\n  "),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Prints a value as the AWS CLI does, indented.
pub fn json(value: &serde_json::Value) {
    out(&format!("{}\n", safe(&format!("{value:#}"))));
}

/// A value on one line.
pub fn json_line(value: &serde_json::Value) -> String {
    safe(&value.to_string())
}

/// JSON escapes the control characters of ASCII and leaves DEL and those of Latin-1, which some terminals obey.
fn safe(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if c.is_control() && c != '\n' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Whether standard output takes colours.
pub fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Rows below a heading, with columns as wide as what stands in them. `painted` makes what is shown of a cell of the rows (not
/// of the heading), by column and text; the width is that of the text.
pub fn table<const N: usize>(
    heading: [&str; N],
    rows: &[[String; N]],
    painted: impl Fn(usize, &str) -> String,
) -> String {
    let heading = heading.map(str::to_owned);
    let width =
        |column: usize| std::iter::once(&heading).chain(rows).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for (number, row) in std::iter::once(&heading).chain(rows).enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let blanks = widths[column] - cell.chars().count() + 2;
            line.push_str(&if number > 0 { painted(column, cell) } else { cell.clone() });
            line.push_str(&" ".repeat(blanks));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A time of the wire, to the second: `2026-01-31 10:00:00Z`. Lambda's has an offset without a colon.
pub fn time(wire: &str) -> String {
    let whole = wire.strip_suffix("+0000").map(|time| format!("{time}Z"));
    match whole.as_deref().unwrap_or(wire).parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => plain(wire),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_steer_a_terminal_and_says_the_same() {
        let value = serde_json::json!({"a": "\u{1b}[2J\u{9b}2J\u{7f}ü\n"});
        for text in [safe(&format!("{value:#}")), json_line(&value)] {
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn the_control_characters_of_a_log_are_written_out_and_a_trace_has_its_lines() {
        assert_eq!(escaped("a\tb ü"), "a\tb ü");
        assert_eq!(escaped("a\u{1b}[31m\u{9b}\r"), "a\\x1b[31m\\x9b");
        assert_eq!(escaped("[ERROR] E\rTraceback:\r  File x\r"), "[ERROR] E\n  Traceback:\n    File x");
    }

    #[test]
    fn a_time_is_told_to_the_second_in_either_api() {
        assert_eq!(time("2026-01-31T10:00:00.123Z"), "2026-01-31 10:00:00Z");
        assert_eq!(time("2026-01-31T10:00:00.123+0000"), "2026-01-31 10:00:00Z");
        assert_eq!(time("x\u{1b}"), "x\u{fffd}");
    }
}
