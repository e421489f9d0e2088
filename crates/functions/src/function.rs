//! A function, its versions, and their states: plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use longshore_core::permission::Policy;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::host::LogFormat;

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
    /// How events are tried, by the qualifier that they were invoked with; `$LATEST` where there was none.
    pub event_invoke_configs: BTreeMap<String, EventInvokeConfig>,
    /// `$LATEST` is always among them.
    pub versions: BTreeMap<VersionNumber, Arc<Version>>,
    /// By name. What they point to is always among the versions.
    pub aliases: BTreeMap<String, Arc<Alias>>,
    /// Only of what is there, and never an empty one.
    pub policies: BTreeMap<Resource, Policy>,
}

/// What has an ARN and a revision of its own, and may have a policy: the three are different resources, also where they
/// run the same code. Source: Lambda spec 3.6, 6.1, 6.3.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The function by its unqualified ARN. Its revision is that of `$LATEST`.
    Function,
    Version(VersionNumber),
    Alias(String),
}

impl Resource {
    /// What a qualifier names, whether it is there or not.
    pub fn of(qualifier: Option<&str>) -> Self {
        match qualifier {
            None => Self::Function,
            Some(qualifier) => match VersionNumber::parse(qualifier) {
                Some(number) => Self::Version(number),
                None => Self::Alias(qualifier.to_owned()),
            },
        }
    }

    /// What stands after the function in its ARN.
    pub fn qualifier(&self) -> Option<String> {
        match self {
            Self::Function => None,
            Self::Version(number) => Some(number.to_string()),
            Self::Alias(name) => Some(name.clone()),
        }
    }
}

/// A name for a version, or for two of which each serves a share of the invocations. Replaced as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Alias {
    pub name: String,
    pub version: VersionNumber,
    /// Never `version` itself, and never beside `$LATEST`.
    pub additional: Option<Additional>,
    pub description: String,
    /// Changes whenever the alias is updated, also by nothing, and with its policy.
    pub revision_id: String,
}

/// The second version of an alias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Additional {
    pub version: VersionNumber,
    /// The share of invocations that it serves, from 0 to 1.
    pub weight: f64,
}

impl Alias {
    /// The version that serves one invocation. `draw` is random, every number as likely as any other, and drawn anew
    /// each time: nothing sticks to a version. Source: Lambda spec 4.2.
    pub fn route(&self, draw: u64) -> VersionNumber {
        // The upper 53 bits make an even number from 0 up to, not including, 1: a weight of 0 never and one of 1 always.
        const STEPS: f64 = (1_u64 << 53) as f64;
        match self.additional {
            Some(additional) if ((draw >> 11) as f64) / STEPS < additional.weight => additional.version,
            _ => self.version,
        }
    }

    /// Whether some invocation of it may run this version.
    pub fn invokes(&self, number: VersionNumber) -> bool {
        self.version == number || self.additional.is_some_and(|additional| additional.version == number)
    }
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
    /// Of a published version: the description that `$LATEST` had then, which publishing may have overridden. `None`
    /// for `$LATEST`, and for versions from before this was kept.
    pub latest_description: Option<String>,
}

/// Where a version stands between being asked for and being ready.
///
/// ```text
/// create, publish ──> Creating ──┐
///                                ├── next look at the function, or some time ──> Settled ── update ──> Updating ──┐
///                                └──────────────────────────────────────────────────<─────────────────────────────┘
/// ```
///
/// The work (unpacking, checking) is done before the answer to create or update; the standing is there because
/// tools wait for the transition, and because what does not wait is refused on AWS. So a look ends it, and for whoever
/// does not look, time. Source: Lambda spec 3.5; `docs/decisions/0018-a-function-settles-when-it-is-looked-at.md`.
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub runtime: String,
    pub handler: String,
    pub role: String,
    pub description: String,
    pub timeout_s: u32,
    pub memory_mib: u32,
    pub ephemeral_storage_mib: u32,
    pub architecture: String,
    /// `None` until set once; AWS tells "never set" and "set to nothing" apart. On disk they are sealed, and not here.
    #[serde(skip_serializing, default)]
    pub variables: Option<BTreeMap<String, String>>,
    /// In the order in which they are laid over each other. First value: none.
    #[serde(default)]
    pub layers: Vec<LayerReference>,
    #[serde(default)]
    pub logging: Logging,
    /// What runs the function, as this server found it when the runtime was set: `3.12.1`. Empty for a `bootstrap`, and
    /// in functions of earlier versions of this server.
    #[serde(default)]
    pub interpreter: String,
}

/// Without the values of variables, which may be secrets.
impl std::fmt::Debug for Configuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runtime, handler, role, variables, layers, .. } = self;
        let mut shown = f.debug_struct("Configuration");
        shown.field("runtime", runtime).field("handler", handler).field("role", role).field("layers", layers);
        shown.field("variables", &variables.as_ref().map(|v| v.keys())).finish_non_exhaustive()
    }
}

/// A layer version as a function holds it: with its content, so that it works on when the layer version is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReference {
    /// With its number.
    pub arn: String,
    pub code: Code,
}

/// `LoggingConfig`. Source: Lambda spec 1.11, 3.3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    pub format: LogFormat,
    /// `None` with the format Text, and only then.
    pub application_level: Option<String>,
    pub system_level: Option<String>,
    /// `None` is `/aws/lambda/<name>`.
    pub group: Option<String>,
}

impl Logging {
    /// The log group of the function `name`.
    pub fn group(&self, name: &str) -> String {
        self.group.clone().unwrap_or_else(|| format!("/aws/lambda/{name}"))
    }
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
    /// The packages of its layers, in their order.
    pub fn layer_codes(&self) -> Vec<&Code> {
        self.layers.iter().map(|layer| &layer.code).collect()
    }

