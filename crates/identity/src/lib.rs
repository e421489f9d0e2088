//! IAM and STS: users, roles, policies, access keys, sessions.
//!
//! All there is lies in memory as one immutable snapshot, a mirror of the tables: a request finds its caller by one look, with no
//! SQL. Changes are made one at a time, durable before the snapshot shows them, and shown before the caller is answered. What a
//! policy means is decided in `core::policy`; here is what policies there are, and whose.

#![forbid(unsafe_code)]

mod aws_policies;
mod entity;
mod error;
mod ids;
mod operations;
mod query;
mod session;
mod table;
mod trust;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use longshore_core::permission::Meant;
use longshore_core::policy::{Context, Policy, Principal, PrincipalKind, Rights};
use longshore_store::seal::Sealed;
use longshore_store::{Records, Seal, Secret};
use longshore_wire::{Asked, Caller, caller};

pub use error::{AssumeError, IdentityError};
pub use operations::OWN_OPERATIONS;
pub use operations::all as operations;
/// The one answer of STS that is given where IAM is switched off.
pub use operations::caller_identity::without_iam;
#[cfg(any(test, feature = "testing"))]
pub use session::SessionCredentials;
pub use table::SCHEMA;

use entity::{Entity, EntityKind, Managed, RolePart, State};
use ids::Prefix;
use session::{Claims, Of, Terms};

/// The file with the key that seals secrets and sessions, in the data directory.
const KEY_FILE: &str = "identity.key";
/// What is sealed with it, for messages.
const SEALED: Sealed = Sealed { what: "secret access keys", whose: "there are access keys" };
/// How long a role's session may last unless the role says otherwise, in seconds. AWS's value.
pub(crate) const SESSION_SECONDS: u32 = 3_600;

/// What holds for all entities.
#[derive(Debug, Clone)]
pub struct Settings {
    /// 12 digits.
    pub account: String,
    pub region: String,
}

impl Settings {
    /// `arn:aws:iam::111111111111:role/path/name`.
    pub(crate) fn arn(&self, kind: &str, path: &str, name: &str) -> String {
        format!("arn:aws:iam::{}:{kind}{path}{name}", self.account)
    }

    /// The ARN of a role's session.
    pub(crate) fn session_arn(&self, role: &str, session_name: &str) -> String {
        format!("arn:aws:sts::{}:assumed-role/{role}/{session_name}", self.account)
    }
}

/// All users, roles, policies and keys; cheap to clone.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    records: Records,
    seal: Seal,
    settings: Settings,
    snapshot: RwLock<Arc<Snapshot>>,
    /// How often the snapshot was changed; asked for with every call of a job.
    generation: AtomicU64,
    /// When the key was made, and so the account's first moment here, in seconds since the epoch.
    began: i64,
    /// One change at a time, so that snapshot and tables agree on the order. Entities change rarely.
    changing: tokio::sync::Mutex<()>,
}

/// What there was at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub state: State,
}

/// Whose an access key is.
#[derive(Debug, Clone)]
pub struct Known {
    pub secret_access_key: Secret,
    pub subject: caller::Subject,
    /// Of a short-lived key.
    pub session: Option<SessionFacts>,
    /// Condition keys that follow from the session: `aws:TokenIssueTime`, `aws:MultiFactorAuthPresent`, `aws:SourceIdentity`.
    pub context: Context,
}

/// What a request has to send beside its signature, and until when.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    pub token: Secret,
    /// Seconds since the epoch.
    pub expires_at: i64,
}

/// A role as the rest of the server sees it.
#[derive(Debug, Clone)]
pub struct Role {
    pub arn: String,
    pub name: String,
    /// `AROA…`
    pub id: String,
    pub trust: Policy,
    pub rights: Arc<Rights>,
    pub tags: BTreeMap<String, String>,
    pub session_seconds_max: u32,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("account", &self.inner.settings.account).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// A managed policy: of AWS, or of a customer.
    pub fn managed(&self, arn: &str) -> Option<&Managed> {
        aws_policies::find(arn).or_else(|| self.state.policy(arn).map(|policy| &**policy))
    }

