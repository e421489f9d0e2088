//! What has failed in a job, in groups of the same failure.

use std::collections::HashMap;

use crate::task::{Outcome, Task};

/// Failures that are told apart, at most: with the longest messages some 500 KB. What comes later goes into no group.
pub const GROUPS_MAX: usize = 100;

/// Tasks that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// As every one of them ended.
    pub outcome: Outcome,
    pub tasks: u64,
    /// The first of them.
    pub example: Task,
}

/// Counts the results of a job as its log gives them.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    pub succeeded: u64,
    pub failed: u64,
    groups: HashMap<Outcome, (u64, Task)>,
}

impl Failures {
    pub fn add(&mut self, task: &Task, outcome: &Outcome) {
        if outcome.succeeded {
            self.succeeded += 1;
            return;
        }
        self.failed += 1;
        if let Some((tasks, _)) = self.groups.get_mut(outcome) {
            *tasks += 1;
        } else if self.groups.len() < GROUPS_MAX {
            self.groups.insert(outcome.clone(), (1, task.clone()));
        }
    }

    /// The groups, the largest first, and how many failures are in none of them.
    pub fn groups(self) -> (Vec<Group>, u64) {
        let mut groups: Vec<Group> =
            self.groups.into_iter().map(|(outcome, (tasks, example))| Group { outcome, tasks, example }).collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.tasks), group.example.row));
        let grouped: u64 = groups.iter().map(|group| group.tasks).sum();
        (groups, self.failed - grouped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::VersionId;

    #[test]
    fn failures_are_grouped_by_how_they_ended_and_the_largest_group_is_first() {
        let mut failures = Failures::default();
        for row in 0..1_000 {
            let task = Task { row, number: row, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn };
            failures.add(
                &task,
                &match row % 4 {
                    0 => Outcome::succeeded("fine"),
                    1 | 2 => Outcome::failed(200, "PermanentFailure", "the same"),
                    _ => Outcome::failed(200, "PermanentFailure", row.to_string()),
                },
            );
        }
        assert_eq!((failures.succeeded, failures.failed), (250, 750));
        let (groups, others) = failures.groups();
        assert_eq!((groups.len(), others), (GROUPS_MAX, 750 - 500 - (GROUPS_MAX as u64 - 1)));
        assert_eq!((groups[0].tasks, groups[0].example.row, &*groups[0].outcome.message), (500, 1, "the same"));
        assert_eq!(groups[1].example.row, 3);
    }
}
