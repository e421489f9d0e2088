//! Texts with wildcards and variables, and what they fit.

use std::borrow::Cow;
use std::collections::HashMap;

use super::context::{Facts, Known};

/// What is known of a statement's element. `Unknown`: it hangs on a key that this server knows nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Unknown,
    Yes,
}

impl Truth {
    /// Both.
    pub fn and(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::No { self } else { self.min(other()) }
    }

    pub fn all(mut truths: impl Iterator<Item = Self>) -> Self {
        truths
            .try_fold(Self::Yes, |all, one| if one == Self::No { Err(one) } else { Ok(all.min(one)) })
            .unwrap_or_else(|no| no)
    }

    pub fn any(mut truths: impl Iterator<Item = Self>) -> Self {
        truths
            .try_fold(Self::No, |any, one| if one == Self::Yes { Err(one) } else { Ok(any.max(one)) })
            .unwrap_or_else(|yes| yes)
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// A text with wildcards (`*`: any number of any characters, `?`: one) and variables (`${aws:username}`).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(String),
    /// `*`
    Run,
    /// `?`
    One,
    Variable {
        /// In lower case.
        key: String,
        /// As it was written.
        written: String,
        /// What stands for it where the request has no such key.
        default: Option<String>,
    },
}

/// What is more than letters in a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub wildcards: bool,
    /// Only since version 2012-10-17 of the language; before, `${` is two letters.
    pub variables: bool,
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong with a variable.
    pub fn read(text: &str, syntax: Syntax) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let variable = rest.strip_prefix("${").filter(|_| syntax.variables);
            let special = match (variable, c) {
                (Some(inside), _) => {
                    let (piece, behind) = variable_of(inside)?;
                    rest = behind;
                    match piece {
                        Piece::Literal(letters) => {
                            literal.push_str(&letters);
                            continue;
                        }
                        piece => Some(piece),
                    }
                }
                (None, '*') if syntax.wildcards => Some(Piece::Run),
                (None, '?') if syntax.wildcards => Some(Piece::One),
                _ => None,
            };
            if variable.is_none() {
                rest = &rest[c.len_utf8()..];
            }
            match special {
                None => literal.push(c),
                Some(piece) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    // `**` says what `*` says.
                    if piece != Piece::Run || pieces.last() != Some(&Piece::Run) {
                        pieces.push(piece);
                    }
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// Whether it fits the whole of a text. A variable without a value fits nothing; one of which nothing is known might fit
    /// anything.
    pub fn fits(&self, text: &str, facts: &Facts<'_>) -> Truth {
        self.fits_with(text, facts, false)
    }

    /// The same without regard to case.
    pub fn fits_folded(&self, text: &str, facts: &Facts<'_>) -> Truth {
        self.fits_with(text, facts, true)
    }

    fn fits_with(&self, text: &str, facts: &Facts<'_>, folded: bool) -> Truth {
        let Some((pieces, guessed)) = resolved(&self.0, facts) else { return Truth::No };
        let fits = if folded {
            let lower = |piece: &Piece| match piece {
                Piece::Literal(letters) => Piece::Literal(letters.to_lowercase()),
                other => other.clone(),
            };
            glob(&pieces.iter().map(lower).collect::<Vec<_>>(), &text.to_lowercase())
        } else {
            glob(&pieces, text)
        };
        weighed(fits, guessed)
    }

    /// Whether it fits without anything being known of a request: for patterns without variables.
    pub fn fits_plainly(&self, text: &str) -> bool {
        glob(&self.0, text)
    }

    /// Whether it has `*` or `?`.
    pub fn is_wild(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Run | Piece::One))
    }

    /// The keys of its variables, as they were written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable { written, .. } => Some(written.as_str()),
            _ => None,
        })
    }
}

/// A pattern of ARNs: its segments are compared one by one, so that a wildcard does not reach over a colon, but for the last, which
/// takes all that is left. So `arn:aws:lambda:*` is every ARN of Lambda, and `arn:aws:s3:::b/*` every key, with colons and
/// slashes.
///
/// Source: IAM user guide, "IAM JSON policy elements: Resource", and "Condition operators", ARN ("each of the six colon-delimited
/// components is checked separately").
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ArnPattern {
    whole: Pattern,
    /// Empty where a variable stands before the fifth colon: then it is only known with the request where segments end.
    segments: Vec<Vec<Piece>>,
    /// Whether a `*` ends a segment that is not the last.
    reaches: bool,
}