    /// Whether nothing but the description differs.
    fn runs_like(&self, other: &Self) -> bool {
        *self == Self { description: self.description.clone(), ..other.clone() }
    }
}

impl Function {
    pub fn latest(&self) -> &Arc<Version> {
        self.versions.get(&VersionNumber::LATEST).expect("every function has a $LATEST")
    }

    /// The version that a qualifier leads to; of an alias with two the first.
    pub fn version(&self, qualifier: Option<&str>) -> Option<&Arc<Version>> {
        let number = match Resource::of(qualifier) {
            Resource::Function => VersionNumber::LATEST,
            Resource::Version(number) => number,
            Resource::Alias(name) => self.aliases.get(&name)?.version,
        };
        self.versions.get(&number)
    }

    /// The published versions that a qualifier leads to, with the part of the calls that each gets; none if it leads
    /// nowhere, or to `$LATEST`.
    pub fn versions_behind(&self, qualifier: &str) -> Vec<(VersionNumber, f64)> {
        let mut behind = match Resource::of(Some(qualifier)) {
            Resource::Function => Vec::new(),
            Resource::Version(number) => vec![(number, 1.0)],
            Resource::Alias(name) => match self.aliases.get(&name).map(|alias| (alias.version, alias.additional)) {
                None => Vec::new(),
                Some((version, None)) => vec![(version, 1.0)],
                Some((version, Some(other))) => vec![(other.version, other.weight), (version, 1.0 - other.weight)],
            },
        };
        behind.retain(|(number, _)| *number != VersionNumber::LATEST && self.versions.contains_key(number));
        behind
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
        self.settled_where(|_| true)
    }

    /// As [`Function::settled`], for those versions alone that were changed `settle_ms` ago or earlier.
    pub fn settled_by_time(&self, now_ms: i64, settle_ms: u64) -> Option<Self> {
        // A clock that was put back must not keep a function waiting.
        self.settled_where(|version| now_ms.abs_diff(version.modified_ms) >= settle_ms)
    }

    fn settled_where(&self, over: impl Fn(&Version) -> bool) -> Option<Self> {
        let settles = |version: &Version| version.standing != Standing::Settled && over(version);
        if !self.versions.values().any(|version| settles(version)) {
            return None;
        }
        let mut settled = self.clone();
        for version in settled.versions.values_mut().filter(|version| settles(version)) {
            let version = Arc::make_mut(version);
            version.standing = Standing::Settled;
            version.revision_id = new_id();
        }
        Some(settled)
    }

    /// The revision of a resource, which is its policy's as well. `None` if it is not there.
    pub fn revision(&self, resource: &Resource) -> Option<&str> {
        match resource {
            Resource::Function => Some(&self.latest().revision_id),
            Resource::Version(number) => self.versions.get(number).map(|version| version.revision_id.as_str()),
            Resource::Alias(name) => self.aliases.get(name).map(|alias| alias.revision_id.as_str()),
        }
    }

    /// Gives a resource a policy instead of the one it has, and with it a new revision. An empty one is none.
    pub fn put_policy(&mut self, resource: &Resource, policy: Policy) {
        match resource {
            Resource::Function => self.revise(VersionNumber::LATEST),
            Resource::Version(number) => self.revise(*number),
            Resource::Alias(name) => {
                if let Some(alias) = self.aliases.get_mut(name) {
                    Arc::make_mut(alias).revision_id = new_id();
                }
            }
        }
        if policy.statements.is_empty() {
            self.policies.remove(resource);
        } else {
            self.policies.insert(resource.clone(), policy);
        }
    }

    fn revise(&mut self, number: VersionNumber) {
        if let Some(version) = self.versions.get_mut(&number) {
            Arc::make_mut(version).revision_id = new_id();
        }
    }

    pub fn put_alias(&mut self, alias: Alias) {
        self.aliases.insert(alias.name.clone(), Arc::new(alias));
    }

    /// Removes an alias, if it is there, with its policy.
    pub fn remove_alias(&mut self, name: &str) {
        self.aliases.remove(name);
        self.policies.remove(&Resource::Alias(name.to_owned()));
        self.event_invoke_configs.remove(name);
    }

    /// Removes a published version, if it is there, with its policy. No alias may point to it.
    pub fn remove_version(&mut self, number: VersionNumber) {
        self.versions.remove(&number);
        self.policies.remove(&Resource::Version(number));
        self.event_invoke_configs.remove(&number.to_string());
    }

    /// The names of the aliases that may run a version.
    pub fn aliases_of(&self, number: VersionNumber) -> impl Iterator<Item = &str> {
        self.aliases.values().filter(move |alias| alias.invokes(number)).map(|alias| alias.name.as_str())
    }

    /// Bytes of the packages of all versions; two versions with one package count twice, as on AWS.
    pub fn code_bytes(&self) -> u64 {
        self.versions.values().map(|version| version.code.size).sum()
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
            latest_description: None,
        });
        updated
    }

    /// Publishes `$LATEST`: the function after it, and the number that stands for it.
    ///
    /// Nothing new is made if neither code nor configuration, its description included, has changed since the newest
    /// version was published. Source: Lambda spec 4.1.
    pub fn published(&self, description: Option<String>, standing: Standing) -> (Self, VersionNumber) {
        let latest = self.latest();
        if let Some(newest) = self.versions.get(&self.last_published)
            && newest.number != VersionNumber::LATEST
            && newest.code == latest.code
            && newest.configuration.runs_like(&latest.configuration)
            && newest.latest_description.as_ref().is_none_or(|then| *then == latest.configuration.description)
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
            latest_description: Some(latest.configuration.description.clone()),
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
