//! What a caller was allowed, and whether it is still so of what is served.
//!
//! A policy may ask for the tags that an object has. They are looked up before anything is done, and meanwhile another object may be put
//! in its place: whoever has found what it serves has it judged here, in the same look at the tables.

use longshore_wire::{Asked, Caller};

use crate::error::ObjectsError;
use crate::table::{self, Version};

type Tags = Vec<(String, String)>;

/// One thing that was allowed.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    asked: Asked,
    /// The tags that the object had when it was asked; none where there was none.
    tags: Tags,
}

/// All that a request was allowed, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Grants {
    pub caller: Caller,
    /// Of the account's owner none: nobody asks its policies.
    pub granted: Vec<Granted>,
}

impl Granted {
    /// Asks for one thing, on an object with these tags (`s3:ExistingObjectTag/…`).
    pub fn ask(caller: &Caller, asked: Asked, tags: Tags) -> Result<Self, ObjectsError> {
        may(caller, &asked, &tags)?;
        Ok(Self { asked, tags })
    }

    /// Asks again if the object has other tags than it had.
    fn stands(&self, caller: &Caller, tags: &Tags) -> Result<(), ObjectsError> {
        if self.tags == *tags { Ok(()) } else { may(caller, &self.asked, tags) }
    }

    /// Whether it is about what is read. Who copies an older version over the newest reads the one and replaces the other.
    fn reads(&self) -> bool {
        self.asked.action.starts_with("s3:Get")
    }
}

impl Grants {
    /// Asks again for the reading of an object, if the version that is served has other tags than the one that was asked about.
    pub fn stand(&self, bucket: &str, version: &Version) -> Result<(), ObjectsError> {
        self.ask_again(bucket, &version.key, &version.attributes.tags, true)
    }

    /// Asks again for a change of an object, before it is made in this connection's transaction: what is not there any more has no tags.
    pub fn stand_in(
        &self,
        c: &rusqlite::Connection,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<(), ObjectsError> {
        if self.granted.is_empty() {
            return Ok(());
        }
        match table::find(c, bucket, key, version) {
            Ok((found, _)) => self.ask_again(bucket, key, &found.attributes.tags, false),
            Err(error) if error.is_absence() => self.ask_again(bucket, key, &Vec::new(), false),
            Err(error) => Err(error),
        }
    }

    fn ask_again(&self, bucket: &str, key: &str, tags: &Tags, reads: bool) -> Result<(), ObjectsError> {
        let mut on_it = self.granted.iter().filter(|granted| {
            let rest = granted.asked.resource.strip_prefix("arn:aws:s3:::");
            granted.reads() == reads && rest.and_then(|rest| rest.split_once('/')) == Some((bucket, key))
        });
        on_it.try_for_each(|granted| granted.stands(&self.caller, tags))
    }
}

fn may(caller: &Caller, asked: &Asked, tags: &Tags) -> Result<(), ObjectsError> {
    caller.may(&with_existing_tags(asked.clone(), tags)).map_err(|why| ObjectsError::AccessDenied(why.to_string()))
}

/// A question about an object that has these tags.
pub(crate) fn with_existing_tags(mut asked: Asked, tags: &[(String, String)]) -> Asked {
    let tags = tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    asked.context = asked.context.with_tags("s3:ExistingObjectTag/", tags);
    asked
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;

    use bytes::Bytes;
    use longshore_core::policy::{Context, Document, Kind, Policy, Principal, PrincipalKind, Rights};
    use longshore_store::{Fatal, Records};
    use longshore_wire::caller::Subject;
    use longshore_wire::sigv4::Verified;
    use s3s::dto::*;

    use super::super::asks::Asks;
    use super::super::{Answer, Backend, Call};
    use super::super::{copy_object, delete_objects, get_object, get_object_attributes, put_object, tagging};
    // `s3s` has one, too.
    use super::Grants;
    use super::*;
    use crate::{Objects, Settings, serve};

    const ACCOUNT: &str = "111111111111";

    type Pairs = &'static [(&'static str, &'static str)];

    /// A user who may do all with objects but with those that are secret.
    fn user() -> Caller {
        user_with(
            r#"{"Effect":"Allow","Action":"s3:*","Resource":"*"},
            {"Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"s3:ExistingObjectTag/secret":"yes"}}}"#,
        )
    }

    fn user_with(statements: &str) -> Caller {
        let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
        let document = Document::parse(&text, Kind::Identity).unwrap();
        let rights = Rights { identity: vec![Policy { name: "p".into(), document }], ..Rights::default() };
        let principal = Principal {
            account: ACCOUNT.into(),
            arn: format!("arn:aws:iam::{ACCOUNT}:user/u"),
            user_id: "AIDA".into(),
            kind: PrincipalKind::User { name: "u".into() },
            tags: Default::default(),
        };
        let identity = Subject { principal: Arc::new(principal), rights: Arc::new(rights) };
        Caller::new(Verified::in_process(ACCOUNT), identity, Context::new(), None, "id")
    }

    struct World {
        objects: Objects,
        context: Arc<serve::Context>,
        _dir: tempfile::TempDir,
    }

    async fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&dir.path().join("records.db"), &[crate::SCHEMA], Fatal::new()).unwrap();
        let settings = Settings { region: "us-east-1".into(), account: ACCOUNT.into() };
        let objects = Objects::open(records, dir.path().join("blobs"), settings).unwrap();
        objects.create_bucket("bkt").await.unwrap();
        let context = serve::Context {
            caller: user(),
            bucket: Some("bkt".into()),
            request_id: "id".into(),
            expected: Default::default(),
            trailers: Default::default(),
            announced: None,
            failed: Default::default(),
        };
        World { objects, context: Arc::new(context), _dir: dir }
    }