    /// The policies of an entity. One that is gone from under it allows nothing, and as a boundary denies all.
    pub fn rights_of(&self, entity: &Entity) -> Rights {
        let managed = entity.attached.iter().filter_map(|arn| self.managed(arn)?.policy().cloned());
        let boundary = entity.boundary.as_ref().map(|arn| self.managed_or_nothing(arn));
        Rights { identity: entity.inline.values().cloned().chain(managed).collect(), boundary, session: None }
    }

    fn managed_or_nothing(&self, arn: &str) -> Policy {
        self.managed(arn).and_then(Managed::policy).cloned().unwrap_or_else(|| aws_policies::nothing(arn))
    }

    /// The policies that a session was begun with.
    fn session_policies(&self, terms: &Terms) -> Option<Vec<Policy>> {
        let own = terms.policy.as_ref().map(|text| {
            // It was read when the session began. If it is no policy any more, it allows nothing.
            Entity::session_policy(text).unwrap_or_else(|_| aws_policies::nothing("session policy"))
        });
        let managed = terms.policy_arns.iter().map(|arn| self.managed_or_nothing(arn));
        terms.has_policies().then(|| own.into_iter().chain(managed).collect())
    }
}

impl Identity {
    /// Reads the tables. Blocks; for start-up. The key that seals secrets lies beside the database; it is made if it is not
    /// there and nothing is sealed with it yet.
    pub fn open(records: Records, data_dir: &Path, settings: Settings) -> Result<Self, IdentityError> {
        let (seal, state) = records.read_blocking::<_, IdentityError>(|connection| {
            let seal = Seal::open(&data_dir.join(KEY_FILE), SEALED, table::any_sealed(connection)?)?;
            let state = table::all(connection, &seal)?;
            Ok((seal, state))
        })?;
        let made = std::fs::metadata(data_dir.join(KEY_FILE)).and_then(|key| key.modified());
        let began = made.ok().and_then(|time| jiff::Timestamp::try_from(time).ok()).map_or_else(now, |t| t.as_second());
        let snapshot = RwLock::new(Arc::new(Snapshot { state }));
        let changing = tokio::sync::Mutex::default();
        Ok(Self {
            inner: Arc::new(Inner {
                records,
                seal,
                settings,
                snapshot,
                generation: AtomicU64::new(0),
                began,
                changing,
            }),
        })
    }

    /// Changes with each change of an entity, a policy or a key: what is derived from them may be kept as long as this is the
    /// same.
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn began(&self) -> i64 {
        self.inner.began
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.inner.seal
    }

