//! Layers: published, listed, used by functions, deleted. Source: Lambda spec 3.1, 3.3 step 8, 8.2.

use super::*;
use crate::code::archive::fixtures::{deflated, link, with_mode};

const LAYERS: &str = "/2018-10-31/layers";
const LAYER: &str = "arn:aws:lambda:us-east-1:111111111111:layer";
const PARAMETER: &str = "InvalidParameterValueException";

impl Api {
    /// Publishes a version of a layer of these files.
    async fn layer(&self, name: &str, files: &[(&str, &[u8])]) -> Answer {
        let raws: Vec<_> = files.iter().map(|(name, content)| file(name, content)).collect();
        self.publish(name, json!({"Content": {"ZipFile": encoded(&zip(&raws))}})).await
    }

    async fn publish(&self, name: &str, body: Value) -> Answer {
        self.post(&format!("{LAYERS}/{name}/versions"), body).await
    }

    /// Sets the layers of `f`, once its last change is over.
    async fn layers_of_f(&self, layers: &[&str]) -> Answer {
        self.configuration().await;
        self.put("/2015-03-31/functions/f/configuration", json!({"Layers": layers})).await
    }

    /// The deployment with which `f` runs.
    async fn deployment(&self) -> Arc<Deployment> {
        self.configuration().await;
        self.invoke("f", &[], "{}").await.ok(200);
        self.host.seen.lock().unwrap().last().unwrap().0.clone()
    }
}

fn read(deployment: &Arc<Deployment>, path: &str) -> String {
    let dir = deployment.layers_dir.as_ref().expect("it has layers");
    std::fs::read_to_string(dir.join(path)).unwrap_or_else(|error| format!("{path}: {error}"))
}

#[tokio::test]
async fn a_layer_is_published_shown_and_downloaded() {
    let api = Api::new();
    let package = zip(&[file("python/shared.py", b"x = 1")]);
    let published = api
        .publish(
            "shared",
            json!({
                "Content": {"ZipFile": encoded(&package)},
                "Description": "what all share",
                "LicenseInfo": "MIT",
                "CompatibleRuntimes": ["python3.12", "python2.7"],
                "CompatibleArchitectures": ["x86_64", "arm64"],
            }),
        )
        .await
        .ok(201);
    let mut shape = published.body.clone();
    let location = shape["Content"]["Location"].take();
    let created = shape["CreatedDate"].take();
    assert!(created.as_str().unwrap().ends_with("+0000"), "{created}");
    assert_eq!(
        shape,
        json!({
            "LayerArn": format!("{LAYER}:shared"),
            "LayerVersionArn": format!("{LAYER}:shared:1"),
            "Version": 1,
            "Description": "what all share",
            "LicenseInfo": "MIT",
            "CompatibleRuntimes": ["python3.12", "python2.7"],
            "CompatibleArchitectures": ["x86_64", "arm64"],
            "CreatedDate": null,
            "Content": {
                "Location": null,
                "CodeSha256": STANDARD.encode(Sha256::digest(&package)),
                "CodeSize": package.len(),
            },
        })
    );
    let path = location.as_str().unwrap().strip_prefix("http://localhost:7300").unwrap().to_owned();
    let (path, query) = path.split_once('?').unwrap();
    assert_eq!(api.functions.download(path, &Query::parse(Some(query))).unwrap().size, package.len() as u64);

    let encoded_arn = format!("{LAYER}:shared:1").replace(':', "%3A");
    for target in [
        format!("{LAYERS}/shared/versions/1"),
        format!("{LAYERS}/{}/versions/1", format!("{LAYER}:shared").replace(':', "%3A")),
        format!("{LAYERS}?find=LayerVersion&Arn={encoded_arn}"),
    ] {
        let mut got = api.get(&target).await.ok(200).body;
        got["Content"]["Location"].take();
        got["CreatedDate"].take();
        assert_eq!(got, shape, "{target}");
    }
    // The least that can be said of one.
    let least = api.layer("least", &[("a", b"1")]).await.ok(201);
    let members: Vec<&str> = least.body.as_object().unwrap().keys().map(String::as_str).collect();
    let always = ["Content", "CreatedDate", "Description", "LayerArn", "LayerVersionArn", "Version"];
    assert_eq!(members, always);
}

