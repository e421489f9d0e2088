//! Bytes with a place to read from, and the two integers that both formats use.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt;

use crate::Read;

/// Reads `length` bytes of the file at `offset`; `max` is the limit for what is read.
pub fn at(file: &File, offset: u64, length: u64, max: u64, what: &str) -> Read<Vec<u8>> {
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    if length > max {
        return Err(format!("{what} is longer than {max} bytes"));
    }
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("{what} lies outside the file"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|e| e.to_string())?];
    file.read_exact_at(&mut bytes, offset).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Reads all of a decoder, at most `max` bytes.
pub fn inflate(decoder: impl std::io::Read, max: usize, into: &mut Vec<u8>) -> Read<()> {
    into.clear();
    decoder.take(max as u64 + 1).read_to_end(into).map_err(|e| format!("cannot be inflated: {e}"))?;
    if into.len() > max { Err(format!("inflates to more than {max} bytes")) } else { Ok(()) }
}

/// Inflates raw Snappy, at most to `max` bytes.
pub fn unsnap(bytes: &[u8], max: usize, into: &mut Vec<u8>) -> Read<()> {
    let length = snap::raw::decompress_len(bytes).map_err(|e| e.to_string())?;
    if length > max {
        return Err(format!("inflates to more than {max} bytes"));
    }
    into.clear();
    into.resize(length, 0);
    snap::raw::Decoder::new().decompress(bytes, into).map_err(|e| e.to_string())?;
    Ok(())
}

/// A slice that is read from its start to its end.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    pub rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn byte(&mut self) -> Read<u8> {
        let (first, rest) = self.rest.split_first().ok_or("breaks off")?;
        self.rest = rest;
        Ok(*first)
    }

    pub fn take(&mut self, length: u64) -> Read<&'a [u8]> {
        let length = usize::try_from(length).map_err(|e| e.to_string())?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("breaks off")?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned integer of 7 bits a byte, the low ones first.
    pub fn varint(&mut self) -> Read<u64> {
        varint(|| self.byte())
    }
}

/// Reads an unsigned integer of 7 bits a byte, the low ones first.
pub fn varint(mut byte: impl FnMut() -> Read<u8>) -> Read<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte()?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("has an integer of more than 64 bits".into())
}

/// A signed integer from its zigzag form.
pub fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
