//! Invoke to the letter: names, errors, and the order in which they are found. Source: Lambda spec 2.

use super::*;

const CONTENT: &str = "InvalidRequestContentException";
const MISSING: &str = "ResourceNotFoundException";

#[tokio::test]
async fn each_kind_of_invocation_answers_with_its_status_and_the_headers_that_all_have() {
    let api = Api::new();
    api.create().await;
    for (kind, status, version) in [("RequestResponse", 200, "$LATEST"), ("Event", 202, ""), ("DryRun", 204, "")] {
        // A tail is for the synchronous kind; what others ask of it is ignored, as on AWS.
        let headers = [("x-amz-invocation-type", kind), ("x-amz-log-type", "Tail"), ("x-amzn-trace-id", "Root=1-2-3")];
        let answer = api.invoke("f", &headers, r#"{"a":1}"#).await.ok(status);
        assert_eq!(answer.header("x-amzn-requestid"), "11111111-2222-3333-4444-555555555555", "{kind}");
        assert_eq!(answer.header("content-type"), "application/json", "{kind}");
        assert_eq!(answer.header("x-amzn-trace-id"), "Root=1-2-3", "{kind}");
        assert_eq!(answer.header("x-amzn-remapped-content-length"), "0", "{kind}");
        assert_eq!(answer.header("x-amz-executed-version"), version, "{kind}");
        assert_eq!(answer.headers.contains_key("x-amz-log-result"), status == 200, "{kind}");
        assert!(!answer.headers.contains_key("x-amz-function-error"), "{kind}");
        assert_eq!(answer.body, if status == 200 { json!({"a": 1}) } else { Value::Null }, "{kind}");
    }
    let made_up = api.invoke("f", &[], "{}").await.ok(200);
    let trace = made_up.header("x-amzn-trace-id");
    let id = trace.strip_prefix("Root=1-").and_then(|rest| rest.strip_suffix(";Sampled=0")).expect(trace);
    assert!(id.len() == 33 && id.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()), "{trace}");
    let seen = api.host.seen.lock().unwrap().last().unwrap().1.trace_id.clone().unwrap();
    let parent = seen.strip_prefix(&format!("Root=1-{id};Parent=")).and_then(|rest| rest.strip_suffix(";Sampled=0"));
    assert!(parent.is_some_and(|parent| parent.len() == 16), "{seen}: the function is told of its part of the call");
}

