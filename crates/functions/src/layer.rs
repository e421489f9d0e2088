//! Layers and their versions: plain values. Source: Lambda spec 8.2.

use std::collections::BTreeMap;
use std::sync::Arc;

use longshore_core::permission::Policy;
use serde::{Deserialize, Serialize};

use crate::code::Code;

/// All layers at one moment, by name.
pub type Layers = BTreeMap<String, Layer>;

/// A layer. It stays when its last version is deleted, so that no number is given out twice.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// The highest number ever published.
    pub last_published: u32,
    /// Those that are not deleted, by number. They never change but for their permissions.
    pub versions: BTreeMap<u32, Arc<LayerVersion>>,
}

/// One version of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerVersion {
    /// Counts from 1.
    pub number: u32,
    pub code: Code,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    pub about: About,
    /// `None` until AddLayerVersionPermission; `None` again when its last statement is removed.
    pub permissions: Option<Permissions>,
}

/// What its publisher says of a layer version. Nothing here decides anything: AWS shows it and filters lists by it.
/// Stored as JSON in the version's row: a new field needs a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub description: String,
    pub license_info: Option<String>,
    /// `None` where it was not given.
    pub compatible_runtimes: Option<Vec<String>>,
    pub compatible_architectures: Option<Vec<String>>,
}

/// Who may use a layer version. Kept and shown; there is one account here, which may use all of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Changes with every statement.
    pub revision_id: String,
    pub policy: Policy,
}

impl Layer {
    /// A version that is not deleted.
    pub fn find(&self, number: i64) -> Option<Arc<LayerVersion>> {
        self.versions.get(&u32::try_from(number).ok()?).cloned()
    }

    pub fn put(&mut self, version: LayerVersion) {
        self.versions.insert(version.number, Arc::new(version));
    }
}

/// The sum of the packages of all versions; two with one package count twice, as on AWS.
pub fn code_bytes(layers: &Layers) -> u64 {
    layers.values().flat_map(|layer| layer.versions.values()).map(|version| version.code.size).sum()
}