    impl World {
        /// Another object in the place of the one that is there, with tags or without.
        async fn put(&self, key: &str, tags: &[(&str, &str)]) {
            self.objects.put_bytes("bkt", key, None, Bytes::from_static(b"body")).await.unwrap();
            let tags: Tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let key = key.to_owned();
            let set = move |c: &rusqlite::Connection| {
                table::set_tags(c, "bkt", &key, None, tags)?;
                Ok(table::Written::default())
            };
            self.objects.inner.write(None, set).await.unwrap();
        }

        /// Serves an input, of which all was asked while `k` was as `before` has it, when it is as `then` has it.
        async fn between<I: Asks, O, F: Future<Output = Answer<O>>>(
            &self,
            (before, then): (Pairs, Pairs),
            input: I,
            operation: impl FnOnce(Call<I>) -> F,
        ) -> Result<(), ObjectsError> {
            self.put("k", before).await;
            let backend = Backend(self.objects.inner.clone());
            let (_, grants) = backend.allow(&self.context, &input).await?;
            self.put("k", then).await;
            let (inner, context) = (self.objects.inner.clone(), self.context.clone());
            operation(Call { inner, input, context, grants: Arc::new(grants) }).await.map(drop)
        }
    }

    fn copy(checksum: Option<ChecksumAlgorithm>) -> CopyObjectInput {
        let copy_source = CopySource::Bucket { bucket: "bkt".into(), key: "k".into(), version_id: None };
        let input = CopyObjectInput::builder().bucket("bkt".into()).key("copy".into()).copy_source(copy_source);
        input.checksum_algorithm(checksum).build().unwrap()
    }

    #[tokio::test]
    async fn who_may_replace_an_object_for_its_tag_may_not_make_it_anew_once_it_is_gone() {
        let mut world = world().await;
        Arc::get_mut(&mut world.context).unwrap().caller = user_with(
            r#"{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"s3:ExistingObjectTag/writer":"u"}}}"#,
        );
        world.put("k", &[("writer", "u")]).await;
        let input = PutObjectInput { bucket: "bkt".into(), key: "k".into(), ..Default::default() };
        let (_, grants) = Backend(world.objects.inner.clone()).allow(&world.context, &input).await.unwrap();
        let stands = |grants: Grants| world.objects.inner.records.read(move |c| grants.stand_in(c, "bkt", "k", None));
        assert!(stands(grants.clone()).await.is_ok());
        world.objects.delete("bkt", "k").await.unwrap();
        assert!(matches!(stands(grants).await, Err(ObjectsError::AccessDenied(_))));
    }

