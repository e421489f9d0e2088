//! A function on AWS's own crate `lambda_runtime` that does what its event asks for: `tests/conformance/test_runtime_api.py`
//! puts the same questions to it as to the other clients of the Runtime API.
//!
//! `{"do": …}` is one of the words in [`handle`]; the variable `INIT` makes it fail before its first poll.

#![forbid(unsafe_code)]

use lambda_runtime::streaming::{Body, Response, channel};
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, service_fn};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    match std::env::var("INIT").as_deref() {
        Ok("exit") => std::process::exit(3),
        Ok("kill") => end_by(Signal::KILL).await,
        _ => lambda_runtime::run(service_fn(handle)).await,
    }
}

async fn handle(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    let (event, context) = (event.payload, event.context);
    let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| event[name].as_u64().unwrap_or_default();
    let buffered = |value: Value| Ok(FunctionResponse::BufferedResponse(value));
    match word("do").as_str() {
        "answer" => buffered(json!({
            "event": event, "in": context.env_config.log_stream, "id": context.request_id,
            "arn": context.invoked_function_arn, "client": context.client_context.map(|client| client.custom),
        })),
        "raise" => Err(word("words").into()),
        "panic" => panic!("{}", word("words")),
        "exit" => std::process::exit(number("code") as i32),
        "signal" => {
            let signals =
                [("KILL", Signal::KILL), ("SEGV", Signal::SEGV), ("ABRT", Signal::ABORT), ("TERM", Signal::TERM)];
            let asked = word("name");
            let (_, signal) = signals.into_iter().find(|(name, _)| *name == asked).ok_or("no such signal")?;
            end_by(signal).await
        }
        "hang" => std::future::pending().await,
        "bytes" => buffered("x".repeat(number("n") as usize).into()),
        "print" => {
            println!("{}", word("words"));
            buffered(Value::Null)
        }
        "stream" => {
            let (mut sender, body) = channel();
            tokio::spawn(async move {
                for part in ["in ", "two parts"] {
                    if sender.send_data(part.as_bytes().to_vec().into()).await.is_err() {
                        return;
                    }
                }
            });
            Ok(FunctionResponse::StreamingResponse(Response::from(body)))
        }
        other => Err(format!("no such word: {other}").into()),
    }
}

/// Ends this process by a signal, and never returns.
async fn end_by<T>(signal: Signal) -> T {
    if let Some(own) = Pid::from_raw(std::process::id().cast_signed()) {
        // Rust's own handler of SIGSEGV returns once, when it finds no stack that ran over.
        for _ in 0..2 {
            let _ = rustix::process::kill_process(own, signal);
        }
    }
    std::future::pending().await
}
