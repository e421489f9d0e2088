//! What the operations of Lambda ask of the caller's policies: actions, resources and condition keys.
//!
//! A function without and with a qualifier are different resources (`…:function:f`, `…:function:f:prod`). What a request names is read
//! as its operation reads it; what cannot be read has no resource, and is refused as what it is if the caller may do it anywhere.
//! Source: Service Authorization Reference, "Actions, resources, and condition keys for AWS Lambda"; Lambda spec 6.

use std::collections::BTreeMap;

use bytes::Bytes;
use longshore_core::permission::ConditionKey::FunctionUrlAuthType;
use longshore_core::permission::{Principal, Statement};
use longshore_core::policy::{Context, Document, Kind, Policy};
use longshore_wire::{ApiError, Asked, Call, s3_actions};
use serde::Deserialize;

use crate::Functions;
use crate::error::FunctionError;
use crate::layers::version_number;
use crate::members;
use crate::resolve::Named;

type Asks = Result<Vec<Asked>, ApiError>;

/// Asks for an action, of which a function's part (`GetFunction`) is given, on what the path and the query name, and where it says so
/// the body.
macro_rules! asks {
    (body, $way:ident, $action:literal) => {
        |functions, call| {
            Box::pin(async move { crate::operations::asks::$way(functions, call, concat!("lambda:", $action)).await })
        }
    };
    ($way:ident, $action:literal) => {
        |functions, call| {
            Box::pin(async move { crate::operations::asks::$way(functions, call, concat!("lambda:", $action)) })
        }
    };
}
pub(super) use asks;

/// For what has no resource: lists, the account.
pub(super) fn anywhere(_: &Functions, _: &Call, action: &'static str) -> Asks {
    Ok(vec![Asked::new(action, "*")])
}

/// For what concerns a function as a whole: `$LATEST` is the function itself to these operations, and so it is to the question.
pub(super) fn whole(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    Ok(vec![of_whole(functions, call, action)])
}

fn of_whole(functions: &Functions, call: &Call, action: &'static str) -> Asked {
    match functions.named(call, action.strip_prefix("lambda:").unwrap_or(action)) {
        Ok(mut named) => {
            named.qualifier = named.qualifier.filter(|qualifier| qualifier != "$LATEST");
            on(functions, &named, action, call)
        }
        Err(_) => Asked::new(action, "*"),
    }
}

/// For what concerns a function, a version or an alias.
pub(super) fn function(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    Ok(vec![of_function(functions, call, action)])
}

fn of_function(functions: &Functions, call: &Call, action: &'static str) -> Asked {
    match functions.named(call, action.strip_prefix("lambda:").unwrap_or(action)) {
        Ok(named) => on(functions, &named, action, call),
        Err(_) => Asked::new(action, "*"),
    }
}

/// With the tags of what is named, and its policy, which may allow whatever is done with it.
fn on(functions: &Functions, named: &Named, action: &'static str, call: &Call) -> Asked {
    let asked = functions.asked(named, action);
    // No policy is looked at for the account's owner, and those here only allow.
    if call.request.caller.is_root() { asked } else { asked.with_policy(functions.policy_of(named)) }
}

/// For Invoke, of which the path names the function in its own way.
pub(super) fn invoke(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let Ok(named) = functions.named(call, "InvokeFunction") else { return anywhere(functions, call, action) };
    Ok(vec![on(functions, &named, action, call)])
}

impl Functions {
    fn arn_of(&self, named: &Named) -> String {
        let mut arn = self.inner.settings.function_arn(&named.name);
        if let Some(qualifier) = &named.qualifier {
            arn.push(':');
            arn.push_str(qualifier);
        }
        arn
    }

    fn asked(&self, named: &Named, action: &'static str) -> Asked {
        let asked = Asked::new(action, self.arn_of(named));
        match self.inner.catalogue.snapshot().get(&named.name) {
            Some(entry) => asked.with_context(with_tags("aws:ResourceTag/", &entry.function.tags)),
            None => asked,
        }
    }

    /// The policy of exactly this resource; that of a function says nothing of its aliases.
    fn policy_of(&self, named: &Named) -> Option<Policy> {
        let snapshot = self.inner.catalogue.snapshot();
        let policy = snapshot.get(&named.name)?.function.policies.get(&named.resource())?;
        resource_policy(&policy.evaluated(), &self.arn_of(named))
    }

