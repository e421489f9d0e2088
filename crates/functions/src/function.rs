//! A function, its versions, and their states: plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// Which version of a function: `$LATEST`, or a published number counted from 1.
///
/// Ordered as AWS lists them: `$LATEST` first, then ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionNumber(u32);

impl VersionNumber {
    pub const LATEST: Self = Self(0);

    /// `number` counts from 1; 0 stands for `$LATEST`, as in the table.
    pub fn from_stored(number: u32) -> Self {
        Self(number)
    }

    pub fn stored(self) -> u32 {
        self.0
    }

    /// `$LATEST` or decimal digits without a leading zero; anything else is no version (perhaps an alias).
    pub fn parse(text: &str) -> Option<Self> {
        if text == "$LATEST" {
            return Some(Self::LATEST);
        }
        let digits = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse().ok().map(Self) } else { None }
    }

    pub fn following(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 { f.write_str("$LATEST") } else { write!(f, "{}", self.0) }
    }
}

/// A function with everything that belongs to it. Replaced as a whole at every change, so that whoever holds one sees
/// one moment of it.
#[derive(Debug, Clone)]
pub struct Function {
    /// Tells apart a function from an earlier one of the same name.
    pub id: String,
    pub name: String,
    /// The highest number ever published; numbers are not used twice in a function's life.
    pub last_published: VersionNumber,
    /// `None` until PutFunctionConcurrency; then all versions share it. 0 switches the function off.
    pub reserved_concurrency: Option<u32>,
    pub tags: BTreeMap<String, String>,
    /// How events are tried, by the qualifier that they were invoked with; `$LATEST` where there was none.
    pub event_invoke_configs: BTreeMap<String, EventInvokeConfig>,
    /// `$LATEST` is always among them.
    pub versions: BTreeMap<VersionNumber, Arc<Version>>,
}

/// One version. A published one never changes again but for its standing.
#[derive(Debug, Clone)]
pub struct Version {
    pub number: VersionNumber,
    /// Changes whenever this version changes, also when it settles. Source: Lambda spec 3.6.
    pub revision_id: String,
    /// Changes with code or configuration only: environments of another deployment are stale.
    pub deployment_id: String,
    pub standing: Standing,
    pub code: Code,
    /// When code or configuration last changed; milliseconds since 1970.
    pub modified_ms: i64,
    pub configuration: Configuration,
}

/// Where a version stands between being asked for and being ready.
///
/// ```text
/// create, publish ──> Creating ──┐
///                                ├── next request that names the function ──> Settled ── update ──> Updating ──┐
///                                └────────────────────────────────────────────────<────────────────────────────┘
/// ```
///
/// The work (unpacking, checking) is done before the answer to create or update; the standing is there because
/// tools wait for the transition. So whatever comes next finds the function ready. Source: Lambda spec 3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Creating,
    Settled,
    Updating,
}

impl Standing {
    pub fn stored(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Settled => "Settled",
            Self::Updating => "Updating",
        }
    }

    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::Creating, Self::Settled, Self::Updating].into_iter().find(|s| s.stored() == text)
    }
}

/// What a user sets on a function. Stored as JSON in the version's row: a new field needs a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub runtime: String,
    pub handler: String,
    pub role: String,
    pub description: String,
    pub timeout_s: u32,
    pub memory_mib: u32,
    pub ephemeral_storage_mib: u32,
    pub architecture: String,
    /// `None` until set once; AWS tells "never set" and "set to nothing" apart.
    pub variables: Option<BTreeMap<String, String>>,
}

/// What a user sets on how events are tried. Stored as JSON in the function's row: a new field needs a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventInvokeConfig {
    /// `None` until set, which means AWS's default; so is the next.
    pub maximum_retry_attempts: Option<u32>,
    pub maximum_event_age_s: Option<u32>,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
}

impl Configuration {
    /// Whether nothing but the description differs, which publishing may override.
    fn runs_like(&self, other: &Self) -> bool {
        *self == Self { description: self.description.clone(), ..other.clone() }
    }
}

impl Function {
    pub fn latest(&self) -> &Arc<Version> {
        self.versions.get(&VersionNumber::LATEST).expect("every function has a $LATEST")
    }

    /// The version that a qualifier leads to.
    pub fn version(&self, qualifier: Option<&str>) -> Option<&Arc<Version>> {
        match qualifier {
            None => Some(self.latest()),
            Some(qualifier) => self.versions.get(&VersionNumber::parse(qualifier)?),
        }
    }

    /// Brings every version that is being created or updated to rest, each with a new revision. `None` if all are.
    pub fn settled(&self) -> Option<Self> {
        if self.versions.values().all(|v| v.standing == Standing::Settled) {
            return None;
        }
        let mut settled = self.clone();
        for version in settled.versions.values_mut().filter(|v| v.standing != Standing::Settled) {
            let version = Arc::make_mut(version);
            version.standing = Standing::Settled;
            version.revision_id = new_id();
        }
        Some(settled)
    }

    /// `$LATEST` with new code, configuration or both: new deployment, new revision, `Updating`.
    pub fn updated(&self, code: Code, configuration: Configuration, now_ms: i64) -> Self {
        let mut updated = self.clone();
        updated.put(Version {
            number: VersionNumber::LATEST,
            revision_id: new_id(),
            deployment_id: new_id(),
            standing: Standing::Updating,
            code,
            modified_ms: now_ms,
            configuration,
        });
        updated
    }

    /// Publishes `$LATEST`: the function after it, and the number that stands for it.
    ///
    /// Nothing new is made if code and configuration are those of the newest version. Source: Lambda spec 4.1.
    pub fn published(&self, description: Option<String>, standing: Standing) -> (Self, VersionNumber) {
        let latest = self.latest();
        if let Some(newest) = self.versions.get(&self.last_published)
            && newest.number != VersionNumber::LATEST
            && newest.code == latest.code
            && newest.configuration.runs_like(&latest.configuration)
        {
            return (self.clone(), newest.number);
        }
        let mut configuration = latest.configuration.clone();
        if let Some(description) = description {
            configuration.description = description;
        }
        let mut after = self.clone();
        after.last_published = self.last_published.following();
        after.put(Version {
            number: after.last_published,
            revision_id: new_id(),
            deployment_id: new_id(),
            standing,
            configuration,
            ..(**latest).clone()
        });
        after.put(Version { revision_id: new_id(), ..(**latest).clone() });
        let number = after.last_published;
        (after, number)
    }

    pub fn put(&mut self, version: Version) {
        self.versions.insert(version.number, Arc::new(version));
    }
}

/// A random UUID: revisions, deployments, functions.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
