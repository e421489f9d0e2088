//! Which objects of a listing a generated manifest takes. Source: S3 Batch spec 3.6.

/// What is known of one object, or of one version of it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Decoded.
    pub key: &'a str,
    /// Bytes.
    pub size: u64,
    /// When it was created, milliseconds since 1970.
    pub created_ms: i64,
    pub storage_class: &'a str,
    pub is_latest: bool,
    pub is_delete_marker: bool,
    /// What the listing did not say; `None` as long as nobody has looked.
    pub facts: Option<Facts<'a>>,
}

/// What only looking at the object itself tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// `AES256`, `aws:kms`, `aws:kms:dsse`; `None` without.
    pub encryption: Option<&'a str>,
    pub kms_key_arn: Option<&'a str>,
    pub bucket_key_enabled: bool,
    /// Encrypted with a key of the customer's.
    pub customer_key: bool,
    /// As S3 spells it: `COMPLETED`, `PENDING`, `FAILED`, `REPLICA`; `None` without.
    pub replication_status: Option<&'a str>,
}

/// A replication status to choose by. Source: rule 3.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    Completed,
    Failed,
    Replica,
    None,
}

impl Replication {
    /// As `ObjectReplicationStatuses` spells it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "COMPLETED" => Some(Self::Completed),
            "FAILED" => Some(Self::Failed),
            "REPLICA" => Some(Self::Replica),
            "NONE" => Some(Self::None),
            _ => None,
        }
    }

    fn of(status: Option<&str>) -> Option<Self> {
        match status {
            None => Some(Self::None),
            // S3 has used both spellings in the header.
            Some("COMPLETE") => Some(Self::Completed),
            // PENDING is none of the four: nobody can ask for it.
            Some(status) => Self::parse(status),
        }
    }
}

/// An encryption to choose by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    SseS3,
    /// Each member only if it was given.
    SseKms {
        key_arn: Option<String>,
        bucket_key: Option<bool>,
    },
    DsseKms {
        key_arn: Option<String>,
    },
    SseC,
    NotSse,
}

impl Encryption {
    fn fits(&self, facts: &Facts<'_>) -> bool {
        let key_fits = |wanted: &Option<String>| wanted.as_deref().is_none_or(|arn| facts.kms_key_arn == Some(arn));
        match self {
            Self::SseS3 => facts.encryption == Some("AES256"),
            Self::SseKms { key_arn, bucket_key } => {
                facts.encryption == Some("aws:kms")
                    && key_fits(key_arn)
                    && bucket_key.is_none_or(|wanted| facts.bucket_key_enabled == wanted)
            }
            Self::DsseKms { key_arn } => facts.encryption == Some("aws:kms:dsse") && key_fits(key_arn),
            Self::SseC => facts.customer_key,
            Self::NotSse => facts.encryption.is_none() && !facts.customer_key,
        }
    }
}

/// Everything that has to hold of an object (rule G-1). Without any member every current object is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of them; empty for no choice by it.
    pub replication_statuses: Vec<Replication>,
    /// Milliseconds since 1970, both strict.
    pub created_after_ms: Option<i64>,
    pub created_before_ms: Option<i64>,
    pub prefix: Option<String>,
    pub suffix: Option<String>,
    pub substring: Option<String>,
    /// Bytes, both strict; below zero too, since only so an empty object is greater than something.
    pub size_greater: Option<i64>,
    pub size_less: Option<i64>,
    /// Any of them; empty for no choice by it.
    pub storage_classes: Vec<String>,
    pub encryption: Option<Encryption>,
}

/// What is decided of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    Left,
    /// All that the listing tells fits; what it does not tell has to be looked up.
    NeedsFacts,
}

impl Filter {
    /// Whether every version is a candidate, not the current ones alone (rule G-2).
    pub fn takes_versions(&self) -> bool {
        !self.replication_statuses.is_empty()
    }

