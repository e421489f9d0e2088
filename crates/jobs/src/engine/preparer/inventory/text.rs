//! The text of one CSV data file, out of its bytes as they are stored: whole lines, a window at a time.

use flate2::{Decompress, FlushDecompress, Status};
use longshore_core::manifest::LINE_BYTES_MAX;

/// Text in memory at once: room for the longest line and nearly as much again. What is written of it takes about as much,
/// and stays below the 128 KiB from which on allocators take fresh pages for each buffer.
const WINDOW_BYTES: usize = 120 << 10;
/// The largest window that gzip knows, for any file.
const GZIP_WINDOW_BITS: u8 = 15;
/// The two bytes with which every member of a gzip file begins. 0x8B starts no character of UTF-8.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why there is no more text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoText {
    /// No gzip, or one that ends within itself, in words.
    NotInflated(String),
    /// A line longer than any row may be.
    LongLine,
}

/// Inflates what is packed, as it comes.
pub(super) struct Text {
    gzip: Option<Gzip>,
    window: Vec<u8>,
    /// Of the window. Between two calls it holds the line that has begun, at most [`LINE_BYTES_MAX`] bytes.
    filled: usize,
    bytes: u64,
}

struct Gzip {
    inflate: Decompress,
    /// Whether a member has begun and not ended. Behind it there may be another.
    within: bool,
}

impl Text {
    /// `start` is the file's first two bytes or more, unless it has no more: they tell whether it is packed (rule INV-3).
    pub fn new(start: &[u8]) -> Self {
        let gzip = || Gzip { inflate: Decompress::new_gzip(GZIP_WINDOW_BITS), within: false };
        let gzip = start.starts_with(&GZIP_MAGIC).then(gzip);
        Self { gzip, window: vec![0; WINDOW_BYTES], filled: 0, bytes: 0 }
    }

    /// Bytes of text so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether [`Text::lines`] has to be called before more is taken, for else there may be no room. What is handed out
    /// sooner costs whoever takes it as much as a whole window.
    pub fn is_half_full(&self) -> bool {
        self.filled >= self.window.len() / 2
    }

    /// Takes of `stored` what there is room for. Whether there is more text to be had without other bytes than these.
    pub fn take(&mut self, stored: &mut &[u8]) -> Result<bool, NoText> {
        let begun = self.filled;
        let more = match &mut self.gzip {
            None => {
                let (taken, rest) = stored.split_at(stored.len().min(self.window.len() - self.filled));
                self.window[self.filled..][..taken.len()].copy_from_slice(taken);
                self.filled += taken.len();
                *stored = rest;
                !rest.is_empty()
            }
            Some(gzip) => {
                self.filled += gzip.inflate(stored, &mut self.window[self.filled..])?;
                !stored.is_empty() || (gzip.within && self.filled == self.window.len())
            }
        };
        self.bytes += (self.filled - begun) as u64;
        Ok(more)
    }

