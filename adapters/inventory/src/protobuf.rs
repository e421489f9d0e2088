//! As much of Protocol Buffers' wire format as ORC's metadata needs. Source: protobuf.dev, "Encoding".

use crate::Read;
use crate::bytes::Cursor;

/// What stands behind a field's number.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub fn int(self) -> Read<u64> {
        match self {
            Value::Int(value) => Ok(value),
            Value::Bytes(_) => Err("has a field of another type than an integer".into()),
        }
    }

    pub fn bytes(self) -> Read<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Int(_) => Err("has a field of another type than a message".into()),
        }
    }
}

/// Calls `each` with the number and value of every field of a message, in their order.
pub fn fields<'a>(message: &'a [u8], mut each: impl FnMut(u64, Value<'a>) -> Read<()>) -> Read<()> {
    let mut cursor = Cursor { rest: message };
    while !cursor.rest.is_empty() {
        let tag = cursor.varint()?;
        let value = match tag & 7 {
            0 => Value::Int(cursor.varint()?),
            // Of fixed width: floating-point numbers of statistics, which nobody here reads.
            1 => Value::Bytes(cursor.take(8)?),
            5 => Value::Bytes(cursor.take(4)?),
            2 => {
                let length = cursor.varint()?;
                Value::Bytes(cursor.take(length)?)
            }
            _ => return Err("has a field of an unknown type".into()),
        };
        each(tag >> 3, value)?;
    }
    Ok(())
}
