//! The line between the server and one environment: a pair of sockets that keeps messages whole.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::spec::{Program, SPEC_BYTES_MAX};

/// What the server is told of an environment, in this order; each but `Exited` once. [`News::Failed`] or an end of the line
/// may come at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// From the helper, with a pidfd of the init: its process ID as the server sees it.
    Born { pid: i32 },
    /// The ground is laid: the file system but for what is the function's, the groups and the listeners. With descriptors, in
    /// this order and where there are such: the folder `/proc` of the environment's own processes, the listener of the Runtime
    /// API, that of S3.
    Ready { proc: bool, listeners: bool },
    /// The program runs. With a pidfd of its process, by which its end is seen before this line can tell of it.
    Started,
    /// The program cannot be run, and why.
    NoProgram(String),
    /// Something that had to be set up could not: the layer that it belongs to, if to any.
    Failed { layer: Option<crate::Layer>, what: String },
    /// All that was to be tried works. The details are worth a line in a table.
    Tried { details: Vec<(crate::Layer, String)> },
    /// The runtime's process has ended, with this status of `wait`. All others end with it.
    Exited { status: i32 },
}

/// What the init is told, besides its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// SIGTERM to the runtime's group.
    Terminate,
    /// SIGSTOP to everything.
    Stop,
    /// SIGCONT to everything.
    Continue,
}

/// Descriptors in one message: `/proc` and two listeners.
const FDS_MAX: usize = 3;
/// News are short; the longest is an error's text.
const NEWS_BYTES_MAX: usize = 16 * 1024;

/// The server's end of a line. Its descriptor may be waited for; receiving does not block.
#[derive(Debug)]
pub struct Line {
    fd: OwnedFd,
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for Line {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

impl Line {
    /// A line and its other end.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pair(SocketFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self { fd: ours }, theirs))
    }

    /// The next news. `None` at the end of the line; `WouldBlock` where there is none yet.
    pub fn hear(&self) -> io::Result<Option<(News, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; NEWS_BYTES_MAX];
        match receive(self.fd.as_fd(), &mut buffer) {
            Ok((0, _)) => Ok(None),
            Ok((length, fds)) => Ok(Some((parse(&buffer[..length])?, fds))),
            // Words that it did not read any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells an environment that was made ahead what to run: once, before any word. One of more than [`SPEC_BYTES_MAX`] is an
    /// error; that nobody is there any more is none, and is heard.
    pub fn tell(&self, program: &Program) -> io::Result<()> {
        let program = spec_text(program)?;
        // The largest has to fit, whatever the machine gives to a socket.
        rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, 2 * SPEC_BYTES_MAX)?;
        match send_text(self.fd.as_fd(), &program, &[]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            other => other,
        }
    }

    /// Says something. That nobody is there any more is no error.
    pub fn say(&self, word: Word) -> io::Result<()> {
        match send(self.fd.as_fd(), &word, &[]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            other => other,
        }
    }
}

/// A pair of connected sockets that keep messages whole.
pub(crate) fn pair(flags: SocketFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

pub(crate) fn parse<T: for<'a> Deserialize<'a>>(message: &[u8]) -> io::Result<T> {
    serde_json::from_slice(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What a message looks like on a line.
pub(crate) fn text(message: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// As [`text`], of what is bounded by [`SPEC_BYTES_MAX`].
pub(crate) fn spec_text(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = text(message)?;
    if text.len() > SPEC_BYTES_MAX {
        let what = format!("what the helper is to be told are {} bytes, more than {SPEC_BYTES_MAX}", text.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(text)
}

/// Sends one message with descriptors, without a signal where nobody listens.
pub(crate) fn send(to: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_text(to, &text(message)?, fds)
}

/// As [`send`], of what [`text`] made.
pub(crate) fn send_text(to: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one message"));
    }
    loop {
        match rustix::net::sendmsg(to, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one message; its length is 0 at the end. Blocks as the socket does.
pub(crate) fn receive(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(from, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(received) => {
                let mut fds = Vec::new();
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was too long"));
                }
                return Ok((received.bytes, fds));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_and_descriptors_arrive_whole_and_in_order_and_the_end_is_seen() {
        let (line, other) = Line::pair().unwrap();
        assert_eq!(line.hear().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (given, kept) = rustix::pipe::pipe().unwrap();
        let ready = News::Ready { proc: true, listeners: false };
        send(other.as_fd(), &ready, &[given.as_fd()]).unwrap();
        send(other.as_fd(), &News::Exited { status: 9 }, &[]).unwrap();
        let (news, fds) = line.hear().unwrap().unwrap();
        assert_eq!((news, fds.len()), (ready, 1));
        rustix::io::write(&kept, b"x").unwrap();
        assert_eq!(rustix::io::read(&fds[0], &mut [0; 2][..]).unwrap(), 1);
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(line.hear().unwrap().unwrap().0, News::Exited { status: 9 });
        drop(other);
        // A process that another test forks in this moment has the other end, too, until it runs its program.
        rustix::event::poll(&mut [rustix::event::PollFd::new(&line, rustix::event::PollFlags::IN)], None).unwrap();
        assert!(line.hear().unwrap().is_none());
        line.say(Word::Terminate).unwrap();
    }
}
