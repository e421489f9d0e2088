//! The frames of a segment file, sans I/O: how results lie on disk, and how a torn tail is told from damage.
//!
//! A file starts with [`HEADER`]; frames follow: [`MARK`], length of the payload (u32, little-endian), CRC32C over
//! length and payload (u32), payload. **One append is one frame, and it is synced before the next one starts.** So a
//! crash can tear the last frame and no other: a frame that fails its checksum with nothing whole behind it is a torn
//! tail and is cut off at open; one with a whole frame anywhere behind it is damage.
//!
//! What a function answers lies in payloads, and must not pass for a frame in a tail that was torn. So **the mark stands
//! nowhere in a frame but at its start**: a payload that has it is veiled, each byte XORed with a number of [`VEILS`], which
//! stands in the highest byte of the length. With such a number the mark becomes four bytes that no UTF-8 has.

use std::borrow::Cow;

/// Eight bytes at the start of every segment: name and format version.
pub const HEADER: &[u8; 8] = b"LSRESv1\n";
/// Starts every frame, so that a damaged length does not hide the frames behind it.
pub const MARK: &[u8; 4] = b"\xA7LSF";
/// Bytes of a frame before its payload.
pub const FRAME_HEAD: usize = 12;
/// What payloads are veiled with. The mark's first byte becomes the first of a character, its second none that goes on with it.
const VEILS: std::ops::RangeInclusive<u8> = 0x40..=0x7F;
/// The longest payload. A batch of results is cut long before; this guards against a length read out of garbage.
pub const PAYLOAD_MAX: usize = (1 << LENGTH_BITS) - 1;
/// Bits of the length; above them is the veil.
const LENGTH_BITS: u32 = 24;

/// What stands before a payload that can be written as it is, which nearly all can; none if it has to be veiled, as
/// [`push_frame`] does. `payload` must not be empty nor longer than [`PAYLOAD_MAX`].
pub fn plain_head(payload: &[u8]) -> Option<[u8; FRAME_HEAD]> {
    debug_assert!(!payload.is_empty() && payload.len() <= PAYLOAD_MAX);
    let length = u32::try_from(payload.len()).expect("a payload is at most 16 MiB").to_le_bytes();
    let mut head = [0; FRAME_HEAD];
    head[..4].copy_from_slice(MARK);
    head[4..8].copy_from_slice(&length);
    head[8..].copy_from_slice(&checksum(&length, payload).to_le_bytes());
    // The mark, whose bytes differ from one another, may begin in the head and end in the payload.
    let edge = [&head[1..], &payload[..payload.len().min(MARK.len() - 1)]].concat();
    let is_there = |bytes: &[u8]| memchr::memmem::find(bytes, MARK).is_some();
    (!is_there(&edge) && !is_there(payload)).then_some(head)
}

/// Appends one frame to `out`. `payload` must not be empty nor longer than [`PAYLOAD_MAX`].
pub fn push_frame(out: &mut Vec<u8>, payload: &[u8]) {
    let start = out.len();
    push_veiled(out, payload, 0);
    for veil in VEILS {
        if memchr::memmem::find(&out[start + 1..], MARK).is_none() {
            return;
        }
        // Chance alone, in what is no text, needs a second number.
        out.truncate(start);
        push_veiled(out, payload, veil);
    }
}

fn push_veiled(out: &mut Vec<u8>, payload: &[u8], veil: u8) {
    debug_assert!(!payload.is_empty() && payload.len() <= PAYLOAD_MAX);
    let length = u32::try_from(payload.len()).expect("a payload is at most 16 MiB") | u32::from(veil) << LENGTH_BITS;
    let start = out.len();
    out.extend_from_slice(MARK);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    if veil != 0 {
        out[start + FRAME_HEAD..].iter_mut().for_each(|byte| *byte ^= veil);
    }
    let checksum = checksum(&length.to_le_bytes(), &out[start + FRAME_HEAD..]).to_le_bytes();
    out[start + 8..start + FRAME_HEAD].copy_from_slice(&checksum);
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), payload)
}

