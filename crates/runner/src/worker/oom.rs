//! Whether the kernel killed a process for memory.

use std::fs::read_to_string;

/// How many processes the kernel has killed for memory so far, by every counter that can be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OomKills(Vec<u64>);

impl OomKills {
    /// Reads the counters: the control group's, version 2 and 1, and the whole system's.
    pub(super) fn read() -> OomKills {
        let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
        // A file that is absent counts 0, so that the places stay the same from one reading to the next.
        let count = |path: &String| oom_kill(&read_to_string(path).unwrap_or_default()).unwrap_or(0);
        OomKills(counter_files(&groups).iter().map(count).collect())
    }

    /// Whether any counter has grown since `before`.
    pub(super) fn grown_since(&self, before: &OomKills) -> bool {
        self.0.iter().zip(&before.0).any(|(now, before)| now > before)
    }
}

/// Where the control group of `/proc/self/cgroup` counts, as seen from the host and from inside a container.
fn counter_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["0", "", path] => files.push(format!("/sys/fs/cgroup{path}/memory.events")),
            [_, controllers, path] if controllers.split(',').any(|name| name == "memory") => {
                files.push(format!("/sys/fs/cgroup/memory{path}/memory.oom_control"));
            }
            _ => {}
        }
    }
    files.push("/sys/fs/cgroup/memory.events".into());
    files.push("/sys/fs/cgroup/memory/memory.oom_control".into());
    files.push("/proc/vmstat".into());
    files
}

/// The value of the line `oom_kill N`.
fn oom_kill(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kill_counter_is_told_from_its_neighbours() {
        assert_eq!(oom_kill("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(oom_kill("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(oom_kill("oom 3\n"), None);
    }

    #[test]
    fn both_versions_of_control_groups_are_looked_at() {
        let files = counter_files("4:cpu,memory:/job/a\n1:name=systemd:/\n0::/user.slice\n");
        assert_eq!(files[0], "/sys/fs/cgroup/memory/job/a/memory.oom_control");
        assert_eq!(files[1], "/sys/fs/cgroup/user.slice/memory.events");
    }

    #[test]
    fn one_more_kill_is_noticed() {
        assert!(OomKills(vec![0, 3]).grown_since(&OomKills(vec![0, 2])));
        assert!(!OomKills::read().grown_since(&OomKills::read()));
    }
}
