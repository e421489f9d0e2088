//! Names with stars: which endpoint has a bucket, where a function is, what holds for it.

/// Whether the first of the patterns that a name fits takes it: one with `!` before it does not.
pub fn matched(patterns: &[String], name: &str) -> bool {
    let first = patterns.iter().find(|pattern| fits(pattern.strip_prefix('!').unwrap_or(pattern), name));
    first.is_some_and(|pattern| !pattern.starts_with('!'))
}

/// Whether a name fits a pattern in which `*` is any number of any characters. In one pass, for a client chooses the name.
pub fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The earliest place leaves the most for what follows.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_with_stars_and_the_first_that_fits_counts() {
        let cases: [(&[&str], &str, bool); 12] = [
            (&["data"], "data", true),
            (&["data"], "data-1", false),
            (&["data-*"], "data-1", true),
            (&["*-logs-*x"], "a-logs-logs-bx", true),
            (&["*-logs-*x"], "a-logs-b", false),
            (&["ab*b"], "ab", false),
            (&["ab*b"], "abb", true),
            (&["*"], "anything", true),
            (&["!data-1", "data-*"], "data-1", false),
            (&["!data-1", "data-*"], "data-2", true),
            (&["data-*", "!data-1"], "data-1", true),
            (&["!x"], "y", false),
        ];
        for (patterns, name, wanted) in cases {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            assert_eq!(matched(&patterns, name), wanted, "{patterns:?} {name}");
        }
    }
}
