//! Every function and layer in memory, as a mirror of the tables.
//!
//! An invocation is resolved by one look here: one atomic read of one moment, no SQL. Changes are made one at a time,
//! durable before the mirror shows them, and the mirror shows them before the caller is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use longshore_store::seal::Sealed;
use longshore_store::{Records, Seal};

use crate::code::{CodeStore, merged_name};
use crate::environments::Environments;
use crate::error::FunctionError;
use crate::function::{Function, VersionNumber};
use crate::host::{Deployment, Terms};
use crate::layer::{Layer, Layers};
use crate::operations::now_ms;
use crate::table;

/// What is sealed here, for messages.
const VARIABLES: Sealed = Sealed { what: "environment variables", whose: "functions have environment variables" };

/// A function and what the host needs to run each of its versions.
#[derive(Debug)]
pub(crate) struct Entry {
    pub function: Function,
    pub deployments: BTreeMap<VersionNumber, Arc<Deployment>>,
}

impl Entry {
    /// What of the concurrency is the function's own.
    fn terms(&self) -> Terms {
        let provisioned = self.function.provisioned_versions().into_iter();
        let deployments =
            provisioned.filter_map(|(number, wanted)| Some((self.deployments.get(&number)?.clone(), wanted)));
        Terms { reserved: self.function.reserved_concurrency, provisioned: deployments.collect() }
    }
}

/// All functions at one moment, by name, and the layers of that moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    functions: BTreeMap<String, Arc<Entry>>,
    pub layers: Arc<Layers>,
}

impl std::ops::Deref for Snapshot {
    type Target = BTreeMap<String, Arc<Entry>>;

    fn deref(&self) -> &Self::Target {
        &self.functions
    }
}

/// What a change decided on.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, for one change: a box would only cost a word at each"
)]
pub(crate) enum Next {
    Keep,
    Put(Function),
    Delete,
}

pub(crate) struct Catalogue {
    records: Records,
    seal: Seal,
    code: CodeStore,
    environments: Arc<dyn Environments>,
    mirror: RwLock<Arc<Snapshot>>,
    /// How often the mirror was changed.
    generation: AtomicU64,
    /// One change at a time, so that mirror and tables agree on the order. Functions change rarely.
    changing: tokio::sync::Mutex<()>,
    /// How long a change stays in progress if nobody looks.
    settle_ms: u64,
}

impl Catalogue {
    /// Reads the tables. Blocks; for start-up. `key` is the file with the key of environment variables.
    pub fn open(
        records: Records,
        code: CodeStore,
        environments: Arc<dyn Environments>,
        key: &Path,
        settle: Duration,
    ) -> Result<Self, FunctionError> {
        let (seal, functions, layers) = records.read_blocking::<_, FunctionError>(|connection| {
            let seal = Seal::open(key, VARIABLES, table::any_sealed(connection)?)?;
            let functions = table::all(connection, &seal)?;
            Ok((seal, functions, table::layers(connection)?))
        })?;
        let functions: BTreeMap<String, Arc<Entry>> =
            functions.into_iter().map(|f| (f.name.clone(), Arc::new(entry(f, &code)))).collect();
        // What was promised before a restart holds from the first call on.
        for (name, entry) in &functions {
            environments.set_terms(name, &entry.terms());
        }
        let mirror = RwLock::new(Arc::new(Snapshot { functions, layers: Arc::new(layers) }));
        let settle_ms = u64::try_from(settle.as_millis()).unwrap_or(u64::MAX);
        let generation = AtomicU64::new(0);
        let changing = tokio::sync::Mutex::default();
        Ok(Self { records, seal, code, environments, mirror, generation, changing, settle_ms })
    }

