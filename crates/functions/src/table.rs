//! The tables of this room, and all the SQL that touches them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use longshore_core::event_invocation::{Event, Tries};
use longshore_core::time::Tick;
use longshore_store::{Schema, Seal, StoreError};
use rusqlite::{Connection, params};

use longshore_core::permission::Policy;

use crate::code::Code;
use crate::error::FunctionError;
use crate::function::{
    Additional, Alias, Configuration, Function, ProvisionedConcurrency, Resource, Standing, Version, VersionNumber,
};
use crate::layer::{Layer, LayerVersion, Layers};

/// `function_version` holds `$LATEST` as number 0, one row among the published ones. `function_policy` holds the policy
/// of the function itself with an empty qualifier; `statements` are as AWS writes them.
///
/// Environment variables stand in `variables`, sealed ([`Seal`]) for their deployment. Earlier versions wrote them into
/// `configuration` as they were given; such rows are sealed at the first start ([`seal_rows`]).
pub const SCHEMA: Schema = Schema {
    room: "functions",
    migrations: &[
        "
        CREATE TABLE function (
            id                   TEXT PRIMARY KEY,
            name                 TEXT NOT NULL UNIQUE,
            last_published       INTEGER NOT NULL,
            reserved_concurrency INTEGER,
            tags                 TEXT NOT NULL
        ) STRICT;
        CREATE TABLE function_version (
            function_id   TEXT NOT NULL REFERENCES function (id) ON DELETE CASCADE,
            number        INTEGER NOT NULL,
            revision_id   TEXT NOT NULL,
            deployment_id TEXT NOT NULL,
            standing      TEXT NOT NULL,
            code_sha256   TEXT NOT NULL,
            code_size     INTEGER NOT NULL,
            modified_ms   INTEGER NOT NULL,
            configuration TEXT NOT NULL,
            PRIMARY KEY (function_id, number)
        ) STRICT, WITHOUT ROWID;
    ",
        "
        ALTER TABLE function_version ADD COLUMN latest_description TEXT;
        CREATE TABLE function_alias (
            function_id       TEXT NOT NULL REFERENCES function (id) ON DELETE CASCADE,
            name              TEXT NOT NULL,
            number            INTEGER NOT NULL,
            additional_number INTEGER,
            additional_weight REAL,
            description       TEXT NOT NULL,
            revision_id       TEXT NOT NULL,
            PRIMARY KEY (function_id, name)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE function_policy (
            function_id TEXT NOT NULL REFERENCES function (id) ON DELETE CASCADE,
            qualifier   TEXT NOT NULL,
            statements  TEXT NOT NULL,
            PRIMARY KEY (function_id, qualifier)
        ) STRICT, WITHOUT ROWID;
    ",
        "
        CREATE TABLE function_provisioned (
            function_id TEXT NOT NULL REFERENCES function (id) ON DELETE CASCADE,
            qualifier   TEXT NOT NULL,
            requested   INTEGER NOT NULL,
            modified_ms INTEGER NOT NULL,
            PRIMARY KEY (function_id, qualifier)
        ) STRICT, WITHOUT ROWID;
    ",
        "
        ALTER TABLE function_version ADD COLUMN variables BLOB;
        CREATE TABLE layer (
            name           TEXT PRIMARY KEY,
            last_published INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE layer_version (
            layer       TEXT NOT NULL REFERENCES layer (name),
            number      INTEGER NOT NULL,
            code_sha256 TEXT NOT NULL,
            code_size   INTEGER NOT NULL,
            created_ms  INTEGER NOT NULL,
            about       TEXT NOT NULL,
            permissions TEXT,
            PRIMARY KEY (layer, number)
        ) STRICT, WITHOUT ROWID;
    ",
        EVENTS,
    ],
};

/// Events: what was accepted and is not done. They outlive their function until they are dropped, with a word in the log;
/// `function_id` tells it from a later one of its name. Times are those of the queue's own clock, in milliseconds, whose
/// last known time is in `event_clock`.
const EVENTS: &str = "
    ALTER TABLE function ADD COLUMN event_invoke_configs TEXT NOT NULL DEFAULT '{}';
    CREATE TABLE event (
        number          INTEGER PRIMARY KEY,
        function_id     TEXT NOT NULL,
        function_name   TEXT NOT NULL,
        qualifier       TEXT,
        request_id      TEXT NOT NULL,
        trace_id        TEXT NOT NULL,
        payload         BLOB NOT NULL,
        accepted        INTEGER NOT NULL,
        due             INTEGER NOT NULL,
        function_errors INTEGER NOT NULL,
        faults          INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE event_clock (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        now INTEGER NOT NULL
    ) STRICT;
    INSERT INTO event_clock VALUES (1, 0);
";

/// Whether any environment variables are sealed: then their key must be there.
pub fn any_sealed(connection: &Connection) -> Result<bool, StoreError> {
    let sealed = "SELECT EXISTS (SELECT 1 FROM function_version WHERE variables IS NOT NULL)";
    Ok(connection.query_row(sealed, [], |row| row.get(0))?)
}

/// Seals the environment variables that an earlier version of this server wrote as they were given. Returns how many
/// rows had some.
pub fn seal_rows(connection: &Connection, seal: &Seal) -> Result<usize, FunctionError> {
    let mut open = Vec::new();
    let mut statement = connection.prepare(
        "SELECT function_id, number, deployment_id, configuration FROM function_version WHERE variables IS NULL",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let configuration: Configuration = from_json("configuration", &row.get::<_, String>(3)?)?;
        if configuration.variables.is_some() {
            open.push((row.get::<_, String>(0)?, row.get::<_, u32>(1)?, row.get::<_, String>(2)?, configuration));
        }
    }
    if open.is_empty() {
        return Ok(0);
    }
    // What is replaced is overwritten, and does not lie on in a page that nobody uses.
    connection.pragma_update(None, "secure_delete", true)?;
    for (function, number, deployment, configuration) in &open {
        connection.execute(
            "UPDATE function_version SET configuration = ?3, variables = ?4 WHERE function_id = ?1 AND number = ?2",
            params![
                function,
                number,
                to_json("configuration", configuration)?,
                sealed(seal, deployment, configuration)?
            ],
        )?;
    }
    connection.pragma_update(None, "secure_delete", false)?;
    Ok(open.len())
}

/// The sealed environment variables of a configuration; `None` if they were never set.
fn sealed(seal: &Seal, deployment_id: &str, configuration: &Configuration) -> Result<Option<Vec<u8>>, FunctionError> {
    let Some(variables) = &configuration.variables else { return Ok(None) };
    Ok(Some(seal.seal(deployment_id, to_json("variables", variables)?.as_bytes())?))
}

/// Reads every function with its versions.
pub fn all(connection: &Connection, seal: &Seal) -> Result<Vec<Function>, FunctionError> {
    let mut functions: BTreeMap<String, Function> = BTreeMap::new();
    let mut statement = connection
        .prepare("SELECT id, name, last_published, reserved_concurrency, tags, event_invoke_configs FROM function")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let function = Function {
            id: id.clone(),
            name: row.get(1)?,
            last_published: VersionNumber::from_stored(row.get(2)?),
            reserved_concurrency: row.get(3)?,
            provisioned: BTreeMap::new(),
            tags: from_json("tags", &row.get::<_, String>(4)?)?,
            event_invoke_configs: from_json("event invoke configs", &row.get::<_, String>(5)?)?,
            versions: BTreeMap::new(),
            aliases: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        functions.insert(id, function);
    }
    let mut statement = connection.prepare(
        "SELECT function_id, number, revision_id, deployment_id, standing, code_sha256, code_size, modified_ms,
                configuration, latest_description, variables FROM function_version",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let standing: String = row.get(4)?;
        let deployment_id: String = row.get(3)?;
        let mut configuration: Configuration = from_json("configuration", &row.get::<_, String>(8)?)?;
        if let Some(sealed) = row.get::<_, Option<Vec<u8>>>(10)? {
            let text = String::from_utf8_lossy(&seal.open_sealed(&deployment_id, &sealed)?).into_owned();
            configuration.variables = Some(from_json("variables", &text)?);
        }
        let version = Version {
            number: VersionNumber::from_stored(row.get(1)?),
            revision_id: row.get(2)?,
            deployment_id,
            standing: Standing::from_stored(&standing)
                .ok_or_else(|| StoreError::Damaged(format!("a function version has the standing {standing:?}")))?,
            code: Code { sha256: row.get(5)?, size: row.get::<_, i64>(6)?.unsigned_abs() },
            modified_ms: row.get(7)?,
            configuration,
            latest_description: row.get(9)?,
        };
        if let Some(function) = functions.get_mut(&row.get::<_, String>(0)?) {
            function.put(version);
        }
    }
    read_provisioned(connection, &mut functions)?;
    read_aliases(connection, &mut functions)?;
    read_policies(connection, &mut functions)?;
    for function in functions.values() {
        if !function.versions.contains_key(&VersionNumber::LATEST) {
            return Err(StoreError::Damaged(format!("function {} has no $LATEST", function.name)).into());
        }
        for alias in function.aliases.values() {
            let pointed = [Some(alias.version), alias.additional.map(|additional| additional.version)];
            if let Some(number) = pointed.into_iter().flatten().find(|n| !function.versions.contains_key(n)) {
                let (function, alias) = (&function.name, &alias.name);
                return Err(StoreError::Damaged(format!(
                    "alias {alias} of function {function} points to version {number}, which is not there"
                ))
                .into());
            }
        }
    }
    Ok(functions.into_values().collect())
}

fn read_aliases(connection: &Connection, functions: &mut BTreeMap<String, Function>) -> Result<(), StoreError> {
    let mut statement = connection.prepare(
        "SELECT function_id, name, number, additional_number, additional_weight, description, revision_id
         FROM function_alias",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let additional: (Option<u32>, Option<f64>) = (row.get(3)?, row.get(4)?);
        let alias = Alias {
            name: row.get(1)?,
            version: VersionNumber::from_stored(row.get(2)?),
            additional: match additional {
                (Some(number), Some(weight)) => {
                    Some(Additional { version: VersionNumber::from_stored(number), weight })
                }
                _ => None,
            },
            description: row.get(5)?,
            revision_id: row.get(6)?,
        };
        if let Some(function) = functions.get_mut(&row.get::<_, String>(0)?) {
            function.put_alias(alias);
        }
    }
    Ok(())
}

fn read_policies(connection: &Connection, functions: &mut BTreeMap<String, Function>) -> Result<(), StoreError> {
    let mut statement = connection.prepare("SELECT function_id, qualifier, statements FROM function_policy")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let qualifier: String = row.get(1)?;
        let resource = Resource::of(Some(qualifier.as_str()).filter(|qualifier| !qualifier.is_empty()));
        let policy: Policy = from_json("policy", &row.get::<_, String>(2)?)?;
        if let Some(function) = functions.get_mut(&row.get::<_, String>(0)?) {
            function.policies.insert(resource, policy);
        }
    }
    Ok(())
}

/// Brings the rows of one function from `before` to `after`; only what differs is written.
pub fn put(
    connection: &Connection,
    seal: &Seal,
    before: Option<&Function>,
    after: &Function,
) -> Result<(), FunctionError> {
    connection.execute(
        "INSERT INTO function (id, name, last_published, reserved_concurrency, tags, event_invoke_configs)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE
         SET last_published = ?3, reserved_concurrency = ?4, tags = ?5, event_invoke_configs = ?6",
        params![
            after.id,
            after.name,
            after.last_published.stored(),
            after.reserved_concurrency,
            to_json("tags", &after.tags)?,
            to_json("event invoke configs", &after.event_invoke_configs)?
        ],
    )?;
    for (number, version) in &after.versions {
        let known = before.and_then(|b| b.versions.get(number));
        if known.is_some_and(|known| Arc::ptr_eq(known, version)) {
            continue;
        }
        connection.execute(
            "INSERT OR REPLACE INTO function_version (function_id, number, revision_id, deployment_id, standing,
                 code_sha256, code_size, modified_ms, configuration, latest_description, variables)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                after.id,
                number.stored(),
                version.revision_id,
                version.deployment_id,
                version.standing.stored(),
                version.code.sha256,
                i64::try_from(version.code.size).unwrap_or(i64::MAX),
                version.modified_ms,
                to_json("configuration", &version.configuration)?,
                version.latest_description,
                sealed(seal, &version.deployment_id, &version.configuration)?,
            ],
        )?;
    }
    for number in before.into_iter().flat_map(|b| b.versions.keys()).filter(|n| !after.versions.contains_key(n)) {
        connection.execute(
            "DELETE FROM function_version WHERE function_id = ?1 AND number = ?2",
            params![after.id, number.stored()],
        )?;
    }
    put_provisioned(connection, before, after)?;
    put_aliases(connection, before, after)?;
    Ok(put_policies(connection, before, after)?)
}

