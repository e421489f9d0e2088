//! Signature Version 4: placeholder until the verifier lands.

/// A caller whose signature was verified. Cannot be made outside this module.
#[derive(Debug, Clone)]
pub struct Verified {
    account: String,
    access_key_id: String,
}

impl Verified {
    /// The caller of work that arises inside the server and never crossed a socket.
    pub fn in_process(account: &str) -> Self {
        Self { account: account.to_owned(), access_key_id: "in-process".to_owned() }
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
}