/// Parts of an ARN: `arn`, partition, service, region, account, resource.
const SEGMENTS: usize = 6;

impl ArnPattern {
    /// Reads what a Resource element or a condition may name. The error says why it is none.
    pub fn read(text: &str, syntax: Syntax) -> Result<Self, String> {
        let whole = Pattern::read(text, syntax)?;
        let segments = segments_of(&whole.0);
        let early = segments.iter().take(SEGMENTS - 1).flatten().any(|piece| matches!(piece, Piece::Variable { .. }));
        let reaches = segments
            .split_last()
            .is_some_and(|(_, before)| before.iter().any(|segment| segment.last() == Some(&Piece::Run)));
        Ok(Self { whole, segments: if early { Vec::new() } else { segments }, reaches })
    }

    /// Whether it is `*`.
    pub fn is_everything(&self) -> bool {
        self.whole.0 == [Piece::Run]
    }

    /// Why it is no pattern of an ARN in a Resource element; `None` if it is one. Source: AWS's messages; IAM user guide, "Resource":
    /// no wildcard in the service, no variable before the fifth colon.
    pub fn fault(&self) -> Option<&'static str> {
        if self.is_everything() {
            return None;
        }
        if self.segments.is_empty() {
            return Some("has a variable before its fifth colon, where none may stand");
        }
        let literal = |segment: &[Piece]| matches!(segment, [Piece::Literal(_)]);
        if self.segments[0] != [Piece::Literal("arn".to_owned())] || self.segments.len() < 3 {
            return Some("must be in ARN format or \"*\"");
        }
        if self.segments.len() < SEGMENTS && self.segments.last().is_some_and(|last| last.last() != Some(&Piece::Run)) {
            return Some(
                "must be in ARN format or \"*\": an ARN has six parts, arn:partition:service:region:account:resource",
            );
        }
        if self.segments[1].is_empty() {
            return Some("names no partition: write arn:aws:…");
        }
        // With less than six segments the third may be the last one and end in `*`: `arn:aws:s3*`, which AWS refuses as well.
        if !literal(&self.segments[2]) {
            return Some("must name its service without wildcards");
        }
        None
    }

    /// Whether it fits what a statement's Resource may name: on AWS a `*` that ends any segment may reach over colons. What fits in that
    /// way alone is not known to fit, so that no Allow is wider than it looks (an object's key may hold colons), and no Deny
    /// narrower than on AWS.
    pub fn fits_resource(&self, arn: &str, facts: &Facts<'_>) -> Truth {
        match self.fits(arn, facts) {
            Truth::No if self.reaches => self.whole.fits(arn, facts).min(Truth::Unknown),
            other => other,
        }
    }

    pub fn fits(&self, arn: &str, facts: &Facts<'_>) -> Truth {
        if self.is_everything() {
            return Truth::Yes;
        }
        if !self.segments.is_empty() {
            let mut parts = arn.splitn(self.segments.len(), ':');
            return Truth::all(self.segments.iter().map(|segment| match (parts.next(), resolved(segment, facts)) {
                (Some(part), Some((pieces, guessed))) => weighed(glob(&pieces, part), guessed),
                _ => Truth::No,
            }));
        }
        let Some((pieces, guessed)) = resolved(&self.whole.0, facts) else { return Truth::No };
        let segments = segments_of(&pieces);
        let parts: Vec<&str> = arn.splitn(segments.len(), ':').collect();
        let fits =
            parts.len() == segments.len() && segments.iter().zip(parts).all(|(segment, part)| glob(segment, part));
        weighed(fits, guessed)
    }

    /// Whether a variable in it has no value in this request.
    pub fn is_unresolved(&self, facts: &Facts<'_>) -> bool {
        resolved(&self.whole.0, facts).is_none()
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.whole.keys()
    }
}

/// What fits only because something unknown was taken for fitting is not known to fit.
fn weighed(fits: bool, guessed: bool) -> Truth {
    match (fits, guessed) {
        (false, _) => Truth::No,
        (true, true) => Truth::Unknown,
        (true, false) => Truth::Yes,
    }
}

/// Pieces split at their first five colons.
fn segments_of(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let mut segments = vec![Vec::new()];
    for piece in pieces {
        let Piece::Literal(letters) = piece else {
            if let Some(last) = segments.last_mut() {
                last.push(piece.clone());
            }
            continue;
        };
        for (n, part) in letters.splitn(SEGMENTS + 1 - segments.len(), ':').enumerate() {
            if n > 0 {
                segments.push(Vec::new());
            }
            if let Some(last) = segments.last_mut().filter(|_| !part.is_empty()) {
                last.push(Piece::Literal(part.to_owned()));
            }
        }
    }
    segments
}

