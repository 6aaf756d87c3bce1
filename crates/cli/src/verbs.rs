//! The verbs. A new one is its file in `verbs/` and its line here, where people will read it.

use crate::{session::Session, trouble::Outcome};

/// From a list: the modules, the enum that clap reads, and the way to each verb.
macro_rules! verbs {
    (
        ops { $($Op:ident in $op:ident),* $(,)? }
        verbs { $($(#[$meta:meta])* $Verb:ident in $verb:ident),* $(,)? }
    ) => {
        $(mod $op;)*
        $(mod $verb;)*

        /// What a service can be asked for: `wharf start`, and the same as `wharf service start`.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Op { $($Op($op::$Op)),* }

        /// Everything that can be typed after `wharf`.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Verb {
            #[command(flatten)]
            Op(Op),
            $($(#[$meta])* $Verb($verb::$Verb),)*
            /// The verbs of services once more, under the name of their RPC namespace
            #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
            Service(Op),
        }

        impl Op {
            fn run(self, session: &Session) -> Outcome {
                match self { $(Self::$Op(verb) => verb.run(session)),* }
            }
        }

        impl Verb {
            pub(crate) fn run(self, session: &Session) -> Outcome {
                match self {
                    Self::Op(op) | Self::Service(op) => op.run(session),
                    $(Self::$Verb(verb) => verb.run(session)),*
                }
            }
        }
    };
}

verbs! {
    ops {
        List in list,
        Status in status,
        Start in start,
        Stop in stop,
        Restart in restart,
        Logs in logs,
        Troubleshoot in troubleshoot,
        Health in health,
        Inspect in inspect,
        Install in install,
        Build in build,
        Upgrade in upgrade,
        Verify in verify,
        Delete in delete,
    }
    verbs {
        Deploy in deploy,
        Rollback in rollback,
        Outdated in outdated,
        Versions in versions,
        Gc in gc,
        Search in search,
        Info in info,
        Run in run,
        Gpu in gpu,
        Why in why,
        Doctor in doctor,
        Discover in discover,
        Ports in ports,
        Graph in graph,
        Events in events,
        Ops in ops,
        Cancel in cancel,
        Ui in ui,
        Up in up,
        Down in down,
        Daemon in daemon,
        Setup in setup,
        New in new,
        Import in import,
        Rpc in rpc,
        Completions in completions,
        Man in man,
        CataloguePage in catalogue_page,
        ServeHello in serve_hello,
        ServeCompose in serve_compose,
        GpuProbe in gpu_probe,
        Unpack in unpack,
    }
}
