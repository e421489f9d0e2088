//! A policy document, and behind a NUL each an action and a resource: reading and deciding never panic, what is read reads back the
//! same, an explanation is the decision's, and no document lets anybody through a Deny on everything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_core::policy::{
    Because, Context, Document, Kind, Policy, Principal, PrincipalKind, Question, ResourcePolicy, Rights, decide,
    explain,
};

fn user() -> Principal {
    Principal {
        account: "111111111111".to_owned(),
        arn: "arn:aws:iam::111111111111:user/u".to_owned(),
        user_id: "AIDAEXAMPLEEXAMPLE01".to_owned(),
        kind: PrincipalKind::User { name: "u*".to_owned() },
        tags: [("team".to_owned(), "${aws:username}?".to_owned())].into(),
    }
}

fn session() -> Principal {
    let role_arn = "arn:aws:iam::111111111111:role/r".to_owned();
    Principal {
        arn: "arn:aws:sts::111111111111:assumed-role/r/s".to_owned(),
        user_id: "AROAEXAMPLEEXAMPLE01:s".to_owned(),
        kind: PrincipalKind::AssumedRole { role_arn, session_name: "s".to_owned() },
        ..user()
    }
}

fn policy(document: Document) -> Policy {
    Policy { name: "P".into(), document }
}

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\0');
    let text = parts.next().unwrap_or("");
    let action = parts.next().unwrap_or("s3:GetObject");
    let resource = parts.next().unwrap_or("arn:aws:s3:::b/k");
    let everything = |effect: &str| {
        let text = format!(r#"{{"Statement":{{"Effect":"{effect}","Action":"*","Resource":"*"}}}}"#);
        policy(Document::parse(&text, Kind::Identity).expect("this is a policy"))
    };
    let context = Context::new()
        .with("aws:SourceIp", "203.0.113.9")
        .with("aws:CurrentTime", "2026-01-01T00:00:00Z")
        .with("s3:RequestJobPriority", "10")
        .with_tags("aws:RequestTag/", [("team", "red"), ("*", "?")]);
    for kind in [Kind::Identity, Kind::Resource, Kind::Trust] {
        let document = match Document::parse(text, kind) {
            Ok(document) => document,
            Err(told) => {
                assert!(!told.place.is_empty() && !told.reason.is_empty());
                continue;
            }
        };
        assert_eq!(document.text(), text);
        assert!(!document.statements().is_empty());
        assert_eq!(Document::parse(document.text(), kind).as_ref(), Ok(&document));
        serde_json::from_str::<serde::de::IgnoredAny>(text).expect("what is read here is JSON");
        let read = policy(document);
        let (allow, deny) = (everything("Allow"), everything("Deny"));
        for principal in [user(), session()] {
            let ask = |rights: &Rights, of_resource: ResourcePolicy<'_>| {
                let question = Question {
                    principal: &principal,
                    rights,
                    action,
                    resource,
                    resource_account: "111111111111",
                    resource_policy: of_resource,
                    context: &context,
                };
                let decision = decide(question);
                let explanation = explain(question);
                assert_eq!(explanation.decision, decision);
                assert!(explanation.sentences().len() >= 2);
                decision
            };
            let of_resource = match kind {
                Kind::Identity => ResourcePolicy::None,
                Kind::Resource => ResourcePolicy::Sufficient(&read),
                Kind::Trust => ResourcePolicy::Needed(&read),
            };
            let identity = if kind == Kind::Identity { vec![read.clone()] } else { vec![allow.clone()] };
            let alone = Rights { identity: identity.clone(), ..Rights::default() };
            let before = ask(&alone, of_resource);
            // Limits that allow everything change nothing, but that whoever has a boundary is not spared by a Deny for all but some.
            let begun = Rights { session: Some(vec![allow.clone()]), ..alone.clone() };
            assert_eq!(ask(&begun, of_resource).allowed, before.allowed);
            let bounded = Rights { boundary: Some(allow.clone()), ..alone.clone() };
            assert!(before.allowed || !ask(&bounded, of_resource).allowed);
            for denying in [
                Rights { identity: [identity.clone(), vec![deny.clone()]].concat(), ..Rights::default() },
                Rights { boundary: Some(deny.clone()), ..alone.clone() },
                Rights { session: Some(vec![deny.clone()]), ..alone.clone() },
            ] {
                let after = ask(&denying, of_resource);
                assert!(!after.allowed && matches!(after.because, Because::Statement { .. }));
            }
        }
    }
});