fn read_provisioned(connection: &Connection, functions: &mut BTreeMap<String, Function>) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare("SELECT function_id, qualifier, requested, modified_ms FROM function_provisioned")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let provisioned = ProvisionedConcurrency { requested: row.get(2)?, modified_ms: row.get(3)? };
        if let Some(function) = functions.get_mut(&row.get::<_, String>(0)?) {
            function.provisioned.insert(row.get(1)?, provisioned);
        }
    }
    Ok(())
}

fn put_provisioned(connection: &Connection, before: Option<&Function>, after: &Function) -> Result<(), StoreError> {
    if before.map_or(after.provisioned.is_empty(), |before| before.provisioned == after.provisioned) {
        return Ok(());
    }
    connection.execute("DELETE FROM function_provisioned WHERE function_id = ?1", [&after.id])?;
    for (qualifier, provisioned) in &after.provisioned {
        connection.execute(
            "INSERT INTO function_provisioned (function_id, qualifier, requested, modified_ms) VALUES (?1, ?2, ?3, ?4)",
            params![after.id, qualifier, provisioned.requested, provisioned.modified_ms],
        )?;
    }
    Ok(())
}

fn put_aliases(connection: &Connection, before: Option<&Function>, after: &Function) -> Result<(), StoreError> {
    for (name, alias) in &after.aliases {
        let known = before.and_then(|b| b.aliases.get(name));
        if known.is_some_and(|known| Arc::ptr_eq(known, alias)) {
            continue;
        }
        connection.execute(
            "INSERT OR REPLACE INTO function_alias (function_id, name, number, additional_number, additional_weight,
                 description, revision_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                after.id,
                name,
                alias.version.stored(),
                alias.additional.map(|additional| additional.version.stored()),
                alias.additional.map(|additional| additional.weight),
                alias.description,
                alias.revision_id,
            ],
        )?;
    }
    for name in before.into_iter().flat_map(|b| b.aliases.keys()).filter(|name| !after.aliases.contains_key(*name)) {
        connection
            .execute("DELETE FROM function_alias WHERE function_id = ?1 AND name = ?2", params![after.id, name])?;
    }
    Ok(())
}

