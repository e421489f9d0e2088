//! One server: a data directory, the rooms on it, and a socket. `serve` runs one, `demo` and `run` have one inside.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longshore_functions::Functions;
use longshore_functions::host::{Host, SandboxRefusal};
use longshore_identity::Identity;
use longshore_jobs::Jobs;
use longshore_objects::Objects;
use longshore_sandbox::Mode;
use longshore_store::failpoint::{self, Place};
use longshore_store::{DataDir, Fatal, Records};
use longshore_wire::caller::Witness;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::{self, Callers, JobRoles, Services};
use crate::audit::Audit;
use crate::bodies::Bodies;
use crate::brake::Brake;
use crate::client::{Client, Endpoint};
use crate::credentials::Credentials;
use crate::dispatch::Dispatch;
use crate::endpoints::Routes;
use crate::env::dialled;
use crate::failure::{Because, Failure, OK};
use crate::gateway::Gateway;
use crate::listener::Seats;
use crate::metrics::{self, Metrics};
use crate::names::Names;
use crate::remote_functions::RemoteFunctions;
use crate::settings::{Iam, Settings};
use crate::state_file::{ServerFile, TlsFacts};
use crate::threads::InvocationThreads;
use crate::tls::{self, Presented};
use crate::{listener, rooms, sinks};

/// A server that runs.
pub struct Server {
    pub address: SocketAddr,
    pub objects: Objects,
    pub fatal: Fatal,
    credentials: Credentials,
    settings: Settings,
    jobs: Jobs,
    functions: Functions,
    host: Host,
    records: Records,
    audit: Arc<Audit>,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
    /// Behind all that runs on them.
    _threads: InvocationThreads,
    /// Last, so that the lock outlives everything that writes.
    data_dir: DataDir,
}

/// Opens the data directory: one server at a time.
pub fn open_data_dir(path: &Path) -> Result<DataDir, Failure> {
    DataDir::open(path).map_err(|error| {
        let in_use = matches!(error, longshore_store::data_dir::DataDirError::InUse { .. });
        let failure = Failure::new(error.to_string());
        failure.hint(if in_use {
            "stop that server, or name another directory with --data-dir"
        } else {
            "name another directory with --data-dir"
        })
    })
}

/// Where interpreters for functions are looked for first: those of the data directory, then those of the usual one, for
/// `run` and `demo` keep their state elsewhere, and use what the user has installed all the same.
pub fn runtimes_dirs(data_dir: Option<&Path>) -> Vec<PathBuf> {
    let usual = crate::settings::data_dir(None, |name| std::env::var(name).ok()).ok();
    let places = data_dir.map(Path::to_owned).into_iter().chain(usual);
    places.map(|place| place.join(crate::runtimes::FOLDER)).collect()
}

/// Folders of what the records refer to. What nothing refers to is removed at a start.
const KEPT_BY_RECORDS: [&str; 3] = ["objects", "code", "jobs"];

/// A data directory that lost its records must not begin anew: it would remove all that they referred to.
fn refuse_without_records(data_dir: &Path, database: &Path) -> Result<(), Failure> {
    if std::fs::metadata(database).is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(());
    }
    for name in KEPT_BY_RECORDS {
        let folder = data_dir.join(name);
        if has_file(&folder).because(format!("cannot read {}", folder.display()))? {
            return Err(Failure::new(format!(
                "{} is gone, and {} is not empty: without its records the server would remove what is in it",
                database.display(),
                folder.display()
            ))
            .hint(format!(
                "restore the data directory from a backup; to begin anew, name another with --data-dir, or move {} away",
                data_dir.display()
            )));
        }
    }
    Ok(())
}

/// Whether there is a file in a folder or below it. Ends at the first.
fn has_file(folder: &Path) -> std::io::Result<bool> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || has_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Listens on an address that a setting, or the flag named here, says; and on which port in the end.
async fn bind(listen: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        let port_taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let why = if port_taken { "it is in use".to_owned() } else { error.to_string() };
        Failure::new(format!("cannot listen on {listen}: {why}"))
            .hint(format!("name another address with {flag}; port 0 takes a free one"))
    })?;
    let address = listener.local_addr().because("cannot tell which port was taken")?;
    Ok((listener, address))
}

