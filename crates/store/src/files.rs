//! The disk as the files of a job use it: result logs, checkpoints and pinned manifests. A port, so that the simulation can
//! put a disk below them that loses, tears and refuses (decision 0037).
//!
//! Only what those files need is here. What a power cut leaves is the caller's business: a file's bytes are durable once the
//! file was synced, its name once the folder was, and neither makes the other so.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file system. Errors are the operating system's.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn OpenFile>>;

    /// Makes a folder and those above it that are missing. The names are not durable yet.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, in no order.
    fn names_in(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Whether there is something of that name; `false` also where that cannot be found out.
    fn is_there(&self, path: &Path) -> bool;

    /// Gives a file another name, in place of what had that name: the one or the other is there, whatever happens.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, file: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Reading one that is there.
    Read,
    /// Reading and writing one that is there.
    Write,
    /// The same of one that may be missing, and keeps what it has.
    Make,
    /// The same of one that begins empty.
    Empty,
    /// The names in a folder, to be synced. Nothing else can be done with it.
    Folder,
}

/// A file that is open. Places in it are in bytes from its start.
pub trait OpenFile: fmt::Debug + Send + Sync {
    /// How many bytes were read; none at the end of the file.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;

    /// How many bytes were written: the first ones, perhaps not all.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    fn length(&self) -> io::Result<u64>;

    /// Cuts it off, or adds zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes what was written durable, with what is needed to read it.
    fn sync_data(&self) -> io::Result<()>;

    /// The same, with all that is known of the file; of a folder, the names in it.
    fn sync_all(&self) -> io::Result<()>;
}

impl dyn OpenFile + '_ {
    /// Writes all of it, or fails; then some of it may be there.
    pub fn write_all_at(&self, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    at += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until `into` is full or the file ends; how many bytes that were.
    pub fn read_up_to(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.read_at(&mut into[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Fills `into`, or fails.
    pub fn read_all_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        match self.read_up_to(into, at)? {
            read if read == into.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// All of it, from its start. Memory: all of it.
    pub fn read_whole(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length()?).map_err(io::Error::other)?];
        let read = self.read_up_to(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// Writes one file from its start on, as a stream.
#[derive(Debug)]
pub struct Onward {
    file: Box<dyn OpenFile>,
    at: u64,
}

impl Onward {
    pub fn new(file: Box<dyn OpenFile>) -> Self {
        Self { file, at: 0 }
    }

    pub fn into_inner(self) -> Box<dyn OpenFile> {
        self.file
    }

    /// To read what was written.
    pub fn file(&self) -> &dyn OpenFile {
        &*self.file
    }
}

impl io::Write for Onward {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Os;

impl Files for Os {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn OpenFile>> {
        let (write, make) = (!matches!(how, Open::Read | Open::Folder), matches!(how, Open::Make | Open::Empty));
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(write).create(make).truncate(how == Open::Empty);
        Ok(Box::new(options.open(path)?))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn names_in(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn is_there(&self, path: &Path) -> bool {
        path.exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(folder)
    }
}

impl OpenFile for std::fs::File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        std::fs::File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        std::fs::File::sync_all(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_of_the_operating_system_do_what_the_port_says() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let missing = |how| Os.open(&a, how).unwrap_err().kind();
        assert_eq!([missing(Open::Read), missing(Open::Write)], [io::ErrorKind::NotFound; 2]);
        let made = Os.open(&a, Open::Make).unwrap();
        made.write_all_at(b"hello", 2).unwrap();
        assert_eq!((made.length().unwrap(), made.read_whole().unwrap()), (7, b"\0\0hello".to_vec()));
        assert_eq!(Os.open(&a, Open::Make).unwrap().length().unwrap(), 7);
        made.set_length(4).unwrap();
        let mut into = [9; 6];
        assert_eq!((made.read_up_to(&mut into, 1).unwrap(), into), (3, [0, b'h', b'e', 9, 9, 9]));
        assert!(made.read_all_at(&mut into, 1).is_err() && made.read_all_at(&mut into[..3], 1).is_ok());
        assert!(Os.open(&a, Open::Read).unwrap().write_at(b"x", 0).is_err());
        let mut onward = Onward::new(Os.open(&b, Open::Empty).unwrap());
        onward.write_all(b"one").and_then(|()| onward.write_all(b"two")).unwrap();
        onward.into_inner().sync_all().unwrap();
        Os.rename(&b, &a).unwrap();
        Os.open(dir.path(), Open::Folder).unwrap().sync_all().unwrap();
        assert_eq!(Os.open(&a, Open::Write).unwrap().read_whole().unwrap(), b"onetwo");
        assert_eq!((Os.is_there(&a), Os.is_there(&b)), (true, false));
        Os.make_folder(&b.join("c")).unwrap();
        let mut names = Os.names_in(dir.path()).unwrap();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        Os.remove_folder(&b).unwrap();
        Os.remove(&a).unwrap();
        assert!(Os.names_in(dir.path()).unwrap().is_empty());
    }
}
