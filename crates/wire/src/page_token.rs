//! The `nextToken` of a listing: where the next page begins, opaque to clients, and bound to what it was issued for.
//!
//! The seal keeps a token from being used with another filter or account, and from being made up by accident. It is no
//! secret: whoever forges one only chooses where the caller's own listing begins. Source: rules P-5 and P-6, our choice.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest, Sha256};

/// Longer ones were never issued: P-5 allows 1,024 characters.
const CHARS_MAX: usize = 1_024;

fn seal(created: i64, id: &str, bound_to: &str) -> String {
    hex::encode(&Sha256::digest(format!("{created}/{id}/{bound_to}"))[..8])
}

/// Makes the token that leads behind the entry `(created, id)`. `id` has no slash; `bound_to` is what the listing is of.
pub fn encode(created: i64, id: &str, bound_to: &str) -> String {
    URL_SAFE.encode(format!("{created}/{id}/{}", seal(created, id, bound_to)))
}

/// Reads a token; `None` unless [`encode`] made it for the same `bound_to`.
pub fn decode(token: &str, bound_to: &str) -> Option<(i64, String)> {
    if token.len() > CHARS_MAX {
        return None;
    }
    let text = String::from_utf8(URL_SAFE.decode(token).ok()?).ok()?;
    let mut parts = text.split('/');
    let (created, id, given) = (parts.next()?.parse().ok()?, parts.next()?.to_owned(), parts.next()?);
    (parts.next().is_none() && seal(created, &id, bound_to) == given).then_some((created, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_where_it_was_made_and_to_nowhere_else() {
        let after = (1_570_139_328_048, "93735294-df46-44d5-8638-6356f335324e".to_owned());
        let token = encode(after.0, &after.1, "123456789012/[Active]");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+:/=?#-_".contains(c);
        assert!(token.len() <= 1_024 && token.chars().all(allowed), "{token}");
        let back = decode(&token, "123456789012/[Active]").unwrap();
        assert_eq!(back, after);
        for other in ["999999999999/[Active]", "123456789012/[]", "123456789012/[Active, Ready]"] {
            assert!(decode(&token, other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_token_of_which_one_character_was_changed_is_none() {
        let after = (1_570_139_328_048, "93735294-df46-44d5-8638-6356f335324e".to_owned());
        let token = encode(after.0, &after.1, "a");
        for (at, c) in token.char_indices() {
            for other in ['A', 'b', '0', '_', '='] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, &other.to_string());
                assert_eq!(decode(&changed, "a").is_some(), other == c, "{changed}");
            }
        }
        for shorter in 0..token.len() {
            assert!(decode(&token[..shorter], "a").is_none());
        }
        for other in ["", "!", "\u{e4}", &"A".repeat(2_000)] {
            assert!(decode(other, "a").is_none(), "{other}");
        }
    }
}