    /// Hands out the whole lines that there are, if there are any, each ended by LF; they are taken out.
    pub fn lines<T, E: From<NoText>>(&mut self, each: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<Option<T>, E> {
        let Some(last) = memchr::memrchr(b'\n', &self.window[..self.filled]) else {
            return if self.filled > LINE_BYTES_MAX { Err(NoText::LongLine.into()) } else { Ok(None) };
        };
        let handed = each(&self.window[..=last])?;
        self.window.copy_within(last + 1..self.filled, 0);
        self.filled -= last + 1;
        Ok(Some(handed))
    }

    /// Hands out the last line, behind all whole ones, with the break that it lacks; nothing if there is none that lacks one.
    pub fn end<T, E: From<NoText>>(mut self, each: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<Option<T>, E> {
        if self.gzip.is_some_and(|gzip| gzip.within) {
            return Err(NoText::NotInflated("it ends before its end".into()).into());
        }
        if self.filled == 0 {
            return Ok(None);
        }
        self.window[self.filled] = b'\n';
        each(&self.window[..=self.filled]).map(Some)
    }
}

impl Gzip {
    /// Takes bytes off `stored` and fills `into` from its start; returns how far.
    fn inflate(&mut self, stored: &mut &[u8], into: &mut [u8]) -> Result<usize, NoText> {
        if !self.within {
            if stored.is_empty() {
                return Ok(0);
            }
            // Counts anew from here, with the header of the member first.
            self.inflate.reset(true);
            self.within = true;
        }
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(stored, into, FlushDecompress::None);
        let status = status.map_err(|error| NoText::NotInflated(error.to_string()))?;
        let taken = (self.inflate.total_in() - in_before) as usize;
        let given = (self.inflate.total_out() - out_before) as usize;
        match status {
            Status::StreamEnd => self.within = false,
            // With both bytes and room it goes on, or says why not.
            Status::BufError if taken == 0 && given == 0 && !stored.is_empty() => {
                return Err(NoText::NotInflated("it goes on nowhere".into()));
            }
            Status::Ok | Status::BufError => {}
        }
        *stored = &stored[taken..];
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    /// All that comes out, and the most that did so at once.
    fn read(stored: &[u8], cut: usize) -> Result<(Vec<u8>, usize), NoText> {
        let mut text = Text::new(stored);
        let (mut all, mut most) = (Vec::new(), 0);
        for piece in stored.chunks(cut) {
            let mut piece = piece;
            loop {
                let more = text.take(&mut piece)?;
                let lines = text.lines(|lines| Ok::<_, NoText>(lines.to_vec()))?.unwrap_or_default();
                assert!(lines.is_empty() || lines.ends_with(b"\n"));
                all.extend_from_slice(&lines);
                most = most.max(lines.len());
                if !more {
                    break;
                }
            }
            assert!(piece.is_empty());
        }
        let whole = text.bytes();
        let last = text.end(|line| Ok::<_, NoText>(line.to_vec()))?.unwrap_or_default();
        assert!(last.is_empty() || last.ends_with(b"\n") && all.len() as u64 + last.len() as u64 == whole + 1);
        all.extend(last);
        Ok((all, most))
    }

    fn keys(lines: u64) -> Vec<u8> {
        (0..lines)
            .flat_map(|n| format!("\"b\",\"{:x}\"\n", (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).into_bytes())
            .collect()
    }

    #[test]
    fn text_is_the_same_however_it_is_packed_and_cut() {
        let text = keys(20_000);
        assert!(text.len() > 3 * WINDOW_BYTES);
        let third = text.len() / 3;
        // Members end anywhere, also within a line; one is empty.
        let members = [gzip(&text[..third]), gzip(b""), gzip(&text[third..])].concat();
        for stored in [text.clone(), gzip(&text), members] {
            for cut in [1, 7, 1_000, 65_536, stored.len()] {
                let (found, most) = read(&stored, cut).unwrap();
                assert!(found == text && most <= WINDOW_BYTES, "cut every {cut}");
            }
        }
        for (short, wanted) in [("", ""), ("a", "a\n"), ("a\n", "a\n"), ("\n", "\n"), ("a\nb", "a\nb\n")] {
            for stored in [short.as_bytes().to_vec(), gzip(short.as_bytes())] {
                assert_eq!(read(&stored, 1).unwrap().0, wanted.as_bytes());
            }
        }
    }

    #[test]
    fn the_longest_line_is_a_line_and_a_longer_one_is_none_wherever_it_begins() {
        let line = |bytes: usize| [vec![b'k'; bytes], b"\n".to_vec()].concat();
        for before in [0, 1, WINDOW_BYTES - 10, WINDOW_BYTES] {
            let begin = |last: Vec<u8>| [keys(9_000)[..before].to_vec(), b"\n".to_vec(), last].concat();
            let fits = begin(line(LINE_BYTES_MAX));
            let endless = begin(vec![b'k'; 3 * WINDOW_BYTES]);
            for cut in [1_000, 70_000, usize::MAX] {
                for pack in [gzip, <[u8]>::to_vec] {
                    assert_eq!(read(&pack(&fits), cut).unwrap().0, fits);
                    assert_eq!(read(&pack(&endless), cut), Err(NoText::LongLine));
                }
            }
        }
    }

    #[test]
    fn what_is_no_gzip_or_half_of_one_or_has_something_behind_it_is_refused_in_words() {
        let whole = gzip(&keys(5_000));
        let mut flipped = whole.clone();
        let end = flipped.len() - 6;
        flipped[end] ^= 1;
        let (half, all_but_one) = (whole[..whole.len() / 2].to_vec(), whole[..whole.len() - 1].to_vec());
        for (what, stored) in [
            ("half", half),
            ("all but a byte", all_but_one),
            ("another checksum", flipped),
            ("a header alone", whole[..2].to_vec()),
            ("no gzip", b"\x1f\x8b is no gzip".to_vec()),
            ("something behind it", [whole.clone(), b"and more".to_vec()].concat()),
            ("half of a second member", [whole.clone(), whole[..9].to_vec()].concat()),
        ] {
            for cut in [1, 100, stored.len()] {
                let told = read(&stored, cut);
                assert!(matches!(told, Err(NoText::NotInflated(_))), "{what}, cut every {cut}: {:?}", told.err());
            }
        }
    }
}
