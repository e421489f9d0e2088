//! Every function in memory, as a mirror of the tables.
//!
//! An invocation is resolved by one look here: one atomic read of one moment, no SQL. Changes are made one at a time,
//! durable before the mirror shows them, and the mirror shows them before the caller is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use longshore_store::Records;

use crate::code::CodeStore;
use crate::environments::Environments;
use crate::error::FunctionError;
use crate::function::{Function, VersionNumber};
use crate::host::Deployment;
use crate::table;

/// A function and what the host needs to run each of its versions.
#[derive(Debug)]
pub(crate) struct Entry {
    pub function: Function,
    pub deployments: BTreeMap<VersionNumber, Arc<Deployment>>,
}

/// All functions at one moment, by name.
pub(crate) type Snapshot = BTreeMap<String, Arc<Entry>>;

/// What a change decided on.
pub(crate) enum Next {
    Keep,
    Put(Function),
    Delete,
}

pub(crate) struct Catalogue {
    records: Records,
    code: CodeStore,
    environments: Arc<dyn Environments>,
    mirror: RwLock<Arc<Snapshot>>,
    /// One change at a time, so that mirror and tables agree on the order. Functions change rarely.
    changing: tokio::sync::Mutex<()>,
}

impl Catalogue {
    /// Reads the tables. Blocks; for start-up.
    pub fn open(records: Records, code: CodeStore, environments: Arc<dyn Environments>) -> Result<Self, FunctionError> {
        let functions = records.read_blocking::<_, FunctionError>(|connection| Ok(table::all(connection)?))?;
        let snapshot = functions.into_iter().map(|f| (f.name.clone(), Arc::new(entry(f, &code)))).collect();
        let mirror = RwLock::new(Arc::new(snapshot));
        Ok(Self { records, code, environments, mirror, changing: tokio::sync::Mutex::default() })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.mirror.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The packages that some version names.
    pub fn code_in_use(&self) -> BTreeSet<String> {
        let snapshot = self.snapshot();
        let versions = snapshot.values().flat_map(|entry| entry.function.versions.values());
        versions.map(|version| version.code.sha256.clone()).collect()
    }

    /// The function, settled: whoever asks for it ends what its last change left open.
    pub async fn get(self: &Arc<Self>, name: &str) -> Result<Option<Arc<Entry>>, FunctionError> {
        if let Some(entry) = self.snapshot().get(name)
            && entry.function.settled().is_some()
        {
            self.change(name, |_, _| Ok((Next::Keep, ()))).await?;
        }
        Ok(self.snapshot().get(name).cloned())
    }

    /// Changes one function. `decide` sees the whole catalogue and the function (settled), and says what follows;
    /// its answer is returned once that is durable and visible. An `Err` changes nothing.
    ///
    /// Runs to its end even if the caller goes away: tables and mirror never part.
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        decide: impl FnOnce(&Snapshot, Option<Function>) -> Result<(Next, T), FunctionError> + Send + 'static,
    ) -> Result<T, FunctionError> {
        let (catalogue, name) = (self.clone(), name.to_owned());
        let work = async move {
            let _one_at_a_time = catalogue.changing.lock().await;
            let snapshot = catalogue.snapshot();
            let before = snapshot.get(&name).cloned();
            let settled = before.as_ref().and_then(|entry| entry.function.settled());
            let current = settled.clone().or_else(|| before.as_ref().map(|entry| entry.function.clone()));
            let (next, answer) = decide(&snapshot, current)?;
            let after = match next {
                Next::Put(function) => Some(function),
                Next::Delete => None,
                Next::Keep => match settled {
                    Some(settled) => Some(settled),
                    None => return Ok(answer),
                },
            };
            catalogue.write(before, name, after).await?;
            Ok(answer)
        };
        tokio::spawn(work)
            .await
            .unwrap_or_else(|panic| Err(FunctionError::Fault(format!("An internal error occurred: {panic}"))))
    }

    async fn write(
        &self,
        before: Option<Arc<Entry>>,
        name: String,
        after: Option<Function>,
    ) -> Result<(), FunctionError> {
        let (old, new) = (before.clone(), after.clone());
        self.records
            .write::<_, FunctionError>(move |connection| {
                let old = old.as_ref().map(|entry| &entry.function);
                match (old, &new) {
                    (Some(old), Some(new)) if old.id == new.id => table::put(connection, Some(old), new)?,
                    (old, new) => {
                        if let Some(old) = old {
                            table::delete(connection, old)?;
                        }
                        if let Some(new) = new {
                            table::put(connection, None, new)?;
                        }
                    }
                }
                Ok(())
            })
            .await?;
        let after = after.map(|function| Arc::new(entry(function, &self.code)));
        let alive: BTreeSet<&str> =
            after.iter().flat_map(|entry| entry.deployments.values()).map(|d| d.id.as_str()).collect();
        let stale = before.iter().flat_map(|entry| entry.deployments.values()).any(|d| !alive.contains(d.id.as_str()));
        let mut snapshot = (*self.snapshot()).clone();
        match &after {
            Some(entry) => snapshot.insert(name.clone(), entry.clone()),
            None => snapshot.remove(&name),
        };
        *self.mirror.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        // Only now: an invocation that still started an environment of the old deployment has let the host know.
        if stale {
            self.environments.retire(&name);
        }
        Ok(())
    }
}

fn entry(function: Function, code: &CodeStore) -> Entry {
    let deployments = function
        .versions
        .iter()
        .map(|(number, version)| {
            let configuration = &version.configuration;
            let deployment = Deployment {
                id: version.deployment_id.clone(),
                name: function.name.clone(),
                version: number.to_string(),
                runtime: configuration.runtime.clone(),
                handler: configuration.handler.clone(),
                code_dir: code.content(&version.code.sha256),
                layers_dir: None,
                variables: configuration.variables.clone().unwrap_or_default(),
                timeout_s: configuration.timeout_s,
                memory_mib: configuration.memory_mib,
                ephemeral_storage_mib: configuration.ephemeral_storage_mib,
                concurrency: function.reserved_concurrency,
            };
            (*number, Arc::new(deployment))
        })
        .collect();
    Entry { function, deployments }
}