fn put_policies(connection: &Connection, before: Option<&Function>, after: &Function) -> Result<(), StoreError> {
    for (resource, policy) in &after.policies {
        if before.and_then(|b| b.policies.get(resource)) == Some(policy) {
            continue;
        }
        connection.execute(
            "INSERT OR REPLACE INTO function_policy (function_id, qualifier, statements) VALUES (?1, ?2, ?3)",
            params![after.id, resource.qualifier().unwrap_or_default(), to_json("policy", policy)?],
        )?;
    }
    for resource in before.into_iter().flat_map(|b| b.policies.keys()).filter(|r| !after.policies.contains_key(r)) {
        connection.execute(
            "DELETE FROM function_policy WHERE function_id = ?1 AND qualifier = ?2",
            params![after.id, resource.qualifier().unwrap_or_default()],
        )?;
    }
    Ok(())
}

/// Removes a function and all that belongs to it.
pub fn delete(connection: &Connection, function: &Function) -> Result<(), StoreError> {
    connection.execute("DELETE FROM function WHERE id = ?1", [&function.id])?;
    Ok(())
}

/// Reads every layer with its versions.
pub fn layers(connection: &Connection) -> Result<Layers, StoreError> {
    let mut layers = Layers::new();
    let mut statement = connection.prepare("SELECT name, last_published FROM layer")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        layers.insert(row.get(0)?, Layer { last_published: row.get(1)?, versions: BTreeMap::new() });
    }
    let mut statement = connection
        .prepare("SELECT layer, number, code_sha256, code_size, created_ms, about, permissions FROM layer_version")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let permissions: Option<String> = row.get(6)?;
        let version = LayerVersion {
            number: row.get(1)?,
            code: Code { sha256: row.get(2)?, size: row.get::<_, i64>(3)?.unsigned_abs() },
            created_ms: row.get(4)?,
            about: from_json("layer", &row.get::<_, String>(5)?)?,
            permissions: permissions.map(|text| from_json("layer's permissions", &text)).transpose()?,
        };
        if let Some(layer) = layers.get_mut(&row.get::<_, String>(0)?) {
            layer.versions.insert(version.number, Arc::new(version));
        }
    }
    Ok(layers)
}

