//! Services are code: the trait, the context it is given, and the catalogue.
//!
//! A service knows how to install, start, stop and judge the health of one program. It acts
//! only through its [`Context`]; it knows nothing of sockets, servers, databases or of when it
//! is called. Everything of one program is in one file of `catalogue/`.

mod beside;
mod catalogue;
mod command;
mod container;
mod context;
mod described;
mod executable;
mod listen;
mod pinned;
mod placing;
mod plan;
mod probe;
mod question;
mod recording;
mod schema;
mod service;
mod size;
mod with;

pub use beside::Beside;
pub use catalogue::Catalogue;
pub use command::{Bound, Command, Output};
pub use container::{Container, ContainerState};
pub use context::{Context, Dirs, Hands, Run, Secret, Staged};
pub use described::{described, maker_of, verified};
pub use executable::{Card, Executable, PROTOCOL, Verb};
pub use listen::Listen;
pub use pinned::Pinned;
pub use placing::Placing;
pub use plan::{Binary, Crate, Forge, InstallPlan, Npm, Release, Source};
pub use probe::{Endpoint, Exchange, HttpProbe, Probe};
pub use question::{HttpQuestion, PortRef, Question, Questions, RespQuestion, TcpQuestion, UnixQuestion};
pub use recording::{Deed, Recording};
pub use service::{Built, Check, Service, Wanted, usual_ports};
pub use size::Size;
pub use with::{Auto, Params, PortChoice, PortWish, Ports};

/// What every deed of a service answers.
pub type Result<T> = std::result::Result<T, wharf_model::Failure>;
