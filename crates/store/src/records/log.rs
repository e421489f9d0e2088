//! SQLite's write-ahead log as bytes: which transactions in it are whole, and which pages they have.
//!
//! It is read before SQLite opens it, because SQLite takes the first frame that fails its checksum for the end of the log,
//! and says nothing. Source: "The WAL File Format", <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the file's head, and of each frame's.
pub(super) const HEAD: usize = 32;
pub(super) const FRAME_HEAD: usize = 24;
/// Of the page sizes that SQLite knows, the greatest: what a head may ask us to hold.
const PAGE_MAX: usize = 65_536;

/// What tells one filling of the log from the next: frames with other salts are left from an earlier one.
pub(super) type Salts = [u8; 8];

/// The whole transactions of a log.
#[derive(Debug, PartialEq)]
pub(super) struct Log {
    pub salts: Salts,
    /// The page of each frame, in their order, up to the end of the last whole transaction.
    pub pages: Vec<u32>,
    /// Pages of the database after the last of them; 0 where there is none.
    pub database_pages: u32,
    /// Where the first frame begins that is not part of a whole transaction, in bytes.
    pub end: u64,
}

/// Reads a log. `None`: there is none, it is empty, or its head does not read, so that SQLite passes over it.
pub(super) fn read(path: &Path) -> io::Result<Option<Log>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut file = BufReader::with_capacity(1 << 17, file);
    let mut head = [0; HEAD];
    if !fill(&mut file, &mut head)? {
        return Ok(None);
    }
    let big_endian = match word(&head, 0) {
        0x377f_0683 => true,
        0x377f_0682 => false,
        _ => return Ok(None),
    };
    let page_size = word(&head, 8) as usize;
    let mut sum = Sum { big_endian, words: (0, 0) };
    sum.add(&head[..24]);
    let is_size = page_size.is_power_of_two() && (512..=PAGE_MAX).contains(&page_size);
    if !is_size || !sum.is(&head[24..]) {
        return Ok(None);
    }
    let salts = salts(&head);
    let (mut frame, mut pages) = (vec![0; FRAME_HEAD + page_size], Vec::new());
    let mut log = Log { salts, pages: Vec::new(), database_pages: 0, end: HEAD as u64 };
    while fill(&mut file, &mut frame)? && frame[8..16] == salts {
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEAD..]);
        if !sum.is(&frame[16..FRAME_HEAD]) || word(&frame, 0) == 0 {
            break;
        }
        pages.push(word(&frame, 0));
        let database_pages = word(&frame, 4);
        // The last frame of a transaction says how large the database is behind it.
        if database_pages != 0 {
            log.pages.append(&mut pages);
            log.database_pages = database_pages;
            log.end = (HEAD + log.pages.len() * frame.len()) as u64;
        }
    }
    Ok(Some(log))
}

/// The salts of a log whose head is known to be good, because SQLite has just written it.
pub(super) fn salts_of(file: &File) -> io::Result<Salts> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, 0)?;
    Ok(salts(&head))
}

/// The page of frame `number`, from 1, of a log whose frames are known to be good.
pub(super) fn page_of(file: &File, number: u32, page_size: usize) -> io::Result<u32> {
    let mut page = [0; 4];
    file.read_exact_at(&mut page, HEAD as u64 + u64::from(number - 1) * (FRAME_HEAD + page_size) as u64)?;
    Ok(u32::from_be_bytes(page))
}

fn salts(head: &[u8; HEAD]) -> Salts {
    let mut salts = Salts::default();
    salts.copy_from_slice(&head[16..24]);
    salts
}

/// Whether there was enough left to fill `buffer`.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The log's own checksum, which goes on from frame to frame.
struct Sum {
    /// How the words of the text are read; the sum itself is always stored big-endian.
    big_endian: bool,
    words: (u32, u32),
}

impl Sum {
    /// `bytes`: whole pairs of words.
    fn add(&mut self, bytes: &[u8]) {
        let read = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let (mut a, mut b) = self.words;
        for pair in bytes.as_chunks::<8>().0 {
            a = a.wrapping_add(read([pair[0], pair[1], pair[2], pair[3]])).wrapping_add(b);
            b = b.wrapping_add(read([pair[4], pair[5], pair[6], pair[7]])).wrapping_add(a);
        }
        self.words = (a, b);
    }

    fn is(&self, stored: &[u8]) -> bool {
        (word(stored, 0), word(stored, 4)) == self.words
    }
}
