//! `longshore iam`: who may do what, and why. A question goes to our own API beside IAM's; what was denied is read from the audit log.

mod denials;

use serde_json::Value;

use crate::cli::{self, At, IamCommand, JobAt};
use crate::client::is_missing;
use crate::failure::{FAILED, Failure, JOB_FAILED, OK, plain};
use crate::output::{self, out};
use crate::place::{self, Place};

/// Actions on one job, whose resource may be given as its ID.
const JOB_ACTIONS: [&str; 6] = [
    "s3:describejob",
    "s3:updatejobpriority",
    "s3:updatejobstatus",
    "s3:getjobtagging",
    "s3:putjobtagging",
    "s3:deletejobtagging",
];

pub async fn iam(args: cli::Iam) -> Result<u8, Failure> {
    let cli::Iam { at, command } = args;
    match command {
        // 1 is for what is denied: whoever reads the status must not take an error of ours for that.
        IamCommand::Explain { principal, action, resource, context } => {
            explain(&at, &principal, &action, &resource, &context).await.map_err(|failure| match failure.status {
                FAILED => Failure { status: JOB_FAILED, ..failure },
                _ => failure,
            })
        }
        IamCommand::Denials { refused, limit } => denials::print(&at, refused, limit as usize),
    }
}

async fn explain(
    at: &At,
    principal: &str,
    action: &str,
    resource: &str,
    context: &[(String, String)],
) -> Result<u8, Failure> {
    let at_jobs = JobAt { at: at.clone(), account_id: None };
    let place = Place::of_jobs(&at_jobs, None).await?;
    let resource = arn(action, resource, place.client.region(), place.client.account())?;
    if !place.client.is_longshore().await.map_err(place::told)? {
        return Err(Failure::usage("only a Longshore explains")
            .hint("at AWS, \"aws iam simulate-principal-policy\" tells whether it is allowed"));
    }
    let answer = place.client.explain(&members(principal, action, &resource, context)).await;
    let answer = answer.map_err(|error| match is_missing(&error) {
        true => Failure::new("this Longshore does not explain yet").hint("a later version does"),
        false => place::told(error),
    })?;
    let result = answer.pointer("/results/0");
    let allowed = result.and_then(|result| result.get("allowed")?.as_bool());
    let (Some(result), Some(allowed)) = (result, allowed) else {
        return Err(Failure::new("the answer has no decision"));
    };
    if at.json {
        output::json(&answer);
    } else {
        out(&told(result, allowed, output::colours()));
    }
    Ok(if allowed { OK } else { FAILED })
}

/// The members of the request.
fn members(principal: &str, action: &str, resource: &str, context: &[(String, String)]) -> Vec<(String, String)> {
    let mut members = vec![
        ("PolicySourceArn".to_owned(), principal.to_owned()),
        ("ActionNames.member.1".to_owned(), action.to_owned()),
        ("ResourceArns.member.1".to_owned(), resource.to_owned()),
    ];
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in context {
        if !keys.iter().any(|known| known.eq_ignore_ascii_case(key)) {
            keys.push(key);
        }
    }
    for (number, key) in keys.into_iter().enumerate() {
        let entry = format!("ContextEntries.member.{}", number + 1);
        members.push((format!("{entry}.ContextKeyName"), key.to_owned()));
        let values = context.iter().filter(|(of, _)| of.eq_ignore_ascii_case(key));
        for (at, (_, value)) in values.enumerate() {
            members.push((format!("{entry}.ContextKeyValues.member.{}", at + 1), value.clone()));
        }
    }
    members
}

/// The resource that is meant, as policies name it.
fn arn(action: &str, resource: &str, region: &str, account: &str) -> Result<String, Failure> {
    if resource == "*" || resource.starts_with("arn:") {
        return Ok(resource.to_owned());
    }
    if let Some(object) = resource.strip_prefix("s3://") {
        let whole = object.strip_suffix('/').filter(|bucket| !bucket.contains('/')).unwrap_or(object);
        return Ok(format!("arn:aws:s3:::{whole}"));
    }
    let action = action.to_ascii_lowercase();
    let is_word = |text: &str, signs: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
    };
    if action.starts_with("lambda:") && is_word(resource, "-_:$") {
        return Ok(format!("arn:aws:lambda:{region}:{account}:function:{resource}"));
    }
    if JOB_ACTIONS.contains(&action.as_str()) && is_word(resource, "-_") {
        return Ok(format!("arn:aws:s3:{region}:{account}:job/{resource}"));
    }
    let of_identity = matches!(resource.split_once('/'), Some(("user" | "role" | "policy", name)) if !name.is_empty());
    if (action.starts_with("iam:") || action.starts_with("sts:")) && of_identity {
        return Ok(format!("arn:aws:iam::{account}:{resource}"));
    }
    Err(Failure::usage(format!("{resource} is no resource of {action}")).hint(
        "give an ARN, *, or s3://BUCKET/KEY; with an action of lambda a function's name, of one job its ID, of iam and sts \
         user/NAME, role/NAME or policy/NAME",
    ))
}

