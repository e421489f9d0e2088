//! The XML that S3 Control speaks: a small tree on the way in, an event writer on the way out.
//!
//! Serde over XML does not fit restXml's lists and unions, so shapes read the tree themselves. Parsing is bounded:
//! no DTD, no entities but the five of XML and character references, depth at most 32, attributes ignored.
//! Source: S3 Batch spec 1.4.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deep enough for every documented shape (the deepest is 9); a bound against stack-shaped attacks.
const DEPTH_MAX: usize = 32;

/// One element: its local name, its text (all text directly inside it, joined), its children in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

/// Why a document was refused. The caller is told `MalformedXML`; this goes to the log.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    #[error("the document does not parse: {0}")]
    Syntax(String),
    #[error("the document has a DTD or a processing instruction")]
    Dtd,
    #[error("the document is deeper than {DEPTH_MAX} elements")]
    TooDeep,
    #[error("the document has no root element, or more than one")]
    NoRoot,
}

impl Element {
    /// Parses a whole document. Never panics, whatever the bytes; memory is a small multiple of the input.
    pub fn parse(bytes: &[u8]) -> Result<Element, XmlError> {
        let mut reader = Reader::from_reader(bytes);
        reader.config_mut().expand_empty_elements = true;
        let syntax = |e: &dyn std::fmt::Display| XmlError::Syntax(e.to_string());
        let mut open: Vec<Element> = Vec::new();
        let mut root = None;
        loop {
            match reader.read_event().map_err(|e| syntax(&e))? {
                Event::Start(start) => {
                    if open.len() >= DEPTH_MAX {
                        return Err(XmlError::TooDeep);
                    }
                    if open.is_empty() && root.is_some() {
                        return Err(XmlError::NoRoot);
                    }
                    let name = std::str::from_utf8(start.local_name().into_inner()).map_err(|e| syntax(&e))?.to_owned();
                    open.push(Element { name, ..Element::default() });
                }
                Event::End(_) => {
                    let done = open.pop().ok_or(XmlError::NoRoot)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(done),
                        None => root = Some(done),
                    }
                }
                Event::Text(text) => {
                    let text = text.decode().map_err(|e| syntax(&e))?;
                    match open.last_mut() {
                        Some(element) => element.text.push_str(&text),
                        None if text.trim().is_empty() => {}
                        None => return Err(XmlError::NoRoot),
                    }
                }
                Event::CData(text) => {
                    let text = text.decode().map_err(|e| syntax(&e))?;
                    open.last_mut().ok_or(XmlError::NoRoot)?.text.push_str(&text);
                }
                Event::GeneralRef(reference) => {
                    let element = open.last_mut().ok_or(XmlError::NoRoot)?;
                    if let Some(c) = reference.resolve_char_ref().map_err(|e| syntax(&e))? {
                        element.text.push(c);
                    } else {
                        let name = reference.decode().map_err(|e| syntax(&e))?;
                        element.text.push_str(match &*name {
                            "lt" => "<",
                            "gt" => ">",
                            "amp" => "&",
                            "quot" => "\"",
                            "apos" => "'",
                            _ => return Err(XmlError::Dtd),
                        });
                    }
                }
                Event::DocType(_) | Event::PI(_) => return Err(XmlError::Dtd),
                Event::Decl(_) | Event::Comment(_) => {}
                Event::Empty(_) => unreachable!("empty elements are expanded"),
                Event::Eof => break,
            }
        }
        if !open.is_empty() {
            return Err(XmlError::NoRoot);
        }
        root.ok_or(XmlError::NoRoot)
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.name == name)
    }

    /// The text of the first child of that name.
    pub fn child_text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|c| c.text.as_str())
    }

    /// The value of a child that is present and not empty of anything but white space around children.
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }
}

/// Writes one XML document, prolog first. Elements are opened and closed in order; text is escaped.
#[derive(Debug)]
pub struct Writer {
    out: String,
    open: Vec<String>,
}

impl Writer {
    /// Starts a document with its root element, and the namespace on it if there is one.
    pub fn document(root: &str, namespace: Option<&str>) -> Self {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        match namespace {
            Some(ns) => out.push_str(&format!("<{root} xmlns=\"{ns}\">")),
            None => out.push_str(&format!("<{root}>")),
        }
        Self { out, open: vec![root.to_owned()] }
    }

    pub fn open(&mut self, name: &str) {
        self.out.push('<');
        self.out.push_str(name);
        self.out.push('>');
        self.open.push(name.to_owned());
    }

    /// Closes the element opened last. Closing the root is [`Writer::finish`]'s work.
    pub fn close(&mut self) {
        debug_assert!(self.open.len() > 1, "the root is closed by finish");
        if let Some(name) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(&name);
            self.out.push('>');
        }
    }

    pub fn text(&mut self, name: &str, text: &str) {
        self.open(name);
        self.escape(text);
        self.close();
    }

    pub fn empty(&mut self, name: &str) {
        self.out.push('<');
        self.out.push_str(name);
        self.out.push_str("/>");
    }

    /// Writes a parsed element back, escaped again: how what a caller sent is echoed.
    pub fn element(&mut self, element: &Element) {
        if element.children.is_empty() {
            return if element.text.is_empty() {
                self.empty(&element.name)
            } else {
                self.text(&element.name, &element.text)
            };
        }
        self.open(&element.name);
        for child in &element.children {
            self.element(child);
        }
        self.close();
    }

    pub fn finish(mut self) -> String {
        while let Some(name) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(&name);
            self.out.push('>');
        }
        self.out
    }

    /// Escapes markup, and writes control characters as character references, as S3 does for keys.
    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                c if (c as u32) < 0x20 && c != '\n' && c != '\t' => self.out.push_str(&format!("&#x{:X};", c as u32)),
                c => self.out.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_into_a_tree() {
        let e = Element::parse(
            b"<?xml version=\"1.0\"?>\n<a xmlns=\"x\"><b>1 &lt; 2&#x20;&amp;</b><c/><d> <e>z</e> </d></a>",
        )
        .unwrap();
        assert_eq!(e.name, "a");
        assert_eq!(e.child_text("b"), Some("1 < 2 &"));
        assert_eq!(e.child_text("c"), Some(""));
        assert_eq!(e.child("d").unwrap().child_text("e"), Some("z"));
    }

    #[test]
    fn what_is_dangerous_or_broken_is_refused() {
        for bad in [
            &b"<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>"[..],
            b"<a>&unknown;</a>",
            b"<a><b></a></b>",
            b"<a/><b/>",
            b"<a>",
            b"",
            b"text",
            b"\xff\xfe",
        ] {
            assert!(Element::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let deep = "<a>".repeat(40) + &"</a>".repeat(40);
        assert!(matches!(Element::parse(deep.as_bytes()), Err(XmlError::TooDeep)));
    }

    #[test]
    fn text_is_escaped_so_that_it_reads_back_the_same() {
        let mut w = Writer::document("r", None);
        w.text("k", "a<b>&\"c\u{1}\r");
        w.empty("e");
        let back = Element::parse(w.finish().as_bytes());
        // XML 1.0 cannot carry U+0001 even as a reference; S3 sends it all the same, and clients that parse
        // leniently (botocore) read it.
        assert_eq!(back.unwrap().child_text("k"), Some("a<b>&\"c\u{1}\r"));
    }
}
