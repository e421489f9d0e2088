//! The rows of a CSV manifest: bytes in, tasks out. Source: S3 Batch spec 3.2 and 2.7.

use std::borrow::Cow;
use std::sync::Arc;

use crate::task::{Task, VersionId};

/// A column of a CSV manifest, as `Manifest.Spec.Fields` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Ignore,
    Bucket,
    Key,
    VersionId,
    /// Pinned manifests alone: the task's number in the manifest that its row first stood in (see [`Task::number`]).
    Number,
    /// Pinned manifests alone: the version as a completion report writes it, `\N` for a missing one and nothing where
    /// there was no such column.
    ReportedVersion,
}

impl Column {
    /// As a job names it: the columns of our own pinned manifests have no names.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "Bucket" => Some(Self::Bucket),
            "Key" => Some(Self::Key),
            "VersionId" => Some(Self::VersionId),
            _ => None,
        }
    }

    /// How the column stands in a file of ours; never changes.
    pub fn code(self) -> u8 {
        match self {
            Self::Ignore => 0,
            Self::Bucket => 1,
            Self::Key => 2,
            Self::VersionId => 3,
            Self::Number => 4,
            Self::ReportedVersion => 5,
        }
    }

    pub fn of_code(code: u8) -> Option<Self> {
        let all = [Self::Ignore, Self::Bucket, Self::Key, Self::VersionId, Self::Number, Self::ReportedVersion];
        all.into_iter().find(|c| c.code() == code)
    }
}

/// A raw key field is at most this long: a 1,024-byte key with every byte percent-encoded. Source: rule CSV-7.
pub const RAW_KEY_BYTES_MAX: usize = 3_072;
/// No bucket's name was ever longer; what a row may carry into the result log is bounded by it.
pub const BUCKET_BYTES_MAX: usize = 255;
/// A decoded key, in bytes: S3's own limit.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Rows in a manifest, whatever a setting says. Source: spec 3.8, for LambdaInvoke.
pub const ROWS_MAX: u64 = 20_000_000_000;
/// A line longer than any legal row: the longest key quoted, a bucket, a version, and some ignored columns.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Why a manifest cannot be used. It fails the whole job (spec 2.7); `row` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub row: u64,
    pub flaw: Flaw,
}

impl Fault {
    pub fn kind(&self) -> FaultKind {
        self.flaw.kind()
    }
}

impl std::fmt::Display for Fault {
    /// What is wrong and where, for whoever has to mend the manifest. Rows are counted from 1 here, as editors do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Row {}: {}", self.row + 1, self.flaw)
    }
}

/// What exactly is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error(
        "it has {found} fields where the job names {wanted}; a comma or quote inside a field needs quotes around it"
    )]
    Fields { found: usize, wanted: usize },
    #[error("its key is empty")]
    EmptyKey,
    #[error("its key is longer than 1,024 bytes")]
    LongKey,
    #[error("its key has a % without two hexadecimal digits behind it; a literal % is written %25")]
    Escape,
    #[error("its version ID has characters that no version ID has, or more than 1,024")]
    Version,
    #[error("the manifest begins with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    #[error("the manifest is compressed; only the data files of an inventory may be")]
    Compressed,
    #[error("it is blank")]
    Blank,
    #[error("it is longer than 65,536 bytes")]
    LongLine,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("its quotes do not match, or a line break stands inside of them")]
    Quotes,
    #[error("its bucket is longer than 255 bytes")]
    LongBucket,
    #[error("its task number is none")]
    Number,
}

impl Flaw {
    fn kind(self) -> FaultKind {
        match self {
            Self::Fields { .. } => FaultKind::FieldCount,
            Self::EmptyKey | Self::LongKey | Self::Escape => FaultKind::KeyFormat,
            Self::Version => FaultKind::VersionFormat,
            Self::ByteOrderMark
            | Self::Compressed
            | Self::Blank
            | Self::LongLine
            | Self::NotUtf8
            | Self::Quotes
            | Self::LongBucket
            | Self::Number => FaultKind::Malformed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    FieldCount,
    KeyFormat,
    VersionFormat,
    /// Byte order mark, not UTF-8, blank line, stray quote, gzip, a line break inside quotes, an over-long line or
    /// bucket.
    Malformed,
}

impl FaultKind {
    /// AWS's own sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Self::FieldCount => "Unexpected number of task fields",
            Self::KeyFormat => "Invalid object key format",
            Self::VersionFormat => "Invalid version ID format",
            Self::Malformed => "Manifest file is not properly formatted",
        }
    }
}

/// How the rows of one manifest are read.
#[derive(Debug, Clone)]
pub struct RowFormat {
    columns: Vec<Column>,
}

