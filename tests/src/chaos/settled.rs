//! Whether a unit is as it is wanted, with its own processes and no others.

use serde_json::Value;

use super::{
    churn::Unit,
    judge::Promise,
    lives::Life,
    world::{self, Process},
};

impl Unit {
    /// What is not yet as it should be, with all that runs and the latest life of the unit.
    pub fn unsettled(&self, status: &Value, world: &[Process], life: Option<&Life>) -> Vec<(Promise, String)> {
        let state = status["state"].as_str().unwrap_or("none");
        let pid = status["pid"].as_i64().and_then(|p| i32::try_from(p).ok());
        let mut wrong = vec![];
        let is_ours = |name: &String| *name == self.name;
        let mains: Vec<i32> = world
            .iter()
            .filter_map(|p| if let Process::Main { unit, pid } = p { is_ours(unit).then_some(*pid) } else { None })
            .collect();
        let is_waiting = self.crashes() && matches!(state, "backoff" | "starting" | "stopping");
        let is_right = match self.wants[..] {
            ["up"] => state == "running" || is_waiting,
            ["down"] => state == "stopped",
            _ => true,
        };
        if !is_right {
            wrong.push((
                Promise::Acknowledged,
                format!("{} is wanted {:?} and is {state}: {status}", self.name, self.wants),
            ));
        }
        let expected: Vec<i32> = if state == "running" { pid.into_iter().collect() } else { vec![] };
        if mains != expected {
            let promise = if mains.len() > expected.len() { Promise::Orphan } else { Promise::Died };
            wrong.push((promise, format!("{} is {state} with pid {pid:?}, and has {mains:?}", self.name)));
        }
        for process in world {
            if let Process::Left { unit, of, .. } = process
                && is_ours(unit)
                && !expected.contains(of)
            {
                wrong.push((Promise::Orphan, format!("{} is {state} with pid {pid:?}: {process:?}", self.name)));
            }
        }
        if let (Some(life), "running") = (life, state) {
            let is_it = pid == Some(life.pid) && world::ticks(life.pid) == Some(life.ticks);
            if !is_it {
                wrong.push((Promise::Died, format!("{}: pid {pid:?} is not its latest life, {}", self.name, life.pid)));
            } else if !self.generations.contains(&life.generation) {
                let what = format!("{} has {} and not {:?}", self.name, life.generation, self.generations);
                wrong.push((Promise::Acknowledged, what));
            }
        }
        wrong
    }
}
