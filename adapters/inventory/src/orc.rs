//! ORC, as far as S3 Inventory and its like use it. Source: orc.apache.org, "ORC Specification v1".
//!
//! In memory: the footer, and of each column two blocks of each of its streams and its dictionary.

use std::fs::File;
use std::ops::ControlFlow;

use longshore_jobs::ports::TableRow;

use crate::bytes::{self, zigzag};
use crate::protobuf::{self, Value};
use crate::{FOOTER_BYTES_MAX, Read, VALUE_BYTES_MAX};

/// A block of a stream, stored and inflated. Writers use 64 or 256 KiB; the format itself ends at 8 MiB.
const BLOCK_BYTES_MAX: u64 = 4 << 20;
/// The dictionary of one column of a stripe. Writers drop dictionaries that are not far smaller than the stripe's 64 MB.
const DICTIONARY_BYTES_MAX: usize = 32 << 20;
/// Columns of a file, and of a stripe their encodings. An inventory has some twenty.
const COLUMNS_MAX: usize = 10_000;
/// Streams of a stripe: a column has some five, and never more than ten.
const STREAMS_MAX: usize = 10 * COLUMNS_MAX;
/// Stripes of a file. Writers aim at 64 MB, and the smallest setting in use, 1 MB, makes some 10,000 in the largest files
/// that S3 Inventory writes; what is kept of so many takes 4 MB.
const STRIPES_MAX: usize = 100_000;

/// What kinds of streams hold.
const PRESENT: u64 = 0;
const DATA: u64 = 1;
const LENGTH: u64 = 2;
const DICTIONARY_DATA: u64 = 3;

