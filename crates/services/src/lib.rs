//! Services are code: the trait, the context it is given, and the catalogue.
//!
//! A service knows how to install, start, stop and judge the health of one program. It acts
//! only through its [`Context`]; it knows nothing of sockets, servers, databases or of when it
//! is called. Everything of one program is in one file of `catalogue/`.

mod catalogue;
mod command;
mod context;
mod pinned;
mod plan;
mod probe;
mod question;
mod recording;
mod service;
mod with;

pub use catalogue::Catalogue;
pub use command::{Bound, Command, Output};
pub use context::{Context, Dirs, Hands, Placing, Run, Secret};
pub use pinned::Pinned;
pub use plan::{Binary, InstallPlan, Source};
pub use probe::{Endpoint, Exchange, HttpProbe, Probe};
pub use question::{HttpQuestion, PortRef, Question, Questions, RespQuestion, TcpQuestion, UnixQuestion};
pub use recording::{Deed, Recording};
pub use service::{Built, Check, Service, Wanted};
pub use with::{Auto, Params, PortChoice, PortWish, Ports};

/// What every deed of a service answers.
pub type Result<T> = std::result::Result<T, wharf_model::Failure>;