#[tokio::test]
async fn each_check_comes_before_the_next() {
    let api = Api::new();
    api.create().await;
    let other = "222222222222:function:f";
    let elsewhere = "arn:aws:lambda:eu-west-1:222222222222:function:f";
    let bad = ("x-amz-invocation-type", "Later");
    let dry = ("x-amz-invocation-type", "DryRun");
    let context = ("x-amz-client-context", "***");
    // Each row breaks the rule of its step and that of the next one.
    for (step, function, header, payload, status, code) in [
        ("constraints, then agreement of qualifiers", "f:1?Qualifier=2", bad, "{}", 400, "ValidationException"),
        (
            "agreement of qualifiers, then region",
            &format!("{elsewhere}:1?Qualifier=2"),
            dry,
            "{}",
            400,
            "InvalidParameterValueException",
        ),
        ("region, then account", elsewhere, dry, "{}", 404, MISSING),
        ("account, then existence", other, dry, "x", 403, "AccessDeniedException"),
        ("existence, then content", "g", context, "x", 404, MISSING),
        ("existence of a version, then content", "f:7", dry, "x", 404, MISSING),
        ("content, though nothing would run", "f", dry, "x", 400, CONTENT),
        ("the client context, then the payload", "f", context, "x", 400, CONTENT),
    ] {
        let (function, query) =
            function.split_once('?').map_or((function, String::new()), |(f, q)| (f, format!("?{q}")));
        let target = format!("/2015-03-31/functions/{function}/invocations{query}");
        let answer = api.send(Method::POST, &target, &[header], payload.to_owned().into()).await;
        assert_eq!((answer.status, answer.error().1), (status, code), "{step}: {answer:?}");
    }
    // A function that was just made: existence comes before its state, and that before content.
    api.create_with(json!({"FunctionName": "new"})).await.ok(201);
    assert_eq!(api.invoke("new:7", &[dry], "x").await.status, 404);
    let pending = api.invoke("new", &[dry], "x").await;
    let text =
        "The operation cannot be performed at this time. The function is currently in the following state: Pending";
    pending.fails(409, "ResourceConflictException", text);
    // Size comes before form, and both before admission.
    api.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": 0})).await.ok(200);
    let large = "x".repeat(6_291_457);
    assert_eq!(api.invoke("f", &[], &large).await.status, 413);
    assert_eq!(api.invoke("f", &[], "x").await.status, 400);
    assert_eq!(api.invoke("f", &[dry], "{}").await.status, 204);
    assert_eq!(api.invoke("f", &[], "{}").await.status, 429);
    assert!(api.host.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_breach_of_a_constraint_stands_in_one_answer() {
    let api = Api::new();
    let headers = [("x-amz-invocation-type", "Later"), ("x-amz-log-type", "Head")];
    let target = "/2015-03-31/functions/f%20g/invocations?Qualifier=a%20b";
    let answer = api.send(Method::POST, target, &headers, Bytes::new()).await;
    answer.fails(400, "ValidationException", "4 validation errors detected: Value 'Later' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]; Value 'Head' at 'logType' failed to satisfy constraint: Member must satisfy enum value set: [None, Tail]; Value 'f g' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:)?(\\d{12}:)?(function:)?([a-zA-Z0-9-_\\.]+)(:(\\$LATEST(\\.PUBLISHED)?|[a-zA-Z0-9-_]+))?; Value 'a b' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: \\$(LATEST(\\.PUBLISHED)?)|[a-zA-Z0-9-_$]+");
    assert_eq!(answer.body["Type"], Value::Null);
    // Bytes that are no text are no reason to run the function.
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost:7300"));
    headers.insert("x-amz-invocation-type", HeaderValue::from_bytes(b"Event\xff").unwrap());
    api.create().await;
    let request = Request {
        method: Method::POST,
        path: "/2015-03-31/functions/f/invocations".into(),
        query: Query::default(),
        headers,
        body: Bytes::new(),
        caller: Caller::in_process(ACCOUNT),
        request_id: RequestId("r".into()),
    };
    assert_eq!(Answer::of(api.functions.serve(request).await).error().1, "ValidationException");
    assert!(api.host.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_may_be_as_long_as_its_operation_says() {
    let api = Api::new();
    let get = |name: String| {
        let api = &api;
        async move { api.get(&format!("/2015-03-31/functions/{name}")).await }
    };
    let name = |n: usize| "f".repeat(n);
    // Nobody has such a function, but the name could be one.
    for n in [65, 140, 141, 256] {
        get(name(n)).await.fails(
            404,
            MISSING,
            &format!("Function not found: {}{}", ARN.strip_suffix('f').unwrap(), name(n)),
        );
    }
    let long = get(name(257)).await;
    let wanted = format!(
        "1 validation error detected: Value '{}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 256",
        name(257)
    );
    long.fails(400, "ValidationException", &wanted);
    assert_eq!(get("a.b".into()).await.error().1, MISSING, "the wider shape has dots");
    assert_eq!(get("f?Qualifier=$LATEST.PUBLISHED".into()).await.error().1, MISSING);
    let concurrency = |name: String| {
        let api = &api;
        async move { api.get(&format!("/2019-09-30/functions/{name}/concurrency")).await }
    };
    assert_eq!(concurrency(name(140)).await.error().1, MISSING);
    let wanted = format!(
        "1 validation error detected: Value '{}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 140",
        name(141)
    );
    concurrency(name(141)).await.fails(400, "ValidationException", &wanted);
    assert_eq!(concurrency("a.b".into()).await.error().1, "ValidationException", "the narrower shape has none");
    for (n, code) in [
        (64, ""),
        (65, "InvalidParameterValueException"),
        (140, "InvalidParameterValueException"),
        (141, "ValidationException"),
    ] {
        let created = api.create_with(json!({"FunctionName": name(n)})).await;
        assert_eq!(created.error().1, code, "{n}: {created:?}");
    }
    api.create_with(json!({"FunctionName": "function"})).await.ok(201);
    get("function".into()).await.ok(200);
    get("function:function".into()).await.ok(200);
}

#[tokio::test]
async fn somebody_elses_function_is_denied_by_its_full_name() {
    let api = Api::new();
    let denied = api.invoke("222222222222:function:f:prod", &[], "{}").await;
    denied.fails(403, "AccessDeniedException", "User: arn:aws:iam::111111111111:root is not authorized to perform: lambda:InvokeFunction on resource: arn:aws:lambda:us-east-1:222222222222:function:f:prod because no resource-based policy allows the lambda:InvokeFunction action");
    assert_eq!(denied.body["Type"], Value::Null);
}

#[tokio::test]
async fn a_throttle_says_why_and_when_to_come_back_if_that_is_of_use() {
    let api = Api::new();
    api.create().await;
    for reason in ["ReservedFunctionConcurrentInvocationLimitExceeded", "ConcurrentInvocationLimitExceeded"] {
        api.next(Outcome::Throttled { reason });
        let answer = api.invoke("f", &[], "{}").await.ok(429);
        assert_eq!(answer.body, json!({"Reason": reason, "Type": "User", "message": "Rate Exceeded."}));
        assert_eq!(answer.header("retry-after"), "1");
    }
    api.put("/2017-10-31/functions/f/concurrency", json!({"ReservedConcurrentExecutions": 0})).await.ok(200);
    let off = api.invoke("f", &[], "{}").await.ok(429);
    assert_eq!(off.body["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded");
    assert_eq!(off.header("retry-after"), "", "no time makes a function that is switched off run");
}

#[tokio::test]
async fn what_went_missing_since_the_function_was_made_is_told_apart_from_a_fault() {
    let temp = tempfile::tempdir().unwrap();
    let api = Api::at(temp.path(), Settings::new("us-east-1", ACCOUNT));
    api.create().await;
    let fault = || api.next(Outcome::Fault("The process did not start.".into()));
    fault();
    let answer = api.invoke("f", &[], "{}").await.ok(500);
    assert_eq!(answer.body, json!({"Message": "The process did not start.", "Type": "Service"}));
    *api.host.without.lock().unwrap() = Some("python3.12".into());
    fault();
    let answer = api.invoke("f", &[], "{}").await;
    answer.fails(502, "InvalidRuntimeException", "No interpreter for python3.12 was found.");
    assert_eq!(answer.body["Type"], "Service");
    *api.host.without.lock().unwrap() = None;
    for entry in std::fs::read_dir(temp.path().join("code")).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    fault();
    let answer = api.invoke("f", &[], "{}").await;
    answer.fails(502, "InvalidZipFileException", "The function's code is not on this machine any more.");
}

#[tokio::test]
async fn a_payload_is_as_large_as_its_kind_of_invocation_allows() {
    let api = Api::new();
    api.create().await;
    let payload = |n: usize| format!("\"{}\"", "x".repeat(n - 2));
    let code = "RequestEntityTooLargeException";
    for (kind, max) in [("RequestResponse", 6_291_456), ("DryRun", 6_291_456), ("Event", 1_048_576)] {
        let headers = [("x-amz-invocation-type", kind)];
        let fits = api.invoke("f", &headers, &payload(max)).await;
        assert!((200..300).contains(&fits.status), "{kind}: {}", fits.status);
        let message =
            format!("{} byte payload is too large for the {kind} invocation type (limit {max} bytes)", max + 1);
        api.invoke("f", &headers, &payload(max + 1)).await.fails(413, code, &message);
    }
}

#[tokio::test]
async fn the_older_and_the_streaming_kind_of_invoke_are_refused_by_name() {
    let api = Api::new();
    api.create().await;
    for (operation, target) in [
        ("InvokeAsync", "/2014-11-13/functions/f/invoke-async/"),
        ("InvokeWithResponseStream", "/2021-11-15/functions/f/response-streaming-invocations"),
    ] {
        let message = format!("The operation {operation} is not offered by this server.");
        api.post(target, json!({})).await.fails(404, "UnknownOperationException", &message);
    }
    assert!(api.host.seen.lock().unwrap().is_empty());
}