impl RowFormat {
    /// `None` unless Bucket and Key stand once, and VersionId at most once (checked at CreateJob: rules V-3, V-4).
    pub fn new(columns: Vec<Column>) -> Option<Self> {
        let count = |c| columns.iter().filter(|x| **x == c).count();
        let fits = count(Column::Bucket) == 1 && count(Column::Key) == 1 && count(Column::VersionId) <= 1;
        fits.then_some(Self { columns })
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Reads one line, without its line break (a trailing CR is taken off here).
    pub fn parse(&self, row: u64, line: &[u8]) -> Result<Task, Fault> {
        let Row { number, bucket, key, version } = self.read(row, line)?;
        Ok(Task { row, number, bucket: bucket.into(), key: key.into(), version: version.into() })
    }

    fn read<'a>(&self, row: u64, line: &'a [u8]) -> Result<Row<'a>, Fault> {
        let fault = |flaw| Fault { row, flaw };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if row == 0 && line.starts_with(BYTE_ORDER_MARK) {
            return Err(fault(Flaw::ByteOrderMark));
        }
        if row == 0 && line.starts_with(b"\x1F\x8B") {
            return Err(fault(Flaw::Compressed));
        }
        if line.is_empty() {
            return Err(fault(Flaw::Blank));
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(fault(Flaw::LongLine));
        }
        let line = std::str::from_utf8(line).map_err(|_| fault(Flaw::NotUtf8))?;
        let other_count = || {
            let found = Fields { rest: Some(line) }.take_while(Result::is_ok).count();
            fault(Flaw::Fields { found, wanted: self.columns.len() })
        };
        let mut bucket = None;
        let mut key = None;
        let mut version = RowVersion::NoColumn;
        let mut number = row;
        let mut fields = Fields { rest: Some(line) };
        for column in &self.columns {
            let field = fields.next().ok_or_else(other_count)?;
            let field = field.map_err(|()| fault(Flaw::Quotes))?;
            match column {
                Column::Ignore => {}
                Column::Bucket => bucket = Some(field),
                Column::Key => key = Some(field),
                Column::VersionId if field.is_empty() => version = RowVersion::Missing,
                Column::VersionId if version_fits(field.as_bytes()) => version = RowVersion::Given(field),
                Column::ReportedVersion if field.is_empty() => version = RowVersion::NoColumn,
                Column::ReportedVersion if field == "\\N" => version = RowVersion::Missing,
                Column::ReportedVersion if version_fits(field.as_bytes()) => version = RowVersion::Given(field),
                Column::VersionId | Column::ReportedVersion => return Err(fault(Flaw::Version)),
                Column::Number => number = field.parse().map_err(|_| fault(Flaw::Number))?,
            }
        }
        if fields.rest.is_some() {
            return Err(other_count());
        }
        let (Some(bucket), Some(key)) = (bucket, key) else { return Err(other_count()) };
        check_row(&bucket, &key, None).map_err(fault)?;
        Ok(Row { number, bucket, key, version })
    }

    /// Checks whole lines, each ended by LF, of which the first is row `first_row`: what [`RowFormat::parse`] says of each,
    /// and the same fault. Returns the number of rows; `edges` is given the places behind the last rows of chunks.
    ///
    /// Rows as most are take a look at each byte by the widest instructions there are, and nothing for themselves; where
    /// anything is odd, be it a comma inside of quotes, each line is read as [`RowFormat::parse`] does.
    pub fn check(&self, first_row: u64, lines: &[u8], edges: &mut Vec<usize>) -> Result<u64, Fault> {
        edges.clear();
        if let Some(rows) = self.check_plain(first_row, lines, edges) {
            return Ok(rows);
        }
        edges.clear();
        let (mut row, mut from) = (first_row, 0);
        for end in memchr::memchr_iter(b'\n', lines) {
            self.read(row, &lines[from..end])?;
            (row, from) = (row + 1, end + 1);
            if row.is_multiple_of(CHUNK_ROWS) {
                edges.push(from);
            }
        }
        Ok(row - first_row)
    }

    /// `None` if a closer look is needed.
    fn check_plain(&self, first_row: u64, lines: &[u8], edges: &mut Vec<usize>) -> Option<u64> {
        let each = |next_row: u64, end, _: &[&[u8]]| {
            if next_row.is_multiple_of(CHUNK_ROWS) {
                edges.push(end);
            }
            Some(())
        };
        self.each_plain(first_row, lines, each)
    }

    /// Checks whole lines as [`RowFormat::check`] does, and adds each to `into` as [`write_row`] writes it: Bucket, Key and,
    /// if there is such a column, VersionId. Returns the number of rows. After a fault `into` has the rows before it.
    ///
    /// Rows as an inventory has them, every value quoted or none, are never taken apart one by one.
    pub fn rewrite(&self, first_row: u64, lines: &[u8], into: &mut Vec<u8>) -> Result<u64, Fault> {
        let place = |wanted| self.columns.iter().position(|column| *column == wanted);
        let (bucket, key, version) = (place(Column::Bucket), place(Column::Key), place(Column::VersionId));
        let begun = into.len();
        into.reserve(lines.len());
        let each = |_, _, fields: &[&[u8]]| {
            let (bucket, key) = (*fields.get(bucket?)?, *fields.get(key?)?);
            let last = match version {
                Some(at) => *fields.get(at)?,
                None => key,
            };
            // Bare, these would be read back as other bytes than they are.
            if last.ends_with(b"\r") || bucket.starts_with(BYTE_ORDER_MARK) {
                return None;
            }
            into.extend_from_slice(bucket);
            into.push(b',');
            into.extend_from_slice(key);
            if version.is_some() {
                into.push(b',');
                into.extend_from_slice(last);
            }
            into.push(b'\n');
            Some(())
        };
        if let Some(rows) = self.each_plain(first_row, lines, each) {
            return Ok(rows);
        }
        into.truncate(begun);
        let (mut row, mut from) = (first_row, 0);
        for end in memchr::memchr_iter(b'\n', lines) {
            let Row { bucket, key, version: given, .. } = self.read(row, &lines[from..end])?;
            let given = match &given {
                RowVersion::Given(given) => given,
                RowVersion::NoColumn | RowVersion::Missing => "",
            };
            write_row(into, &bucket, &key, version.map(|_| given));
            (row, from) = (row + 1, end + 1);
        }
        Ok(row - first_row)
    }

    /// Calls `each` with the number of the row that follows, the place behind each line, and its fields without the quotes
    /// around them. `None` if a closer look is needed at any of the lines, or `each` wants one; it has been called for some
    /// lines then.
    fn each_plain(
        &self,
        first_row: u64,
        lines: &[u8],
        each: impl FnMut(u64, usize, &[&[u8]]) -> Option<()>,
    ) -> Option<u64> {
        let begins = first_row == 0 && lines.starts_with(BYTE_ORDER_MARK);
        if begins || self.columns.len() > PLAIN_COLUMNS_MAX {
            return None;
        }
        if !lines.is_ascii() && std::str::from_utf8(lines).is_err() {
            return None;
        }
        match memchr::memchr(b'"', lines) {
            None => self.each_bare(first_row, lines, each),
            Some(_) => self.each_quoted(first_row, lines, each),
        }
    }

    /// Lines without a quote: the commas and breaks of all of them are looked for at once.
    fn each_bare(
        &self,
        first_row: u64,
        lines: &[u8],
        mut each: impl FnMut(u64, usize, &[&[u8]]) -> Option<()>,
    ) -> Option<u64> {
        let count = self.columns.len();
        let mut percent = Percent::first(lines);
        let mut ends = [0; PLAIN_COLUMNS_MAX];
        let mut fields = [&b""[..]; PLAIN_COLUMNS_MAX];
        let (mut row, mut start, mut field) = (first_row, 0, 0);
        for at in memchr::memchr2_iter(b',', b'\n', lines) {
            if field == count {
                return None;
            }
            ends[field] = at;
            field += 1;
            if lines[at] == b',' {
                continue;
            }
            if field < count || at - start > LINE_BYTES_MAX {
                return None;
            }
            // A CR before the break is none of the last field.
            ends[field - 1] = at - usize::from(at > start && lines[at - 1] == b'\r');
            let mut from = start;
            for ((column, to), field) in self.columns.iter().zip(ends).zip(&mut fields) {
                *field = column.plain(lines, from, to, &mut percent)?;
                from = to + 1;
            }
            (row, start, field) = (row + 1, at + 1, 0);
            each(row, start, &fields[..count])?;
        }
        (start == lines.len()).then_some(row - first_row)
    }

    /// Lines of which some fields have quotes around them, and none has a quote, a comma or a break in it: so each ends at
    /// the first of these.
    fn each_quoted(
        &self,
        first_row: u64,
        lines: &[u8],
        mut each: impl FnMut(u64, usize, &[&[u8]]) -> Option<()>,
    ) -> Option<u64> {
        let count = self.columns.len();
        let mut percent = Percent::first(lines);
        let mut fields = [&b""[..]; PLAIN_COLUMNS_MAX];
        // That of the row before: most rows have it too, so that its end need not be looked for.
        let mut bucket = &b""[..];
        let (mut row, mut start) = (first_row, 0);
        while start < lines.len() {
            let mut from = start;
            for (number, (column, field)) in self.columns.iter().zip(&mut fields).enumerate() {
                let quoted = *lines.get(from)? == b'"';
                from += usize::from(quoted);
                let known = from + bucket.len();
                let again = quoted && *column == Column::Bucket && lines.get(known) == Some(&b'"');
                let to = match again && lines[from..known] == *bucket {
                    true => known,
                    false => from + memchr::memchr3(b'"', b',', b'\n', &lines[from..])?,
                };
                let mut behind = to;
                let mut text_to = to;
                if quoted {
                    if lines[to] != b'"' {
                        return None;
                    }
                    behind += 1;
                } else if lines[to] == b'"' {
                    return None;
                }
                if number + 1 < count {
                    if *lines.get(behind)? != b',' {
                        return None;
                    }
                } else {
                    // A CR before the break is none of the last field.
                    if quoted {
                        behind += usize::from(*lines.get(behind)? == b'\r');
                    } else {
                        text_to -= usize::from(to > start && lines[to - 1] == b'\r');
                    }
                    if *lines.get(behind)? != b'\n' || behind - start > LINE_BYTES_MAX {
                        return None;
                    }
                }
                *field = column.plain(lines, from, text_to, &mut percent)?;
                if *column == Column::Bucket {
                    bucket = *field;
                }
                from = behind + 1;
            }
            (row, start) = (row + 1, from);
            each(row, start, &fields[..count])?;
        }
        Some(row - first_row)
    }

    /// Reads a chunk of lines, each ended by LF, of which the first is row `first_of_chunk`; the tasks from `first_row` on.
    ///
    /// Two allocations a task or less are left of it: rows of one bucket share its name.
    pub fn parse_chunk(&self, first_of_chunk: u64, first_row: u64, lines: &[u8]) -> Result<Vec<Task>, Fault> {
        let rows = memchr::memchr_iter(b'\n', lines).count();
        let mut tasks: Vec<Task> = Vec::with_capacity(rows - rows.min((first_row - first_of_chunk) as usize));
        let mut from = 0;
        for (row, end) in (first_of_chunk..).zip(memchr::memchr_iter(b'\n', lines)) {
            let line = &lines[from..end];
            from = end + 1;
            if row < first_row {
                continue;
            }
            let Row { number, bucket, key, version } = self.read(row, line)?;
            let bucket = match tasks.last() {
                Some(last) if *last.bucket == *bucket => Arc::clone(&last.bucket),
                _ => bucket.into(),
            };
            tasks.push(Task { row, number, bucket, key: key.into(), version: version.into() });
        }
        Ok(tasks)
    }
}

