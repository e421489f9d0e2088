//! The AWS configuration files: access keys, region and endpoint of a profile.
//!
//! Keys are read here; a profile that assumes a role is left to AWS's own chain, and one that signs in or starts a
//! process is refused by name: keys of another identity that happen to lie in the same profile are never used instead.
//! Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longshore_wire::sigv4::Credentials;

use crate::failure::{Because, Failure};

/// A profile's settings by name. Those of an indented block have the block's name before a dot.
type Settings = BTreeMap<String, String>;
type Sections = BTreeMap<String, Settings>;

/// Both files, as far as they exist.
#[derive(Debug, Default)]
pub struct Files {
    config: Sections,
    credentials: Sections,
}

impl Files {
    /// Reads `~/.aws/config` and `~/.aws/credentials`, or what AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name.
    pub fn read(variable: &impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let file = |name: &str, usual: &str| {
            variable(name).map(PathBuf::from).or_else(|| Some(Path::new(&variable("HOME")?).join(".aws").join(usual)))
        };
        let read = |path: Option<PathBuf>| -> Result<Sections, Failure> {
            let Some(path) = path else { return Ok(Sections::new()) };
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(sections(&text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Sections::new()),
                Err(error) => Err(error).because(format!("cannot read {}", path.display())),
            }
        };
        Ok(Self {
            config: read(file("AWS_CONFIG_FILE", "config"))?,
            credentials: read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?,
        })
    }

    fn of(&self, profile: &str) -> Option<&Settings> {
        // `[default]` stands without the word, every other section of the config file with it.
        self.config
            .get(&format!("profile {profile}"))
            .or_else(|| self.config.get(profile).filter(|_| profile == "default"))
    }

    /// Whether either file knows the profile.
    pub fn has(&self, profile: &str) -> bool {
        self.of(profile).is_some() || self.credentials.contains_key(profile)
    }

    /// A setting of the config file.
    pub fn setting(&self, profile: &str, name: &str) -> Option<&str> {
        self.of(profile)?.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The endpoint of a service: its own in the profile's `services` section, or the one for all services.
    pub fn endpoint(&self, profile: &str, service: &str) -> Option<&str> {
        let own = self.setting(profile, "services").and_then(|services| {
            self.config.get(&format!("services {services}"))?.get(&format!("{service}.endpoint_url"))
        });
        own.map(String::as_str).or_else(|| self.setting(profile, "endpoint_url"))
    }

    /// The access key of a profile; `None` if it has none of its own, and the chain has to find one.
    pub fn credentials(&self, profile: &str) -> Result<Option<Credentials>, Failure> {
        let (config, keys) = (self.of(profile), self.credentials.get(profile));
        let named = |name: &str| [config, keys].into_iter().flatten().any(|settings| settings.contains_key(name));
        let refused = |how: &str| {
            Failure::usage(format!("profile {profile} gets its credentials by {how}, which is not supported here"))
                .hint(format!("eval \"$(aws configure export-credentials --profile {profile} --format env)\" puts them into the environment; then leave --profile out"))
        };
        // In the order in which the AWS CLI looks.
        if named("role_arn") {
            return Ok(None);
        }
        for (setting, how) in [
            ("sso_session", "single sign-on (sso_session)"),
            ("sso_start_url", "single sign-on (sso_start_url)"),
            ("login_session", "signing in (login_session)"),
        ] {
            if named(setting) {
                return Err(refused(how));
            }
        }
        if let Some(found) = keys.and_then(static_keys) {
            return Ok(Some(found));
        }
        if named("credential_process") {
            return Err(refused("a process (credential_process)"));
        }
        Ok(config.and_then(static_keys))
    }
}

fn static_keys(settings: &Settings) -> Option<Credentials> {
    Some(Credentials {
        access_key_id: settings.get("aws_access_key_id")?.clone(),
        secret_access_key: settings.get("aws_secret_access_key")?.clone(),
        session_token: settings.get("aws_session_token").cloned(),
    })
}

/// Cuts a file into its sections. Lines that are neither a section nor `name = value` are passed over, as the AWS
/// clients do.
fn sections(text: &str) -> Sections {
    let mut sections = Sections::new();
    let (mut section, mut block) = (None::<String>, String::new());
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let name = name.0.split_whitespace().collect::<Vec<_>>().join(" ");
            sections.entry(name.clone()).or_default();
            (section, block) = (Some(name), String::new());
            continue;
        }
        let (Some(section), Some((name, value))) = (&section, bare.split_once('=')) else { continue };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        let settings = sections.entry(section.clone()).or_default();
        if line.starts_with([' ', '\t']) && !block.is_empty() {
            settings.insert(format!("{block}.{name}"), value);
        } else {
            block = if value.is_empty() { name.clone() } else { String::new() };
            settings.insert(name, value);
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(config: &str, credentials: &str) -> Files {
        Files { config: sections(config), credentials: sections(credentials) }
    }

    #[test]
    fn a_profile_is_put_together_from_both_files() {
        let files = files(
            "# said\n[default]\nregion = eu-west-1\n[profile  p]\nregion=eu-north-1\nservices = mine\n\
             endpoint_url = http://all\naws_access_key_id = other\naws_secret_access_key = other\n\
             [services mine]\ns3_control =\n  endpoint_url = http://control\n",
            "[p]\naws_access_key_id = AK\naws_secret_access_key = s=e/c\naws_session_token = t\n",
        );
        assert_eq!(files.setting("default", "region"), Some("eu-west-1"));
        assert_eq!(files.setting("p", "region"), Some("eu-north-1"));
        assert_eq!(files.endpoint("p", "s3_control"), Some("http://control"));
        assert_eq!(files.endpoint("p", "s3"), Some("http://all"));
        let keys = files.credentials("p").unwrap().unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.as_str()), ("AK", "s=e/c"));
        assert_eq!(keys.session_token.as_deref(), Some("t"));
        assert!(files.credentials("default").unwrap().is_none());
        assert!(files.has("p") && !files.has("q"));
    }

    #[test]
    fn a_profile_that_assumes_a_role_is_left_to_the_chain_also_where_it_has_keys() {
        let keys = "[p]\naws_access_key_id = AK\naws_secret_access_key = s\n";
        let files = files("[profile p]\nrole_arn = arn\nsource_profile = q\n", keys);
        assert!(files.credentials("p").unwrap().is_none());
    }

    #[test]
    fn a_profile_that_needs_a_person_or_a_process_is_refused_by_name() {
        let keys = "[p]\naws_access_key_id = AK\naws_secret_access_key = s\n";
        for (config, keys, wanted) in [
            ("[profile p]\nsso_session = s\n", keys, Some("sso_session")),
            ("[profile p]\nsso_start_url = s\n", "", Some("sso_start_url")),
            ("[profile p]\ncredential_process = cat\n", "", Some("credential_process")),
            // The AWS CLI takes the keys of the credentials file before it starts a process.
            ("[profile p]\ncredential_process = cat\n", keys, None),
        ] {
            match (files(config, keys).credentials("p"), wanted) {
                (Err(failure), Some(wanted)) => assert!(failure.message.contains(wanted), "{}", failure.message),
                (Ok(Some(_)), None) => {}
                (other, _) => panic!("{config}: {other:?}"),
            }
        }
    }
}