/// What stands between `${` and `}`, and what follows. Source: IAM user guide, "Variables and tags".
fn variable_of(inside: &str) -> Result<(Piece, &str), String> {
    // A default may hold a brace, a name may not.
    for (escape, letter) in [("*}", "*"), ("?}", "?"), ("$}", "$")] {
        if let Some(rest) = inside.strip_prefix(escape) {
            return Ok((Piece::Literal(letter.to_owned()), rest));
        }
    }
    let end = inside.find(['}', ',']).ok_or("a variable that begins with ${ has no } that ends it")?;
    let key = &inside[..end];
    let named = key.split_once(':').is_some_and(|(service, name)| {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        !service.is_empty() && service.chars().all(letters) && !name.is_empty() && !name.contains(['{', '\'', '"'])
    });
    if !named {
        return Err(format!(
            "${{{key}}} is no variable: one is named as a condition key, as ${{aws:username}}, and a letter is written ${{*}}, ${{?}} or ${{$}}"
        ));
    }
    let variable = |default| Piece::Variable { key: key.to_ascii_lowercase(), written: key.to_owned(), default };
    let rest = &inside[end..];
    if let Some(rest) = rest.strip_prefix('}') {
        return Ok((variable(None), rest));
    }
    let wrong = || format!("the default of ${{{key}}} has to be written ${{{key}, 'text'}}");
    let quoted =
        rest.strip_prefix(',').map(str::trim_start).and_then(|rest| rest.strip_prefix('\'')).ok_or_else(wrong)?;
    let (default, rest) = quoted.split_once('\'').ok_or_else(wrong)?;
    let rest = rest.strip_prefix('}').ok_or_else(wrong)?;
    Ok((variable(Some(default.to_owned())), rest))
}

/// The pieces with what the request says for variables, and whether something in them is only guessed; `None` if a variable has no
/// value. A value is letters, whatever it holds: a user called `*` is no wildcard.
///
/// Source: IAM user guide, "Variables and tags", "Policy variables with no value": what is compared with it is never equal.
/// Of several values none is the value.
fn resolved<'p>(pieces: &'p [Piece], facts: &Facts<'_>) -> Option<(Cow<'p, [Piece]>, bool)> {
    if !pieces.iter().any(|piece| matches!(piece, Piece::Variable { .. })) {
        return Some((Cow::Borrowed(pieces), false));
    }
    let mut guessed = false;
    let mut resolved = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let Piece::Variable { key, default, .. } = piece else {
            resolved.push(piece.clone());
            continue;
        };
        match (facts.known(key), default) {
            (Known::Values(values), _) if values.len() == 1 => resolved.push(Piece::Literal(values[0].to_owned())),
            (Known::Values(_), _) => return None,
            (Known::Missing, Some(default)) => resolved.push(Piece::Literal(default.clone())),
            (Known::Missing, None) => return None,
            // A default does not help: elsewhere the key might have a value.
            (Known::Unknown, _) => {
                guessed = true;
                resolved.push(Piece::Run);
            }
        }
    }
    Some((Cow::Owned(resolved), guessed))
}

/// Whether pieces without variables fit the whole of a text, in time linear in the text (times the length of a part with `?` in
/// it, over 64). The earliest place of each part leaves the most for those that follow.
fn glob(pieces: &[Piece], text: &str) -> bool {
    let mut chunks = pieces.split(|piece| *piece == Piece::Run);
    let Some(mut rest) = chunks.next().and_then(|head| behind_start(head, text)) else { return false };
    let Some(tail) = chunks.next_back() else { return rest.is_empty() };
    for chunk in chunks {
        let Some(behind) = behind_first(chunk, rest) else { return false };
        rest = behind;
    }
    fits_end(tail, rest)
}

/// What follows a part that a text begins with.
fn behind_start<'t>(chunk: &[Piece], text: &'t str) -> Option<&'t str> {
    chunk.iter().try_fold(text, |rest, piece| match piece {
        Piece::Literal(letters) => rest.strip_prefix(letters.as_str()),
        _ => rest.chars().next().map(|c| &rest[c.len_utf8()..]),
    })
}