impl Server {
    /// Starts on an opened data directory. When this returns, requests are answered and jobs go on.
    pub async fn start(
        data_dir: DataDir,
        settings: Settings,
        jobs_settings: longshore_jobs::Settings,
    ) -> Result<Self, Failure> {
        let path = data_dir.path().to_owned();
        let sub = |name: &str| -> Result<PathBuf, Failure> {
            data_dir.sub(name).because(format!("cannot make {}", path.join(name).display()))
        };
        let presented = match settings.tls.is_on() {
            true => Some(Arc::new(Presented::read(&settings.tls.certificate, &settings.tls.key)?)),
            false => None,
        };
        // Bound before anything is opened: a port in use must not start jobs first.
        let (listener, address) = bind(settings.listen, "--listen").await?;
        let for_metrics = match settings.metrics_listen {
            Some(listen) => Some(bind(listen, "--metrics-listen").await?),
            None => None,
        };
        let metrics_address = for_metrics.as_ref().map(|(_, address)| *address);
        let credentials = Credentials::read_or_make(&path)?;

        let fatal = Fatal::new();
        let schemas = [
            longshore_objects::SCHEMA,
            longshore_functions::SCHEMA,
            longshore_jobs::SCHEMA,
            longshore_identity::SCHEMA,
        ];
        let cannot = |what: &str| format!("cannot open {what} in {}", path.display());
        let database = path.join("records.db");
        refuse_without_records(&path, &database)?;
        let records = Records::open(&database, &schemas, fatal.clone()).because(cannot("the records"))?;
        let (region, account) = (settings.region.clone(), settings.account.clone());
        let objects = Objects::open(
            records.clone(),
            sub("objects")?,
            longshore_objects::Settings { region: region.clone(), account: account.clone() },
        )
        .because(cannot("the objects"))?;
        let identity = match settings.iam {
            Iam::On => {
                let settings = longshore_identity::Settings { account: account.clone(), region: region.clone() };
                Some(Identity::open(records.clone(), &path, settings).because(cannot("the identities"))?)
            }
            Iam::Off => {
                tracing::error!(
                    "policies are not asked (iam = \"off\"): whoever has the root credentials may do everything, and so may \
                     every job and every function"
                );
                None
            }
        };
        let audit = Arc::new(Audit::open(&path, settings.audit.kept())?);
        let witness: Arc<dyn Witness> = audit.clone();
        let services =
            identity.as_ref().map(|identity| Services::new(identity.clone(), &account, &region, Some(witness.clone())));
        let access = Callers {
            root: credentials.clone(),
            account: account.clone(),
            region: region.clone(),
            identity: identity.clone(),
            services: services.clone(),
            witness: Some(witness.clone()),
            unsigned_payload: settings.unsigned_payload,
            signing_keys: Arc::default(),
        };
        let routes = Routes::open(&settings.endpoint, |name| std::env::var(name).ok()).await?;
        let mut gateway = None;
        if !routes.is_empty() {
            let buckets = objects.bucket_names().await.because(cannot("the buckets"))?;
            routes.check_embedded(buckets.iter().map(String::as_str))?;
            gateway = Some(Arc::new(Gateway::new()?));
        }
        let s3 = rooms::S3 { embedded: objects.clone(), routes: routes.clone(), gateway };
        let routed = Arc::new(rooms::RoutedObjects { embedded: rooms::EmbeddedObjects(objects.clone()), routes });
        let threads = InvocationThreads::start()?;
        let mut host = settings.host(&path);
        host.threads = Some(threads.threads.clone());
        host.fit_to_machine();
        // What the host would only queue waits at the engine's gate, where whoever waits longest is next.
        let mut jobs_settings = jobs_settings;
        // Functions elsewhere need no environment, and must not be held to the number of them: then each embedded function is
        // held to it, and only what several of them want together is queued by the host.
        let variable = |name: &str| std::env::var(name).ok();
        let remote = RemoteFunctions::open(&settings.function_endpoint, &region, variable).await?;
        if remote.is_empty() {
            jobs_settings.concurrency_total_max = jobs_settings.concurrency_total_max.min(host.environments_max);
        }
        jobs_settings.event_sinks = sinks::make(&settings.events, &path)?;
        host.runtimes_dirs = runtimes_dirs(Some(&path));
        host.sandbox.closed_ports = [Some(address), metrics_address].into_iter().flatten().map(|a| a.port()).collect();
        let network = settings.functions.network;
        let bodies = Bodies::new();
        let host = Host::new(host, rooms::s3_door(s3.clone(), access.clone(), bodies.of_functions.clone())).map_err(
            |error| match error.get_ref().and_then(|inner| inner.downcast_ref::<SandboxRefusal>()) {
                Some(refusal) => Failure::new(refusal.message.clone()).hint(refusal.hint.clone()),
                None => Failure::new(format!("{}: {error}", cannot("the function host"))),
            },
        )?;
        if settings.functions.sandbox == Mode::Off {
            // Somebody must act, or have meant it.
            tracing::error!(
                "functions run without a sandbox (sandbox = \"off\"): they can read, change and stop whatever this server's \
                 user can"
            );
        } else {
            tracing::info!(?network, layers = host.sandbox().summary(), "the sandbox of functions was set up");
        }
        let mut functions_settings = settings.functions();
        if let Some(services) = services.clone() {
            functions_settings.assumable =
                Arc::new(move |role, function, request_id| services.lambda(role, function, request_id).is_ok());
        }
        if let Some(identity) = identity.clone() {
            functions_settings.means = Arc::new(move |arn| identity.meant(arn));
        }
        let functions = Functions::open(
            records.clone(),
            host.clone(),
            Arc::new(rooms::Code(routed.clone())),
            &sub("code")?,
            functions_settings,
        )
        .because(cannot("the functions"))?;
        if let (Some(identity), Some(services)) = (identity, services) {
            let mut named = longshore_jobs::roles_of_stored_jobs(&records).because(cannot("the jobs"))?;
            named.extend(functions.role_arns());
            access::tell_what_allows_more(&identity, &functions).await?;
            access::first_roles(&identity, &account, named).await?;
            let roles = JobRoles {
                identity,
                services,
                functions: functions.clone(),
                is_elsewhere: {
                    let remote = remote.clone();
                    Arc::new(move |function| remote.of(function).is_some())
                },
                account: account.clone(),
                region: region.clone(),
                witness: Some(witness),
            };
            jobs_settings.roles = roles.port();
        }
        let jobs = Jobs::open(
            records.clone(),
            sub("jobs")?,
            fatal.clone(),
            jobs_settings,
            routed,
            Arc::new(rooms::RoutedInvoker {
                embedded: rooms::EmbeddedInvoker(functions.clone()),
                remote,
                threads: threads.threads.clone(),
            }),
        )
        .await
        .because(cannot("the jobs"))?;

        functions.run_events();

        let metrics = Arc::new(Metrics {
            jobs: jobs.clone(),
            functions: functions.clone(),
            records: records.clone(),
            fatal: fatal.clone(),
            requests: metrics::Requests::default(),
        });
        let dispatch = Dispatch {
            names: Names::new(&settings.names, address),
            access,
            base_path: settings.base_path.clone(),
            s3,
            functions: functions.clone(),
            jobs: jobs.clone(),
            fatal: fatal.clone(),
            bodies,
            brake: Brake::new(),
            metrics: metrics.clone(),
        };
        failpoint::pass(Place::ServerOpened);
        let (stop, stopped) = watch::channel(false);
        let stop_time = Duration::from_secs(settings.limits.stop_seconds);
        if let Some((listener, address)) = for_metrics {
            let door = Arc::new(metrics::Door(metrics));
            // Not waited for at the end: a scrape that is cut off is repeated.
            let seats = Seats { in_all: metrics::CONNECTIONS_MAX, of_one_address: metrics::CONNECTIONS_MAX };
            tokio::spawn(listener::serve(listener, presented.clone(), door, seats, stopped.clone(), stop_time));
            tracing::info!(%address, "metrics are served without a signature");
        }
        let listening = tokio::spawn(listener::serve(
            listener,
            presented.clone(),
            Arc::new(dispatch),
            Seats {
                in_all: settings.limits.connections_max,
                of_one_address: settings.limits.connections_per_address_max,
            },
            stopped.clone(),
            stop_time,
        ));
        let pid = std::process::id();
        let mut file = ServerFile { listen: address, metrics_listen: metrics_address, tls: None, pid, account, region };
        if let Some(presented) = presented {
            let name = settings.names.first().cloned();
            let shown = std::path::absolute(&settings.tls.certificate).ok();
            let facts = move |certificate| TlsFacts { certificate, name: name.clone(), file: shown.clone() };
            file.tls = Some(facts(presented.fingerprint()));
            let (file, directory) = (file.clone(), path.clone());
            let changed = move |certificate| {
                let tls = Some(facts(certificate));
                if let Err(failure) = (ServerFile { tls, ..file.clone() }).write(&directory) {
                    tracing::error!(
                        error = failure.message,
                        "the commands on this machine will not know the new certificate"
                    );
                }
            };
            tokio::spawn(presented.keep(tls::hang_up()?, stopped, changed));
        }
        file.write(&path)?;
        if !settings.tls.is_on() && !address.ip().to_canonical().is_loopback() {
            tracing::warn!(%address, "plain HTTP is served to other machines: all that is sent can be read on the way, and changed");
        }
        tracing::info!(%address, data_dir = %path.display(), "server started");
        Ok(Self {
            address,
            objects,
            fatal,
            credentials,
            settings,
            jobs,
            functions,
            host,
            records,
            audit,
            stop,
            listening,
            _threads: threads,
            data_dir,
        })
    }

    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    pub fn account(&self) -> &str {
        &self.settings.account
    }