/// The checksum that a whole frame carries; none if there are not even the bytes for it.
pub fn checksum_of(frame: &[u8]) -> Option<u32> {
    frame.get(8..FRAME_HEAD)?.try_into().ok().map(u32::from_le_bytes)
}

/// How long a frame is as its head says, which is believed only with [`step`]; none if there are not even the bytes for it.
pub fn length_of(frame: &[u8]) -> Option<usize> {
    let [l0, l1, l2, _veil] = *frame.get(4..8)?.first_chunk()?;
    Some(FRAME_HEAD + u32::from_le_bytes([l0, l1, l2, 0]) as usize)
}

/// One step through the frames of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A whole frame's payload, and how many bytes the frame took with its head.
    Frame(Cow<'a, [u8]>, usize),
    /// The buffer ends inside a frame: read more, or, at the end of the file, a torn tail.
    Short,
    /// The bytes are there and wrong.
    Bad,
}

/// Reads the frame at the start of `bytes`.
pub fn step(bytes: &[u8]) -> Step<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEAD>() else { return Step::Short };
    let [_, _, _, _, l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let (length, veil) = (u32::from_le_bytes([l0, l1, l2, 0]) as usize, l3);
    if &head[..4] != MARK || length == 0 || (veil != 0 && !VEILS.contains(&veil)) {
        return Step::Bad;
    }
    match rest.get(..length) {
        None => Step::Short,
        Some(payload) if checksum(&head[4..8], payload) == u32::from_le_bytes([c0, c1, c2, c3]) => {
            let payload = match veil {
                0 => Cow::Borrowed(payload),
                veil => payload.iter().map(|byte| byte ^ veil).collect(),
            };
            Step::Frame(payload, FRAME_HEAD + length)
        }
        Some(_) => Step::Bad,
    }
}

/// What a file's content amounts to after a crash.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes from the start of the file that are whole; everything behind is a torn tail.
    pub valid_len: usize,
    /// Whole frames.
    pub frames: usize,
}

/// Walks a whole segment and hands each payload to `each`. `Err(offset)`: damage at that offset, which no crash
/// explains, since a whole frame stands behind it.
pub fn recover(bytes: &[u8], each: impl FnMut(&[u8])) -> Result<Recovered, usize> {
    let Some((HEADER, frames)) = bytes.split_first_chunk::<8>() else {
        return if any_frame_in(bytes) { Err(0) } else { Ok(Recovered { valid_len: 0, frames: 0 }) };
    };
    match recover_behind(frames, each) {
        Ok(recovered) => Ok(Recovered { valid_len: HEADER.len() + recovered.valid_len, ..recovered }),
        Err(at) => Err(HEADER.len() + at),
    }
}