/// Where the next percent sign is, so that fields before it need not be searched.
struct Percent(usize);

impl Percent {
    fn first(lines: &[u8]) -> Self {
        Self(memchr::memchr(b'%', lines).unwrap_or(usize::MAX))
    }

    /// Whether one stands in this part, which is not before the last one asked for.
    fn is_within(&mut self, lines: &[u8], from: usize, to: usize) -> bool {
        if self.0 < from {
            self.0 = memchr::memchr(b'%', &lines[from..]).map_or(usize::MAX, |at| from + at);
        }
        self.0 < to
    }
}

impl Column {
    /// The text of a field of this column that lies at `from..to` of checked UTF-8; `None` if it needs a closer look.
    #[inline(always)]
    fn plain<'a>(self, lines: &'a [u8], from: usize, to: usize, percent: &mut Percent) -> Option<&'a [u8]> {
        let text = &lines[from..to];
        let fits = match self {
            Self::Ignore => true,
            Self::Bucket => text.len() <= BUCKET_BYTES_MAX,
            Self::Key => {
                let escaped = percent.is_within(lines, from, to);
                !text.is_empty() && if escaped { check_key(text).is_ok() } else { text.len() <= KEY_BYTES_MAX }
            }
            Self::VersionId | Self::ReportedVersion => version_fits(text),
            Self::Number => std::str::from_utf8(text).is_ok_and(|text| text.parse::<u64>().is_ok()),
        };
        fits.then_some(text)
    }
}