    /// The statement of a policy that the path names.
    fn statement(&self, call: &Call) -> Option<Statement> {
        let named = self.named(call, "RemovePermission").ok()?;
        let snapshot = self.inner.catalogue.snapshot();
        let policy = snapshot.get(&named.name)?.function.policies.get(&named.resource())?;
        policy.find(call.label("StatementId")).cloned()
    }

    /// The policy of a layer version, by its ARN in the one spelling of [`Functions::layer_version_asked`].
    fn layer_policy(&self, arn: &str) -> Option<Policy> {
        let (name, number) = arn.strip_prefix(&self.layer_arn(""))?.split_once(':')?;
        let snapshot = self.inner.catalogue.snapshot();
        let version = snapshot.layers.get(name)?.find(number.parse().ok()?)?;
        resource_policy(&version.permissions.as_ref()?.policy.evaluated(), arn)
    }

    /// `lambda:GetLayerVersion` on what `arn` means, however it is written.
    fn asks_layer_version(&self, arn: &str, call: &Call) -> Asked {
        self.asked_of_layer("lambda:GetLayerVersion", self.layer_version_asked(arn), call)
    }

    fn asked_of_layer(&self, action: &'static str, resource: String, call: &Call) -> Asked {
        let policy = if call.request.caller.is_root() { None } else { self.layer_policy(&resource) };
        Asked::new(action, resource).with_policy(policy)
    }

    /// What `lambda:InvokeFunction` on a function asks, however it was named, of a caller who is not on the wire: the engine with a
    /// job's role. `None`: the name does not read.
    pub fn asks_invoke(&self, function: &str) -> Option<Asked> {
        let account = &self.inner.settings.account;
        let named = self.name(function, None, account, "InvokeFunction").ok()?;
        Some(self.asked(&named, "lambda:InvokeFunction").with_policy(self.policy_of(&named)))
    }
}

/// A policy of ours as one that decides. One that does not read is as good as none, since none of them denies anything: what the caller
/// itself may decides.
fn resource_policy(document: &str, arn: &str) -> Option<Policy> {
    match Document::parse(document, Kind::Resource) {
        Ok(document) => Some(Policy { name: format!("resource policy of {arn}").into(), document }),
        Err(error) => {
            tracing::error!(resource = arn, %error, "a stored policy does not read, and allows nothing");
            None
        }
    }
}

/// The members of any request's body that policies may look at. All others are passed over as they are read: a request of 70 MB must not
/// become a tree before anybody was asked.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Looked {
    function_name: Option<String>,
    role: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    layers: Option<Vec<String>>,
    principal: Option<String>,
    function_url_auth_type: Option<String>,
    code: Option<Package>,
    content: Option<Package>,
    // UpdateFunctionCode has the package's members among its own.
    s3_bucket: Option<String>,
    s3_key: Option<String>,
    s3_object_version: Option<String>,
}

/// A package of code, of which the bytes are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Package {
    s3_bucket: Option<String>,
    s3_key: Option<String>,
    s3_object_version: Option<String>,
}

impl Looked {
    /// Whoever has code fetched from S3 has to be allowed to read it.
    fn fetched(&self) -> impl Iterator<Item = Asked> + '_ {
        let packages = [&self.code, &self.content].into_iter().flatten();
        let named = packages.map(|p| (&p.s3_bucket, &p.s3_key, &p.s3_object_version));
        named.chain([(&self.s3_bucket, &self.s3_key, &self.s3_object_version)]).filter_map(|(bucket, key, version)| {
            let (bucket, key) = (bucket.as_deref()?, key.as_deref()?);
            Some(s3_actions::on_version(s3_actions::GET_OBJECT, bucket, key, version.as_deref()))
        })
    }
}

/// What does not read is refused before anything is asked: the operation would read it no better.
async fn looked(body: &Bytes) -> Result<Looked, ApiError> {
    members::read(body.clone(), look).await.map_err(|error| error.told())
}

