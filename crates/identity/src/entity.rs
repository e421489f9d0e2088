//! Users, roles, managed policies and access keys: plain values, as they lie in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use longshore_core::policy::{Document, Kind, Malformed, Policy};
use longshore_store::Secret;

use crate::Settings;

/// Whose policies and tags they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EntityKind {
    User,
    Role,
}

impl EntityKind {
    /// As ARNs, messages and rows have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::User, Self::Role].into_iter().find(|kind| kind.word() == word)
    }
}

/// A user or a role: what has policies, and acts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entity {
    pub kind: EntityKind,
    /// `AIDA…`, `AROA…`: another entity of the same name later is another one.
    pub id: String,
    pub name: String,
    /// Begins and ends with a slash.
    pub path: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// By name.
    pub inline: BTreeMap<String, Policy>,
    /// ARNs of managed policies.
    pub attached: BTreeSet<String>,
    /// The ARN of the managed policy that is its permissions boundary.
    pub boundary: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// Of a role.
    pub role: Option<RolePart>,
}

/// What only a role has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RolePart {
    pub trust: Policy,
    /// Of the users and roles that the trust policy names: whose the ARN was when it was written.
    pub named: BTreeMap<String, String>,
    pub description: Option<String>,
    pub session_seconds_max: u32,
}

impl Entity {
    pub fn arn(&self, settings: &Settings) -> String {
        settings.arn(self.kind.word(), &self.path, &self.name)
    }

    /// An inline policy, called as denials call it.
    pub fn inline_policy(kind: EntityKind, entity: &str, name: &str, text: &str) -> Result<Policy, Malformed> {
        let called = format!("inline policy {name} of {} {entity}", kind.word());
        Ok(Policy { name: called.into(), document: Document::parse(text, Kind::Identity)? })
    }

    pub fn session_policy(text: &str) -> Result<Policy, Malformed> {
        Ok(Policy { name: "session policy".into(), document: Document::parse(text, Kind::Identity)? })
    }

    pub fn trust_policy(role: &str, text: &str) -> Result<Policy, Malformed> {
        Ok(Policy {
            name: format!("trust policy of role {role}").into(),
            document: Document::parse(text, Kind::Trust)?,
        })
    }
}

/// A managed policy of a customer, or of AWS.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Managed {
    /// `ANPA…`
    pub id: String,
    pub arn: String,
    pub name: String,
    pub path: String,
    pub description: Option<String>,
    /// Seconds since the epoch.
    pub created: i64,
    /// When the default version last became another.
    pub updated: i64,
    pub default_version: u32,
    /// Of all versions that there ever were, the latest; its number does not come again.
    pub last_version: u32,
    pub versions: BTreeMap<u32, ManagedVersion>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ManagedVersion {
    pub policy: Policy,
    /// Seconds since the epoch.
    pub created: i64,
}

impl Managed {
    /// A version's document, called as denials call it: by the policy's ARN.
    pub fn version(arn: &str, text: &str, created: i64) -> Result<ManagedVersion, Malformed> {
        Ok(ManagedVersion {
            policy: Policy { name: arn.into(), document: Document::parse(text, Kind::Identity)? },
            created,
        })
    }

    /// What holds now. A default version that is not there is damage that [`crate::table`] refuses.
    pub fn policy(&self) -> Option<&Policy> {
        self.versions.get(&self.default_version).map(|version| &version.policy)
    }
}

/// An access key of a user.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AccessKey {
    /// `AKIA…`
    pub id: String,
    pub user_id: String,
    pub secret: Secret,
    pub active: bool,
    /// Seconds since the epoch.
    pub created: i64,
}

/// A name as it is kept in order and compared: names are not distinguished by case.
pub(crate) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// All there is at one moment. Cheap to clone as a whole: changes are made to a copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// By kind and folded name.
    entities: BTreeMap<(EntityKind, String), Arc<Entity>>,
    /// By folded name; AWS's own are not in here.
    policies: BTreeMap<String, Arc<Managed>>,
    /// By ID.
    keys: BTreeMap<String, Arc<AccessKey>>,
    /// Names by ID.
    by_id: BTreeMap<String, (EntityKind, String)>,
}

impl State {
    /// By its name as it was given at the start, upper and lower case told apart.
    pub fn entity(&self, kind: EntityKind, name: &str) -> Option<&Arc<Entity>> {
        self.entities.get(&(kind, folded(name))).filter(|entity| entity.name == name)
    }

    pub fn entity_by_id(&self, id: &str) -> Option<&Arc<Entity>> {
        self.entities.get(self.by_id.get(id)?)
    }

    /// Is there one whose name differs in nothing but case?
    pub fn name_taken(&self, kind: EntityKind, name: &str) -> bool {
        self.entities.contains_key(&(kind, folded(name)))
    }