pub fn read(file: &File, versions: bool, each: &mut dyn FnMut(TableRow<'_>) -> ControlFlow<()>) -> Read<()> {
    let footer = Footer::read(file)?;
    let (bucket, key) = (footer.column("bucket")?, footer.column("key")?);
    let version = if versions { Some(footer.column("version_id")?) } else { None };
    for stripe in footer.stripes.iter().filter(|stripe| stripe.rows > 0) {
        let streams = StripeFooter::read(file, &footer, stripe)?;
        if streams.streams.iter().any(|stream| stream.kind == PRESENT && stream.column == 0) {
            return Err("has rows that are null as a whole".into());
        }
        let mut bucket = Strings::open(file, &footer, &streams, bucket)?;
        let mut key = Strings::open(file, &footer, &streams, key)?;
        let mut version = match version {
            Some(column) => Some(Strings::open(file, &footer, &streams, column)?),
            None => None,
        };
        if crate::rows(stripe.rows, &mut bucket, &mut key, version.as_mut(), each)?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Codec {
    None,
    Zlib,
    Snappy,
}

/// What is read of the file's tail.
struct Footer {
    codec: Codec,
    /// No block inflates to more.
    block: u64,
    /// At most [`STRIPES_MAX`].
    stripes: Vec<Stripe>,
    /// What each column holds, as its writer numbers it; at most [`COLUMNS_MAX`].
    kinds: Vec<u64>,
    /// Numbers and names of the columns at the top, which is the first type; at most [`COLUMNS_MAX`] of each.
    children: Vec<u64>,
    names: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Stripe {
    offset: u64,
    index: u64,
    data: u64,
    footer: u64,
    rows: u64,
}

/// Adds one more, if there are not too many of it: each takes as little as two bytes of the footer.
fn push<T>(into: &mut Vec<T>, max: usize, what: &str, one: T) -> Read<()> {
    if into.len() == max {
        return Err(format!("has more than {max} {what}"));
    }
    into.push(one);
    Ok(())
}

impl Footer {
    fn read(file: &File) -> Read<Self> {
        let size = file.metadata().map_err(|e| e.to_string())?.len();
        let last = bytes::at(file, size.checked_sub(1).ok_or("is empty")?, 1, 1, "the tail")?;
        let length = u64::from(last[0]);
        let at = (size - 1).checked_sub(length).ok_or("is too short for ORC")?;
        let postscript = bytes::at(file, at, length, length, "the postscript")?;
        let (mut footer, mut codec, mut block, mut magic) = (0, 0, 256 << 10, &b""[..]);
        protobuf::fields(&postscript, |number, value| {
            match number {
                1 => footer = value.int()?,
                2 => codec = value.int()?,
                3 => block = value.int()?,
                8000 => magic = value.bytes()?,
                _ => {}
            }
            Ok(())
        })
        .map_err(|e| format!("the postscript {e}"))?;
        if magic != b"ORC" {
            return Err("does not end as ORC does".into());
        }
        let codec = match codec {
            0 => Codec::None,
            1 => Codec::Zlib,
            2 => Codec::Snappy,
            other => {
                let name = ["LZO", "LZ4", "ZSTD", "BROTLI"].get(other.wrapping_sub(3) as usize);
                return Err(format!("is compressed with {}, which is not read", name.unwrap_or(&"an unknown codec")));
            }
        };
        if block > BLOCK_BYTES_MAX {
            return Err(format!("has blocks of more than {BLOCK_BYTES_MAX} bytes"));
        }
        let (stripes, kinds, children, names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut this = Self { codec, block, stripes, kinds, children, names };
        let begin = at.checked_sub(footer).ok_or("the footer lies outside the file")?;
        let bytes = this.whole(file, begin, footer, FOOTER_BYTES_MAX as usize, "the footer")?;
        this.parse(&bytes).map_err(|e| format!("the footer {e}"))?;
        Ok(this)
    }

    fn parse(&mut self, bytes: &[u8]) -> Read<()> {
        protobuf::fields(bytes, |number, value| {
            match number {
                3 => {
                    let mut stripe = Stripe::default();
                    protobuf::fields(value.bytes()?, |number, value| {
                        match number {
                            1 => stripe.offset = value.int()?,
                            2 => stripe.index = value.int()?,
                            3 => stripe.data = value.int()?,
                            4 => stripe.footer = value.int()?,
                            5 => stripe.rows = value.int()?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    push(&mut self.stripes, STRIPES_MAX, "stripes", stripe)?;
                }
                4 => {
                    let (mut kind, is_root) = (0, self.kinds.is_empty());
                    protobuf::fields(value.bytes()?, |number, value| {
                        match (number, value) {
                            (1, value) => kind = value.int()?,
                            (2, Value::Int(child)) if is_root => {
                                push(&mut self.children, COLUMNS_MAX, "columns", child)?;
                            }
                            (2, Value::Bytes(packed)) if is_root => {
                                let mut cursor = bytes::Cursor { rest: packed };
                                while !cursor.rest.is_empty() {
                                    push(&mut self.children, COLUMNS_MAX, "columns", cursor.varint()?)?;
                                }
                            }
                            (3, value) if is_root => {
                                push(&mut self.names, COLUMNS_MAX, "names of columns", value.bytes()?.to_vec())?;
                            }
                            _ => {}
                        }
                        Ok(())
                    })?;
                    push(&mut self.kinds, COLUMNS_MAX, "columns", kind)?;
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// The number of a column of strings at the top.
    fn column(&self, name: &str) -> Read<u64> {
        self.kinds.first().filter(|root| **root == 12).ok_or("is not a table of rows")?;
        let mut named = self.names.iter().zip(&self.children).filter(|(other, _)| *other == name.as_bytes());
        match (named.next(), named.next()) {
            (Some((_, number)), None) => {
                let kind = usize::try_from(*number).ok().and_then(|number| self.kinds.get(number));
                // STRING, BINARY, VARCHAR, CHAR: all lie alike.
                if kind.is_some_and(|kind| [7, 8, 16, 17].contains(kind)) {
                    Ok(*number)
                } else {
                    Err(format!("its column {name} does not hold strings"))
                }
            }
            (Some(_), Some(_)) => Err(format!("its column {name} stands twice")),
            (None, _) => Err(format!("has no column {name}")),
        }
    }

    /// A part of the file, inflated: at most `max` bytes.
    fn whole(&self, file: &File, offset: u64, length: u64, max: usize, what: &str) -> Read<Vec<u8>> {
        let mut stream = Stream::open(file, self, offset, length, what)?;
        let mut whole = Vec::new();
        while stream.fill()? {
            whole.extend_from_slice(&stream.block[stream.at..]);
            stream.at = stream.block.len();
            if whole.len() > max {
                return Err(format!("{what} is longer than {max} bytes"));
            }
        }
        Ok(whole)
    }
}

/// Where the streams of a stripe lie, and how its columns are encoded.
struct StripeFooter {
    streams: Vec<Place>,
    /// (kind, size of the dictionary) by column.
    encodings: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Place {
    kind: u64,
    column: u64,
    offset: u64,
    length: u64,
}

impl StripeFooter {
    fn read(file: &File, footer: &Footer, stripe: &Stripe) -> Read<Self> {
        let outside = "a stripe lies outside the file";
        let data = stripe.index.checked_add(stripe.data).ok_or(outside)?;
        let at = stripe.offset.checked_add(data).ok_or(outside)?;
        let bytes = footer.whole(file, at, stripe.footer, FOOTER_BYTES_MAX as usize, "a stripe's footer")?;
        let mut this = Self { streams: Vec::new(), encodings: Vec::new() };
        let mut offset = stripe.offset;
        protobuf::fields(&bytes, |number, value| {
            match number {
                1 => {
                    let mut place = Place::default();
                    protobuf::fields(value.bytes()?, |number, value| {
                        match number {
                            1 => place.kind = value.int()?,
                            2 => place.column = value.int()?,
                            3 => place.length = value.int()?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    place.offset = offset;
                    offset = offset.checked_add(place.length).ok_or(outside)?;
                    push(&mut this.streams, STREAMS_MAX, "streams", place)?;
                }
                2 => {
                    let (mut kind, mut size) = (0, 0);
                    protobuf::fields(value.bytes()?, |number, value| {
                        match number {
                            1 => kind = value.int()?,
                            2 => size = value.int()?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    push(&mut this.encodings, COLUMNS_MAX, "encodings", (kind, size))?;
                }
                _ => {}
            }
            Ok(())
        })
        .map_err(|e| format!("a stripe's footer {e}"))?;
        Ok(this)
    }

    fn stream<'f>(&self, file: &'f File, footer: &Footer, column: u64, kind: u64) -> Read<Option<Stream<'f>>> {
        let found = self.streams.iter().find(|place| place.column == column && place.kind == kind);
        found.map(|place| Stream::open(file, footer, place.offset, place.length, "a stream")).transpose()
    }
}

/// One stream, inflated block by block.
struct Stream<'f> {
    file: &'f File,
    codec: Codec,
    block_max: u64,
    next: u64,
    end: u64,
    block: Vec<u8>,
    at: usize,
}

impl<'f> Stream<'f> {
    fn open(file: &'f File, footer: &Footer, offset: u64, length: u64, what: &str) -> Read<Self> {
        let end = offset.checked_add(length).ok_or_else(|| format!("{what} lies outside the file"))?;
        let (codec, block_max) = (footer.codec, footer.block);
        Ok(Self { file, codec, block_max, next: offset, end, block: Vec::new(), at: 0 })
    }

    /// Makes sure that there is a byte to be read; `false` at the end.
    fn fill(&mut self) -> Read<bool> {
        while self.at == self.block.len() {
            self.at = 0;
            self.block.clear();
            let left = self.end - self.next;
            if left == 0 {
                return Ok(false);
            }
            if self.codec == Codec::None {
                let length = left.min(64 << 10);
                self.block = bytes::at(self.file, self.next, length, length, "a block")?;
                self.next += length;
                continue;
            }
            let header = bytes::at(self.file, self.next, 3, left.min(3), "a block's header")?;
            let header = u64::from(header[0]) | u64::from(header[1]) << 8 | u64::from(header[2]) << 16;
            let length = header >> 1;
            if length > left - 3 {
                return Err("a block lies outside its stream".into());
            }
            let stored = bytes::at(self.file, self.next + 3, length, self.block_max, "a block")?;
            self.next += 3 + length;
            let max = usize::try_from(self.block_max).map_err(|e| e.to_string())?;
            match self.codec {
                _ if header & 1 == 1 => self.block = stored,
                Codec::None => {}
                Codec::Zlib => bytes::inflate(flate2::read::DeflateDecoder::new(&*stored), max, &mut self.block)
                    .map_err(|e| format!("a block {e}"))?,
                Codec::Snappy => bytes::unsnap(&stored, max, &mut self.block).map_err(|e| format!("a block {e}"))?,
            }
        }
        Ok(true)
    }

    fn byte(&mut self) -> Read<u8> {
        if !self.fill()? {
            return Err("a stream breaks off".into());
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }

    fn take(&mut self, length: usize, into: &mut Vec<u8>) -> Read<()> {
        let mut left = length;
        while left > 0 {
            if !self.fill()? {
                return Err("a stream breaks off".into());
            }
            let part = left.min(self.block.len() - self.at);
            into.extend_from_slice(&self.block[self.at..self.at + part]);
            self.at += part;
            left -= part;
        }
        Ok(())
    }
}

/// A column of strings in one stripe.
struct Strings<'f> {
    present: Option<Bits<'f>>,
    kind: StringsKind<'f>,
}

enum StringsKind<'f> {
    Direct {
        data: Stream<'f>,
        lengths: Ints<'f>,
    },
    Dictionary {
        indices: Ints<'f>,
        bytes: Vec<u8>,
        ends: Vec<u32>,
    },
    /// Nothing but nulls.
    Nothing,
}

impl<'f> Strings<'f> {
    fn open(file: &'f File, footer: &Footer, stripe: &StripeFooter, column: u64) -> Read<Self> {
        let (kind, size) = *stripe
            .encodings
            .get(usize::try_from(column).map_err(|e| e.to_string())?)
            .ok_or("a stripe has too few columns")?;
        let stream = |kind| stripe.stream(file, footer, column, kind);
        let second = matches!(kind, 2 | 3);
        let ints = |stream| Ints { stream, second, run: Vec::new(), at: 0 };
        let present =
            stream(PRESENT)?.map(|stream| Bits { bytes: ByteRuns { stream, left: 0, same: None }, bits: 0, left: 0 });
        let kind = match kind {
            0 | 2 => match (stream(DATA)?, stream(LENGTH)?) {
                (Some(data), Some(lengths)) => StringsKind::Direct { data, lengths: ints(lengths) },
                // Writers leave out streams without bytes: empty strings have lengths still.
                (None, Some(lengths)) => {
                    StringsKind::Direct { data: Stream::open(file, footer, 0, 0, "a stream")?, lengths: ints(lengths) }
                }
                _ => StringsKind::Nothing,
            },
            1 | 3 => match (stream(DATA)?, stream(LENGTH)?) {
                (Some(indices), lengths) => {
                    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
                    if let Some(lengths) = lengths {
                        let mut lengths = ints(lengths);
                        let mut data = stream(DICTIONARY_DATA)?;
                        for _ in 0..size {
                            let length = length(lengths.next()?)?;
                            if bytes.len() + length + 4 * ends.len() > DICTIONARY_BYTES_MAX {
                                return Err(format!("has a dictionary of more than {DICTIONARY_BYTES_MAX} bytes"));
                            }
                            match &mut data {
                                Some(data) => data.take(length, &mut bytes)?,
                                None if length == 0 => {}
                                None => return Err("a dictionary breaks off".into()),
                            }
                            ends.push(bytes.len() as u32);
                        }
                    }
                    StringsKind::Dictionary { indices: ints(indices), bytes, ends }
                }
                (None, _) => StringsKind::Nothing,
            },
            _ => return Err("a column is encoded in an unknown way".into()),
        };
        Ok(Self { present, kind })
    }
}

fn length(value: u64) -> Read<usize> {
    match usize::try_from(value) {
        Ok(length) if length <= VALUE_BYTES_MAX => Ok(length),
        _ => Err(format!("has a value longer than {VALUE_BYTES_MAX} bytes")),
    }
}

impl crate::Column for Strings<'_> {
    fn next(&mut self, into: &mut Vec<u8>) -> Read<bool> {
        into.clear();
        if let Some(present) = &mut self.present
            && !present.next()?
        {
            return Ok(false);
        }
        match &mut self.kind {
            StringsKind::Direct { data, lengths } => data.take(length(lengths.next()?)?, into)?,
            StringsKind::Dictionary { indices, bytes, ends } => {
                let index = usize::try_from(indices.next()?).map_err(|e| e.to_string())?;
                let end = *ends.get(index).ok_or("a row names what no dictionary has")? as usize;
                let start = if index == 0 { 0 } else { ends[index - 1] as usize };
                into.extend_from_slice(&bytes[start..end]);
            }
            StringsKind::Nothing => return Err("a column has no data".into()),
        }
        Ok(true)
    }
}

/// Byte run-length encoding.
struct ByteRuns<'f> {
    stream: Stream<'f>,
    left: u16,
    /// The byte of a run; `None` for literal ones.
    same: Option<u8>,
}

impl ByteRuns<'_> {
    fn next(&mut self) -> Read<u8> {
        if self.left == 0 {
            let control = self.stream.byte()?;
            if control < 128 {
                self.left = u16::from(control) + 3;
                self.same = Some(self.stream.byte()?);
            } else {
                self.left = 256 - u16::from(control);
                self.same = None;
            }
        }
        self.left -= 1;
        match self.same {
            Some(byte) => Ok(byte),
            None => self.stream.byte(),
        }
    }
}

/// Bits, the high ones of each byte first.
struct Bits<'f> {
    bytes: ByteRuns<'f>,
    bits: u8,
    left: u8,
}

impl Bits<'_> {
    fn next(&mut self) -> Read<bool> {
        if self.left == 0 {
            (self.bits, self.left) = (self.bytes.next()?, 8);
        }
        self.left -= 1;
        Ok(self.bits >> self.left & 1 == 1)
    }
}

/// Unsigned integers, run-length encoded in the first or the second version. A run is at most 512.
struct Ints<'f> {
    stream: Stream<'f>,
    second: bool,
    run: Vec<u64>,
    at: usize,
}

impl Ints<'_> {
    fn next(&mut self) -> Read<u64> {
        if self.at == self.run.len() {
            self.at = 0;
            self.run.clear();
            if self.second { self.fill_second()? } else { self.fill_first()? }
        }
        self.at += 1;
        Ok(self.run[self.at - 1])
    }

    fn varint(&mut self) -> Read<u64> {
        bytes::varint(|| self.stream.byte())
    }

    fn big_endian(&mut self, bytes: u8) -> Read<u64> {
        let mut value = 0;
        for _ in 0..bytes {
            value = value << 8 | u64::from(self.stream.byte()?);
        }
        Ok(value)
    }

    /// Adds `count` integers of `width` bits, the high ones first, packed without gaps up to a whole byte at the end.
    fn packed(&mut self, count: usize, width: u32, into: &mut Vec<u64>) -> Read<()> {
        let (mut byte, mut left) = (0u8, 0u32);
        for _ in 0..count {
            let (mut value, mut wanted) = (0u64, width);
            while wanted > 0 {
                if left == 0 {
                    (byte, left) = (self.stream.byte()?, 8);
                }
                let part = wanted.min(left);
                let bits = (u32::from(byte) >> (left - part)) & ((1 << part) - 1);
                // A part is at most eight bits, and 64 of them never shift out what is wanted.
                value = value << part | u64::from(bits);
                left -= part;
                wanted -= part;
            }
            into.push(value);
        }
        Ok(())
    }

    fn fill_first(&mut self) -> Read<()> {
        let control = self.stream.byte()?;
        if control < 128 {
            let delta = i64::from(self.stream.byte()? as i8);
            let base = self.varint()?;
            for step in 0..i64::from(control) + 3 {
                self.run.push(base.wrapping_add_signed(step.wrapping_mul(delta)));
            }
        } else {
            for _ in 0..256 - u16::from(control) {
                let value = self.varint()?;
                self.run.push(value);
            }
        }
        Ok(())
    }

    fn fill_second(&mut self) -> Read<()> {
        let first = self.stream.byte()?;
        let mut run = std::mem::take(&mut self.run);
        match first >> 6 {
            0 => {
                let value = self.big_endian((first >> 3 & 7) + 1)?;
                run.resize(usize::from(first & 7) + 3, value);
            }
            1 => {
                let count = self.count(first)?;
                self.packed(count, width(first >> 1 & 31), &mut run)?;
            }
            2 => {
                let count = self.count(first)?;
                let (third, fourth) = (self.stream.byte()?, self.stream.byte()?);
                let (base_bytes, patch_width) = ((third >> 5) + 1, width(third & 31));
                let (gap_width, patches) = (u32::from(fourth >> 5) + 1, usize::from(fourth & 31));
                let base = self.big_endian(base_bytes)?;
                // The highest bit is the sign.
                let sign = 1u64 << (u32::from(base_bytes) * 8 - 1);
                let base = if base & sign == 0 { base } else { (base & !sign).wrapping_neg() };
                let bits = width(first >> 1 & 31);
                self.packed(count, bits, &mut run)?;
                let mut list = Vec::new();
                if patch_width + gap_width > 64 {
                    return Err("a run of integers has patches of more than 64 bits".into());
                }
                self.packed(patches, fixed_width(patch_width + gap_width), &mut list)?;
                let mut at = 0_usize;
                for patch in list {
                    let gap =
                        usize::try_from(patch.checked_shr(patch_width).unwrap_or(0)).map_err(|e| e.to_string())?;
                    at = at.saturating_add(gap);
                    let high = if patch_width == 64 { patch } else { patch & ((1 << patch_width) - 1) };
                    let value = run.get_mut(at).ok_or("a run of integers is patched behind its end")?;
                    *value |= high.checked_shl(bits).unwrap_or(0);
                }
                run.iter_mut().for_each(|value| *value = value.wrapping_add(base));
            }
            _ => {
                let count = self.count(first)?;
                let base = self.varint()?;
                let delta = zigzag(self.varint()?);
                run.push(base);
                let code = first >> 1 & 31;
                if count > 1 {
                    run.push(base.wrapping_add_signed(delta));
                }
                let mut last = base.wrapping_add_signed(delta);
                let mut steps = Vec::new();
                if code > 0 {
                    self.packed(count.saturating_sub(2), width(code), &mut steps)?;
                }
                for at in 2..count {
                    last = match steps.get(at - 2) {
                        None => last.wrapping_add_signed(delta),
                        Some(step) if delta < 0 => last.wrapping_sub(*step),
                        Some(step) => last.wrapping_add(*step),
                    };
                    run.push(last);
                }
            }
        }
        self.run = run;
        Ok(())
    }

    /// The nine bits of a run's length, of which the first byte has the highest.
    fn count(&mut self, first: u8) -> Read<usize> {
        Ok((usize::from(first & 1) << 8 | usize::from(self.stream.byte()?)) + 1)
    }
}

/// Bits that a code of five bits means.
fn width(code: u8) -> u32 {
    match code {
        0..=23 => u32::from(code) + 1,
        24 => 26,
        25 => 28,
        26 => 30,
        27 => 32,
        28 => 40,
        29 => 48,
        30 => 56,
        _ => 64,
    }
}

/// The next width that a code can mean.
fn fixed_width(bits: u32) -> u32 {
    (0..32).map(width).find(|width| *width >= bits).unwrap_or(64)
}
