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
    /// Environments kept ready, by the alias or version for which that was asked.
    pub provisioned: BTreeMap<String, ProvisionedConcurrency>,
    pub tags: BTreeMap<String, String>,
    /// `$LATEST` is always among them.
    pub versions: BTreeMap<VersionNumber, Arc<Version>>,
}

/// A provisioned concurrency configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionedConcurrency {
    /// How many environments are asked for; at least 1.
    pub requested: u32,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
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

    /// The published versions that a qualifier leads to, with the part of the calls that each gets; none if it leads
    /// nowhere, or to `$LATEST`.
    pub fn versions_behind(&self, qualifier: &str) -> Vec<(VersionNumber, f64)> {
        let version = self.version(Some(qualifier)).map(|version| version.number);
        version.filter(|number| *number != VersionNumber::LATEST).map(|number| (number, 1.0)).into_iter().collect()
    }

    /// Whether a qualifier names a version or an alias that is there.
    pub fn has_qualifier(&self, qualifier: &str) -> bool {
        self.version(Some(qualifier)).is_some()
    }

    /// How many environments of which version one configuration keeps ready. What is asked for an alias is divided like its
    /// calls.
    pub fn provisioned_of(&self, qualifier: &str, provisioned: &ProvisionedConcurrency) -> Vec<(VersionNumber, u32)> {
        let behind = self.versions_behind(qualifier);
        let mut left = provisioned.requested;
        let mut shares = Vec::new();
        for (n, (number, part)) in behind.iter().enumerate() {
            // The sum is what was asked for, however it is rounded.
            let share = if n + 1 == behind.len() {
                left
            } else {
                ((f64::from(provisioned.requested) * part).round() as u32).min(left)
            };
            left -= share;
            shares.push((*number, share));
        }
        shares
    }

    /// How many environments of each version are to be kept ready.
    pub fn provisioned_versions(&self) -> BTreeMap<VersionNumber, u32> {
        let mut wanted = BTreeMap::new();
        for (qualifier, provisioned) in &self.provisioned {
            for (number, share) in self.provisioned_of(qualifier, provisioned) {
                *wanted.entry(number).or_insert(0) += share;
            }
        }
        wanted
    }

    /// Concurrency that is kept for this function and taken from all others.
    pub fn held_concurrency(&self) -> u64 {
        let provisioned = self.provisioned.values().map(|provisioned| u64::from(provisioned.requested)).sum();
        self.reserved_concurrency.map_or(provisioned, u64::from)
    }

    /// Drops what was provisioned for aliases and versions that are no more.
    pub fn drop_stray_provisioned(&mut self) {
        let stray: Vec<String> =
            self.provisioned.keys().filter(|qualifier| self.versions_behind(qualifier).is_empty()).cloned().collect();
        for qualifier in stray {
            self.provisioned.remove(&qualifier);
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