/// Brings the rows of one layer to `after`; only versions that differ from `before` are written.
pub fn put_layer(connection: &Connection, name: &str, before: Option<&Layer>, after: &Layer) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO layer (name, last_published) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET last_published = ?2",
        params![name, after.last_published],
    )?;
    for (number, version) in &after.versions {
        let known = before.and_then(|before| before.versions.get(number));
        if known.is_some_and(|known| Arc::ptr_eq(known, version)) {
            continue;
        }
        let permissions = version.permissions.as_ref().map(|p| to_json("layer's permissions", p)).transpose()?;
        connection.execute(
            "INSERT OR REPLACE INTO layer_version (layer, number, code_sha256, code_size, created_ms, about, permissions)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                name,
                number,
                version.code.sha256,
                i64::try_from(version.code.size).unwrap_or(i64::MAX),
                version.created_ms,
                to_json("layer", &version.about)?,
                permissions
            ],
        )?;
    }
    for number in before.into_iter().flat_map(|b| b.versions.keys()).filter(|n| !after.versions.contains_key(n)) {
        connection.execute("DELETE FROM layer_version WHERE layer = ?1 AND number = ?2", params![name, number])?;
    }
    Ok(())
}

fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Damaged(format!("a function's {what} does not read: {e}")))
}

fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Damaged(format!("a function's {what} does not write: {e}")))
}

/// An event at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredEvent {
    pub function: Owner,
    pub qualifier: Option<String>,
    pub request_id: String,
    pub trace_id: String,
    pub payload: Bytes,
}

/// Whose an event is: the function by its name and by what tells it from a later one of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub name: String,
    pub id: String,
}

/// A number that only grows, as it is stored: SQLite's integers have a sign.
fn of_count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

/// Every event with its number and its function, without its payload.
pub(crate) fn events(connection: &Connection) -> Result<Vec<(u64, Owner, Event)>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT number, function_name, function_id, accepted, due, length(payload), function_errors, faults FROM event",
    )?;
    let mut rows = statement.query([])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let event = Event {
            accepted: Tick(count(row, 3)?),
            due: Tick(count(row, 4)?),
            bytes: count(row, 5)?,
            tries: Tries { function_errors: row.get(6)?, faults: row.get(7)? },
        };
        events.push((count(row, 0)?, Owner { name: row.get(1)?, id: row.get(2)? }, event));
    }
    Ok(events)
}

/// The last known time of the queue's clock.
pub(crate) fn event_clock(connection: &Connection) -> Result<Tick, StoreError> {
    Ok(Tick(connection.query_row("SELECT now FROM event_clock", [], |row| count(row, 0))?))
}

pub(crate) fn put_event(
    connection: &Connection,
    number: u64,
    stored: &StoredEvent,
    event: &Event,
) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO event (number, function_id, function_name, qualifier, request_id, trace_id, payload, accepted, due,
             function_errors, faults) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, 0)",
        params![
            of_count(number),
            stored.function.id,
            stored.function.name,
            stored.qualifier,
            stored.request_id,
            stored.trace_id,
            &stored.payload[..],
            of_count(event.accepted.0),
            of_count(event.due.0)
        ],
    )?;
    Ok(())
}

/// One event with its payload; `None` if it is not there.
pub(crate) fn event(connection: &Connection, number: u64) -> Result<Option<StoredEvent>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT function_name, function_id, qualifier, request_id, trace_id, payload FROM event WHERE number = ?1",
    )?;
    let mut rows = statement.query([of_count(number)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(StoredEvent {
        function: Owner { name: row.get(0)?, id: row.get(1)? },
        qualifier: row.get(2)?,
        request_id: row.get(3)?,
        trace_id: row.get(4)?,
        payload: row.get::<_, Vec<u8>>(5)?.into(),
    }))
}

/// The event is tried again at `due`.
pub(crate) fn put_off_event(connection: &Connection, number: u64, tries: Tries, due: Tick) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE event SET due = ?2, function_errors = ?3, faults = ?4 WHERE number = ?1",
        params![of_count(number), of_count(due.0), tries.function_errors, tries.faults],
    )?;
    Ok(())
}

pub(crate) fn delete_events(connection: &Connection, numbers: &[u64]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("DELETE FROM event WHERE number = ?1")?;
    for number in numbers {
        statement.execute([of_count(*number)])?;
    }
    Ok(())
}

pub(crate) fn put_event_clock(connection: &Connection, now: Tick) -> Result<(), StoreError> {
    connection.execute("UPDATE event_clock SET now = max(now, ?1)", [of_count(now.0)])?;
    Ok(())
}
