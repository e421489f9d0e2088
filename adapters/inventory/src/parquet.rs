//! Parquet, as far as S3 Inventory and its like use it. Source: apache/parquet-format, `README.md`, `Encodings.md`,
//! `src/main/thrift/parquet.thrift`.
//!
//! In memory: the footer, and a page and a dictionary of each column.

use std::fs::File;
use std::ops::ControlFlow;

use longshore_jobs::ports::TableRow;

use crate::bytes::{self, Cursor};
use crate::thrift::{self, Field};
use crate::{FOOTER_BYTES_MAX, Read, VALUE_BYTES_MAX};

/// A page, stored and inflated. Writers aim at 1 MiB; those that put a whole column of a row group into one page reach
/// a multiple.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// The header of a page, which may hold the least and the greatest value of it.
const PAGE_HEADER_BYTES_MAX: u64 = 64 << 10;
/// Pages without values in a row, at most: a dictionary and an index make two.
const EMPTY_PAGES_MAX: u32 = 100;
/// Nodes of the schema; an inventory has some twenty.
const SCHEMA_ELEMENTS_MAX: usize = 10_000;
/// Row groups: the format numbers them in 16 bits with a sign. Of each, three columns are kept, so that all of them take
/// less than 16 MB.
const ROW_GROUPS_MAX: usize = 32_768;
const MAGIC: &[u8] = b"PAR1";

