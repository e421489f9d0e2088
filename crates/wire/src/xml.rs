//! The XML that S3 Control speaks: a small tree on the way in, an event writer on the way out.
//!
//! Serde over XML does not fit restXml's lists and unions, so shapes read the tree themselves. Parsing is bounded:
//! no DTD, no processing instructions, no entities but the five of XML and character references; depth, number of
//! elements, attributes and lengths of names as below. Attributes are checked for syntax and otherwise ignored.
//! Source: S3 Batch spec 1.4.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deep enough for every documented shape (the deepest is 9); a bound against stack-shaped attacks.
const DEPTH_MAX: usize = 32;
/// The largest legal document, a CompleteMultipartUpload of 10,000 parts with two checksums each, has 50,001.
/// A tree of this many empty elements takes about 10 MB.
const ELEMENTS_MAX: usize = 100_000;
/// AWS's clients send one, the namespace.
const ATTRIBUTES_MAX: usize = 64;
/// Of elements and attributes, in bytes. The longest in AWS's models is below 60.
const NAME_BYTES_MAX: usize = 1024;

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
    #[error("the document has more than {ELEMENTS_MAX} elements")]
    TooManyElements,
    #[error("an element has more than {ATTRIBUTES_MAX} attributes")]
    TooManyAttributes,
    #[error("a name is longer than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    #[error("the document is declared to be in another encoding than UTF-8")]
    Encoding,
    #[error("the document has no root element, or more than one")]
    NoRoot,
}

/// Is it an element's local name? The parser takes whatever stands after `<`. All letters outside of ASCII pass.
fn is_name(name: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    name.starts_with(starts) && name.chars().all(|c| starts(c) || c.is_ascii_digit() || c == '-' || c == '.')
}

