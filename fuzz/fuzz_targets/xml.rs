//! XML that clients send: never a panic; what was read and is written again reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_wire::xml::{Element, Writer};

/// Text between the children of an element means nothing to S3 Control, and is not written.
fn without_mixed_text(mut element: Element) -> Element {
    if !element.children.is_empty() {
        element.text.clear();
    }
    element.children = element.children.into_iter().map(without_mixed_text).collect();
    element
}

fuzz_target!(|input: &[u8]| {
    let Ok(read) = Element::parse(input).map(without_mixed_text) else { return };
    if read.children.is_empty() {
        return;
    }
    let mut again = Writer::document(&read.name, None);
    read.children.iter().for_each(|child| again.element(child));
    let again = again.finish();
    assert_eq!(read, Element::parse(again.as_bytes()).expect("what we write can be read"));
});
