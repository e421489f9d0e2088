//! Whether a request's head says twice how long its body is: with `Transfer-Encoding` and with `Content-Length`.
//!
//! hyper reads such a request by the first, as RFC 9112 section 6.1 allows, closes the connection behind it, and keeps of the
//! second not a trace. Whoever stands between may have read it by the second, so it is refused. What is seen here frames
//! nothing: it only makes of an answer a refusal.

/// The longest of the two names, and its colon.
const NAME_BYTES_MAX: usize = b"transfer-encoding:".len();

/// Looks at the bytes of a head as they come, in whatever pieces.
#[derive(Debug, Default)]
pub struct Head {
    /// What the line begins with, in lower case; as much of it as the longest name takes.
    begins: Vec<u8>,
    /// Bytes of the line, its end apart.
    line: usize,
    /// Lines that have ended.
    lines: usize,
    length: bool,
    encoding: bool,
    ended: bool,
}

impl Head {
    /// Returns whether both names have been seen. Bytes behind the empty line are not looked at.
    pub fn saw(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if self.ended {
                break;
            }
            match byte {
                b'\n' => {
                    // An empty line before the request line ends nothing.
                    self.ended = self.line == 0 && self.lines > 0;
                    self.lines += usize::from(self.line > 0);
                    self.line = 0;
                    self.begins.clear();
                }
                b'\r' => {}
                _ => {
                    self.line += 1;
                    if self.begins.len() < NAME_BYTES_MAX {
                        self.begins.push(byte.to_ascii_lowercase());
                        if byte == b':' {
                            self.length |= self.begins == b"content-length:";
                            self.encoding |= self.begins == b"transfer-encoding:";
                        }
                    }
                }
            }
        }
        self.length && self.encoding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[u8] =
        b"\r\nPOST / HTTP/1.1\r\nHost: x\r\nTRANSFER-encoding: chunked\r\ncontent-Length: 4\r\n\r\n0\r\n\r\n";

    #[test]
    fn both_names_are_seen_in_whatever_pieces_the_head_comes() {
        assert!(Head::default().saw(BOTH));
        for cut in 0..BOTH.len() {
            let mut head = Head::default();
            let first = head.saw(&BOTH[..cut]);
            assert!(head.saw(&BOTH[cut..]) || first, "cut at {cut}");
        }
        let bare = String::from_utf8(BOTH.to_vec()).unwrap().replace('\r', "");
        assert!(Head::default().saw(bare.as_bytes()));
    }

    #[test]
    fn a_name_alone_or_elsewhere_is_nothing() {
        for head in [
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nContent-Length: 4\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nX-Transfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nX: Transfer-Encoding: chunked\r\n\r\n",
            "POST /Content-Length: HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(!Head::default().saw(head.as_bytes()), "{head}");
        }
    }
}