    /// Changes what there is. `decide` gets a copy; what it makes of it is durable and visible when this returns. An `Err`
    /// changes nothing.
    ///
    /// Runs to its end even if the caller goes away: tables and snapshot never part.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut State, &Snapshot) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let identity = self.clone();
        let work = async move {
            let _one_at_a_time = identity.inner.changing.lock().await;
            let before = identity.snapshot();
            let mut state = before.state.clone();
            let answer = decide(&mut state, &before)?;
            let changes = state.changes_since(&before.state);
            if changes.is_empty() {
                return Ok(answer);
            }
            let seal = identity.inner.seal.clone();
            let write = move |connection: &rusqlite::Connection| table::write(connection, &seal, &changes);
            identity.inner.records.write::<_, IdentityError>(write).await?;
            *identity.inner.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Snapshot { state });
            // After it: whoever has seen the new number sees what it stands for.
            identity.inner.generation.fetch_add(1, Ordering::Release);
            Ok(answer)
        };
        tokio::spawn(work)
            .await
            .unwrap_or_else(|panic| Err(IdentityError::Fault(format!("an internal error occurred: {panic}"))))
    }

    /// Whose an access key is, as it stands now; `None` if there is no such key, or it is not active.
    ///
    /// A short-lived key is known only with its token, whole, and as long as its role or user is there. `now` is in seconds
    /// since the epoch. One that has expired is still known, so that its client can be told `ExpiredToken`:
    /// `wire::sigv4::Key::temporary` takes `expires_at` and refuses it. It may do nothing in any case.
    pub fn key(&self, access_key_id: &str, session_token: Option<&str>, now: i64) -> Option<Known> {
        let snapshot = self.snapshot();
        if let Some(key) = snapshot.state.key(access_key_id) {
            let user = snapshot.state.entity_by_id(&key.user_id).filter(|_| key.active)?;
            let subject = self.subject_of_user(&snapshot, user);
            return Some(Known {
                secret_access_key: key.secret.clone(),
                subject,
                session: None,
                context: Context::new(),
            });
        }
        let token = session_token.filter(|_| access_key_id.starts_with(ids::SESSION_KEY))?;
        let claims = session::open(&self.inner.seal, access_key_id, token)?;
        let expired = now >= claims.expires_at;
        let mut subject = match &claims.of {
            Of::Root if expired => return None,
            Of::Root => caller::Subject::root(&self.inner.settings.account),
            Of::User(id) => {
                let user = snapshot.state.entity_by_id(id).filter(|entity| entity.kind == EntityKind::User)?;
                self.subject_of_user(&snapshot, user)
            }
            Of::Role(id, session_name) => {
                let role = snapshot.state.entity_by_id(id).filter(|entity| entity.kind == EntityKind::Role)?;
                self.subject_of_session(&snapshot, role, session_name, &claims.terms)
            }
        };
        if expired {
            subject.rights = Arc::new(Rights { session: Some(Vec::new()), ..Rights::default() });
        }
        Some(Known {
            secret_access_key: session::secret_of(&self.inner.seal, token),
            subject,
            context: session_context(&claims),
            session: Some(SessionFacts { token: Secret::new(token), expires_at: claims.expires_at }),
        })
    }

    /// Why [`Identity::key`] knows no such key: for the operator's logs. The caller is told nothing of it.
    pub fn why_unknown(&self, access_key_id: &str, session_token: Option<&str>) -> &'static str {
        if let Some(key) = self.snapshot().state.key(access_key_id) {
            return if key.active { "the key's user is gone" } else { "the key is inactive" };
        }
        if !access_key_id.starts_with(ids::SESSION_KEY) {
            return "there is no such key";
        }
        let Some(token) = session_token else { return "the key is of a session, and there is no session token" };
        match session::open(&self.inner.seal, access_key_id, token) {
            None => "the session token does not fit the key",
            Some(_) => "the session has ended, or whose it was is gone",
        }
    }

    fn subject_of_user(&self, snapshot: &Snapshot, user: &Entity) -> caller::Subject {
        let principal = Principal {
            account: self.inner.settings.account.clone(),
            arn: user.arn(&self.inner.settings),
            user_id: user.id.clone(),
            kind: PrincipalKind::User { name: user.name.clone() },
            tags: user.tags.clone(),
        };
        caller::Subject { principal: Arc::new(principal), rights: Arc::new(snapshot.rights_of(user)) }
    }

    fn subject_of_session(
        &self,
        snapshot: &Snapshot,
        role: &Entity,
        session_name: &str,
        terms: &Terms,
    ) -> caller::Subject {
        let settings = &self.inner.settings;
        let mut tags = role.tags.clone();
        // A tag of the session stands above the role's, whatever the case of its key.
        tags.retain(|key, _| !terms.tags.keys().any(|given| given.eq_ignore_ascii_case(key)));
        tags.extend(terms.tags.clone());
        let principal = Principal {
            account: settings.account.clone(),
            arn: settings.session_arn(&role.name, session_name),
            user_id: format!("{}:{session_name}", role.id),
            kind: PrincipalKind::AssumedRole { role_arn: role.arn(settings), session_name: session_name.to_owned() },
            tags,
        };
        let rights = Rights { session: snapshot.session_policies(terms), ..snapshot.rights_of(role) };
        caller::Subject { principal: Arc::new(principal), rights: Arc::new(rights) }
    }

    /// Whether a start of this data directory has settled which roles there are without set-up.
    pub async fn has_first_roles(&self) -> Result<bool, IdentityError> {
        self.inner.records.read(|connection| Ok(table::is_done(connection, table::FIRST_ROLES)?)).await
    }

    /// Writes down that it has: what its owner takes away afterwards stays away. Durable when this returns.
    pub async fn settle_first_roles(&self) -> Result<(), IdentityError> {
        self.inner.records.write(|connection| Ok(table::set_done(connection, table::FIRST_ROLES)?)).await
    }

    /// Whether nobody has made anything here: no user, no policy, and no role but some of these.
    pub fn is_untouched_but_for(&self, roles: &BTreeSet<String>) -> bool {
        let snapshot = self.snapshot();
        let mut there = snapshot.state.entities(EntityKind::Role).map(|role| role.arn(&self.inner.settings));
        snapshot.state.entities(EntityKind::User).next().is_none()
            && snapshot.state.policies().next().is_none()
            && there.all(|role| roles.contains(&role))
    }

    /// Whom an ARN that a policy of a resource names means now.
    pub fn meant(&self, arn: &str) -> Meant {
        let settings = &self.inner.settings;
        let Some((kind, name)) = trust::own_entity(settings, arn) else { return Meant::Unknown };
        match self.snapshot().state.entity(kind, name).filter(|entity| entity.arn(settings) == arn) {
            Some(entity) => Meant::Entity(entity.id.clone()),
            None => Meant::Nobody,
        }
    }

    /// The role of an ARN, path included.
    pub fn role(&self, arn: &str) -> Option<Role> {
        let snapshot = self.snapshot();
        let role = self.role_entity(&snapshot, arn)?;
        let part = role.role.as_ref()?;
        Some(Role {
            arn: arn.to_owned(),
            name: role.name.clone(),
            id: role.id.clone(),
            trust: part.trust.clone(),
            rights: Arc::new(snapshot.rights_of(role)),
            tags: role.tags.clone(),
            session_seconds_max: part.session_seconds_max,
        })
    }

    pub(crate) fn role_entity<'s>(&self, snapshot: &'s Snapshot, arn: &str) -> Option<&'s Entity> {
        let name = arn.rsplit_once('/')?.1;
        let role = snapshot.state.entity(EntityKind::Role, name)?;
        (role.arn(&self.inner.settings) == arn).then_some(&**role)
    }

    /// A session of a role for a service of AWS's own (`Caller::service`), without credentials. The role's trust policy decides, with
    /// what the service says of itself (`aws:SourceAccount`, `aws:SourceArn`); the service's witness is told.
    pub fn assume_for_service(
        &self,
        service: &Caller,
        role_arn: &str,
        session_name: &str,
    ) -> Result<caller::Subject, AssumeError> {
        let snapshot = self.snapshot();
        let role = self.trusting(&snapshot, service, role_arn, session_name)?;
        Ok(self.subject_of_session(&snapshot, role, session_name, &Terms::default()))
    }

    /// As [`Identity::assume_for_service`], with credentials that are good for `seconds`, beginning at `now`, in seconds since
    /// the epoch. For tests alone, of sessions that have expired: no operation begins one in the past.
    #[cfg(any(test, feature = "testing"))]
    pub fn session(
        &self,
        service: &Caller,
        role_arn: &str,
        session_name: &str,
        seconds: u32,
        now: i64,
    ) -> Result<SessionCredentials, AssumeError> {
        let snapshot = self.snapshot();
        let role = self.trusting(&snapshot, service, role_arn, session_name)?;
        let of = Of::Role(role.id.clone(), session_name.to_owned());
        Ok(session::begin(&self.inner.seal, of, Terms::default(), now, seconds)?)
    }

    fn trusting<'s>(
        &self,
        snapshot: &'s Snapshot,
        service: &Caller,
        role_arn: &str,
        session_name: &str,
    ) -> Result<&'s Entity, AssumeError> {
        let asked = Asked::new("sts:AssumeRole", role_arn).with("sts:RoleSessionName", session_name);
        let role = self.role_entity(snapshot, role_arn);
        let Some((role, RolePart { trust, .. })) = role.and_then(|role| Some((role, role.role.as_ref()?))) else {
            // There is nothing that could allow it: that it was wanted is told all the same.
            return match service.may(&asked) {
                Ok(()) | Err(_) => Err(AssumeError::NoSuchRole(role_arn.to_owned())),
            };
        };
        let asked = asked.with_context(role_context(role)).with_trust(trust.clone());
        if service.may(&asked).is_ok() {
            return Ok(role);
        }
        Err(AssumeError::NotTrusted {
            role_arn: role_arn.to_owned(),
            service: service.principal().arn.clone(),
            why: service.explain(&asked).in_short(),
        })
    }

    /// Makes a role with one inline policy, unless there is a role of that ARN: what there is stays as it is. Durable when this
    /// returns.
    pub async fn ensure_role(
        &self,
        arn: &str,
        trust: &str,
        policy_name: &str,
        policy: &str,
    ) -> Result<(), IdentityError> {
        let settings = self.inner.settings.clone();
        let start = settings.arn("role", "/", "");
        let rest = arn.strip_prefix(&start).filter(|rest| !rest.is_empty() && !rest.ends_with('/'));
        let rest = rest.ok_or_else(|| IdentityError::InvalidInput(format!("{arn} is no role of this account")))?;
        let (path, name) = match rest.rsplit_once('/') {
            Some((path, name)) => (format!("/{path}/"), name.to_owned()),
            None => ("/".to_owned(), rest.to_owned()),
        };
        validate::name(&name, "roleName", validate::ROLE_NAME)?;
        validate::path(&path)?;
        let part = RolePart {
            trust: Entity::trust_policy(&name, trust)?,
            named: BTreeMap::new(),
            description: None,
            session_seconds_max: SESSION_SECONDS,
        };
        let inline = Entity::inline_policy(EntityKind::Role, &name, policy_name, policy)?;
        let mut role = Entity {
            kind: EntityKind::Role,
            id: ids::id(Prefix::Role)?,
            name,
            path,
            created: now(),
            inline: BTreeMap::from([(policy_name.to_owned(), inline)]),
            attached: Default::default(),
            boundary: None,
            tags: BTreeMap::new(),
            role: Some(part),
        };
        self.change(move |state, _| {
            if let Some(there) = state.entities(EntityKind::Role).find(|there| same_name(there, &role)) {
                return match there.path == role.path && there.name == role.name {
                    true => Ok(()),
                    false => Err(IdentityError::EntityAlreadyExists(format!(
                        "Role with name {} already exists, at another path or in other letters.",
                        role.name
                    ))),
                };
            }
            if let Some(part) = &mut role.role {
                part.named = trust::named(&settings, state, &part.trust)?;
            }
            state.put_entity(role);
            Ok(())
        })
        .await
    }
}

fn same_name(one: &Entity, other: &Entity) -> bool {
    one.name.eq_ignore_ascii_case(&other.name)
}

/// Condition keys that follow from a role that is to be assumed.
pub(crate) fn role_context(role: &Entity) -> Context {
    let mut context = Context::new();
    for (key, value) in &role.tags {
        context.set(&format!("aws:ResourceTag/{key}"), value);
        context.set(&format!("iam:ResourceTag/{key}"), value);
    }
    context
}

/// Condition keys that follow from a session's token.
fn session_context(claims: &Claims) -> Context {
    let mut context = Context::new().with("aws:MultiFactorAuthPresent", "false");
    context.set("aws:TokenIssueTime", query::date(claims.issued_at));
    if let Some(source) = &claims.terms.source_identity {
        context.set("aws:SourceIdentity", source);
    }
    context
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