/// A row as it lies in its line.
struct Row<'a> {
    number: u64,
    bucket: Cow<'a, str>,
    key: Cow<'a, str>,
    version: RowVersion<'a>,
}

/// As [`VersionId`].
enum RowVersion<'a> {
    NoColumn,
    Missing,
    Given(Cow<'a, str>),
}

impl From<RowVersion<'_>> for VersionId {
    fn from(version: RowVersion<'_>) -> Self {
        match version {
            RowVersion::NoColumn => Self::NoColumn,
            RowVersion::Missing => Self::Missing,
            RowVersion::Given(version) => Self::Given(version.into()),
        }
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Rows of more columns than any manifest has had are read one by one.
const PLAIN_COLUMNS_MAX: usize = 16;

/// Whether a row of a table by column could stand in a CSV manifest, so that no other one is written down as a line. `key`
/// is percent-encoded; a `version` that is missing or blank is a row without one.
pub fn check_row(bucket: &str, key: &str, version: Option<&str>) -> Result<(), Flaw> {
    if bucket.len() > BUCKET_BYTES_MAX {
        return Err(Flaw::LongBucket);
    }
    if bucket.contains('\n') {
        return Err(Flaw::Quotes);
    }
    check_key(key.as_bytes())?;
    if version.is_none_or(|version| version_fits(version.as_bytes())) { Ok(()) } else { Err(Flaw::Version) }
}

/// Version IDs are taken literally: 1 to 1,024 printable ASCII characters without comma or quote (spec 3.7).
fn version_fits(version: &[u8]) -> bool {
    version.len() <= 1_024 && version.iter().all(|b| b.is_ascii_graphic() && *b != b',' && *b != b'"')
}

/// Not empty, whole percent escapes, not too long before or after decoding.
fn check_key(key: &[u8]) -> Result<(), Flaw> {
    if key.is_empty() {
        return Err(Flaw::EmptyKey);
    }
    if key.len() > RAW_KEY_BYTES_MAX {
        return Err(Flaw::LongKey);
    }
    let mut escapes = 0;
    for at in memchr::memchr_iter(b'%', key) {
        let digits = key.get(at + 1..at + 3);
        if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Flaw::Escape);
        }
        escapes += 1;
    }
    if key.len() - 2 * escapes > KEY_BYTES_MAX { Err(Flaw::LongKey) } else { Ok(()) }
}

/// The fields of one line: comma-separated, RFC 4180 quotes.
pub(crate) struct Fields<'a> {
    /// What is left; `None` once the last field was taken.
    pub(crate) rest: Option<&'a str>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Cow<'a, str>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            self.rest = after;
            return Some(if field.contains('"') { Err(()) } else { Ok(field.into()) });
        };
        let mut from = 0;
        let end = loop {
            let Some(at) = quoted[from..].find('"').map(|at| at + from) else {
                self.rest = None;
                return Some(Err(()));
            };
            if quoted[at + 1..].starts_with('"') {
                from = at + 2;
            } else {
                break at;
            }
        };
        let field = &quoted[..end];
        let behind = &quoted[end + 1..];
        self.rest = behind.strip_prefix(',');
        if self.rest.is_none() && !behind.is_empty() {
            return Some(Err(()));
        }
        Some(Ok(if field.contains('"') { field.replace("\"\"", "\"").into() } else { field.into() }))
    }
}

/// Adds one line of the columns Bucket, Key and, if `version` is there at all, VersionId, with its line break. Fields are
/// quoted where they have to be; one with a line break in it reads back as malformed at once, never as rows.
pub fn write_row(into: &mut Vec<u8>, bucket: &str, key: &str, version: Option<&str>) {
    write_field(into, bucket);
    into.push(b',');
    write_field(into, key);
    if let Some(version) = version {
        into.push(b',');
        write_field(into, version);
    }
    into.push(b'\n');
}

fn write_field(into: &mut Vec<u8>, field: &str) {
    // A byte order mark is one only where nothing stands before it.
    if !field.contains(['"', ',', '\r', '\n']) && !field.starts_with('\u{feff}') {
        return into.extend_from_slice(field.as_bytes());
    }
    into.push(b'"');
    into.extend_from_slice(field.replace('"', "\"\"").as_bytes());
    into.push(b'"');
}