    /// Decides by what the candidate tells. A delete marker is no object and is left.
    pub fn judge(&self, candidate: &Candidate<'_>) -> Verdict {
        let listed = !candidate.is_delete_marker
            && (candidate.is_latest || self.takes_versions())
            && self.created_after_ms.is_none_or(|after| candidate.created_ms > after)
            && self.created_before_ms.is_none_or(|before| candidate.created_ms < before)
            && self.prefix.as_deref().is_none_or(|prefix| candidate.key.starts_with(prefix))
            && self.suffix.as_deref().is_none_or(|suffix| candidate.key.ends_with(suffix))
            && self.substring.as_deref().is_none_or(|part| candidate.key.contains(part))
            && self.size_greater.is_none_or(|size| i128::from(candidate.size) > i128::from(size))
            && self.size_less.is_none_or(|size| i128::from(candidate.size) < i128::from(size))
            && (self.storage_classes.is_empty() || self.storage_classes.iter().any(|c| c == candidate.storage_class));
        if !listed {
            return Verdict::Left;
        }
        if self.encryption.is_none() && self.replication_statuses.is_empty() {
            return Verdict::Taken;
        }
        let Some(facts) = &candidate.facts else { return Verdict::NeedsFacts };
        let replicated = Replication::of(facts.replication_status);
        let fits = self.encryption.as_ref().is_none_or(|encryption| encryption.fits(facts))
            && (self.replication_statuses.is_empty()
                || replicated.is_some_and(|status| self.replication_statuses.contains(&status)));
        if fits { Verdict::Taken } else { Verdict::Left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Candidate<'static> = Candidate {
        key: "logs/2026/a b.txt",
        size: 100,
        created_ms: 1_000,
        storage_class: "STANDARD",
        is_latest: true,
        is_delete_marker: false,
        facts: None,
    };

    fn takes(filter: Filter) -> bool {
        filter.judge(&OBJECT) == Verdict::Taken
    }

    #[test]
    fn no_filter_takes_every_current_object_and_no_marker() {
        let filter = Filter::default();
        assert_eq!(filter.judge(&OBJECT), Verdict::Taken);
        assert_eq!(filter.judge(&Candidate { is_latest: false, ..OBJECT }), Verdict::Left);
        assert_eq!(filter.judge(&Candidate { is_delete_marker: true, ..OBJECT }), Verdict::Left);
    }

    #[test]
    fn bounds_are_strict() {
        for (bound, taken) in [(999, true), (1_000, false), (1_001, false)] {
            assert_eq!(takes(Filter { created_after_ms: Some(bound), ..Filter::default() }), taken, "after {bound}");
        }
        for (bound, taken) in [(999, false), (1_000, false), (1_001, true)] {
            assert_eq!(takes(Filter { created_before_ms: Some(bound), ..Filter::default() }), taken, "before {bound}");
        }
        for (bound, taken) in [(99, true), (100, false), (101, false)] {
            assert_eq!(takes(Filter { size_greater: Some(bound), ..Filter::default() }), taken, "more than {bound}");
        }
        let empty = Candidate { size: 0, ..OBJECT };
        let filter = Filter { size_greater: Some(-1), ..Filter::default() };
        assert_eq!(filter.judge(&empty), Verdict::Taken);
        for (bound, taken) in [(99, false), (100, false), (101, true)] {
            assert_eq!(takes(Filter { size_less: Some(bound), ..Filter::default() }), taken, "less than {bound}");
        }
    }

    #[test]
    fn parts_of_a_name_are_compared_with_the_decoded_key_and_all_have_to_fit() {
        let named = |prefix: &str, suffix: &str, substring: &str| {
            let some = |text: &str| Some(text.to_owned());
            Filter { prefix: some(prefix), suffix: some(suffix), substring: some(substring), ..Filter::default() }
        };
        assert!(takes(named("logs/", ".txt", "a b")));
        assert!(!takes(named("ogs/", ".txt", "a b")));
        assert!(!takes(named("logs/", "b.tx", "a b")));
        assert!(!takes(named("logs/", ".txt", "a%20b")));
    }

    #[test]
    fn any_of_the_storage_classes_will_do() {
        let of = |classes: &[&str]| Filter {
            storage_classes: classes.iter().map(|c| (*c).to_owned()).collect(),
            ..Filter::default()
        };
        assert!(takes(of(&["GLACIER", "STANDARD"])));
        assert!(!takes(of(&["GLACIER", "STANDARD_IA"])));
    }

    #[test]
    fn an_encryption_is_looked_up_only_for_what_the_listing_leaves_over() {
        let filter = Filter { encryption: Some(Encryption::NotSse), size_less: Some(200), ..Filter::default() };
        assert_eq!(filter.judge(&OBJECT), Verdict::NeedsFacts);
        assert_eq!(filter.judge(&Candidate { size: 200, ..OBJECT }), Verdict::Left);
    }

    #[test]
    fn each_encryption_fits_its_own_objects_alone() {
        let kms = |encryption| Facts { encryption: Some(encryption), kms_key_arn: Some("arn:k"), ..Facts::default() };
        let worlds = [
            Facts { encryption: Some("AES256"), ..Facts::default() },
            kms("aws:kms"),
            kms("aws:kms:dsse"),
            Facts { customer_key: true, ..Facts::default() },
            Facts::default(),
        ];
        let filters = [
            Encryption::SseS3,
            Encryption::SseKms { key_arn: None, bucket_key: None },
            Encryption::DsseKms { key_arn: None },
            Encryption::SseC,
            Encryption::NotSse,
        ];
        for (i, encryption) in filters.iter().enumerate() {
            for (j, facts) in worlds.iter().enumerate() {
                assert_eq!(encryption.fits(facts), i == j, "{encryption:?} {facts:?}");
            }
        }
        let key = |arn: &str| Encryption::SseKms { key_arn: Some(arn.into()), bucket_key: None };
        assert!(key("arn:k").fits(&worlds[1]) && !key("arn:other").fits(&worlds[1]));
        let bucket_key = |wanted| Encryption::SseKms { key_arn: None, bucket_key: Some(wanted) };
        assert!(bucket_key(false).fits(&worlds[1]) && !bucket_key(true).fits(&worlds[1]));
    }

    #[test]
    fn a_replication_status_is_looked_for_in_all_versions() {
        let old = Candidate { is_latest: false, facts: Some(Facts::default()), ..OBJECT };
        let failed = Facts { replication_status: Some("FAILED"), ..Facts::default() };
        let pending = Facts { replication_status: Some("PENDING"), ..Facts::default() };
        let statuses =
            |statuses: &[Replication]| Filter { replication_statuses: statuses.to_vec(), ..Filter::default() };
        assert_eq!(statuses(&[Replication::None]).judge(&old), Verdict::Taken);
        assert_eq!(statuses(&[Replication::Failed]).judge(&old), Verdict::Left);
        let both = statuses(&[Replication::None, Replication::Failed]);
        assert_eq!(both.judge(&Candidate { facts: Some(failed), ..old }), Verdict::Taken);
        assert_eq!(both.judge(&Candidate { facts: Some(pending), ..old }), Verdict::Left);
        assert_eq!(Filter::default().judge(&old), Verdict::Left);
    }
}
