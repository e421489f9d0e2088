//! As much of Thrift's compact protocol as Parquet's metadata needs.
//! Source: apache/thrift, `doc/specs/thrift-compact-protocol.md`.

use crate::Read;
use crate::bytes::{Cursor, zigzag};

/// Structs in structs, at most: Parquet has some six, and a file may not use up our stack.
const DEPTH_MAX: usize = 16;

/// A value whose header has been read.
pub struct Field<'c, 'a> {
    pub id: i16,
    kind: u8,
    cursor: &'c mut Cursor<'a>,
    depth: usize,
}

/// Calls `each` with every field of the struct at the cursor; a field that is not read has to be skipped.
pub fn fields<'a>(cursor: &mut Cursor<'a>, depth: usize, mut each: impl FnMut(Field<'_, 'a>) -> Read<()>) -> Read<()> {
    if depth > DEPTH_MAX {
        return Err("nests too deep".into());
    }
    let mut id: i16 = 0;
    loop {
        let header = cursor.byte()?;
        let kind = header & 15;
        if kind == 0 {
            return Ok(());
        }
        id = match header >> 4 {
            0 => i16::try_from(zigzag(cursor.varint()?)).map_err(|e| e.to_string())?,
            delta => id.checked_add(i16::from(delta)).ok_or("has too many fields")?,
        };
        each(Field { id, kind, cursor, depth })?;
    }
}

impl<'a> Field<'_, 'a> {
    pub fn int(self) -> Read<i64> {
        match self.kind {
            3 => Ok(i64::from(self.cursor.byte()? as i8)),
            4..=6 => Ok(zigzag(self.cursor.varint()?)),
            _ => Err("has a field of another type than an integer".into()),
        }
    }

    pub fn bool(self) -> Read<bool> {
        match self.kind {
            1 => Ok(true),
            2 => Ok(false),
            _ => Err("has a field of another type than a boolean".into()),
        }
    }

    pub fn binary(self) -> Read<&'a [u8]> {
        if self.kind != 8 {
            return Err("has a field of another type than a string".into());
        }
        let length = self.cursor.varint()?;
        self.cursor.take(length)
    }

    pub fn structure(self, each: impl FnMut(Field<'_, 'a>) -> Read<()>) -> Read<()> {
        if self.kind != 12 {
            return Err("has a field of another type than a struct".into());
        }
        fields(self.cursor, self.depth + 1, each)
    }

    /// Calls `each` with every element of a list.
    pub fn list(self, mut each: impl FnMut(Field<'_, 'a>) -> Read<()>) -> Read<()> {
        if self.kind != 9 {
            return Err("has a field of another type than a list".into());
        }
        let (count, kind) = list_header(self.cursor)?;
        for _ in 0..count {
            each(Field { id: 0, kind, cursor: self.cursor, depth: self.depth + 1 })?;
        }
        Ok(())
    }

    pub fn skip(self) -> Read<()> {
        skip(self.cursor, self.kind, self.depth)
    }
}

fn list_header(cursor: &mut Cursor<'_>) -> Read<(u64, u8)> {
    let header = cursor.byte()?;
    let count = match header >> 4 {
        15 => cursor.varint()?,
        count => u64::from(count),
    };
    Ok((count, header & 15))
}

/// Skips a value. Each element of a list takes a byte at least, so that the bytes bound the work.
fn skip(cursor: &mut Cursor<'_>, kind: u8, depth: usize) -> Read<()> {
    if depth > DEPTH_MAX {
        return Err("nests too deep".into());
    }
    let element = |cursor: &mut Cursor<'_>, kind: u8| match kind {
        1 | 2 => cursor.byte().map(drop),
        kind => skip(cursor, kind, depth + 1),
    };
    match kind {
        1 | 2 => Ok(()),
        3 => cursor.byte().map(drop),
        4..=6 => cursor.varint().map(drop),
        7 => cursor.take(8).map(drop),
        8 => {
            let length = cursor.varint()?;
            cursor.take(length).map(drop)
        }
        9 | 10 => {
            let (count, kind) = list_header(cursor)?;
            (0..count).try_for_each(|_| element(cursor, kind))
        }
        11 => {
            let count = cursor.varint()?;
            if count > 0 {
                let kinds = cursor.byte()?;
                for _ in 0..count {
                    element(cursor, kinds >> 4)?;
                    element(cursor, kinds & 15)?;
                }
            }
            Ok(())
        }
        12 => fields(cursor, depth + 1, |field| field.skip()),
        13 => cursor.take(16).map(drop),
        _ => Err("has a field of an unknown type".into()),
    }
}