#[tokio::test]
async fn layers_and_their_versions_are_listed_in_pages_and_by_what_they_go_with() {
    let api = Api::new();
    for (name, runtimes) in [("b", vec!["python3.12"]), ("a", vec![]), ("b", vec!["nodejs20.x"]), ("b", vec![])] {
        let mut body = json!({"Content": {"ZipFile": encoded(&package())}});
        if !runtimes.is_empty() {
            body["CompatibleRuntimes"] = json!(runtimes);
            body["CompatibleArchitectures"] = json!(["x86_64"]);
        }
        api.publish(name, body).await.ok(201);
    }
    let layers = async |query: &str| {
        let body = api.get(&format!("{LAYERS}{query}")).await.ok(200).body;
        let list: Vec<(String, u64)> = body["Layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| (l["LayerName"].as_str().unwrap().into(), l["LatestMatchingVersion"]["Version"].as_u64().unwrap()))
            .collect();
        (list, body["NextMarker"].as_str().map(str::to_owned))
    };
    let of = |list: &[(&str, u64)]| list.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<Vec<_>>();
    assert_eq!(layers("").await, (of(&[("a", 1), ("b", 3)]), None));
    assert_eq!(layers("/").await.0, of(&[("a", 1), ("b", 3)]));
    assert_eq!(layers("?CompatibleRuntime=python3.12").await.0, of(&[("b", 1)]));
    assert_eq!(layers("?CompatibleRuntime=nodejs20.x&CompatibleArchitecture=x86_64").await.0, of(&[("b", 2)]));
    assert_eq!(layers("?CompatibleArchitecture=arm64").await.0, of(&[]));
    let (first, marker) = layers("?MaxItems=1").await;
    assert_eq!(first, of(&[("a", 1)]));
    assert_eq!(layers(&format!("?MaxItems=1&Marker={}", marker.unwrap())).await, (of(&[("b", 3)]), None));

    let versions = async |query: &str| {
        let body = api.get(&format!("{LAYERS}/b/versions{query}")).await.ok(200).body;
        let list = body["LayerVersions"].as_array().unwrap();
        assert!(list.iter().all(|v| v.get("Content").is_none()), "{body}");
        list.iter().map(|v| v["Version"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(versions("").await, [3, 2, 1]);
    assert_eq!(versions("?CompatibleRuntime=python3.12").await, [1]);
    let marker = api.get(&format!("{LAYERS}/b/versions?MaxItems=2")).await.body["NextMarker"].clone();
    assert_eq!(versions(&format!("?Marker={}", marker.as_str().unwrap())).await, [1]);
    assert_eq!(api.get(&format!("{LAYERS}/none/versions")).await.ok(200).body, json!({"LayerVersions": []}));

    let known = "python3.8, python3.9";
    let wrong = api.get(&format!("{LAYERS}?CompatibleRuntime=cobol&CompatibleArchitecture=vax")).await;
    let (status, code, message) = wrong.error();
    assert_eq!((status, code), (400, "ValidationException"));
    assert!(message.starts_with("2 validation errors detected: Value 'cobol' at 'compatibleRuntime' failed to satisfy constraint: Member must satisfy enum value set: ["), "{message}");
    assert!(message.contains(known) && message.ends_with("Value 'vax' at 'compatibleArchitecture' failed to satisfy constraint: Member must satisfy enum value set: [x86_64, arm64]"), "{message}");
    api.get(&format!("{LAYERS}?MaxItems=51")).await.fails(400, "ValidationException", "1 validation error detected: Value '51' at 'maxItems' failed to satisfy constraint: Member must have value less than or equal to 50");
}

#[tokio::test]
async fn a_layer_that_is_wrong_or_not_there_is_told_in_the_words_of_aws() {
    let api = Api::new();
    let gone = "The resource you requested does not exist.";
    let missing = "ResourceNotFoundException";
    api.get(&format!("{LAYERS}/l/versions/1")).await.fails(404, missing, gone);
    api.layer("l", &[("a", b"1")]).await.ok(201);
    api.get(&format!("{LAYERS}/l/versions/2")).await.fails(404, missing, gone);
    api.get(&format!("{LAYERS}/l/versions/99999999999")).await.fails(404, missing, gone);
    let less = "Layer Version Cannot be less than 1";
    api.get(&format!("{LAYERS}/l/versions/0")).await.fails(400, PARAMETER, less);
    api.delete(&format!("{LAYERS}/l/versions/-1")).await.fails(400, PARAMETER, less);
    let pattern = "arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+";
    let bare = format!("{LAYER}:l");
    api.get(&format!("{LAYERS}?find=LayerVersion&Arn={}", bare.replace(':', "%3A"))).await.fails(
        400,
        "ValidationException",
        &format!("1 validation error detected: Value '{bare}' at 'arn' failed to satisfy constraint: Member must satisfy regular expression pattern: {pattern}"),
    );
    let none = api.get(&format!("{LAYERS}?find=LayerVersion")).await;
    none.fails(
        400,
        "ValidationException",
        "1 validation error detected: Value null at 'arn' failed to satisfy constraint: Member must not be null",
    );
    let other = "arn%3Aaws%3Alambda%3Aus-east-1%3A222222222222%3Alayer%3Al";
    assert_eq!(api.get(&format!("{LAYERS}/{other}/versions/1")).await.error().1, "AccessDeniedException");
    let name = api.get(&format!("{LAYERS}/l%2F..%2Fm/versions/1")).await;
    assert!(
        name.error().2.contains(
            "'l/../m' at 'layerName' failed to satisfy constraint: Member must satisfy regular expression pattern"
        ),
        "{name:?}"
    );

    let zip_file = encoded(&package());
    let refused = [
        (
            json!({}),
            "ValidationException",
            "1 validation error detected: Value null at 'content' failed to satisfy constraint: Member must not be null",
        ),
        (json!({"Content": {}}), PARAMETER, "Please provide a source for function code."),
        (json!({"Content": {"ZipFile": ""}}), PARAMETER, "Uploaded file must be a non-empty zip"),
        (
            json!({"Content": {"S3Bucket": "no", "S3Key": "k"}}),
            PARAMETER,
            "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist",
        ),
        (
            json!({"Content": {"ZipFile": zip_file}, "CompatibleArchitectures": ["x86_64", "arm64", "x86_64"]}),
            "ValidationException",
            "1 validation error detected: Value '[x86_64, arm64, x86_64]' at 'compatibleArchitectures' failed to satisfy constraint: Member must have length less than or equal to 2",
        ),
        (
            json!({"Content": {"ZipFile": zip_file}, "CompatibleArchitectures": ["vax"]}),
            "ValidationException",
            "1 validation error detected: Value '[vax]' at 'compatibleArchitectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
        ),
        (json!({"Content": {"ZipFile": zip_file}, "Colour": 1}), PARAMETER, "The member Colour is not known here."),
    ];
    for (body, code, message) in refused {
        api.publish("m", body).await.fails(400, code, message);
    }
    let runtimes: Vec<&str> = std::iter::repeat_n("python3.12", 16).collect();
    let many = json!({"Content": {"ZipFile": zip_file}, "CompatibleRuntimes": runtimes, "LicenseInfo": "l".repeat(513), "Description": "d".repeat(257)});
    let many = api.publish("m", many).await;
    let (_, _, message) = many.error();
    for part in [
        "3 validation errors detected",
        "'description'",
        "'licenseInfo'",
        "less than or equal to 512",
        "'compatibleRuntimes' failed to satisfy constraint: Member must have length less than or equal to 15",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(api.get(&format!("{LAYERS}/m/versions")).await.body["LayerVersions"], json!([]));
    api.publish("s3", json!({"Content": {"S3Bucket": "b", "S3Key": "package.zip"}})).await.ok(201);
}

#[tokio::test]
async fn layers_that_a_function_must_not_have_are_refused_in_the_words_of_aws() {
    let api = Api::new();
    for _ in 0..2 {
        api.layer("l", &[("a", b"1")]).await.ok(201);
    }
    let bare = format!("{LAYER}:l");
    let six: Vec<String> = (1..=6).map(|n| format!("{LAYER}:l{n}:1")).collect();
    let cases = [
        (json!(six), 400, PARAMETER, "Cannot reference more than 5 layers.".to_owned()),
        (json!([format!("{LAYER}:l:3")]), 400, PARAMETER, format!("Layer version {LAYER}:l:3 does not exist.")),
        (json!([format!("{LAYER}:l:99999999999")]), 400, PARAMETER, format!("Layer version {LAYER}:l:99999999999 does not exist.")),
        (json!([format!("{LAYER}:none:1")]), 400, PARAMETER, format!("Layer version {LAYER}:none:1 does not exist.")),
        (
            json!([format!("{LAYER}:l:1"), format!("{LAYER}:l:2")]),
            400,
            PARAMETER,
            format!("Two different versions of the same layer are not allowed to be referenced in the same function. {LAYER}:l:1 and {LAYER}:l:2 are versions of the same layer."),
        ),
        (
            json!(["arn:aws:lambda:eu-west-1:111111111111:layer:l:1"]),
            400,
            PARAMETER,
            "Layers are not in the same region as the function. Layers are expected to be in region us-east-1.".to_owned(),
        ),
        (
            json!(["arn:aws:lambda:us-east-1:222222222222:layer:l:1"]),
            403,
            "AccessDeniedException",
            "User: arn:aws:iam::111111111111:root is not authorized to perform: lambda:GetLayerVersion on resource: arn:aws:lambda:us-east-1:222222222222:layer:l:1 because no resource-based policy allows the lambda:GetLayerVersion action".to_owned(),
        ),
        (
            json!([bare]),
            400,
            "ValidationException",
            format!("1 validation error detected: Value '[{bare}]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{{2}}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{{1}}:\\d{{12}}:layer:[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+), Member must not be null]"),
        ),
    ];
    for (layers, status, code, message) in &cases {
        api.create_with(json!({"Layers": layers})).await.fails(*status, code, message);
    }
    api.create().await;
    for (layers, status, code, message) in &cases {
        let update = api.put("/2015-03-31/functions/f/configuration", json!({"Layers": layers})).await;
        update.fails(*status, code, message);
    }
    assert!(api.configuration().await.get("Layers").is_none());
}

#[tokio::test]
async fn a_function_shows_its_layers_in_their_order_and_an_empty_list_takes_them_away() {
    let api = Api::new();
    let sizes = [
        api.layer("one", &[("a", b"1")]).await.ok(201).body["Content"]["CodeSize"].clone(),
        api.layer("two", &[("b", b"22")]).await.ok(201).body["Content"]["CodeSize"].clone(),
    ];
    let (one, two) = (format!("{LAYER}:one:1"), format!("{LAYER}:two:1"));
    let created = api.create_with(json!({"Layers": [two, one]})).await.ok(201);
    let expected = json!([{"Arn": two, "CodeSize": sizes[1]}, {"Arn": one, "CodeSize": sizes[0]}]);
    assert_eq!(created.body["Layers"], expected);
    let both = api.deployment().await;
    api.put("/2015-03-31/functions/f/configuration", json!({"Timeout": 4})).await.ok(200);
    assert_eq!(api.configuration().await["Layers"], expected, "what is absent stays");
    let updated = api.layers_of_f(&[&one]).await.ok(200);
    assert_eq!(updated.body["Layers"], json!([{"Arn": one, "CodeSize": sizes[0]}]));
    let single = api.deployment().await;
    assert_ne!(both.id, single.id, "other layers are another deployment");
    assert!(api.host.retired.lock().unwrap().contains(&both.id), "and what ran the old ones takes no more calls");
    api.configuration().await;
    api.put("/2015-03-31/functions/f/configuration", json!({"Layers": []})).await.ok(200);
    assert!(api.configuration().await.get("Layers").is_none());
    assert_eq!(api.deployment().await.layers_dir, None);
}

#[tokio::test]
async fn later_layers_lie_over_earlier_ones() {
    let api = Api::new();
    let raws = [
        vec![
            file("python/shared.py", b"one"),
            file("only/in/one", b"1"),
            file("becomes/a/file", b"1"),
            file("becomes-a-folder", b"1"),
            link("becomes-no-link", "python"),
            link("stays-a-link", "python/shared.py"),
            with_mode("bin/tool", b"#!/bin/sh", 0o100_755),
        ],
        vec![
            file("python/shared.py", b"two"),
            file("becomes/a", b"2"),
            file("becomes-a-folder/x", b"2"),
            file("becomes-no-link/x", b"2"),
            deflated("only/in/two", b"2"),
        ],
    ];
    for (name, raws) in ["one", "two"].iter().zip(&raws) {
        api.publish(name, json!({"Content": {"ZipFile": encoded(&zip(raws))}})).await.ok(201);
    }
    api.create().await;
    api.layers_of_f(&[&format!("{LAYER}:one:1"), &format!("{LAYER}:two:1")]).await.ok(200);
    let merged = api.deployment().await;
    for (path, content) in [
        ("python/shared.py", "two"),
        ("only/in/one", "1"),
        ("only/in/two", "2"),
        ("becomes/a", "2"),
        ("becomes-a-folder/x", "2"),
        ("becomes-no-link/x", "2"),
        ("stays-a-link", "two"),
    ] {
        assert_eq!(read(&merged, path), content, "{path}");
    }
    let dir = merged.layers_dir.clone().unwrap();
    assert!(!dir.join("python/x").exists(), "nothing is written through a link of another layer");
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    assert_eq!(dir.join("bin/tool").metadata().unwrap().permissions().mode() & 0o777, 0o555);
    assert!(dir.join("bin/tool").metadata().unwrap().nlink() > 1, "a merged file is a name more and not a copy");
    api.layers_of_f(&[&format!("{LAYER}:two:1"), &format!("{LAYER}:one:1")]).await.ok(200);
    let other = api.deployment().await;
    assert_eq!(read(&other, "python/shared.py"), "one");
    assert_eq!(read(&other, "becomes/a/file"), "1");
    assert_ne!(other.layers_dir, merged.layers_dir);
}

#[tokio::test]
async fn a_deleted_layer_version_works_on_where_it_is_used_and_its_number_is_not_used_again() {
    let temp = tempfile::tempdir().unwrap();
    let settings = || Settings::new("us-east-1", ACCOUNT);
    let api = Api::at(temp.path(), settings());
    for (name, content) in [("used", "u"), ("also", "a"), ("unused", "n")] {
        api.layer(name, &[(name, content.as_bytes())]).await.ok(201);
    }
    let (used, also) = (format!("{LAYER}:used:1"), format!("{LAYER}:also:1"));
    api.create_with(json!({"Layers": [used, also], "Publish": true})).await.ok(201);
    for name in ["used", "also", "unused", "unused", "never"] {
        api.delete(&format!("{LAYERS}/{name}/versions/1")).await.ok(204);
    }
    assert_eq!(api.get(LAYERS).await.body["Layers"], json!([]));
    assert_eq!(read(&api.deployment().await, "used"), "u");
    api.configuration().await;
    api.put("/2015-03-31/functions/f/configuration", json!({"Timeout": 9})).await.ok(200);
    let again = api.layers_of_f(&[&used]).await;
    again.fails(400, PARAMETER, &format!("Layer version {used} does not exist."));
    drop(api);

    // Function's package, two layers, and the two merged; without the layer that nobody has.
    let folders = || std::fs::read_dir(temp.path().join("code")).unwrap().count();
    assert_eq!(folders(), 5);
    let api = Api::at(temp.path(), settings());
    assert_eq!(folders(), 4);
    assert_eq!(read(&api.deployment().await, "also"), "a");
    assert_eq!(api.configuration().await["Layers"][0]["Arn"], used);
    assert_eq!(api.layer("used", &[("x", b"2")]).await.ok(201).body["Version"], 2);
    // What a restored backup has lost is merged again at the next start.
    let merged = api.deployment().await.layers_dir.clone().unwrap();
    drop(api);
    std::fs::remove_dir_all(&merged).unwrap();
    let api = Api::at(temp.path(), settings());
    assert_eq!(read(&api.deployment().await, "used"), "u");
    api.delete("/2015-03-31/functions/f").await.ok(204);
    drop(api);
    Api::at(temp.path(), settings());
    assert!(!merged.exists(), "a merged folder goes when no function has it");
}

#[tokio::test]
async fn code_and_layers_together_must_stay_below_the_limit() {
    let temp = tempfile::tempdir().unwrap();
    let api = Api::at(temp.path(), Settings::new("us-east-1", ACCOUNT));
    let published = api.layer("large", &[("zeros", b"")]).await.ok(201).body;
    let large = format!("{LAYER}:large:1");
    // What counts is what lies unpacked, so a file with a hole stands in for half a minute of inflating.
    let sha256 = STANDARD.decode(published["Content"]["CodeSha256"].as_str().unwrap()).unwrap();
    let zeros = temp.path().join("code").join(hex::encode(sha256)).join("content/zeros");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&zeros, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::OpenOptions::new().write(true).open(&zeros).unwrap().set_len(262_143_000).unwrap();

    let message = |bytes: usize| {
        format!(
            "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is \
             {bytes} bytes."
        )
    };
    let code = |bytes| json!({"ZipFile": encoded(&zip(&[deflated("code", &vec![0; bytes])]))});
    let created = api.create_with(json!({"Code": code(1_000), "Layers": [large]})).await;
    created.fails(400, PARAMETER, &message(262_144_000));
    api.create_with(json!({"Code": code(999), "Layers": [large]})).await.ok(201);
    api.configuration().await;
    let updated = api.put("/2015-03-31/functions/f/code", code(1_001)).await;
    updated.fails(400, PARAMETER, &message(262_144_001));
    let dry = json!({"ZipFile": code(1_001)["ZipFile"], "DryRun": true});
    api.put("/2015-03-31/functions/f/code", dry).await.fails(400, PARAMETER, &message(262_144_001));
    api.layer("small", &[("a", b"1")]).await.ok(201);
    let one_more = api.layers_of_f(&[&large, &format!("{LAYER}:small:1")]).await;
    one_more.fails(400, PARAMETER, &message(262_144_000));
}

/// An S3 whose one object takes as long as the test wants.
#[derive(Default)]
struct SlowObject {
    asked: tokio::sync::Notify,
    answer: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl CodeSource for SlowObject {
    async fn fetch(&self, _: &str, _: &str, _: Option<&str>, _: usize) -> Result<Bytes, SourceError> {
        self.asked.notify_one();
        self.answer.notified().await;
        Ok(package().into())
    }
}

#[tokio::test]
async fn code_that_was_checked_with_other_layers_is_not_put_under_new_ones() {
    let temp = tempfile::tempdir().unwrap();
    let slow = Arc::new(SlowObject::default());
    let settings = Settings { settle: Duration::from_secs(3_600), ..Settings::new("us-east-1", ACCOUNT) };
    let api = Api::with_source(temp.path(), settings, slow.clone());
    api.layer("l", &[("a", b"1")]).await.ok(201);
    api.create().await;
    let update = api.put("/2015-03-31/functions/f/code", json!({"S3Bucket": "b", "S3Key": "k"}));
    let meanwhile = async {
        slow.asked.notified().await;
        api.layers_of_f(&[&format!("{LAYER}:l:1")]).await.ok(200);
        api.configuration().await;
        slow.answer.notify_one();
    };
    let (updated, ()) = futures::join!(update, meanwhile);
    updated.fails(
        409,
        "ResourceConflictException",
        &format!("The operation cannot be performed at this time. An update is in progress for resource: {ARN}"),
    );
}

#[tokio::test]
async fn layers_count_against_the_code_storage_of_the_account() {
    let temp = tempfile::tempdir().unwrap();
    let size = package().len() as u64;
    let settings = Settings { code_bytes_max: 3 * size, ..Settings::new("us-east-1", ACCOUNT) };
    let api = Api::at(temp.path(), settings);
    let layer = || json!({"Content": {"ZipFile": encoded(&package())}});
    api.publish("l", layer()).await.ok(201);
    api.publish("l", layer()).await.ok(201);
    api.create().await;
    let full = ("CodeStorageExceededException", "Code storage limit exceeded.");
    api.publish("l", layer()).await.fails(400, full.0, full.1);
    api.create_with(json!({"FunctionName": "g"})).await.fails(400, full.0, full.1);
    let usage = api.get("/2016-08-19/account-settings/").await.ok(200).body["AccountUsage"].clone();
    assert_eq!(usage, json!({"TotalCodeSize": 3 * size, "FunctionCount": 1}));
    api.delete(&format!("{LAYERS}/l/versions/1")).await.ok(204);
    assert_eq!(api.publish("l", layer()).await.ok(201).body["Version"], 3);
}

#[tokio::test]
async fn versions_of_one_layer_that_are_published_at_once_get_numbers_of_their_own() {
    let api = Api::new();
    let body = json!({"Content": {"ZipFile": encoded(&package())}});
    let answers = futures::future::join_all((0..8).map(|_| api.publish("l", body.clone()))).await;
    let mut numbers: Vec<u64> = answers.iter().map(|a| a.body["Version"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn a_layers_permissions_are_kept_shown_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    let api = Api::at(temp.path(), Settings::new("us-east-1", ACCOUNT));
    api.layer("l", &[("a", b"1")]).await.ok(201);
    let policy = format!("{LAYERS}/l/versions/1/policy");
    let missing = "ResourceNotFoundException";
    api.get(&policy).await.fails(404, missing, "No policy is associated with the given resource.");
    let nowhere = format!("{LAYERS}/l/versions/2/policy");
    let no_version = format!("Layer version {LAYER}:l:2 does not exist.");
    api.get(&nowhere).await.fails(404, missing, &no_version);
    let allow = |sid: &str, principal: &str| json!({"StatementId": sid, "Action": "lambda:GetLayerVersion", "Principal": principal});
    api.post(&nowhere, allow("s", "*")).await.fails(404, missing, &no_version);

    let added = api.post(&policy, allow("s1", "222222222222")).await.ok(201).body;
    let statement: Value = serde_json::from_str(added["Statement"].as_str().unwrap()).unwrap();
    let expected = json!({
        "Sid": "s1",
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::222222222222:root"},
        "Action": "lambda:GetLayerVersion",
        "Resource": format!("{LAYER}:l:1"),
    });
    assert_eq!(statement, expected);
    let duplicate = api.post(&policy, allow("s1", "*")).await;
    duplicate.fails(409, "ResourceConflictException", "The statement id (s1) provided already exists. Please provide a new statement id, or remove the existing statement.");
    let stale = "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision Id";
    let precondition = "PreconditionFailedException";
    api.post(&format!("{policy}?RevisionId=old"), allow("s2", "*")).await.fails(412, precondition, stale);
    let mut organization = allow("s2", "*");
    organization["OrganizationId"] = "o-abcdefghij".into();
    let revision = added["RevisionId"].as_str().unwrap();
    let second = api.post(&format!("{policy}?RevisionId={revision}"), organization).await.ok(201).body;
    assert_ne!(second["RevisionId"], added["RevisionId"]);
    drop(api);

    let api = Api::at(temp.path(), Settings::new("us-east-1", ACCOUNT));
    let got = api.get(&policy).await.ok(200).body;
    assert_eq!(got["RevisionId"], second["RevisionId"]);
    let document: Value = serde_json::from_str(got["Policy"].as_str().unwrap()).unwrap();
    assert_eq!(document["Statement"][0], expected);
    assert_eq!(document["Statement"][1]["Principal"], "*");
    let condition = json!({"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}});
    assert_eq!(document["Statement"][1]["Condition"], condition);
    api.delete(&format!("{policy}/s1?RevisionId=old")).await.fails(412, precondition, stale);
    api.delete(&format!("{policy}/s1")).await.ok(204);
    api.delete(&format!("{policy}/s1")).await.fails(404, missing, "Statement s1 is not found in resource policy.");
    api.delete(&format!("{policy}/s2")).await.ok(204);
    api.get(&policy).await.fails(404, missing, "No policy is associated with the given resource.");

    let wrong = json!({"StatementId": "s 3", "Action": "lambda:*", "Principal": "someone", "OrganizationId": "x"});
    let wrong = api.post(&policy, wrong).await;
    assert!(wrong.error().2.starts_with("4 validation errors detected: "), "{wrong:?}");
    assert!(wrong.error().2.contains("Value 'lambda:*' at 'action' failed to satisfy constraint: Member must satisfy regular expression pattern: lambda:GetLayerVersion"), "{wrong:?}");
    assert!(
        api.post(&policy, json!({}))
            .await
            .error()
            .2
            .starts_with("3 validation errors detected: Value null at 'statementId'")
    );
    for n in 0..200 {
        let answer = api.post(&policy, allow(&format!("{n:0100}"), "222222222222")).await;
        if answer.status != 201 {
            let (status, code, message) = answer.error();
            assert_eq!((status, code), (400, "PolicyLengthExceededException"));
            assert!(message.starts_with("The final policy size (20"), "{message}");
            assert!(message.ends_with(") is bigger than the limit (20480)."), "{message}");
            assert!(n > 50, "{n}");
            return;
        }
    }
    panic!("a policy grew without end");
}