    #[tokio::test]
    async fn an_older_version_is_read_by_its_own_tags_and_the_newest_replaced_by_its_own() {
        let mut world = world().await;
        Arc::get_mut(&mut world.context).unwrap().caller = user_with(
            r#"{"Effect":"Allow","Action":["s3:Get*"],"Resource":"*","Condition":{"StringEquals":{"s3:ExistingObjectTag/public":"yes"}}},
               {"Effect":"Allow","Action":"s3:Put*","Resource":"*"},
               {"Effect":"Deny","Action":"s3:Put*","Resource":"*","Condition":{"StringEquals":{"s3:ExistingObjectTag/locked":"yes"}}}"#,
        );
        let (old, new): (Pairs, Pairs) = (&[("public", "yes"), ("locked", "yes")], &[]);
        let tags = |pairs: Pairs| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Tags>();
        let asked = |action| Asked::new(action, "arn:aws:s3:::bkt/k");
        let caller = world.context.caller.clone();
        let granted = vec![
            Granted::ask(&caller, asked("s3:GetObjectVersion"), tags(old)).unwrap(),
            Granted::ask(&caller, asked("s3:PutObject"), tags(new)).unwrap(),
        ];
        let grants = Grants { caller, granted };
        world.put("k", old).await;
        let source = world.objects.head("bkt", "k", None).await.unwrap();
        grants.stand("bkt", &source).unwrap();
        world.put("k", new).await;
        let target = grants.clone();
        world.objects.inner.records.read(move |c| target.stand_in(c, "bkt", "k", None)).await.unwrap();
        // And each is asked again where it is another.
        let now = world.objects.head("bkt", "k", None).await.unwrap();
        assert!(matches!(grants.stand("bkt", &now), Err(ObjectsError::AccessDenied(_))));
        world.put("k", old).await;
        let locked = world.objects.inner.records.read(move |c| grants.stand_in(c, "bkt", "k", None)).await;
        assert!(matches!(locked, Err(ObjectsError::AccessDenied(_))));
    }

    #[tokio::test]
    async fn what_was_put_between_question_and_answer_is_judged_by_its_own_tags() {
        const SECRET: Pairs = &[("secret", "yes")];
        const OPEN: Pairs = &[("secret", "no")];
        let world = world().await;
        let (bucket, key) = ("bkt".to_owned(), "k".to_owned());
        macro_rules! each {
            ($($name:literal: $input:expr, $operation:expr;)*) => {$(
                for (meanwhile, allowed) in [((OPEN, SECRET), false), ((&[][..], SECRET), false), ((OPEN, &[][..]), true)] {
                    let served = world.between(meanwhile, $input, $operation).await;
                    let denied = matches!(served, Err(ObjectsError::AccessDenied(_)));
                    assert!(served.is_ok() == allowed && denied != allowed, "{}: {meanwhile:?}: {served:?}", $name);
                    // What was denied was not done either.
                    let there = world.objects.head("bkt", "k", None).await;
                    assert!(allowed || there.unwrap().attributes.tags.len() == 1, "{}", $name);
                }
            )*};
        }
        let attributes = || vec![ObjectAttributes::from_static("ETag")];
        each! {
            "GetObject": GetObjectInput { bucket: bucket.clone(), key: key.clone(), ..Default::default() }, get_object::get_object;
            "HeadObject": HeadObjectInput { bucket: bucket.clone(), key: key.clone(), ..Default::default() }, get_object::head_object;
            "GetObjectAttributes": GetObjectAttributesInput {
                bucket: bucket.clone(), key: key.clone(), object_attributes: attributes(), ..Default::default()
            }, get_object_attributes::get_object_attributes;
            "GetObjectTagging": GetObjectTaggingInput { bucket: bucket.clone(), key: key.clone(), ..Default::default() },
                tagging::get_object_tagging;
            "CopyObject": copy(None), copy_object::copy_object;
            "CopyObject, read": copy(Some(ChecksumAlgorithm::from_static("SHA256"))), copy_object::copy_object;
            "DeleteObjectTagging": DeleteObjectTaggingInput { bucket: bucket.clone(), key: key.clone(), ..Default::default() },
                tagging::delete_object_tagging;
            "PutObject": PutObjectInput { bucket: bucket.clone(), key: key.clone(), ..Default::default() }, put_object::put_object;
            "DeleteObject": DeleteObjectInput { bucket: bucket.clone(), key: key.clone(), ..Default::default() },
                delete_objects::delete_object;
        }
        assert!(world.objects.head("bkt", "copy", None).await.unwrap().attributes.tags.is_empty());
    }
}