impl Element {
    /// Parses a whole document. Never panics, whatever the bytes. The caller bounds the input's length; beside it,
    /// memory is bounded by the number of elements.
    pub fn parse(bytes: &[u8]) -> Result<Element, XmlError> {
        let mut reader = Reader::from_reader(bytes);
        reader.config_mut().expand_empty_elements = true;
        let syntax = |e: &dyn std::fmt::Display| XmlError::Syntax(e.to_string());
        let mut open: Vec<Element> = Vec::new();
        let mut root = None;
        let mut elements = 0;
        loop {
            match reader.read_event().map_err(|e| syntax(&e))? {
                Event::Start(start) => {
                    if open.len() >= DEPTH_MAX {
                        return Err(XmlError::TooDeep);
                    }
                    if open.is_empty() && root.is_some() {
                        return Err(XmlError::NoRoot);
                    }
                    elements += 1;
                    if elements > ELEMENTS_MAX {
                        return Err(XmlError::TooManyElements);
                    }
                    if start.name().as_ref().len() > NAME_BYTES_MAX {
                        return Err(XmlError::NameTooLong);
                    }
                    for (i, attribute) in start.attributes().enumerate() {
                        if i >= ATTRIBUTES_MAX {
                            return Err(XmlError::TooManyAttributes);
                        }
                        if attribute.map_err(|e| syntax(&e))?.key.as_ref().len() > NAME_BYTES_MAX {
                            return Err(XmlError::NameTooLong);
                        }
                    }
                    let name = std::str::from_utf8(start.local_name().into_inner()).map_err(|e| syntax(&e))?.to_owned();
                    if !is_name(&name) {
                        return Err(XmlError::Syntax(format!("{name:?} is not a name")));
                    }
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
                    let text = legal(text.xml10_content().map_err(|e| syntax(&e))?)?;
                    match open.last_mut() {
                        Some(element) => element.text.push_str(&text),
                        None if text.trim().is_empty() => {}
                        None => return Err(XmlError::NoRoot),
                    }
                }
                Event::CData(text) => {
                    let text = legal(text.xml10_content().map_err(|e| syntax(&e))?)?;
                    open.last_mut().ok_or(XmlError::NoRoot)?.text.push_str(&text);
                }
                Event::GeneralRef(reference) => {
                    let element = open.last_mut().ok_or(XmlError::NoRoot)?;
                    if let Some(c) = reference.resolve_char_ref().map_err(|e| syntax(&e))? {
                        if c == '\0' {
                            return Err(XmlError::Syntax("a reference to U+0000".to_owned()));
                        }
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
                Event::Decl(declaration) => {
                    // Anywhere but first it is a processing instruction with a reserved name.
                    if !open.is_empty() || root.is_some() {
                        return Err(XmlError::Dtd);
                    }
                    let encoding = declaration.encoding().transpose().map_err(|e| syntax(&e))?;
                    let utf8 = |name: &[u8]| [&b"utf-8"[..], b"us-ascii"].iter().any(|n| name.eq_ignore_ascii_case(n));
                    if encoding.is_some_and(|name| !utf8(&name)) {
                        return Err(XmlError::Encoding);
                    }
                }
                Event::Comment(_) => {}
                // The reader expands them to a start and an end.
                Event::Empty(_) => return Err(XmlError::Syntax("an empty element was not expanded".to_owned())),
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

    /// Is this an element without children, which is to be read as a value?
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }
}

/// Refuses the control characters that XML cannot carry raw. As character references they are let through, against the
/// letter of XML 1.0: S3 names keys in that way.
fn legal(text: std::borrow::Cow<'_, str>) -> Result<std::borrow::Cow<'_, str>, XmlError> {
    match text.chars().find(|c| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{7f}')) {
        Some(c) => Err(XmlError::Syntax(format!("a raw control character, U+{:04X}", c as u32))),
        None => Ok(text),
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
    fn what_is_no_name_is_no_element() {
        for bad in ["<a><\n/></a>", "<a><$ /></a>", "<a><1/></a>", "<a><-b/></a>", "<a><b;c/></a>", "<a><n:/></a>"] {
            assert!(matches!(Element::parse(bad.as_bytes()), Err(XmlError::Syntax(_))), "{bad:?}");
        }
        for good in ["<a><b-c.d_1/></a>", "<a><n:b/></a>", "<a><_/></a>", "<a><ä/></a>"] {
            assert_eq!(Element::parse(good.as_bytes()).unwrap().children.len(), 1, "{good:?}");
        }
    }

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
            b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a/>",
            b"<a><?xml version=\"1.0\"?></a>",
            b"<a/><?xml version=\"1.0\"?>",
            b"<?xml-stylesheet href=\"x\"?><a/>",
            b"<a/>text",
            b"<a b></a>",
            b"<a b=c></a>",
            b"<a b=\"1\" b=\"2\"></a>",
            b"<a>\0</a>",
            b"<a>\x01</a>",
            b"<a>&#0;</a>",
            b"<a>&#xD800;</a>",
            b"<a>&amp</a>",
            b"<a>\xff</a>",
            b"</a>",
            b"<a",
        ] {
            assert!(Element::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let deep = "<a>".repeat(40) + &"</a>".repeat(40);
        assert!(matches!(Element::parse(deep.as_bytes()), Err(XmlError::TooDeep)));
    }

    #[test]
    fn a_document_stays_within_its_bounds_or_is_refused() {
        let parse = |text: String| Element::parse(text.as_bytes());
        let depth = |n| "<a>".repeat(n) + &"</a>".repeat(n);
        assert!(parse(depth(DEPTH_MAX)).is_ok());
        assert!(matches!(parse(depth(DEPTH_MAX + 1)), Err(XmlError::TooDeep)));
        let elements = |n: usize| format!("<a>{}</a>", "<b/>".repeat(n - 1));
        assert!(parse(elements(ELEMENTS_MAX)).is_ok());
        assert!(matches!(parse(elements(ELEMENTS_MAX + 1)), Err(XmlError::TooManyElements)));
        let attributes = |n: usize| format!("<a {}/>", (0..n).map(|i| format!("x{i}=\"\" ")).collect::<String>());
        assert!(parse(attributes(ATTRIBUTES_MAX)).is_ok());
        assert!(matches!(parse(attributes(ATTRIBUTES_MAX + 1)), Err(XmlError::TooManyAttributes)));
        let name = |n: usize| format!("<{}/>", "n".repeat(n));
        assert!(parse(name(NAME_BYTES_MAX)).is_ok());
        assert!(matches!(parse(name(NAME_BYTES_MAX + 1)), Err(XmlError::NameTooLong)));
        let key = |n: usize| format!("<a {}=\"\"/>", "n".repeat(n));
        assert!(parse(key(NAME_BYTES_MAX)).is_ok());
        assert!(matches!(parse(key(NAME_BYTES_MAX + 1)), Err(XmlError::NameTooLong)));
    }

    #[test]
    fn a_mark_at_the_start_and_each_end_of_line_are_read_as_xml_says() {
        let e =
            Element::parse(b"\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?>\r\n<!-- c --><a>1\r\n2&#13;</a>\r\n");
        assert_eq!(e.unwrap().text, "1\n2\r");
        assert_eq!(Element::parse(b"<x:a xmlns:x='n'><![CDATA[<&>]]></x:a>").unwrap().text, "<&>");
    }

    proptest::proptest! {
        #[test]
        fn whatever_text_is_written_reads_back_and_no_garbage_panics(text: String, garbage in "[<>/&;#a?!\"= -]{0,40}") {
            let mut w = Writer::document("r", Some("n"));
            w.text("k", &text);
            if !text.contains('\0') {
                let back = Element::parse(w.finish().as_bytes()).unwrap();
                proptest::prop_assert_eq!(back.child_text("k"), Some(text.as_str()));
            }
            let _ = Element::parse(garbage.as_bytes());
        }
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
