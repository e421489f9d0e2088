//! The forms in which a function may be named: what is read as a name makes an ARN that reads as the same function.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_wire::arn::{Arn, FunctionName, bucket_of, object_of};

fuzz_target!(|input: &str| {
    let _ = (Arn::parse(input), bucket_of(input), object_of(input));
    let Some(name) = FunctionName::parse(input) else { return };
    let arn = name.arn("us-east-1", "000000000000");
    let again = FunctionName::parse(&arn).expect("our own ARNs can be read");
    assert_eq!(again.arn("us-east-1", "000000000000"), arn);
});