/// Whether a text ends in a part.
fn fits_end(chunk: &[Piece], text: &str) -> bool {
    let before = chunk.iter().rev().try_fold(text, |rest, piece| match piece {
        Piece::Literal(letters) => rest.strip_suffix(letters.as_str()),
        _ => rest.chars().next_back().map(|c| &rest[..rest.len() - c.len_utf8()]),
    });
    before.is_some()
}

/// What follows the first place of a part in a text.
///
/// With `?` in the part, a bit for each of its letters says whether the letters before it fit the text up to here: trying anew at each
/// place would take the product of both lengths, and a client chooses the one and sometimes the other.
fn behind_first<'t>(chunk: &[Piece], text: &'t str) -> Option<&'t str> {
    if let [Piece::Literal(letters)] = chunk {
        return text.find(letters.as_str()).map(|at| &text[at + letters.len()..]);
    }
    let units: Vec<Option<char>> = chunk
        .iter()
        .flat_map(|piece| match piece {
            Piece::Literal(letters) => letters.chars().map(Some).collect(),
            _ => vec![None],
        })
        .collect();
    let Some(last) = units.len().checked_sub(1) else { return Some(text) };
    let words = units.len().div_ceil(64);
    let bit = |n: usize| (n / 64, 1_u64 << (n % 64));
    let mut whatever = vec![0_u64; words];
    for (n, _) in units.iter().enumerate().filter(|(_, unit)| unit.is_none()) {
        whatever[bit(n).0] |= bit(n).1;
    }
    let mut fitting: HashMap<char, Vec<u64>> = HashMap::new();
    for (n, c) in units.iter().enumerate().filter_map(|(n, unit)| unit.map(|c| (n, c))) {
        fitting.entry(c).or_insert_with(|| whatever.clone())[bit(n).0] |= bit(n).1;
    }
    let mut state = vec![0_u64; words];
    for (at, c) in text.char_indices() {
        let mut carried = 1;
        for (word, fits) in state.iter_mut().zip(fitting.get(&c).unwrap_or(&whatever)) {
            let out = *word >> 63;
            *word = ((*word << 1) | carried) & fits;
            carried = out;
        }
        if state[bit(last).0] & bit(last).1 != 0 {
            return Some(&text[at + c.len_utf8()..]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::super::{Context, Principal, PrincipalKind};
    use super::*;

    const WILD: Syntax = Syntax { wildcards: true, variables: true };

    fn user() -> Principal {
        Principal {
            account: "111111111111".into(),
            arn: "arn:aws:iam::111111111111:user/u".into(),
            user_id: "AIDAEXAMPLEEXAMPLE01".into(),
            kind: PrincipalKind::User { name: "u".into() },
            tags: BTreeMap::from([("team".to_owned(), "r*d".to_owned()), ("colon".to_owned(), "a:b".to_owned())]),
        }
    }

    fn with_facts<T>(ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let context = Context::new().with_all("aws:TagKeys", ["one", "two"]);
        ask(&Facts { principal: &user(), action: "s3:GetObject", resource_account: "111111111111", context: &context })
    }

    #[test]
    fn a_star_is_any_letters_and_a_question_mark_one_wherever_they_stand() {
        let cases = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("?", "ab", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "ab", false),
            ("ab*b", "ab", false),
            ("a*a", "a", false),
            ("*ab*", "xaab", true),
            ("*a?c*", "aabc", true),
            ("*a?c*", "aac", true),
            ("*a?c*", "ac", false),
            ("*??*", "x", false),
            ("*??*", "éé", true),
            ("?*?", "ab", true),
            ("?*?", "a", false),
            ("**", "x", true),
            ("*a?b*a?c*", "a1ba1c", true),
            ("*a?b*a?c*", "a1a1bc", false),
            ("[a]", "[a]", true),
        ];
        for (pattern, text, wanted) in cases {
            assert_eq!(Pattern::read(pattern, WILD).unwrap().fits_plainly(text), wanted, "{pattern} {text}");
        }
    }

    /// Tries every place for every star: what `glob` has to come to.
    fn by_trying(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|from| by_trying(rest, &text[from..])),
            Some((c, rest)) => !text.is_empty() && (*c == '?' || *c == text[0]) && by_trying(rest, &text[1..]),
        }
    }

    #[test]
    fn every_short_pattern_fits_the_short_texts_that_trying_all_places_finds() {
        let strings = |letters: &str, longest: u32| {
            let letters: Vec<char> = letters.chars().collect();
            (0..=longest).flat_map(move |length| {
                let letters = letters.clone();
                (0..letters.len().pow(length)).map(move |mut n| {
                    let mut text = Vec::new();
                    for _ in 0..length {
                        text.push(letters[n % letters.len()]);
                        n /= letters.len();
                    }
                    text
                })
            })
        };
        let texts: Vec<Vec<char>> = strings("ab", 5).collect();
        for pattern in strings("ab*?", 5) {
            let read = Pattern::read(&pattern.iter().collect::<String>(), WILD).unwrap();
            for text in &texts {
                let fits = read.fits_plainly(&text.iter().collect::<String>());
                assert_eq!(fits, by_trying(&pattern, text), "{pattern:?} {text:?}");
            }
        }
    }

    #[test]
    fn patterns_that_make_others_try_forever_are_done_in_time_and_a_long_part_is_found() {
        let text = "a".repeat(100_000);
        let begun = Instant::now();
        for pattern in
            ["*a".repeat(500) + "b", "*a?".repeat(500) + "b", format!("*{}b*", "a?".repeat(300)), "?".repeat(100_001)]
        {
            assert!(!Pattern::read(&pattern, WILD).unwrap().fits_plainly(&text), "{} letters", pattern.len());
        }
        // Naive search takes minutes for these, this one well under a second; the limit leaves room for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(20));
        let long = format!("*{}?{}*", "ab".repeat(100), "c".repeat(70));
        let fitting = format!("ab{}x{}", "ab".repeat(100), "c".repeat(70));
        assert!(Pattern::read(&long, WILD).unwrap().fits_plainly(&fitting));
        assert!(!Pattern::read(&long, WILD).unwrap().fits_plainly(&fitting.replace('x', "")));
    }

    /// Source: IAM user guide, "Variables and tags".
    #[test]
    fn variables_stand_for_what_the_request_has_letter_by_letter_and_without_a_value_for_nothing() {
        let cases = [
            ("home/${aws:username}/*", "home/u/k", Truth::Yes),
            ("home/${AWS:UserName}/*", "home/u/k", Truth::Yes),
            ("home/${aws:username}/*", "home/v/k", Truth::No),
            ("${aws:PrincipalTag/Team}", "r*d", Truth::Yes),
            ("${aws:PrincipalTag/team}", "red", Truth::No),
            ("${aws:PrincipalTag/none}", "", Truth::No),
            ("${aws:PrincipalTag/none}*", "anything", Truth::No),
            ("${aws:PrincipalTag/none, 'all of us'}", "all of us", Truth::Yes),
            ("${aws:PrincipalTag/none,'x'}", "x", Truth::Yes),
            ("${aws:PrincipalTag/none, ''}", "", Truth::Yes),
            ("${aws:username, 'x'}", "x", Truth::No),
            ("${aws:TagKeys}", "one", Truth::No),
            ("${aws:Nonsense}", "anything", Truth::Unknown),
            ("a${aws:Nonsense, 'd'}", "ad", Truth::Unknown),
            ("a${aws:Nonsense}", "b", Truth::No),
            ("${*}${?}${$}", "*?$", Truth::Yes),
            ("${*}", "x", Truth::No),
            ("$ {x} $${*}", "$ {x} $*", Truth::Yes),
        ];
        for (pattern, text, wanted) in cases {
            let read = Pattern::read(pattern, WILD).unwrap();
            assert_eq!(with_facts(|facts| read.fits(text, facts)), wanted, "{pattern} {text}");
        }
        let old = Syntax { variables: false, ..WILD };
        let read = Pattern::read("${aws:username}", old).unwrap();
        assert_eq!(
            with_facts(|facts| read.fits("${aws:username}", facts)),
            Truth::Yes,
            "before 2012-10-17 it is letters"
        );
    }

    #[test]
    fn what_is_no_variable_is_told() {
        for wrong in [
            "${aws:username",
            "${}",
            "${username}",
            "${:x}",
            "${aws:}",
            "${aws:x, y}",
            "${aws:x, 'y}",
            "${aws:x, 'y'",
            "${a b:c}",
        ] {
            assert!(Pattern::read(wrong, WILD).is_err(), "{wrong}");
        }
    }

    /// Source: IAM user guide, "IAM JSON policy elements: Resource"; Lambda spec 6.3.
    #[test]
    fn arns_are_compared_part_by_part_and_the_last_part_takes_the_rest() {
        let f = "arn:aws:lambda:us-east-1:111111111111:function:f";
        let prod = "arn:aws:lambda:us-east-1:111111111111:function:f:prod";
        let key = "arn:aws:s3:::b/k:1/*";
        let cases = [
            ("*", "*", Truth::Yes),
            ("*", f, Truth::Yes),
            (f, f, Truth::Yes),
            (f, prod, Truth::No),
            ("arn:aws:lambda:us-east-1:111111111111:function:f:*", prod, Truth::Yes),
            ("arn:aws:lambda:us-east-1:111111111111:function:f:*", f, Truth::No),
            ("arn:aws:lambda:us-east-1:111111111111:function:f*", f, Truth::Yes),
            ("arn:aws:lambda:us-east-1:111111111111:function:f*", prod, Truth::Yes),
            ("arn:aws:lambda:*:1*:function:?", f, Truth::Yes),
            ("arn:aws:lambda:*", prod, Truth::Yes),
            ("arn:aws:lambda:us-*", prod, Truth::Yes),
            ("arn:aws:lambda:eu-*", prod, Truth::No),
            ("arn:aws:s3:::*", f, Truth::No),
            ("arn:aws:lambda:*:function:f", f, Truth::No),
            ("arn:aws:lambda:*:111111111111:prod", prod, Truth::No),
            ("arn:aws:s3:::b/*", key, Truth::Yes),
            ("arn:aws:s3:::b/k:1/${*}", key, Truth::Yes),
            ("arn:aws:s3:::B/*", key, Truth::No),
            ("arn:aws:s3:::b/*", "*", Truth::No),
            ("arn:*:s3:::b/*", key, Truth::Yes),
            ("arn:aws:s3:::b/${aws:PrincipalTag/none}*", key, Truth::No),
            ("arn:aws:s3:::b/${aws:Nonsense}/*", key, Truth::Unknown),
        ];
        for (pattern, arn, wanted) in cases {
            let read = ArnPattern::read(pattern, WILD).unwrap();
            assert_eq!(with_facts(|facts| read.fits(arn, facts)), wanted, "{pattern} {arn}");
        }
    }

    #[test]
    fn a_star_that_ends_a_part_and_would_have_to_reach_over_a_colon_fits_for_no_allow_and_every_deny() {
        let f = "arn:aws:lambda:us-east-1:111111111111:function:f";
        let cases = [
            ("arn:aws:lambda:*:function:f", f, Truth::Unknown),
            ("arn:aws:lambda:*:function:g", f, Truth::No),
            ("arn:aws:lambda:us-*:111111111111:function:f", f, Truth::Yes),
            ("arn:aws:s3:*:secret/*", "arn:aws:s3:::secret/k", Truth::Unknown),
            ("arn:aws:s3:*:*:b/*", "arn:aws:s3:::b/k", Truth::Yes),
            ("arn:aws:s3:*:*:b/*", "arn:aws:s3:::other/x:y:b/k", Truth::Unknown),
            ("arn:aws:s3:::b/*", "arn:aws:s3:::other/x:y:b/k", Truth::No),
        ];
        for (pattern, arn, wanted) in cases {
            let read = ArnPattern::read(pattern, WILD).unwrap();
            assert_eq!(with_facts(|facts| read.fits_resource(arn, facts)), wanted, "{pattern} {arn}");
            let in_condition = if wanted == Truth::Yes { Truth::Yes } else { Truth::No };
            assert_eq!(with_facts(|facts| read.fits(arn, facts)), in_condition, "{pattern} {arn}");
        }
    }

    #[test]
    fn a_variable_in_front_of_an_arn_is_only_known_with_the_request() {
        let cases = [
            ("${aws:PrincipalArn}", "arn:aws:iam::111111111111:user/u", Truth::Yes),
            ("${aws:PrincipalArn}", "arn:aws:iam::111111111111:user/v", Truth::No),
            ("arn:aws:iam::${aws:PrincipalAccount}:user/*", "arn:aws:iam::111111111111:user/v", Truth::Yes),
            ("arn:aws:iam::${aws:PrincipalAccount}:user/*", "arn:aws:iam::222222222222:user/v", Truth::No),
            ("${aws:Nonsense}", "arn:aws:iam::111111111111:user/u", Truth::Unknown),
        ];
        for (pattern, arn, wanted) in cases {
            let read = ArnPattern::read(pattern, WILD).unwrap();
            assert!(read.fault().is_some(), "a resource cannot be written like this: {pattern}");
            assert_eq!(with_facts(|facts| read.fits(arn, facts)), wanted, "{pattern} {arn}");
        }
    }
}
