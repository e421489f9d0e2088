//! The tables of this room, and all the SQL that touches them.

use std::collections::{BTreeMap, BTreeSet};

use longshore_core::policy::Malformed;
use longshore_store::{Schema, Seal, Secret, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::entity::{AccessKey, Change, Entity, EntityKind, Managed, RolePart, State};
use crate::error::IdentityError;

/// `identity_entity` holds users and roles. `body` is JSON, with the documents of policies as they were given. The secret of an
/// access key is sealed ([`Seal`]) for its ID. AWS's own policies are in no table.
pub const SCHEMA: Schema = Schema {
    room: "identity",
    migrations: &[
        "
        CREATE TABLE identity_entity (
            id   TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            name TEXT NOT NULL COLLATE NOCASE,
            body TEXT NOT NULL,
            UNIQUE (kind, name)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE identity_policy (
            id   TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE COLLATE NOCASE,
            body TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE identity_key (
            id      TEXT PRIMARY KEY,
            user_id TEXT NOT NULL REFERENCES identity_entity (id),
            secret  BLOB NOT NULL,
            body    TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
    ",
        // What is done once in the life of a data directory.
        "
        CREATE TABLE identity_done (
            what TEXT PRIMARY KEY
        ) STRICT, WITHOUT ROWID;
    ",
    ],
};

#[derive(Serialize, Deserialize)]
struct EntityBody {
    path: String,
    created: i64,
    #[serde(default)]
    inline: BTreeMap<String, String>,
    #[serde(default)]
    attached: BTreeSet<String>,
    #[serde(default)]
    boundary: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    role: Option<RoleBody>,
}

#[derive(Serialize, Deserialize)]
struct RoleBody {
    trust: String,
    #[serde(default)]
    named: BTreeMap<String, String>,
    #[serde(default)]
    description: Option<String>,
    session_seconds_max: u32,
}

#[derive(Serialize, Deserialize)]
struct PolicyBody {
    arn: String,
    path: String,
    #[serde(default)]
    description: Option<String>,
    created: i64,
    updated: i64,
    default_version: u32,
    last_version: u32,
    versions: BTreeMap<u32, VersionBody>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct VersionBody {
    document: String,
    created: i64,
}

#[derive(Serialize, Deserialize)]
struct KeyBody {
    active: bool,
    created: i64,
}

/// The roles that there are without set-up were made, or found not to be needed.
pub(crate) const FIRST_ROLES: &str = "first roles";

pub(crate) fn is_done(connection: &Connection, what: &str) -> Result<bool, StoreError> {
    let found: Option<i64> =
        connection.query_row("SELECT 1 FROM identity_done WHERE what = ?1", [what], |row| row.get(0)).optional()?;
    Ok(found.is_some())
}

pub(crate) fn set_done(connection: &Connection, what: &str) -> Result<(), StoreError> {
    connection.execute("INSERT OR IGNORE INTO identity_done (what) VALUES (?1)", [what])?;
    Ok(())
}

/// Whether the secret of any access key is sealed: then the key that opens it must be there.
pub(crate) fn any_sealed(connection: &Connection) -> Result<bool, StoreError> {
    let found: Option<i64> =
        connection.query_row("SELECT 1 FROM identity_key LIMIT 1", [], |row| row.get(0)).optional()?;
    Ok(found.is_some())
}

/// All there is. What does not read any more is an error that names it: a policy that is left out would be a denial that is
/// left out.
pub(crate) fn all(connection: &Connection, seal: &Seal) -> Result<State, IdentityError> {
    let mut state = State::default();
    let mut statement = connection.prepare("SELECT id, kind, name, body FROM identity_entity")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, kind, name, body): (String, String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let what = format!("the {kind} {name}");
        let kind =
            EntityKind::parse(&kind).ok_or_else(|| IdentityError::Damaged(format!("{what} is of no known kind")))?;
        let body: EntityBody = from_json(&what, &body)?;
        let malformed = |error: Malformed| IdentityError::Damaged(format!("a policy of {what} does not read: {error}"));
        let mut inline = BTreeMap::new();
        for (policy, text) in body.inline {
            let parsed = Entity::inline_policy(kind, &name, &policy, &text).map_err(malformed)?;
            inline.insert(policy, parsed);
        }
        let role = match body.role {
            None => None,
            Some(role) => Some(RolePart {
                trust: Entity::trust_policy(&name, &role.trust).map_err(malformed)?,
                named: role.named,
                description: role.description,
                session_seconds_max: role.session_seconds_max,
            }),
        };
        if role.is_some() != (kind == EntityKind::Role) {
            return Err(IdentityError::Damaged(format!("{what} is half a role")));
        }
        let EntityBody { path, created, attached, boundary, tags, .. } = body;
        state.put_entity(Entity { kind, id, name, path, created, inline, attached, boundary, tags, role });
    }
    let mut statement = connection.prepare("SELECT id, name, body FROM identity_policy")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name, body): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let what = format!("the policy {name}");
        let body: PolicyBody = from_json(&what, &body)?;
        let mut versions = BTreeMap::new();
        for (number, version) in body.versions {
            let parsed = Managed::version(&body.arn, &version.document, version.created).map_err(|error| {
                IdentityError::Damaged(format!("version {number} of {what} does not read: {error}"))
            })?;
            versions.insert(number, parsed);
        }
        if !versions.contains_key(&body.default_version) {
            return Err(IdentityError::Damaged(format!("{what} lacks its default version")));
        }
        let PolicyBody { arn, path, description, created, updated, default_version, last_version, tags, .. } = body;
        state.put_policy(Managed {
            id,
            arn,
            name,
            path,
            description,
            created,
            updated,
            default_version,
            last_version,
            versions,
            tags,
        });
    }
    let mut statement = connection.prepare("SELECT id, user_id, secret, body FROM identity_key")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, user_id, secret, body): (String, String, Vec<u8>, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let body: KeyBody = from_json(&format!("the access key {id}"), &body)?;
        let opened = String::from_utf8(seal.open_sealed(&owner_of(&id), &secret)?)
            .map_err(|_| IdentityError::Damaged(format!("the secret of the access key {id} is no text")))?;
        state.put_key(AccessKey {
            id,
            user_id,
            secret: Secret::new(opened),
            active: body.active,
            created: body.created,
        });
    }
    Ok(state)
}

/// What a secret is sealed for.
fn owner_of(access_key_id: &str) -> String {
    format!("access key {access_key_id}")
}

/// Writes what has changed.
pub(crate) fn write(connection: &Connection, seal: &Seal, changes: &[Change]) -> Result<(), IdentityError> {
    for change in changes {
        match change {
            Change::RemoveKey(id) => {
                connection.prepare_cached("DELETE FROM identity_key WHERE id = ?1")?.execute([id])?;
            }
            Change::RemoveEntity(id) => {
                connection.prepare_cached("DELETE FROM identity_entity WHERE id = ?1")?.execute([id])?;
            }
            Change::RemovePolicy(id) => {
                connection.prepare_cached("DELETE FROM identity_policy WHERE id = ?1")?.execute([id])?;
            }
            Change::PutEntity(entity) => put_entity(connection, entity)?,
            Change::PutPolicy(policy) => put_policy(connection, policy)?,
            Change::PutKey(key) => {
                let body = to_json(&KeyBody { active: key.active, created: key.created })?;
                let secret = seal.seal(&owner_of(&key.id), key.secret.expose().as_bytes())?;
                connection
                    .prepare_cached(
                        "INSERT INTO identity_key VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT (id) DO UPDATE SET secret = ?3, body = ?4",
                    )?
                    .execute(params![key.id, key.user_id, secret, body])?;
            }
        }
    }
    Ok(())
}

fn put_entity(connection: &Connection, entity: &Entity) -> Result<(), IdentityError> {
    let body = to_json(&EntityBody {
        path: entity.path.clone(),
        created: entity.created,
        inline: entity.inline.iter().map(|(name, policy)| (name.clone(), policy.document.text().to_owned())).collect(),
        attached: entity.attached.clone(),
        boundary: entity.boundary.clone(),
        tags: entity.tags.clone(),
        role: entity.role.as_ref().map(|role| RoleBody {
            trust: role.trust.document.text().to_owned(),
            named: role.named.clone(),
            description: role.description.clone(),
            session_seconds_max: role.session_seconds_max,
        }),
    })?;
    connection
        .prepare_cached(
            "INSERT INTO identity_entity VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE SET name = ?3, body = ?4",
        )?
        .execute(params![entity.id, entity.kind.word(), entity.name, body])?;
    Ok(())
}

fn put_policy(connection: &Connection, policy: &Managed) -> Result<(), IdentityError> {
    let versions = policy.versions.iter().map(|(number, version)| {
        (*number, VersionBody { document: version.policy.document.text().to_owned(), created: version.created })
    });
    let body = to_json(&PolicyBody {
        arn: policy.arn.clone(),
        path: policy.path.clone(),
        description: policy.description.clone(),
        created: policy.created,
        updated: policy.updated,
        default_version: policy.default_version,
        last_version: policy.last_version,
        versions: versions.collect(),
        tags: policy.tags.clone(),
    })?;
    connection
        .prepare_cached("INSERT INTO identity_policy VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = ?3")?
        .execute(params![policy.id, policy.name, body])?;
    Ok(())
}

fn to_json(value: &impl Serialize) -> Result<String, IdentityError> {
    serde_json::to_string(value).map_err(|error| IdentityError::Fault(format!("a row cannot be written: {error}")))
}

fn from_json<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, IdentityError> {
    serde_json::from_str(text).map_err(|error| IdentityError::Damaged(format!("{what} does not read: {error}")))
}