    /// Seals what an earlier version of this server wrote open.
    pub async fn seal_rows(self: Arc<Self>) {
        let _one_at_a_time = self.changing.lock().await;
        let seal = self.seal.clone();
        match self.records.write(move |connection| table::seal_rows(connection, &seal)).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "environment variables that lay open were sealed"),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "environment variables still lie open")
            }
        }
    }

    /// The mirror first: whoever has seen the new number sees what it stands for.
    fn show(&self, snapshot: Snapshot) {
        *self.mirror.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes with the mirror.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.mirror.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The folders that some version of a function or of a layer needs. A deleted layer version is needed as long as a
    /// function has it.
    pub fn code_in_use(&self) -> BTreeSet<String> {
        let snapshot = self.snapshot();
        let mut in_use = BTreeSet::new();
        for version in snapshot.values().flat_map(|entry| entry.function.versions.values()) {
            in_use.insert(version.code.sha256.clone());
            let layers = version.configuration.layer_codes();
            in_use.extend(layers.iter().map(|code| code.sha256.clone()));
            if layers.len() > 1 {
                in_use.insert(merged_name(&layers));
            }
        }
        let layers = snapshot.layers.values().flat_map(|layer| layer.versions.values());
        in_use.extend(layers.map(|version| version.code.sha256.clone()));
        in_use
    }

    /// Merges what functions need merged and is not, for start-up: a copy of the data directory without hard links may
    /// have lost it. Blocks.
    pub fn merge_layers(&self) -> Result<(), FunctionError> {
        for version in self.snapshot().values().flat_map(|entry| entry.function.versions.values()) {
            self.code.merge_blocking(&version.configuration.layer_codes())?;
        }
        Ok(())
    }

    /// Changes one layer, as [`Catalogue::change`] changes a function. `decide` gets the layer, or an empty one, and
    /// says what follows, if anything.
    pub async fn change_layer<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        decide: impl FnOnce(&Snapshot, Layer) -> Result<(Option<Layer>, T), FunctionError> + Send + 'static,
    ) -> Result<T, FunctionError> {
        let (catalogue, name) = (self.clone(), name.to_owned());
        let work = async move {
            let _one_at_a_time = catalogue.changing.lock().await;
            let mut snapshot = (*catalogue.snapshot()).clone();
            let before = snapshot.layers.get(&name).cloned();
            let (after, answer) = decide(&snapshot, before.clone().unwrap_or_default())?;
            let Some(after) = after else { return Ok(answer) };
            let (written, row) = (after.clone(), name.clone());
            catalogue
                .records
                .write::<_, FunctionError>(move |connection| {
                    Ok(table::put_layer(connection, &row, before.as_ref(), &written)?)
                })
                .await?;
            Arc::make_mut(&mut snapshot.layers).insert(name, after);
            catalogue.show(snapshot);
            Ok(answer)
        };
        tokio::spawn(work)
            .await
            .unwrap_or_else(|panic| Err(FunctionError::Fault(format!("An internal error occurred: {panic}"))))
    }

    /// The function, settled: whoever looks at it ends what its last change left open.
    pub async fn get(self: &Arc<Self>, name: &str) -> Result<Option<Arc<Entry>>, FunctionError> {
        let entry = self.snapshot().get(name).cloned();
        if entry.as_ref().is_none_or(|entry| entry.function.settled().is_none()) {
            return Ok(entry);
        }
        self.change_from(name, Function::settled, |_, _| Ok((Next::Keep, ()))).await?;
        Ok(self.snapshot().get(name).cloned())
    }

    /// The function as it stands, for whoever wants to use or change it: what its last change left open is over only if
    /// its time is.
    pub async fn stand(self: &Arc<Self>, name: &str) -> Result<Option<Arc<Entry>>, FunctionError> {
        let over = self.over();
        let entry = self.snapshot().get(name).cloned();
        if entry.as_ref().is_none_or(|entry| over(&entry.function).is_none()) {
            return Ok(entry);
        }
        self.change_from(name, over, |_, _| Ok((Next::Keep, ()))).await?;
        Ok(self.snapshot().get(name).cloned())
    }

    /// Settles what has had its time.
    fn over(&self) -> impl Fn(&Function) -> Option<Function> + Send + use<> {
        let settle_ms = self.settle_ms;
        move |function| function.settled_by_time(now_ms(), settle_ms)
    }

    /// Changes one function. `decide` sees the whole catalogue and the function (see [`Catalogue::stand`]), and says what
    /// follows; its answer is returned once that is durable and visible. An `Err` changes nothing.
    ///
    /// Runs to its end even if the caller goes away: tables and mirror never part.
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        decide: impl FnOnce(&Snapshot, Option<Function>) -> Result<(Next, T), FunctionError> + Send + 'static,
    ) -> Result<T, FunctionError> {
        self.change_from(name, self.over(), decide).await
    }

    /// As [`Catalogue::change`], from what `settle` makes of the function.
    async fn change_from<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        settle: impl Fn(&Function) -> Option<Function> + Send + 'static,
        decide: impl FnOnce(&Snapshot, Option<Function>) -> Result<(Next, T), FunctionError> + Send + 'static,
    ) -> Result<T, FunctionError> {
        let (catalogue, name) = (self.clone(), name.to_owned());
        let work = async move {
            let _one_at_a_time = catalogue.changing.lock().await;
            let snapshot = catalogue.snapshot();
            let before = snapshot.get(&name).cloned();
            let settled = before.as_ref().and_then(|entry| settle(&entry.function));
            let current = settled.clone().or_else(|| before.as_ref().map(|entry| entry.function.clone()));
            let (next, answer) = decide(&snapshot, current)?;
            let after = match next {
                Next::Put(mut function) => {
                    function.drop_stray_provisioned();
                    Some(function)
                }
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
        let (old, new, seal) = (before.clone(), after.clone(), self.seal.clone());
        self.records
            .write::<_, FunctionError>(move |connection| {
                let old = old.as_ref().map(|entry| &entry.function);
                match (old, &new) {
                    (Some(old), Some(new)) if old.id == new.id => table::put(connection, &seal, Some(old), new)?,
                    (old, new) => {
                        if let Some(old) = old {
                            table::delete(connection, old)?;
                        }
                        if let Some(new) = new {
                            table::put(connection, &seal, None, new)?;
                        }
                    }
                }
                Ok(())
            })
            .await?;
        let after = after.map(|function| Arc::new(entry(function, &self.code)));
        let alive: BTreeSet<&str> =
            after.iter().flat_map(|entry| entry.deployments.values()).map(|d| d.id.as_str()).collect();
        let were = before.iter().flat_map(|entry| entry.deployments.values()).map(|d| d.id.as_str());
        let stale: Vec<&str> = were.filter(|id| !alive.contains(id)).collect();
        let mut snapshot = (*self.snapshot()).clone();
        match &after {
            Some(entry) => snapshot.functions.insert(name.clone(), entry.clone()),
            None => snapshot.functions.remove(&name),
        };
        self.show(snapshot);
        // Before the caller is answered, like the mirror.
        self.environments.set_terms(&name, &after.as_ref().map(|entry| entry.terms()).unwrap_or_default());
        // Only now: an invocation that still started an environment of the old deployment has let the host know, and one
        // that waited for one finds what took its place.
        for deployment_id in stale {
            self.environments.retire(deployment_id);
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
                role: configuration.role.clone(),
                runtime: configuration.runtime.clone(),
                handler: configuration.handler.clone(),
                code_dir: code.content(&version.code.sha256),
                layers_dir: code.layers_dir(&configuration.layer_codes()),
                variables: configuration.variables.clone().unwrap_or_default(),
                timeout_s: configuration.timeout_s,
                memory_mib: configuration.memory_mib,
                ephemeral_storage_mib: configuration.ephemeral_storage_mib,
                concurrency: function.reserved_concurrency,
                log_format: configuration.logging.format,
                application_log_level: configuration.logging.application_level.clone(),
                system_log_level: configuration.logging.system_level.clone(),
                log_group: configuration.logging.group(&function.name),
            };
            (*number, Arc::new(deployment))
        })
        .collect();
    Entry { function, deployments }
}
