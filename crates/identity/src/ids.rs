//! The names that AWS gives: IDs of entities and of access keys, and secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longshore_store::Secret;

use crate::error::IdentityError;

/// What IDs are written in after their prefix: the alphabet of base32.
const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What an ID names, told by its first four letters. Source: IAM user guide, "Understanding unique ID prefixes".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    User,
    Role,
    Policy,
    AccessKey,
    SessionKey,
}

/// A new ID: 21 characters for an entity, 20 for an access key.
pub(crate) fn id(prefix: Prefix) -> Result<String, IdentityError> {
    let (prefix, letters) = match prefix {
        Prefix::User => ("AIDA", 17),
        Prefix::Role => ("AROA", 17),
        Prefix::Policy => ("ANPA", 17),
        Prefix::AccessKey => ("AKIA", 16),
        Prefix::SessionKey => (SESSION_KEY, 16),
    };
    let mut bytes = [0; 17];
    getrandom::fill(&mut bytes).map_err(IdentityError::NoRandom)?;
    let letters = bytes[..letters].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    Ok(prefix.chars().chain(letters).collect())
}

/// How the ID of a session's key begins.
pub(crate) const SESSION_KEY: &str = "ASIA";

/// A new secret of 40 characters: 240 bits.
pub(crate) fn secret() -> Result<Secret, IdentityError> {
    let mut bytes = [0; 30];
    getrandom::fill(&mut bytes).map_err(IdentityError::NoRandom)?;
    Ok(Secret::new(STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_it_names_and_comes_once() {
        for (prefix, start, length) in [
            (Prefix::User, "AIDA", 21),
            (Prefix::Role, "AROA", 21),
            (Prefix::Policy, "ANPA", 21),
            (Prefix::AccessKey, "AKIA", 20),
            (Prefix::SessionKey, "ASIA", 20),
        ] {
            let made = id(prefix).unwrap();
            assert!(made.starts_with(start) && made.len() == length, "{made}");
            assert!(made.bytes().all(|byte| LETTERS.contains(&byte)), "{made}");
            assert_ne!(made, id(prefix).unwrap());
        }
        assert_eq!(secret().unwrap().expose().len(), 40);
        assert_ne!(secret().unwrap(), secret().unwrap());
    }
}
