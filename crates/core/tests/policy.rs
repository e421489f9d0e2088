//! The policy engine against two that were written apart from it: a slow one that does literally what AWS's documentation says, and
//! `iam-rs`. And what has to hold of any policies at all.

#[path = "policy/literal.rs"]
mod literal;
#[path = "policy/made.rs"]
mod made;
#[path = "policy/second_opinion.rs"]
mod second_opinion;

use longshore_core::policy::{Because, Decision, decide, explain};
use proptest::prelude::*;

use made::{Asked, Choices, Source};

/// Choices that a case is made of. A statement takes a dozen, a case has up to eight statements; what is missing is chosen first.
const CHOICES_MAX: usize = 120;

/// At least so many cases; `PROPTEST_CASES` asks for more.
fn cases(least: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(least), failure_persistence: None, ..asked }
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..CHOICES_MAX)
}

/// `allowed`, `denied outright` or `not allowed`.
fn verdict(decision: &Decision) -> &'static str {
    match (&decision.because, decision.allowed) {
        (_, true) => "allowed",
        (Because::Statement { .. }, false) => "denied outright",
        (Because::NoStatement(_) | Because::Root, false) => "not allowed",
    }
}

fn decided(asked: &Asked) -> Decision {
    asked.with_question(decide)
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn decisions_are_those_of_an_engine_that_does_literally_what_the_documentation_says(bytes in choices()) {
        let asked = Asked::made(&mut Choices::new(&bytes), Source::Everything);
        let decision = decided(&asked);
        prop_assert_eq!(verdict(&decision), literal::verdict(&asked), "{}\n{:?}", asked, decision);
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn decisions_are_those_of_iam_rs_where_that_one_is_right(bytes in choices()) {
        let asked = Asked::made(&mut Choices::new(&bytes), Source::OfOneMind);
        prop_assert_eq!(verdict(&decided(&asked)), second_opinion::verdict(&asked), "{}", asked);
    }

    #[test]
    fn a_statement_more_that_allows_never_takes_anything_away_and_one_that_denies_never_gives_anything(bytes in choices()) {
        let mut choices = Choices::new(&bytes);
        let asked = Asked::made(&mut choices, Source::Everything);
        for effect in ["Allow", "Deny"] {
            let more = asked.with_statement(effect, &mut choices);
            let (before, after) = (decided(&asked), decided(&more));
            match effect {
                "Allow" => prop_assert!(after.allowed || !before.allowed, "{}\n{}", asked, more),
                _ => prop_assert!(before.allowed || !after.allowed, "{}\n{}", asked, more),
            }
        }
    }

    #[test]
    fn a_condition_more_on_an_allow_never_allows_more_and_on_a_deny_never_denies_more(bytes in choices()) {
        let mut choices = Choices::new(&bytes);
        let asked = Asked::made(&mut choices, Source::Everything);
        for effect in ["Allow", "Deny"] {
            let narrower = asked.with_condition(effect, &mut choices);
            let (before, after) = (decided(&asked), decided(&narrower));
            match effect {
                "Allow" => prop_assert!(before.allowed || !after.allowed, "{}\n{}", asked, narrower),
                _ => prop_assert!(after.allowed || !before.allowed, "{}\n{}", asked, narrower),
            }
        }
    }

    #[test]
    fn a_condition_on_a_key_that_nobody_knows_ends_every_allow_and_changes_no_deny(bytes in choices()) {
        let mut choices = Choices::new(&bytes);
        let asked = Asked::made(&mut choices, Source::Everything);
        let (denied, before) = (asked.with_unknown_key("Deny", &mut choices), decided(&asked));
        prop_assert_eq!(decided(&denied), before, "{}\n{}", asked, denied);
        let allowed = asked.with_unknown_key("Allow", &mut choices);
        let after = decided(&allowed);
        prop_assert!(!after.allowed || after.because == Because::Root, "{}", allowed);
    }

    #[test]
    fn an_explanation_decides_as_the_decision_does_and_has_a_reason_for_every_denial(bytes in choices()) {
        let asked = Asked::made(&mut Choices::new(&bytes), Source::Everything);
        let decision = decided(&asked);
        let explanation = asked.with_question(explain);
        prop_assert_eq!(&explanation.decision, &decision);
        prop_assert!(explanation.sentences().len() >= 2, "{:?}", explanation.sentences());
        if let Because::Statement { layer, policy, number, .. } = &decision.because {
            let named = explanation.matched.iter().any(|m| (m.layer, &m.policy, m.number) == (*layer, policy, *number));
            prop_assert!(named, "{}\n{:?}", asked, explanation);
        }
        prop_assert!(explanation.near.iter().all(|near| !near.missed.is_empty()), "{}\n{:?}", asked, explanation);
    }
}

/// A generator that makes only one verdict would prove nothing.
#[test]
fn the_cases_that_are_made_have_every_verdict_in_fair_numbers() {
    for source in [Source::Everything, Source::OfOneMind] {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..2_000_u64 {
            let bytes: Vec<u8> = (0..CHOICES_MAX as u64).map(|n| made::scrambled(seed << 32 | n) as u8).collect();
            *counts.entry(verdict(&decided(&Asked::made(&mut Choices::new(&bytes), source)))).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| *count > 150), "{source:?} {counts:?}");
    }
}