    /// In the order of their names.
    pub fn entities(&self, kind: EntityKind) -> impl Iterator<Item = &Arc<Entity>> {
        self.entities.values().filter(move |entity| entity.kind == kind)
    }

    pub fn put_entity(&mut self, entity: Entity) {
        let key = (entity.kind, folded(&entity.name));
        if let Some(before) = self.by_id.insert(entity.id.clone(), key.clone())
            && before != key
        {
            self.entities.remove(&before);
        }
        self.entities.insert(key, Arc::new(entity));
    }

    pub fn remove_entity(&mut self, entity: &Entity) {
        self.entities.remove(&(entity.kind, folded(&entity.name)));
        self.by_id.remove(&entity.id);
    }

    /// A customer's managed policy.
    pub fn policy(&self, arn: &str) -> Option<&Arc<Managed>> {
        let name = arn.rsplit_once('/')?.1;
        self.policies.get(&folded(name)).filter(|policy| policy.arn == arn)
    }

    pub fn policy_name_taken(&self, name: &str) -> bool {
        self.policies.contains_key(&folded(name))
    }

    /// Of customers, in the order of their names.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Managed>> {
        self.policies.values()
    }

    pub fn put_policy(&mut self, policy: Managed) {
        self.policies.insert(folded(&policy.name), Arc::new(policy));
    }

    pub fn remove_policy(&mut self, policy: &Managed) {
        self.policies.remove(&folded(&policy.name));
    }

    pub fn key(&self, id: &str) -> Option<&Arc<AccessKey>> {
        self.keys.get(id)
    }

    pub fn keys_of<'a>(&'a self, user_id: &'a str) -> impl Iterator<Item = &'a Arc<AccessKey>> {
        self.keys.values().filter(move |key| key.user_id == user_id)
    }

    pub fn put_key(&mut self, key: AccessKey) {
        self.keys.insert(key.id.clone(), Arc::new(key));
    }

    pub fn remove_key(&mut self, id: &str) {
        self.keys.remove(id);
    }

    /// How many attach a managed policy, and how many have it as their boundary.
    pub fn uses(&self, policy_arn: &str) -> (usize, usize) {
        let attached = self.entities.values().filter(|entity| entity.attached.contains(policy_arn)).count();
        let bounded = self.entities.values().filter(|entity| entity.boundary.as_deref() == Some(policy_arn)).count();
        (attached, bounded)
    }

    /// The same of all managed policies that anybody uses, in one walk over the entities.
    pub fn uses_of_all(&self) -> HashMap<&str, (usize, usize)> {
        let mut uses: HashMap<&str, (usize, usize)> = HashMap::new();
        for entity in self.entities.values() {
            for arn in &entity.attached {
                uses.entry(arn).or_default().0 += 1;
            }
            if let Some(arn) = &entity.boundary {
                uses.entry(arn).or_default().1 += 1;
            }
        }
        uses
    }

    /// What has to be written so that the tables, which hold `before`, hold this.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        // What goes goes first, so that a name that is free again may be taken.
        for key in before.keys.values().filter(|key| !self.keys.contains_key(&key.id)) {
            changes.push(Change::RemoveKey(key.id.clone()));
        }
        for entity in before.entities.values().filter(|entity| !self.by_id.contains_key(&entity.id)) {
            changes.push(Change::RemoveEntity(entity.id.clone()));
        }
        let ids: BTreeSet<&str> = self.policies.values().map(|policy| policy.id.as_str()).collect();
        for policy in before.policies.values().filter(|policy| !ids.contains(policy.id.as_str())) {
            changes.push(Change::RemovePolicy(policy.id.clone()));
        }
        let same = |at: &(EntityKind, String), now: &Arc<Entity>| {
            before.entities.get(at).is_some_and(|then| Arc::ptr_eq(then, now))
        };
        for (at, entity) in self.entities.iter().filter(|(at, entity)| !same(at, entity)) {
            debug_assert_eq!(at.1, folded(&entity.name));
            changes.push(Change::PutEntity(entity.clone()));
        }
        for (at, policy) in &self.policies {
            if !before.policies.get(at).is_some_and(|then| Arc::ptr_eq(then, policy)) {
                changes.push(Change::PutPolicy(policy.clone()));
            }
        }
        for (at, key) in &self.keys {
            if !before.keys.get(at).is_some_and(|then| Arc::ptr_eq(then, key)) {
                changes.push(Change::PutKey(key.clone()));
            }
        }
        changes
    }
}

/// One row that becomes another.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    RemoveKey(String),
    RemoveEntity(String),
    RemovePolicy(String),
    PutEntity(Arc<Entity>),
    PutPolicy(Arc<Managed>),
    PutKey(Arc<AccessKey>),
}
