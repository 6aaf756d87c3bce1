//! Which of our own units a caller is, if any. For the record only: nothing is allowed or refused by it,
//! since a pid can be another process's by the time that it is looked at.

use std::fs;

use wharf_model::UnitName;
use wharf_runtime::launch::Tier;

use crate::engine::Shared;

/// Processes between a caller and its unit's main process that are looked at.
const MOST_PARENTS: usize = 16;

/// The unit whose process this is.
pub fn unit_of(shared: &Shared, pid: i32) -> Option<UnitName> {
    if pid <= 0 {
        return None;
    }
    match shared.launcher.tier() {
        Tier::Cgroup { root } => {
            let ours = root.file_name()?.to_str()?;
            let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            let own = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
            below(own, ours)
        }
        Tier::Session => by_parents(shared, pid),
    }
}

/// `/a/wharf-x/redis:3` is a process of redis.
fn below(cgroup: &str, ours: &str) -> Option<UnitName> {
    let mut parts = cgroup.split('/').skip_while(|part| *part != ours);
    parts.next()?;
    parts.next()?.split(':').next()?.parse().ok()
}

fn by_parents(shared: &Shared, pid: i32) -> Option<UnitName> {
    let world = shared.world.load();
    let mut pid = pid;
    for _ in 0..MOST_PARENTS {
        if pid <= 1 {
            return None;
        }
        if let Some(unit) = world.values().find(|unit| unit.life.pid() == Some(pid)) {
            return Some(unit.name.clone());
        }
        pid = parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    }
    None
}

/// The fourth field; the second one may hold anything, in parentheses.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_below_ours_names_its_unit() {
        let unit = |cgroup| below(cgroup, "wharf-x").map(|unit| unit.to_string());
        assert_eq!(unit("/user.slice/wharf-x/python-api@vault:3").as_deref(), Some("python-api@vault"));
        assert_eq!(unit("/user.slice/wharf-y/redis:3"), None);
        assert_eq!(unit("/wharf-x"), None);
        assert_eq!(unit("/wharf-x/../redis:3"), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent("42 (a) b (c)) S 7 42 42 0"), Some(7));
    }
}