fn look(body: &[u8]) -> Result<Looked, FunctionError> {
    if body.is_empty() {
        return Ok(Looked::default());
    }
    let unread = |why: &str| FunctionError::Content(format!("Could not parse request body into json: {why}"));
    if !longshore_wire::json::is_shallow(body) {
        return Err(unread("it has too many levels"));
    }
    let looked: Looked = serde_json::from_slice(body).map_err(|error| unread(&error.to_string()))?;
    let few = |count: Option<usize>, max| count.unwrap_or(0) <= max;
    // Each is a question of its own. The operation says what is wrong with some more than there may be.
    if few(looked.layers.as_ref().map(Vec::len), QUESTIONS_MAX)
        && few(looked.tags.as_ref().map(BTreeMap::len), QUESTIONS_MAX)
    {
        return Ok(looked);
    }
    Err(FunctionError::Parameter(format!("More than {QUESTIONS_MAX} layers or tags in one request.")))
}

/// Layers, and tags, of one request that are asked about; AWS takes 5 and 50.
const QUESTIONS_MAX: usize = 100;

/// `iam:PassRole` for the role that a function is given: it lends the role's rights to whoever writes its code.
fn pass_role(role: &str, function: &str) -> Asked {
    Asked::new("iam:PassRole", role)
        .with("iam:PassedToService", "lambda.amazonaws.com")
        .with("iam:AssociatedResourceArn", function)
}

pub(super) async fn create_function(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let looked = looked(&call.request.body).await?;
    let name = looked.function_name.as_deref().unwrap_or("");
    let resource = match functions.name(name, None, call.request.caller.account(), "CreateFunction") {
        Ok(named) => functions.arn_of(&named),
        Err(_) => "*".to_owned(),
    };
    let mut asked = Asked::new(action, &*resource);
    asked = asked.with_context(with_tags("aws:RequestTag/", looked.tags.as_ref().unwrap_or(&BTreeMap::new())));
    let tagged = looked.tags.as_ref().is_some_and(|tags| !tags.is_empty());
    let tagging = tagged.then(|| Asked::new("lambda:TagResource", &*resource).with_context(asked.context.clone()));
    let mut asks = vec![with_layers(functions, asked, &looked)];
    asks.extend(tagging);
    asks.extend(looked.role.iter().map(|role| pass_role(role, &resource)));
    asks.extend(layers_used(functions, &looked, call));
    asks.extend(looked.fetched());
    Ok(asks)
}

pub(super) async fn update_code(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let mut asks = vec![of_whole(functions, call, action)];
    asks.extend(looked(&call.request.body).await?.fetched());
    Ok(asks)
}

pub(super) async fn publish_layer(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let mut asks = layer(functions, call, action)?;
    asks.extend(looked(&call.request.body).await?.fetched());
    Ok(asks)
}

pub(super) async fn update_configuration(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let looked = looked(&call.request.body).await?;
    let asked = with_layers(functions, of_whole(functions, call, action), &looked);
    let resource = asked.resource.clone();
    let mut asks = vec![asked];
    asks.extend(looked.role.iter().map(|role| pass_role(role, &resource)));
    asks.extend(layers_used(functions, &looked, call));
    Ok(asks)
}

fn with_layers(functions: &Functions, mut asked: Asked, looked: &Looked) -> Asked {
    let layers = looked.layers.iter().flatten().map(|layer| functions.layer_version_asked(layer));
    asked.context = asked.context.with_all("lambda:Layer", layers);
    asked
}

/// Whoever attaches a layer has to be allowed to read it.
fn layers_used<'a>(functions: &'a Functions, looked: &'a Looked, call: &'a Call) -> impl Iterator<Item = Asked> + 'a {
    looked.layers.iter().flatten().map(|layer| functions.asks_layer_version(layer, call))
}

pub(super) async fn add_permission(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let looked = looked(&call.request.body).await?;
    let principal = looked.principal.map(|text| match Principal::read(&text) {
        Some(principal) => principal,
        // It is refused once it was asked about.
        None => Principal::Service(text),
    });
    let asked = of_function(functions, call, action);
    Ok(vec![asked.with_context(permitted(principal.as_ref(), looked.function_url_auth_type.as_deref()))])
}

/// RemovePermission takes what the statement gives: who may permit something to a service alone may take no other's permission away.
pub(super) fn remove_permission(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let asked = of_function(functions, call, action);
    let context = match functions.statement(call) {
        Some(statement) => permitted(Some(&statement.principal), statement.compared_with(FunctionUrlAuthType)),
        // By the time it is removed somebody may have added it.
        None => Context::new().with_unknown(PRINCIPAL).with_unknown(FUNCTION_URL_AUTH_TYPE),
    };
    Ok(vec![asked.with_context(context)])
}

