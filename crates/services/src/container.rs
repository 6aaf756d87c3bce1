//! Containers, as an engine of this machine tells of them.
//!
//! It owns the words; it refuses to know how an engine is asked.

use std::{net::SocketAddr, path::PathBuf};

/// A container of one compose project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// What people call it: `shop_web_1`.
    pub name: String,
    /// What the compose file calls it: `web`.
    pub service: String,
    /// The folder that its project was brought up in.
    pub folder: Option<PathBuf>,
    /// What it does.
    pub state: ContainerState,
    /// How it ended, where it has.
    pub exit_code: Option<i32>,
    /// What its own health check says; none: it has none, or that is at work.
    pub is_well: Option<bool>,
    /// Where the machine is reachable for it, TCP only.
    pub published: Vec<SocketAddr>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never begun.
    Created,
    /// It runs.
    Running,
    /// It is held still.
    Paused,
    /// It has ended, and the engine begins it again.
    Restarting,
    /// It has ended.
    Exited,
    /// It could not be removed.
    Dead,
    /// It is on its way out.
    Removing,
}

impl Container {
    /// It runs, or will by itself.
    pub fn lives(&self) -> bool {
        match self.state {
            ContainerState::Running | ContainerState::Paused | ContainerState::Restarting => true,
            ContainerState::Created | ContainerState::Exited | ContainerState::Dead | ContainerState::Removing => false,
        }
    }

    /// What is wrong with it, for people. One that has done its work (code 0) is as it should be.
    pub fn fault(&self) -> Option<String> {
        let service = &self.service;
        match (self.state, self.exit_code) {
            (ContainerState::Running, _) if self.is_well == Some(false) => {
                Some(format!("the health check of {service} says unhealthy"))
            }
            (ContainerState::Running, _) | (ContainerState::Exited, Some(0)) => None,
            (ContainerState::Exited, Some(code)) => Some(format!("{service} exited with code {code}")),
            (ContainerState::Exited, None) => Some(format!("{service} has ended")),
            (ContainerState::Created, _) => Some(format!("{service} was never begun")),
            (ContainerState::Paused, _) => Some(format!("{service} is paused")),
            (ContainerState::Restarting, _) => Some(format!("{service} ends again and again")),
            (ContainerState::Dead | ContainerState::Removing, _) => Some(format!("{service} is being removed")),
        }
    }
}