/// Counts the rows that end in `lines`, which are checked already and may be cut anywhere; `first_row` is the row that the
/// first of them ends. `edges` is given the places behind the last rows of chunks, as by [`RowFormat::check`].
pub fn count_rows(first_row: u64, lines: &[u8], edges: &mut Vec<usize>) -> u64 {
    /// Counted at once, some hundred rows: a chunk ends in few of them, and only there each row is looked for.
    const COUNTED_BYTES: usize = 4 << 10;
    edges.clear();
    let mut row = first_row;
    for (block, from) in lines.chunks(COUNTED_BYTES).zip((0..).step_by(COUNTED_BYTES)) {
        let rows = memchr::memchr_iter(b'\n', block).count() as u64;
        if (row + rows) / CHUNK_ROWS > row / CHUNK_ROWS {
            let numbered = memchr::memchr_iter(b'\n', block).zip(row + 1..);
            let ends = numbered.filter(|(_, next)| next.is_multiple_of(CHUNK_ROWS));
            edges.extend(ends.map(|(at, _)| from + at + 1));
        }
        row += rows;
    }
    row - first_row
}

/// Cuts a stream of bytes into lines. Feed pieces as they come; each whole line is handed out without its LF.
///
/// Memory: one line, at most [`LINE_BYTES_MAX`]; a longer one is a fault.
#[derive(Debug, Default)]
pub struct Lines {
    /// The unfinished line at the end of the last piece.
    partial: Vec<u8>,
}

/// A line that is longer than any row may be.
#[derive(Debug, PartialEq, Eq)]
pub struct LineTooLong;

impl Lines {
    /// Calls `each` with every line that ends in `piece`.
    pub fn push<E: From<LineTooLong>>(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            if self.partial.is_empty() {
                each(line)?;
            } else {
                self.partial.extend_from_slice(line);
                each(&self.partial)?;
                self.partial.clear();
            }
        }
        if self.partial.len() + rest.len() > LINE_BYTES_MAX {
            return Err(LineTooLong.into());
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// The last line, if the stream did not end in a line break.
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then_some(self.partial)
    }
}