    /// Makes the files of the audit log anew on each SIGHUP, if they were moved or removed: what logrotate sends. It ends the process
    /// no more.
    pub fn heed_hang_ups(&self) -> Result<(), Failure> {
        // It is written to no longer than the server runs.
        let (audit, mut hang_up) = (Arc::downgrade(&self.audit), tls::hang_up()?);
        tokio::spawn(async move {
            while hang_up.recv().await.is_some() {
                let Some(audit) = audit.upgrade() else { return };
                audit.reopen();
            }
        });
        Ok(())
    }

    /// Of the URLs under which it is reached.
    pub fn scheme(&self) -> &'static str {
        if self.settings.tls.is_on() { "https" } else { "http" }
    }

    /// A client of this server's public API. For servers without TLS, as `demo` and `run` start them.
    pub fn client(&self) -> Client {
        Client::new(
            Endpoint::here(dialled(self.address), None),
            &self.credentials,
            &self.settings.region,
            &self.settings.account,
        )
    }

    /// Starts no more tasks and waits for those in flight; requests are still answered.
    pub async fn finish_tasks(&self) {
        self.jobs.shutdown().await;
    }

    /// Starts nothing more, lets finish and records what is under way, hangs up, and lets go of the data directory.
    ///
    /// With a `limit`, tasks in flight that take longer are given up, and the process ends here, with status 0: to kill
    /// their functions while the engine still listens could make the kill their result. They die with the process, and
    /// the tasks are invoked again at the next start.
    pub async fn stop(self, limit: Option<Duration>) {
        // The socket closes at once; requests under way and tasks in flight end side by side.
        self.stop.send_replace(true);
        let tasks = async {
            match limit {
                Some(limit) => tokio::time::timeout(limit, self.jobs.shutdown()).await.is_ok(),
                None => {
                    self.jobs.shutdown().await;
                    true
                }
            }
        };
        // Events are given no longer than requests: they run again at the next start.
        let events = self.functions.stop_events(Duration::from_secs(self.settings.limits.stop_seconds));
        let (all_ended, listened, ()) = tokio::join!(tasks, self.listening, events);
        if let Err(error) = listened {
            tracing::error!(%error, "the listener ended badly");
        }
        if !all_ended {
            tracing::warn!("tasks in flight were given up; they are invoked again at the next start");
            self.audit.close();
            ServerFile::remove(self.data_dir.path());
            std::process::exit(i32::from(OK));
        }
        self.host.shutdown(Duration::ZERO).await;
        self.records.close().await;
        // Behind all who ask, and before the directory is another's.
        self.audit.close();
        ServerFile::remove(self.data_dir.path());
        tracing::info!("server stopped");
    }
}
