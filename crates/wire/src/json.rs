//! How deep a JSON document may be, found out before it is parsed.
//!
//! serde_json refuses more than 128 levels by itself, as it would recurse into them; what we read has six. Source: promise 4.4, item 13.

/// Arrays and objects inside one another in what a client sends.
pub const DEPTH_MAX: usize = 64;

/// Whether no array and no object lies deeper than [`DEPTH_MAX`]. Of a text that is not JSON the answer means nothing: whoever
/// parses it says so.
pub fn is_shallow(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_last_level_and_not_one_more() {
        let arrays = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let objects = |levels: usize| r#"{"a":"#.repeat(levels) + "1" + &"}".repeat(levels);
        for document in [arrays, objects] {
            assert!(is_shallow(document(DEPTH_MAX).as_bytes()));
            assert!(!is_shallow(document(DEPTH_MAX + 1).as_bytes()));
        }
    }

    #[test]
    fn what_stands_beside_one_another_or_in_a_string_is_not_deep() {
        assert!(is_shallow(format!("[{}1]", "[],{},".repeat(1_000)).as_bytes()));
        assert!(is_shallow(format!(r#"{{"a{0}\"{0}":"{0}\\"}}"#, "[{".repeat(100)).as_bytes()));
        assert!(!is_shallow(format!(r#"["\\",{}"#, "[".repeat(DEPTH_MAX)).as_bytes()), "the string has ended");
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_the_parsed_document(levels in 0_usize..100, text: String) {
            let mut document = serde_json::Value::String(text.clone());
            for level in 0..levels {
                document = if level % 2 == 0 { serde_json::json!([document]) } else { serde_json::json!({ text.as_str(): document }) };
            }
            proptest::prop_assert_eq!(is_shallow(document.to_string().as_bytes()), levels <= DEPTH_MAX);
        }
    }
}
