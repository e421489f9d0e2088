//! JSON as a policy may have it: read strictly, with the places of things, so that an error can point.
//!
//! A reader of our own, because numbers are values of conditions and have to stay as they were written, because one of two equal
//! keys would win silently elsewhere, and because a matched statement is shown by line and column (SimulatePrincipalPolicy).

use std::collections::HashSet;

/// Brackets in brackets. A policy needs six; what is deeper is there to exhaust the stack.
const DEPTH_MAX: usize = 64;

/// A place in a text, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// A value, and where it stands: from its first character to the one behind its last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub value: Value,
    pub from: Position,
    pub to: Position,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; no key stands twice.
    Object(Vec<(String, Node)>),
}

impl Value {
    /// What an error calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Why a text is no JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub at: Position,
    pub reason: String,
}

/// Reads one value, and nothing behind it but white space.
pub(super) fn read(text: &str) -> Result<Node, Broken> {
    let mut reader = Reader { rest: text, at: Position { line: 1, column: 1 } };
    let node = reader.node(0)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.broken("there is more behind the end of the policy")),
    }
}

struct Reader<'a> {
    rest: &'a str,
    at: Position,
}

impl Reader<'_> {
    fn broken(&self, reason: impl Into<String>) -> Broken {
        Broken { at: self.at, reason: reason.into() }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
    }

    /// Whether the next thing, over white space, is this character; then it is behind us.
    fn takes(&mut self, wanted: char) -> bool {
        self.skip_space();
        let there = self.peek() == Some(wanted);
        if there {
            self.next();
        }
        there
    }

    fn node(&mut self, depth: usize) -> Result<Node, Broken> {
        if depth > DEPTH_MAX {
            return Err(self.broken(format!("there are more than {DEPTH_MAX} brackets in one another")));
        }
        self.skip_space();
        let from = self.at;
        let value = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Value::Text(self.text()?),
            Some('-' | '0'..='9') => Value::Number(self.number()?),
            Some(_) => self.word()?,
            None => return Err(self.broken("the text ends where a value should stand")),
        };
        Ok(Node { value, from, to: self.at })
    }

    fn object(&mut self, depth: usize) -> Result<Value, Broken> {
        self.next();
        let mut members: Vec<(String, Node)> = Vec::new();
        let mut names = HashSet::new();
        if self.takes('}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some('"') {
                return Err(self.broken("a name in double quotes should stand here"));
            }
            let at = self.at;
            let name = self.text()?;
            if !names.insert(name.clone()) {
                return Err(Broken { at, reason: format!("{name:?} stands here for the second time in one object") });
            }
            if !self.takes(':') {
                return Err(self.broken(format!("a colon should follow {name:?}")));
            }
            members.push((name, self.node(depth + 1)?));
            if self.takes('}') {
                return Ok(Value::Object(members));
            }
            if !self.takes(',') {
                return Err(self.broken("a comma or } should stand here"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Broken> {
        self.next();
        let mut nodes = Vec::new();
        if self.takes(']') {
            return Ok(Value::List(nodes));
        }
        loop {
            nodes.push(self.node(depth + 1)?);
            if self.takes(']') {
                return Ok(Value::List(nodes));
            }
            if !self.takes(',') {
                return Err(self.broken("a comma or ] should stand here"));
            }
        }
    }

    fn word(&mut self) -> Result<Value, Broken> {
        for (word, value) in [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)] {
            if self.rest.starts_with(word) {
                for _ in word.chars() {
                    self.next();
                }
                return Ok(value);
            }
        }
        Err(self.broken("no value of JSON begins like this"))
    }

    fn digits(&mut self, into: &mut String) -> Result<(), Broken> {
        let before = into.len();
        while let Some(c @ '0'..='9') = self.peek() {
            into.push(c);
            self.next();
        }
        if into.len() == before { Err(self.broken("a digit should stand here")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<String, Broken> {
        let mut number = String::new();
        let takes = |reader: &mut Self, wanted: &[char], number: &mut String| match reader.peek() {
            Some(c) if wanted.contains(&c) => {
                number.push(c);
                reader.next();
                true
            }
            _ => false,
        };
        takes(self, &['-'], &mut number);
        if !takes(self, &['0'], &mut number) {
            self.digits(&mut number)?;
        } else if matches!(self.peek(), Some('0'..='9')) {
            return Err(self.broken("a number with a leading zero has to stand in quotes"));
        }
        if takes(self, &['.'], &mut number) {
            self.digits(&mut number)?;
        }
        if takes(self, &['e', 'E'], &mut number) {
            takes(self, &['+', '-'], &mut number);
            self.digits(&mut number)?;
        }
        Ok(number)
    }

    fn text(&mut self) -> Result<String, Broken> {
        self.next();
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(c) if c < ' ' => {
                    return Err(Broken { at, reason: "a control character has to be escaped in a string".to_owned() });
                }
                Some(c) => text.push(c),
                None => return Err(self.broken("the text ends inside a string")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Broken> {
        let at = self.at;
        let unknown = || Broken { at, reason: "no escape of JSON looks like this".to_owned() };
        Ok(match self.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let first = self.four_digits().ok_or_else(unknown)?;
                let code = match first {
                    0xd800..=0xdbff => {
                        // Half of a pair: without the other half it is no character.
                        let low = match (self.next(), self.next()) {
                            (Some('\\'), Some('u')) => self.four_digits().ok_or_else(unknown)?,
                            _ => return Err(unknown()),
                        };
                        let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or_else(unknown)?;
                        0x10000 + ((first - 0xd800) << 10) + low
                    }
                    other => other,
                };
                char::from_u32(code).ok_or_else(unknown)?
            }
            _ => return Err(unknown()),
        })
    }

    fn four_digits(&mut self) -> Option<u32> {
        let mut code = 0;
        for _ in 0..4 {
            code = code * 16 + self.next()?.to_digit(16)?;
        }
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(json: &str) -> Result<String, String> {
        match read(json) {
            Ok(Node { value: Value::Text(text), .. }) => Ok(text),
            Ok(other) => Err(format!("{other:?}")),
            Err(Broken { at, reason }) => Err(format!("{}:{} {reason}", at.line, at.column)),
        }
    }

    #[test]
    fn strings_are_read_with_every_escape_and_nothing_that_is_none() {
        let good = [
            (r#""""#, ""),
            (r#" "a\"\\\/\b\f\n\r\t" "#, "a\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u00e9\ud83d\ude00é""#, "é😀é"),
        ];
        for (json, wanted) in good {
            assert_eq!(text_of(json).as_deref(), Ok(wanted), "{json}");
        }
        for json in [
            r#""\x""#,
            r#""\u12""#,
            r#""\ud83d""#,
            r#""\ud83dA""#,
            r#""\ud83d\u0041""#,
            r#""\ude00""#,
            "\"a\nb\"",
            r#""a"#,
        ] {
            assert!(text_of(json).is_err(), "{json}");
        }
    }

    #[test]
    fn numbers_stay_as_they_were_written() {
        for number in ["0", "-1", "12345678901234567890123", "1.50", "1e9", "-0.1E-7"] {
            assert_eq!(read(number).unwrap().value, Value::Number(number.to_owned()));
        }
        for number in ["01", "1.", ".5", "-", "1e", "+1", "1e+", "NaN"] {
            assert!(read(number).is_err(), "{number}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_line_and_column() {
        let cases = [
            ("", "1:1"),
            ("{", "1:2"),
            ("{\"a\":1,\n \"a\":2}", "2:2"),
            ("{\"a\" 1}", "1:6"),
            ("[1,]", "1:4"),
            ("[1 2]", "1:4"),
            ("{} {}", "1:4"),
            ("{\"a\":tru}", "1:6"),
            ("{a:1}", "1:2"),
        ];
        for (json, wanted) in cases {
            let Broken { at, reason } = read(json).unwrap_err();
            assert_eq!(format!("{}:{}", at.line, at.column), wanted, "{json}: {reason}");
        }
    }

    #[test]
    fn sixty_four_brackets_in_one_another_are_read_and_one_more_is_not() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(&nested(DEPTH_MAX + 1)).is_ok());
        assert!(read(&nested(DEPTH_MAX + 2)).unwrap_err().reason.contains("64"));
        assert!(read(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn a_value_knows_where_it_begins_and_ends() {
        let Value::List(nodes) = read("[\n  {\"é\": 1},\n true]").unwrap().value else {
            panic!("a list was read as something else")
        };
        let places: Vec<_> = nodes.iter().map(|n| (n.from.line, n.from.column, n.to.line, n.to.column)).collect();
        assert_eq!(places, [(2, 3, 2, 11), (3, 2, 3, 6)]);
    }
}
