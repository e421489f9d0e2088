//! The manifest.json of an S3 Inventory: nothing in it panics, and what is accepted can be pinned.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_core::inventory::Inventory;
use longshore_core::manifest::RowFormat;

fuzz_target!(|input: &[u8]| match Inventory::parse(input) {
    Ok(inventory) => {
        assert!(RowFormat::new(inventory.columns.clone()).is_some());
        assert!(RowFormat::new(inventory.pinned_columns()).is_some());
        assert_ne!(inventory.bucket.as_deref(), Some(""));
    }
    Err(fault) => assert!(!fault.reason().is_empty()),
});