/// As [`recover`], for what stands behind some whole frames: without the header, and counted from there.
pub fn recover_behind(bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<Recovered, usize> {
    let (mut at, mut frames) = (0, 0);
    while let Step::Frame(payload, taken) = step(&bytes[at..]) {
        each(&payload);
        at += taken;
        frames += 1;
    }
    // The first byte is left out: the frame that failed there is not to be found again.
    if at < bytes.len() && any_frame_in(&bytes[at + 1..]) { Err(at) } else { Ok(Recovered { valid_len: at, frames }) }
}

/// Whether a whole frame starts anywhere in `bytes`.
pub fn any_frame_in(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, MARK).any(|at| matches!(step(&bytes[at..]), Step::Frame(..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload in whose text frames stand, as a function may have it.
    fn hostile(before: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        push_veiled(&mut frame, b"forged", 0);
        let mut payload = format!("{before}\u{a7}LSF and \u{a7}LSF").into_bytes();
        payload.extend_from_slice(&frame);
        // Each form that a byte XORed with it could give the mark.
        (0..=255_u8).for_each(|veil| payload.extend(MARK.iter().map(|byte| byte ^ veil)));
        payload
    }

    #[test]
    fn nothing_in_a_payload_passes_for_a_frame_wherever_it_is_torn() {
        let texts = ["", "a", "some text before it"].map(|before| {
            let frame = &mut Vec::new();
            push_veiled(frame, b"forged", 0);
            let head: Vec<u8> = frame.clone();
            [before.as_bytes(), "\u{a7}LSF\u{e7}".as_bytes(), &head].concat()
        });
        for payload in texts {
            let whole = file(&[b"one"]);
            let bytes = file(&[b"one", &payload]);
            assert_eq!(read(&bytes).unwrap().1[1], payload, "it reads as it was written");
            assert_eq!(memchr::memmem::find_iter(&bytes, MARK).count(), 2, "one mark a frame");
            for cut in whole.len()..bytes.len() {
                assert_eq!(read(&bytes[..cut]).unwrap().0.valid_len, whole.len(), "cut at {cut}");
            }
        }
        // A form for each number is no text, and chance has no aim: it reads all the same.
        let payload = hostile("x");
        assert_eq!(read(&file(&[&payload])).unwrap().1, [payload]);
    }

    #[test]
    fn a_payload_without_the_mark_is_written_as_it_is_behind_its_head() {
        let mark_of_two = [&MARK[2..], b"and more"].concat();
        for payload in [&b"a"[..], b"\xA7", b"LSF", b"some text", &mark_of_two, &[0xA7; 400]] {
            let mut frame = Vec::new();
            push_frame(&mut frame, payload);
            let head = plain_head(payload).expect("the mark is not in it");
            assert_eq!([&head[..], payload].concat(), frame);
        }
        for payload in [&MARK[..], "text with \u{a7}LSF in it".as_bytes(), &hostile("x")] {
            assert_eq!(plain_head(payload), None);
        }
        // One whose checksum ends as the mark begins, and which goes on with it.
        let crossing = (0..u32::MAX)
            .map(|n| [&MARK[1..], &n.to_le_bytes()].concat())
            .find(|payload| checksum(&(payload.len() as u32).to_le_bytes(), payload).to_le_bytes()[3] == MARK[0]);
        assert_eq!(plain_head(&crossing.expect("one in 256 has it")), None);
    }

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        payloads.iter().for_each(|p| push_frame(&mut bytes, p));
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Recovered, Vec<Vec<u8>>), usize> {
        let mut payloads = Vec::new();
        recover(bytes, |p| payloads.push(p.to_vec())).map(|r| (r, payloads))
    }

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = file(&[b"one", b"two", b"three"]);
        let (recovered, payloads) = read(&bytes).unwrap();
        assert_eq!(payloads, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(recovered, Recovered { valid_len: bytes.len(), frames: 3 });
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_and_the_rest_kept() {
        let whole = file(&[b"one", b"two"]);
        let bytes = file(&[b"one", b"two", b"the last append"]);
        for cut in whole.len()..bytes.len() {
            let (recovered, payloads) = read(&bytes[..cut]).unwrap();
            assert_eq!((recovered.valid_len, payloads.len()), (whole.len(), 2), "cut at {cut}");
        }
        for at in whole.len()..bytes.len() {
            let mut torn = bytes.clone();
            torn[at..].fill(0);
            if torn != bytes {
                assert_eq!(read(&torn).unwrap().0.valid_len, whole.len(), "zeroed from {at}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_before_the_last_frame_is_damage_wherever_it_is() {
        let bytes = file(&[b"one", b"two", b"three"]);
        let last = file(&[b"one", b"two"]).len();
        for at in 0..last {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_file_cut_before_its_header_was_whole_holds_nothing() {
        assert_eq!(read(b"").unwrap().0.valid_len, 0);
        assert_eq!(read(b"LSRE").unwrap().0.valid_len, 0);
        assert_eq!(read(&[0; 4096]).unwrap().0.valid_len, 0);
    }
}