pub fn read(file: &File, versions: bool, each: &mut dyn FnMut(TableRow<'_>) -> ControlFlow<()>) -> Read<()> {
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    let tail = bytes::at(file, size.checked_sub(8).ok_or("is too short for Parquet")?, 8, 8, "the tail")?;
    let (length, magic) = tail.split_at(4);
    if magic != MAGIC {
        return Err("does not end as Parquet does".into());
    }
    let length = u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
    let offset = (size - 8).checked_sub(length).ok_or("the footer lies outside the file")?;
    let footer = bytes::at(file, offset, length, FOOTER_BYTES_MAX, "the footer")?;
    let footer = Footer::parse(&footer).map_err(|e| format!("the footer {e}"))?;
    let optional = [footer.column("bucket")?, footer.column("key")?];
    let version = if versions { Some(footer.column("version_id")?) } else { None };
    for group in footer.groups.iter().filter(|group| group.rows > 0) {
        let mut bucket = Chunk::open(file, group.chunk("bucket")?, optional[0])?;
        let mut key = Chunk::open(file, group.chunk("key")?, optional[1])?;
        let mut version = match version {
            Some(optional) => Some(Chunk::open(file, group.chunk("version_id")?, optional)?),
            None => None,
        };
        if crate::rows(group.rows, &mut bucket, &mut key, version.as_mut(), each)?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is read of the file's metadata.
#[derive(Default)]
struct Footer {
    columns: Vec<SchemaElement>,
    groups: Vec<RowGroup>,
}

/// A node of the schema, which is written depth first.
#[derive(Default)]
struct SchemaElement {
    name: Vec<u8>,
    /// 6 for byte arrays.
    kind: Option<i64>,
    /// 0 required, 1 optional, 2 repeated.
    repetition: i64,
    children: i64,
}

#[derive(Default)]
struct RowGroup {
    rows: u64,
    /// Of the three columns alone, at most one of each.
    chunks: Vec<ChunkMeta>,
}

/// One column of one row group.
#[derive(Default, Clone)]
struct ChunkMeta {
    name: Vec<u8>,
    codec: i64,
    values: i64,
    compressed: i64,
    data_offset: i64,
    dictionary_offset: Option<i64>,
}

impl Footer {
    fn parse(bytes: &[u8]) -> Read<Self> {
        let (mut schema, mut groups) = (Vec::new(), Vec::new());
        thrift::fields(&mut Cursor { rest: bytes }, 0, |field| match field.id {
            2 => field.list(|element| {
                let mut read = SchemaElement::default();
                element.structure(|field| {
                    match field.id {
                        1 => read.kind = Some(field.int()?),
                        3 => read.repetition = field.int()?,
                        4 => read.name = field.binary()?.to_vec(),
                        5 => read.children = field.int()?,
                        _ => field.skip()?,
                    }
                    Ok(())
                })?;
                if schema.len() == SCHEMA_ELEMENTS_MAX {
                    return Err(format!("has more than {SCHEMA_ELEMENTS_MAX} nodes in its schema"));
                }
                schema.push(read);
                Ok(())
            }),
            4 => field.list(|element| {
                if groups.len() == ROW_GROUPS_MAX {
                    return Err(format!("has more than {ROW_GROUPS_MAX} row groups"));
                }
                groups.push(RowGroup::parse(element)?);
                Ok(())
            }),
            _ => field.skip(),
        })?;
        // The columns at the top: behind the root, each with everything below it left out.
        let mut columns = Vec::new();
        let mut below = 0;
        for element in schema.into_iter().skip(1) {
            let children = u64::try_from(element.children).map_err(|e| e.to_string())?;
            if below == 0 {
                below = children;
                columns.push(element);
            } else {
                below = (below - 1).checked_add(children).ok_or("has too many columns")?;
            }
        }
        Ok(Self { columns, groups })
    }

    /// Whether a column may hold nulls.
    fn column(&self, name: &str) -> Read<bool> {
        let mut named = self.columns.iter().filter(|column| column.name == name.as_bytes());
        match (named.next(), named.next()) {
            (Some(column), None) if column.kind == Some(6) && (0..2).contains(&column.repetition) => {
                Ok(column.repetition == 1)
            }
            (Some(_), None) => Err(format!("its column {name} does not hold strings")),
            (Some(_), Some(_)) => Err(format!("its column {name} stands twice")),
            (None, _) => Err(format!("has no column {name}")),
        }
    }
}

impl RowGroup {
    fn parse(element: Field<'_, '_>) -> Read<Self> {
        let mut read = Self::default();
        element.structure(|field| match field.id {
            1 => field.list(|element| {
                let (mut chunk, mut elsewhere) = (None, false);
                element.structure(|field| {
                    match field.id {
                        1 => {
                            field.skip()?;
                            elsewhere = true;
                        }
                        3 => chunk = ChunkMeta::parse(field)?,
                        _ => field.skip()?,
                    }
                    Ok(())
                })?;
                match chunk {
                    Some(_) if elsewhere => return Err("keeps its columns in other files".into()),
                    Some(chunk) if read.chunks.iter().any(|other| other.name == chunk.name) => {
                        return Err("has a column twice in a row group".into());
                    }
                    Some(chunk) => read.chunks.push(chunk),
                    None => {}
                }
                Ok(())
            }),
            3 => {
                read.rows = u64::try_from(field.int()?).map_err(|_| "has a row group of less than no rows")?;
                Ok(())
            }
            _ => field.skip(),
        })?;
        Ok(read)
    }

    fn chunk(&self, name: &str) -> Read<&ChunkMeta> {
        let found = self.chunks.iter().find(|chunk| chunk.name == name.as_bytes());
        found.ok_or_else(|| format!("a row group has no column {name}"))
    }
}

impl ChunkMeta {
    /// `None` for a column that is none of ours.
    fn parse(field: Field<'_, '_>) -> Read<Option<Self>> {
        let (mut read, mut depth) = (Self::default(), 0);
        field.structure(|field| {
            match field.id {
                3 => field.list(|part| {
                    read.name = part.binary()?.to_vec();
                    depth += 1;
                    Ok(())
                })?,
                4 => read.codec = field.int()?,
                5 => read.values = field.int()?,
                7 => read.compressed = field.int()?,
                9 => read.data_offset = field.int()?,
                11 => read.dictionary_offset = Some(field.int()?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        let ours = [&b"bucket"[..], b"key", b"version_id"].contains(&read.name.as_slice());
        Ok((depth == 1 && ours).then_some(read))
    }
}

/// One column of one row group, being read.
struct Chunk<'f> {
    file: &'f File,
    /// Where the next page begins, and where the last one ends.
    next: u64,
    end: u64,
    codec: Codec,
    optional: bool,
    dictionary: Vec<u8>,
    /// Where each entry of the dictionary begins and ends.
    entries: Vec<(u32, u32)>,
    page: Vec<u8>,
    /// Values of the page, nulls among them, that were not handed out yet.
    left: u64,
    present: Hybrid,
    values: Values,
}

#[derive(Clone, Copy)]
enum Codec {
    None,
    Snappy,
    Gzip,
}

/// How the values of a page are read; places are offsets in the page.
enum Values {
    Plain { at: usize },
    Indices(Hybrid),
}

impl<'f> Chunk<'f> {
    fn open(file: &'f File, meta: &ChunkMeta, optional: bool) -> Read<Self> {
        let codec = match meta.codec {
            0 => Codec::None,
            1 => Codec::Snappy,
            2 => Codec::Gzip,
            other => {
                let name = ["LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW"].get(other.wrapping_sub(3) as usize);
                return Err(format!("is compressed with {}, which is not read", name.unwrap_or(&"an unknown codec")));
            }
        };
        // Some writers give 0 where there is no dictionary.
        let dictionary = meta.dictionary_offset.filter(|offset| *offset > 0).unwrap_or(meta.data_offset);
        let offset = |value: i64| u64::try_from(value).map_err(|_| "has a place below zero".to_owned());
        let next = offset(dictionary.min(meta.data_offset))?;
        Ok(Self {
            file,
            next,
            end: next.checked_add(offset(meta.compressed)?).ok_or("has a place beyond all files")?,
            codec,
            optional,
            dictionary: Vec::new(),
            entries: Vec::new(),
            page: Vec::new(),
            left: 0,
            present: Hybrid::none(),
            values: Values::Plain { at: 0 },
        })
    }

    /// Reads pages up to one with values.
    fn turn(&mut self) -> Read<()> {
        let mut empty = 0;
        while self.left == 0 {
            empty += 1;
            if empty > EMPTY_PAGES_MAX {
                return Err("a column has too many pages without values".into());
            }
            let room = self.end.checked_sub(self.next).filter(|room| *room > 0).ok_or("a column has too few values")?;
            let size = self.file.metadata().map_err(|e| e.to_string())?.len();
            let room = room.min(size.saturating_sub(self.next)).min(PAGE_HEADER_BYTES_MAX);
            let start = bytes::at(self.file, self.next, room, PAGE_HEADER_BYTES_MAX, "a page's header")?;
            let mut cursor = Cursor { rest: &start };
            let header = PageHeader::parse(&mut cursor).map_err(|e| format!("a page's header {e}"))?;
            let begin = self.next + (start.len() - cursor.rest.len()) as u64;
            let stored = bytes::at(self.file, begin, header.compressed, PAGE_BYTES_MAX as u64, "a page")?;
            self.next = begin + header.compressed;
            self.take(&header, stored)?;
        }
        Ok(())
    }

    fn take(&mut self, header: &PageHeader, stored: Vec<u8>) -> Read<()> {
        match header.kind {
            2 => {
                if ![0, 2].contains(&header.encoding) {
                    return Err("a dictionary is encoded in an unknown way".into());
                }
                self.dictionary = self.codec.inflate(stored, header.inflated)?;
                self.entries.clear();
                let mut cursor = Cursor { rest: &self.dictionary };
                for _ in 0..header.values {
                    let length = u32::from_le_bytes(four(cursor.take(4)?)?);
                    let from = self.dictionary.len() - cursor.rest.len();
                    cursor.take(u64::from(length))?;
                    // A page is shorter than u32 reaches.
                    self.entries.push((from as u32, from as u32 + length));
                }
                return Ok(());
            }
            0 => {
                self.page = self.codec.inflate(stored, header.inflated)?;
                let mut at = 0;
                if self.optional {
                    let length = u32::from_le_bytes(four(self.page.get(..4).ok_or("a page breaks off")?)?) as usize;
                    at = 4 + length;
                    self.present = Hybrid::new(1, 4, at, &self.page)?;
                }
                self.values(header, at)?;
            }
            3 => {
                let levels = usize::try_from(header.repetition_bytes + header.definition_bytes);
                let levels = levels.map_err(|e| e.to_string())?;
                let rest = stored.get(levels..).ok_or("a page breaks off")?.to_vec();
                let inflated = header.inflated.checked_sub(levels as u64).ok_or("a page breaks off")?;
                let codec = if header.is_compressed { self.codec } else { Codec::None };
                let rest = codec.inflate(rest, inflated)?;
                self.page = stored[..levels].to_vec();
                self.page.extend_from_slice(&rest);
                if self.optional {
                    self.present = Hybrid::new(1, header.repetition_bytes as usize, levels, &self.page)?;
                }
                self.values(header, levels)?;
            }
            // An index, or what is not invented yet: nothing that holds values.
            _ => return Ok(()),
        }
        self.left = header.values;
        Ok(())
    }

    fn values(&mut self, header: &PageHeader, at: usize) -> Read<()> {
        self.values = match header.encoding {
            0 => Values::Plain { at },
            2 | 8 => match self.page.get(at) {
                Some(width) => Values::Indices(Hybrid::new(*width, at + 1, self.page.len(), &self.page)?),
                // Nothing but nulls.
                None => Values::Indices(Hybrid::none()),
            },
            5..=7 => return Err("a page is encoded by differences, which is not read".into()),
            _ => return Err("a page is encoded in an unknown way".into()),
        };
        Ok(())
    }
}

fn four(bytes: &[u8]) -> Read<[u8; 4]> {
    bytes.try_into().map_err(|_| "breaks off".into())
}

impl crate::Column for Chunk<'_> {
    fn next(&mut self, into: &mut Vec<u8>) -> Read<bool> {
        into.clear();
        self.turn()?;
        self.left -= 1;
        if self.optional && self.present.next(&self.page)? == 0 {
            return Ok(false);
        }
        let value = match &mut self.values {
            Values::Plain { at } => {
                let mut cursor = Cursor { rest: self.page.get(*at..).unwrap_or_default() };
                let length = u32::from_le_bytes(four(cursor.take(4)?)?);
                let value = cursor.take(u64::from(length))?;
                *at += 4 + value.len();
                value
            }
            Values::Indices(indices) => {
                let index = indices.next(&self.page)?;
                let (from, to) = *self.entries.get(index as usize).ok_or("a page names what no dictionary has")?;
                &self.dictionary[from as usize..to as usize]
            }
        };
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("has a value longer than {VALUE_BYTES_MAX} bytes"));
        }
        into.extend_from_slice(value);
        Ok(true)
    }
}

impl Codec {
    fn inflate(self, stored: Vec<u8>, inflated: u64) -> Read<Vec<u8>> {
        let max = usize::try_from(inflated).unwrap_or(usize::MAX);
        if max > PAGE_BYTES_MAX {
            return Err(format!("a page is longer than {PAGE_BYTES_MAX} bytes"));
        }
        let mut into = Vec::new();
        match self {
            Codec::None => return Ok(stored),
            Codec::Snappy if inflated == 0 => {}
            Codec::Snappy => bytes::unsnap(&stored, max, &mut into).map_err(|e| format!("a page {e}"))?,
            Codec::Gzip => {
                let decoder = flate2::read::MultiGzDecoder::new(stored.as_slice());
                bytes::inflate(decoder, max, &mut into).map_err(|e| format!("a page {e}"))?;
            }
        }
        Ok(into)
    }
}

/// What is read of a page's header, of whichever kind it is.
struct PageHeader {
    /// 0 data, 2 dictionary, 3 data of the second version.
    kind: i64,
    inflated: u64,
    compressed: u64,
    values: u64,
    encoding: i64,
    definition_bytes: u64,
    repetition_bytes: u64,
    is_compressed: bool,
}

impl PageHeader {
    fn parse(cursor: &mut Cursor<'_>) -> Read<Self> {
        let mut read = Self {
            kind: -1,
            inflated: 0,
            compressed: 0,
            values: 0,
            encoding: -1,
            definition_bytes: 0,
            repetition_bytes: 0,
            is_compressed: true,
        };
        let length =
            |field: Field<'_, '_>| u64::try_from(field.int()?).map_err(|_| "has a length below zero".to_owned());
        thrift::fields(cursor, 0, |field| {
            match field.id {
                1 => read.kind = field.int()?,
                2 => read.inflated = length(field)?,
                3 => read.compressed = length(field)?,
                5 | 7 => field.structure(|field| {
                    match field.id {
                        1 => read.values = length(field)?,
                        2 => read.encoding = field.int()?,
                        _ => field.skip()?,
                    }
                    Ok(())
                })?,
                8 => field.structure(|field| {
                    match field.id {
                        1 => read.values = length(field)?,
                        4 => read.encoding = field.int()?,
                        5 => read.definition_bytes = length(field)?,
                        6 => read.repetition_bytes = length(field)?,
                        7 => read.is_compressed = field.bool()?,
                        _ => field.skip()?,
                    }
                    Ok(())
                })?,
                _ => field.skip()?,
            }
            Ok(())
        })?;
        if read.definition_bytes.max(read.repetition_bytes) > PAGE_BYTES_MAX as u64 {
            return Err("has levels longer than any page".into());
        }
        Ok(read)
    }
}

/// Runs and packed groups of small integers, in a part of a page.
struct Hybrid {
    /// Bits of one.
    width: u8,
    at: usize,
    end: usize,
    run: Run,
}

enum Run {
    Same {
        value: u32,
        left: u64,
    },
    /// Packed from a bit of the page on, the low bits of each byte first.
    Packed {
        bit: usize,
        left: u64,
    },
}

impl Hybrid {
    fn none() -> Self {
        Self { width: 0, at: 0, end: 0, run: Run::Same { value: 0, left: 0 } }
    }

    fn new(width: u8, at: usize, end: usize, page: &[u8]) -> Read<Self> {
        if width > 32 || at > end || end > page.len() {
            return Err("a page breaks off".into());
        }
        Ok(Self { width, at, end, run: Run::Same { value: 0, left: 0 } })
    }

    fn next(&mut self, page: &[u8]) -> Read<u32> {
        loop {
            match &mut self.run {
                Run::Same { value, left } if *left > 0 => {
                    *left -= 1;
                    return Ok(*value);
                }
                Run::Packed { bit, left } if *left > 0 => {
                    let mut value = 0;
                    for offset in 0..usize::from(self.width) {
                        let place = *bit + offset;
                        // The last group may be cut where its values end.
                        let byte = page[..self.end].get(place / 8).ok_or("a page breaks off")?;
                        value |= u32::from(byte >> (place % 8) & 1) << offset;
                    }
                    *bit += usize::from(self.width);
                    *left -= 1;
                    return Ok(value);
                }
                _ => {}
            }
            let mut cursor = Cursor { rest: &page[self.at.min(self.end)..self.end] };
            let header = cursor.varint().map_err(|e| format!("a page {e}"))?;
            if header & 1 == 0 {
                let mut value = [0; 4];
                let bytes = usize::from(self.width.div_ceil(8));
                value[..bytes].copy_from_slice(cursor.take(bytes as u64)?);
                self.run = Run::Same { value: u32::from_le_bytes(value), left: header >> 1 };
                self.at = self.end - cursor.rest.len();
            } else {
                let groups = header >> 1;
                let from = self.end - cursor.rest.len();
                let length = groups.checked_mul(u64::from(self.width)).ok_or("a page breaks off")?;
                self.run = Run::Packed { bit: from * 8, left: groups.saturating_mul(8) };
                self.at = from.saturating_add(usize::try_from(length).map_err(|e| e.to_string())?);
            }
        }
    }
}