const PRINCIPAL: &str = "lambda:Principal";
const FUNCTION_URL_AUTH_TYPE: &str = "lambda:FunctionUrlAuthType";

/// What is known of a statement that is added or removed.
fn permitted(principal: Option<&Principal>, function_url_auth_type: Option<&str>) -> Context {
    Context::new()
        .with_all(PRINCIPAL, principal.map(Principal::spellings).unwrap_or_default())
        .with_all(FUNCTION_URL_AUTH_TYPE, function_url_auth_type)
}

/// For what concerns a layer, or one version of it where the path has a number.
pub(super) fn layer(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let name = functions.layer_name(call.label("LayerName"), call, action.strip_prefix("lambda:").unwrap_or(action));
    let Ok(name) = name else { return anywhere(functions, call, action) };
    let mut resource = functions.layer_arn(&name);
    if !call.label("VersionNumber").is_empty() {
        let Ok(number) = version_number(call) else { return anywhere(functions, call, action) };
        resource.push_str(&format!(":{number}"));
    }
    Ok(vec![functions.asked_of_layer(action, resource, call)])
}

/// The one path of ListLayers and GetLayerVersionByArn.
pub(super) fn layers(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    match (call.request.query.get("find"), call.request.query.get("Arn")) {
        (Some("LayerVersion"), Some(arn)) => Ok(vec![functions.asks_layer_version(arn, call)]),
        (Some("LayerVersion"), None) => anywhere(functions, call, "lambda:GetLayerVersion"),
        _ => anywhere(functions, call, action),
    }
}

/// The one path of GetProvisionedConcurrencyConfig and ListProvisionedConcurrencyConfigs.
pub(super) fn provisioned(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    match call.request.query.get("List") {
        Some(_) => function(functions, call, "lambda:ListProvisionedConcurrencyConfigs"),
        None => function(functions, call, action),
    }
}

/// Tags are of functions alone.
pub(super) fn tags(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    Ok(vec![of_tagged(functions, call, action)])
}

/// TagResource, whose tags are in its body.
pub(super) async fn tag(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let tags = looked(&call.request.body).await?.tags.unwrap_or_default();
    Ok(vec![of_tagged(functions, call, action).with_context(with_tags("aws:RequestTag/", &tags))])
}

/// UntagResource, whose keys are in its query.
pub(super) fn untag(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let mut asked = of_tagged(functions, call, action);
    asked.context = asked.context.with_all("aws:TagKeys", call.request.query.all("tagKeys"));
    Ok(vec![asked])
}

fn of_tagged(functions: &Functions, call: &Call, action: &'static str) -> Asked {
    let action_name = action.strip_prefix("lambda:").unwrap_or(action);
    let named = functions.name(call.label("Resource"), None, call.request.caller.account(), action_name);
    match named {
        Ok(named) => on(functions, &named, action, call),
        Err(_) => Asked::new(action, "*"),
    }
}

/// Ours, not Lambda's: what AWS has CloudWatch Logs for. Of a log group all streams, as AWS's policies name them.
pub(super) fn logs(functions: &Functions, call: &Call, action: &'static str) -> Asks {
    let settings = &functions.inner.settings;
    Ok(vec![match functions.named(call, "GetFunction") {
        Ok(named) => Asked::new(
            action,
            format!("arn:aws:logs:{}:{}:log-group:/aws/lambda/{}:*", settings.region, settings.account, named.name),
        ),
        Err(_) => Asked::new(action, "*"),
    }])
}

fn with_tags(family: &str, tags: &BTreeMap<String, String>) -> Context {
    Context::new().with_tags(family, tags.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_large_body_asks_for_is_read_where_nobody_waits_for_it() {
        for (spaces, at_once) in [(100, true), (100_000, false)] {
            let body = Bytes::from(format!(r#"{{"FunctionName": "f",{}"Role": "r"}}"#, " ".repeat(spaces)));
            let mut looked = std::pin::pin!(looked(&body));
            let first = futures::poll!(&mut looked);
            assert_eq!(first.is_ready(), at_once, "{spaces}");
            let read = match first {
                std::task::Poll::Ready(read) => read,
                std::task::Poll::Pending => looked.await,
            };
            assert_eq!(read.unwrap().role.as_deref(), Some("r"));
        }
    }
}