/// Rows in one chunk of a pinned manifest: what the index names and the reader takes at once.
///
/// 1,024 rows are some 60 KB of usual keys and 3 MB of the longest, and make an index of 24 bytes for each: 240 KB for
/// ten million rows.
pub const CHUNK_ROWS: u64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use Column::{Bucket, Ignore, Key, VersionId as Version};

    fn parse(columns: &[Column], line: &str) -> Result<(String, String, VersionId), FaultKind> {
        let format = RowFormat::new(columns.to_vec()).unwrap();
        match format.parse(0, line.as_bytes()) {
            Ok(task) => Ok(((*task.bucket).into(), task.key.into(), task.version)),
            Err(fault) => Err(fault.kind()),
        }
    }

    fn key(line: &str) -> Result<String, FaultKind> {
        parse(&[Bucket, Key], line).map(|(_, key, _)| key)
    }

    #[test]
    fn the_columns_of_pinned_manifests_are_read_and_no_job_can_name_them() {
        let format = RowFormat::new(vec![Bucket, Key, Column::ReportedVersion, Column::Number]).unwrap();
        for (line, version) in [
            ("b,k,,9", VersionId::NoColumn),
            ("b,k,\\N,9", VersionId::Missing),
            ("b,k,v1,9", VersionId::Given("v1".into())),
        ] {
            let task = format.parse(2, line.as_bytes()).unwrap();
            assert_eq!((task.row, task.number, task.version), (2, 9, version), "{line}");
        }
        assert!(format.parse(2, b"b,k,,x").is_err());
        for code in 0..6 {
            assert_eq!(Column::of_code(code).map(Column::code), Some(code));
        }
        assert_eq!((Column::of_code(6), Column::parse("Number"), Column::parse("ReportedVersion")), (None, None, None));
    }

    #[test]
    fn the_vectors_of_the_specification_hold() {
        for (line, wanted) in [
            ("b,objectkey1", "objectkey1"),
            ("b,object%20key%20with%20spaces", "object%20key%20with%20spaces"),
            ("b,a+b", "a+b"),
            ("b,a%2Bb", "a%2Bb"),
            ("b,\"x,y.txt\"", "x,y.txt"),
            ("b,x%2Cy.txt", "x%2Cy.txt"),
            (
                "b,%7B%22origKey%22%3A%20%22object1key%22%2C%20%22newKey%22%3A%20%22newObject1Key%22%7D",
                "%7B%22origKey%22%3A%20%22object1key%22%2C%20%22newKey%22%3A%20%22newObject1Key%22%7D",
            ),
            ("b,stanza%7Cupper", "stanza%7Cupper"),
            ("b,%E6%97%A5%E6%9C%AC.txt", "%E6%97%A5%E6%9C%AC.txt"),
            ("b,raw key with spaces", "raw key with spaces"),
            ("b,\"a\"\"b\"", "a\"b"),
            ("\"b\",\"k\"\r", "k"),
        ] {
            assert_eq!(key(line).as_deref(), Ok(wanted), "{line}");
        }
        for (line, wanted) in [
            ("b,100%.txt", FaultKind::KeyFormat),
            ("b,100%2", FaultKind::KeyFormat),
            ("b,", FaultKind::KeyFormat),
            ("b", FaultKind::FieldCount),
            ("b,k,x", FaultKind::FieldCount),
            ("b,k,", FaultKind::FieldCount),
            ("", FaultKind::Malformed),
            ("\r", FaultKind::Malformed),
            ("\u{feff}b,k", FaultKind::Malformed),
            ("b,\"k", FaultKind::Malformed),
            ("b,\"k\"x", FaultKind::Malformed),
            ("b,k\"x", FaultKind::Malformed),
        ] {
            assert_eq!(key(line), Err(wanted), "{line}");
        }
        assert_eq!(RowFormat::new(vec![Bucket, Key]).unwrap().parse(3, b"b,\xff").unwrap_err().row, 3);
    }

    #[test]
    fn a_fault_says_where_it_is_and_what_to_mend() {
        let format = RowFormat::new(vec![Bucket, Key]).unwrap();
        let told = |row, line: &[u8]| format.parse(row, line).unwrap_err().to_string();
        assert!(told(1, b"b,a,b.txt").starts_with("Row 2: it has 3 fields where the job names 2"));
        assert!(told(0, b"b").contains("it has 1 fields"));
        assert!(told(0, b"\xEF\xBB\xBFb,k").contains("byte order mark"));
        assert!(told(0, b"\x1F\x8B\x08\0").contains("compressed"));
        assert!(told(9, b"").ends_with("Row 10: it is blank"));
        assert!(told(0, b"b,100%").contains("%25"));
        assert!(told(0, b"b,\xff").contains("not UTF-8"));
    }

    #[test]
    fn a_key_is_measured_decoded_and_in_bytes() {
        assert!(key(&format!("b,{}", "%E6".repeat(1_024))).is_ok());
        assert_eq!(key(&format!("b,{}", "%E6".repeat(1_025))), Err(FaultKind::KeyFormat));
        assert!(key(&format!("b,{}", "k".repeat(1_024))).is_ok());
        assert_eq!(key(&format!("b,{}", "k".repeat(1_025))), Err(FaultKind::KeyFormat));
    }

    #[test]
    fn a_bucket_is_bounded_since_every_result_repeats_it() {
        assert!(key(&format!("{},k", "b".repeat(BUCKET_BYTES_MAX))).is_ok());
        assert_eq!(key(&format!("{},k", "b".repeat(BUCKET_BYTES_MAX + 1))), Err(FaultKind::Malformed));
    }

    #[test]
    fn columns_stand_in_any_order_and_ignored_ones_are_passed_over() {
        let columns = [Ignore, Version, Key, Ignore, Bucket];
        let given = parse(&columns, "x,v1,k,\"y,z\",b").unwrap();
        assert_eq!(given, ("b".into(), "k".into(), VersionId::Given("v1".into())));
        assert_eq!(parse(&columns, "x,,k,y,b").unwrap().2, VersionId::Missing);
        assert_eq!(parse(&columns, "x,null,k,y,b").unwrap().2, VersionId::Given("null".into()));
        assert_eq!(parse(&columns, "x,a b,k,y,b"), Err(FaultKind::VersionFormat));
    }

    #[test]
    fn a_row_reads_back_as_it_was_written_and_never_as_two() {
        for (bucket, k, version) in [
            ("b", "k", None),
            ("b", "k", Some("")),
            ("b", "x,y", Some("v1")),
            ("b\"", "say \"hi\"", Some("null")),
            ("b,", "k\r", None),
        ] {
            let mut line = Vec::new();
            write_row(&mut line, bucket, k, version);
            let columns = [Bucket, Key, Version];
            let line = std::str::from_utf8(&line).unwrap().strip_suffix('\n').unwrap();
            let wanted = match version {
                None => VersionId::NoColumn,
                Some("") => VersionId::Missing,
                Some(version) => VersionId::Given(version.into()),
            };
            let read = parse(&columns[..if version.is_none() { 2 } else { 3 }], line);
            assert_eq!(read, Ok((bucket.to_owned(), k.to_owned(), wanted)));
        }
        let mut line = Vec::new();
        write_row(&mut line, "b", "one\nb,two", None);
        for line in line.split(|b| *b == b'\n') {
            assert!(RowFormat::new(vec![Bucket, Key]).unwrap().parse(1, line).is_err());
        }
    }

    #[test]
    fn fields_without_bucket_or_key_or_with_one_twice_make_no_format() {
        for columns in [vec![Bucket], vec![Key], vec![Bucket, Bucket, Key], vec![Bucket, Key, Version, Version], vec![]]
        {
            assert!(RowFormat::new(columns).is_none());
        }
        assert!(RowFormat::new(vec![Ignore, Bucket, Ignore, Key]).is_some());
    }

    /// What [`RowFormat::check`] has to say of these lines.
    fn one_by_one(format: &RowFormat, first_row: u64, lines: &[u8]) -> Result<(u64, Vec<usize>), Fault> {
        let (mut row, mut edges, mut from) = (first_row, Vec::new(), 0);
        while from < lines.len() {
            let end = from + lines[from..].iter().position(|b| *b == b'\n').unwrap();
            format.parse(row, &lines[from..end])?;
            (row, from) = (row + 1, end + 1);
            if row % CHUNK_ROWS == 0 {
                edges.push(from);
            }
        }
        Ok((row - first_row, edges))
    }

    fn at_once(format: &RowFormat, first_row: u64, lines: &[u8]) -> Result<(u64, Vec<usize>), Fault> {
        let mut edges = vec![7];
        format.check(first_row, lines, &mut edges).map(|rows| (rows, edges))
    }

    #[test]
    fn rows_checked_at_once_are_checked_as_they_are_one_by_one() {
        let long = |bytes: usize| "k".repeat(bytes);
        let odd: Vec<Vec<u8>> = [
            "b,k",
            "b,k\r",
            "b,k%20",
            "b,%",
            "b,%2",
            "b,%2g",
            "%,k",
            "%20,k%41",
            "b,",
            ",k",
            "",
            "\r",
            "b",
            "b,k,v",
            "b,\"k\"",
            "b,\"k",
            "\"b,x\",k",
            "b,é",
            "\u{feff}b,k",
            ",",
            "b,k ",
            "b\r,k",
            "b,\r",
            "é,%C3%A9",
            "\"b\",\"k\"",
            "\"b\",\"k\"\r",
            "\"b\",\"k\r\"",
            "\"b\",\"k%4\"1",
            "\"b\",\"k%4\"",
            "\"b\",\"k%41\"",
            "\"b\",\"\"",
            "\"\",\"k\"",
            "\"b\",\"k\"\"\"",
            "\"b\"\",\"k\"",
            "\"b\",k\"",
            "\"b\",\"k,k\"",
            "b,\"k\"k\"",
            "\",\"",
            "\"",
            "\"\"",
            "\"\u{feff}b\",k",
        ]
        .map(|line| line.as_bytes().to_vec())
        .into_iter()
        .chain([1_024, 1_025, 3_072].map(|bytes| format!("b,{}", long(bytes)).into_bytes()))
        .chain([1_024, 1_025].map(|escapes| format!("b,{}", "%20".repeat(escapes)).into_bytes()))
        .chain([255, 256].map(|bytes| format!("{},k", long(bytes)).into_bytes()))
        .chain([LINE_BYTES_MAX, LINE_BYTES_MAX + 1].map(|bytes| format!("b,{}", long(bytes - 2)).into_bytes()))
        .chain([b"b,\xff".to_vec(), b"\x1F\x8Bb,k".to_vec(), b"b,\xC3".to_vec(), b"\xA9,k".to_vec()])
        .collect();
        let format = RowFormat::new(vec![Bucket, Key]).unwrap();
        for first_row in [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS - 2] {
            for (one, other) in odd.iter().flat_map(|one| odd.iter().map(move |other| (one, other))) {
                let lines = [one, &b"\n"[..], other, b"\n", b"b,k\n"].concat();
                let wanted = one_by_one(&format, first_row, &lines);
                assert_eq!(at_once(&format, first_row, &lines), wanted, "{}", String::from_utf8_lossy(&lines));
                // The edges of chunks, which the other two are about, are none of its own.
                if first_row < 2 {
                    assert_rewritten(&format, first_row, &lines);
                }
            }
        }
        for (columns, lines) in [
            (
                vec![Bucket, Ignore, Version, Key],
                &["b,,,k", "b,%,v,k%", "b,x,v 1,k", "b,,v,%41", "b,\u{e9},v,k\r", "b,,v,"][..],
            ),
            (
                vec![Key, Bucket, Column::Number, Column::ReportedVersion],
                &["k,b,1,", "k,b,1,\\N\r", "k,b,,v", "k,b,-1,v", "k,b,7,a b"],
            ),
            (vec![Version, Key, Bucket], &[",k,b\r", "v,%41,%", "v,%,b", "\u{e9},k,b"]),
            (
                vec![Ignore, Version, Bucket, Key],
                &[
                    "\"1\",\"v\",\"b\",\"k\"",
                    "1,\"\",\"b\",k",
                    "\"1,\",v,b,k",
                    "\"\"\"\",v,b,k",
                    "\"1\",\"v \",b,k",
                    "\"1\",v,b",
                ],
            ),
            ([vec![Bucket, Key], vec![Ignore; 20]].concat(), &["b,k,,,,,,,,,,,,,,,,,,,,", "b,k"]),
        ] {
            let format = RowFormat::new(columns.clone()).unwrap();
            for line in lines {
                let lines = format!("{line}\n{line}\n").into_bytes();
                assert_eq!(at_once(&format, 5, &lines), one_by_one(&format, 5, &lines), "{line}");
                if !columns.contains(&Column::Number) {
                    assert_rewritten(&format, 5, &lines);
                }
            }
        }
    }

    /// What is written of lines reads back, wherever it stands, as the tasks that they are.
    fn assert_rewritten(format: &RowFormat, first_row: u64, lines: &[u8]) {
        let told = String::from_utf8_lossy(lines);
        let wanted = one_by_one(format, first_row, lines).map(|(rows, _)| rows);
        let mut written = b"before\n".to_vec();
        assert_eq!(format.rewrite(first_row, lines, &mut written), wanted, "{told}");
        let (columns, written) = (format.columns(), &written[b"before\n".len()..]);
        let of = |row: u64, line: &[u8]| format.parse(first_row + row, line).unwrap();
        let versions = columns.contains(&Version).then_some(Version);
        let pinned = RowFormat::new([Bucket, Key].into_iter().chain(versions).collect()).unwrap();
        let lines_of =
            |bytes: &[u8]| -> Vec<Vec<u8>> { bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect() };
        let written = lines_of(written);
        match wanted {
            Ok(rows) => assert_eq!(written.len() as u64, rows, "{told}"),
            Err(fault) => assert_eq!(written.len() as u64, fault.row - first_row, "{told}"),
        }
        for ((row, source), written) in (0..).zip(lines_of(lines)).zip(&written) {
            let whole = [&written[..]].concat();
            assert_eq!(whole.last(), Some(&b'\n'));
            let read = pinned.parse(first_row + row, &whole[..whole.len() - 1]).unwrap();
            assert_eq!(read, of(row, &source[..source.len() - 1]), "{told}");
            // As the first row of a manifest it is the same: nothing before it is taken for something else.
            assert_eq!(*pinned.parse(0, &whole[..whole.len() - 1]).unwrap().bucket, *read.bucket);
        }
    }

    #[test]
    fn rows_of_any_bytes_are_checked_and_rewritten_as_they_are_read_one_by_one() {
        let parts: [&[u8]; 22] = [
            b"\"",
            b"\"",
            b"\"",
            b"\"",
            b",",
            b",",
            b",",
            b"\n",
            b"\n",
            b"\r",
            b"%",
            b"%41",
            b"b",
            b"k",
            b"\",\"",
            b"\"\n\"",
            "\u{feff}".as_bytes(),
            b"\xC3",
            b"b,k",
            b"b,k,v\n",
            b"\"b\",\"k\"\n",
            b"\"b\",\"k\",\"v\"\n",
        ];
        let formats = [vec![Bucket, Key], vec![Ignore, Bucket, Key], vec![Key, Version, Bucket]].map(RowFormat::new);
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let mut rows = 0;
        for _ in 0..20_000 {
            let mut lines = Vec::new();
            (0..1 + random(9)).for_each(|_| lines.extend_from_slice(parts[random(parts.len())]));
            lines.push(b'\n');
            let format = formats[random(3)].as_ref().unwrap();
            let first_row = random(2) as u64;
            let wanted = one_by_one(format, first_row, &lines);
            rows += match &wanted {
                Ok((rows, _)) => *rows,
                Err(fault) => fault.row - first_row,
            };
            assert_eq!(at_once(format, first_row, &lines), wanted, "{}", String::from_utf8_lossy(&lines));
            assert_rewritten(format, first_row, &lines);
        }
        assert!(rows > 2_000, "only {rows} were rows at all");
    }

    #[test]
    fn what_is_rewritten_is_bare_unless_it_has_to_be_quoted() {
        let format = RowFormat::new(vec![Ignore, Bucket, Key, Version]).unwrap();
        let mut written = Vec::new();
        let lines = b"\"7\",\"b\",\"k%20\",\"v\"\n\"\",b,\"k\",\"\"\r\n";
        assert_eq!(format.rewrite(0, lines, &mut written), Ok(2));
        assert_eq!(format.rewrite(2, b"\"7,\",\"b\",\"k,\"\"\",v\n", &mut written), Ok(1));
        assert_eq!(written, b"b,k%20,v\nb,k,\nb,\"k,\"\"\",v\n");
    }

    #[test]
    fn rows_are_counted_with_their_edges_however_they_are_cut() {
        let rows = 5 * CHUNK_ROWS + 9;
        // A chunk of nothing but line breaks, and chunks of long lines.
        let line = |row: u64| if row < 1_500 { 0 } else { row as usize % 90 };
        let text: Vec<u8> = (0..rows).flat_map(|row| [vec![b'k'; line(row)], b"\n".to_vec()].concat()).collect();
        let ends: Vec<usize> = memchr::memchr_iter(b'\n', &text).map(|at| at + 1).collect();
        for first_row in [0, 1, CHUNK_ROWS - 1, 700] {
            let wanted: Vec<usize> =
                (first_row + 1..).zip(&ends).filter(|(row, _)| row % CHUNK_ROWS == 0).map(|(_, end)| *end).collect();
            for size in [1, 100, 4_096, 5_000, text.len()] {
                let (mut row, mut at, mut found) = (first_row, 0, Vec::new());
                for piece in text.chunks(size) {
                    let mut edges = vec![7];
                    row += count_rows(row, piece, &mut edges);
                    found.extend(edges.into_iter().map(|edge| at + edge));
                    at += piece.len();
                }
                assert_eq!((row, &found), (first_row + rows, &wanted), "cut every {size} from row {first_row}");
            }
        }
    }

    #[test]
    fn many_rows_are_checked_with_their_edges_and_read_from_anywhere() {
        let format = RowFormat::new(vec![Bucket, Key]).unwrap();
        let rows = 3 * CHUNK_ROWS + 9;
        let line = |row: u64| match row % 5 {
            0 => format!("other,%41{row}\n"),
            1 => format!("b,{row}\r\n"),
            2 => format!("b,é{row}\n"),
            _ => format!("b,{row}\n"),
        };
        let lines: String = (0..rows).map(line).collect();
        let (found, edges) = at_once(&format, 0, lines.as_bytes()).unwrap();
        assert_eq!((found, edges.len()), (rows, 3));
        assert_eq!(one_by_one(&format, 0, lines.as_bytes()), Ok((rows, edges)));
        for first in [0, 1, 700, rows - 1, rows] {
            let tasks = format.parse_chunk(0, first, lines.as_bytes()).unwrap();
            let wanted: Vec<Task> = (first..rows)
                .map(|row| format.parse(row, line(row).trim_end_matches('\n').as_bytes()).unwrap())
                .collect();
            assert_eq!(tasks, wanted);
        }
        assert_eq!(format.parse_chunk(3, 3, b"b,k\nb,\n").unwrap_err().row, 4);
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let text = b"one\ntwo\r\n\nlast";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in text.chunks(size) {
                lines
                    .push::<LineTooLong>(piece, |line| {
                        seen.push(line.to_vec());
                        Ok(())
                    })
                    .unwrap();
            }
            seen.extend(lines.finish());
            assert_eq!(seen, [&b"one"[..], b"two\r", b"", b"last"], "cut every {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(lines.push::<LineTooLong>(&piece, |_| Ok(())), Ok(()));
        assert_eq!(lines.push::<LineTooLong>(b"x", |_| Ok(())), Err(LineTooLong));
    }
}