/// What is printed of an answer: the decision, and sentences.
fn told(result: &Value, allowed: bool, colours: bool) -> String {
    let (word, code) = if allowed { ("allowed", 32) } else { ("denied", 31) };
    let mut text = if colours { format!("\u{1b}[{code}m{word}\u{1b}[0m\n") } else { format!("{word}\n") };
    let texts = |member: &str| {
        let texts = result.get(member).and_then(Value::as_array).into_iter().flatten();
        texts.filter_map(Value::as_str).map(plain).collect::<Vec<_>>()
    };
    for sentence in texts("sentences") {
        text.push_str(&format!("{sentence}\n"));
    }
    let missing = texts("missingContextKeys");
    if !missing.is_empty() {
        text.push_str(&format!(
            "Policies look at what was not said of the request: {}. Say it with --context KEY=VALUE.\n",
            missing.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_is_named_as_people_name_it_where_the_action_says_what_it_is() {
        for (action, resource, wanted) in [
            ("s3:GetObject", "s3://b/a key/k", Some("arn:aws:s3:::b/a key/k")),
            ("s3:ListBucket", "s3://b", Some("arn:aws:s3:::b")),
            ("s3:ListBucket", "s3://b/", Some("arn:aws:s3:::b")),
            ("s3:GetObject", "s3://b/folder/", Some("arn:aws:s3:::b/folder/")),
            ("Lambda:InvokeFunction", "f:live", Some("arn:aws:lambda:eu-west-1:111111111111:function:f:live")),
            ("s3:DescribeJob", "0a-1", Some("arn:aws:s3:eu-west-1:111111111111:job/0a-1")),
            ("iam:PassRole", "role/p/r", Some("arn:aws:iam::111111111111:role/p/r")),
            ("sts:AssumeRole", "role/r", Some("arn:aws:iam::111111111111:role/r")),
            ("s3:CreateJob", "*", Some("*")),
            ("s3:GetObject", "arn:aws:s3:::b/k", Some("arn:aws:s3:::b/k")),
            ("s3:GetObject", "b/k", None),
            ("s3:CreateJob", "0a-1", None),
            ("lambda:InvokeFunction", "a b", None),
            ("iam:PassRole", "role/", None),
        ] {
            let told = arn(action, resource, "eu-west-1", "111111111111");
            assert_eq!(told.as_deref().ok(), wanted, "{action} {resource}");
            assert_eq!(told.err().map(|failure| failure.status), wanted.is_none().then_some(crate::failure::USAGE));
        }
    }

    #[test]
    fn a_key_that_is_given_twice_has_two_values() {
        let context = [("a:B", "1"), ("c:d", "="), ("A:b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let members = members("user/u", "s3:GetObject", "*", &context);
        let told: Vec<_> = members[3..].iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let wanted = [
            ("ContextEntries.member.1.ContextKeyName", "a:B"),
            ("ContextEntries.member.1.ContextKeyValues.member.1", "1"),
            ("ContextEntries.member.1.ContextKeyValues.member.2", "2"),
            ("ContextEntries.member.2.ContextKeyName", "c:d"),
            ("ContextEntries.member.2.ContextKeyValues.member.1", "="),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn an_answer_is_the_decision_and_sentences_and_cannot_steer_a_terminal() {
        let result =
            json!({"sentences": ["u may not.", "Nothing\u{1b}[2J allows it."], "missingContextKeys": ["aws:SourceIp"]});
        let wanted = "denied\nu may not.\nNothing\u{fffd}[2J allows it.\n\
                      Policies look at what was not said of the request: aws:SourceIp. Say it with --context KEY=VALUE.\n";
        assert_eq!(told(&result, false, false), wanted);
        assert_eq!(told(&json!({}), true, true), "\u{1b}[32mallowed\u{1b}[0m\n");
    }
}
