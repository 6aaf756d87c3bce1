//! `wharf run`: any program as a service, the unit `command@NAME`.

use std::path::PathBuf;

use clap::ValueHint;
use serde_json::{Map, Value, json};
use wharf_api::{StartParams, StartReport};
use wharf_model::UnitName;

use super::start;
use crate::{
    given,
    policy::PolicyFlags,
    question::{FORMS, HealthFlags},
    session::Session,
    several,
    trouble::{Outcome, Trouble},
    with,
};

/// Run any program as a service; answers when it is ready
///
/// The unit is called command@NAME: `wharf stop command@web` ends it, `wharf logs -f command@web`
/// follows it. A second run of the same name takes the new parameters at its next start.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{FORMS}

Examples:
  wharf run --name web -- python3 -m http.server 8000
  wharf run --name web --port http=8000 --health http:/health -- ./server --fast
  wharf run --name llm --ready notify --health http@8080:/health --start-timeout 600 -- ./llama-server
  wharf run --name job --env LEVEL=debug --env-file .env --health none -- ./worker"))]
pub(crate) struct Run {
    /// What it is called: the unit is command@NAME
    #[arg(long, value_name = "NAME")]
    name: String,
    /// A port that it listens on, by a name of your choice; auto lets Wharf choose
    #[arg(long = "port", value_name = "NAME=NUMBER|auto")]
    ports: Vec<String>,
    /// A variable of its environment
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A file of NAME=VALUE lines, read at each start
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    env_file: Option<PathBuf>,
    /// Its working folder, instead of this one
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    cwd: Option<PathBuf>,
    #[command(flatten)]
    health: HealthFlags,
    /// How long it may take to be ready, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    start_timeout: Option<u64>,
    /// How long it may take to end before it is killed, in seconds
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// The signal that ends it
    #[arg(long, value_name = "SIGNAL", ignore_case = true, value_parser = ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"])]
    stop_signal: Option<String>,
    #[command(flatten)]
    policy: PolicyFlags,
    /// Stop it first, where it runs
    #[arg(long)]
    reset: bool,
    /// Where another holder has the GPU that it needs: stop that one first
    #[arg(long)]
    force: bool,
    /// Answer when it has begun, not when it is ready
    #[arg(short, long, visible_alias = "no-wait")]
    detach: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM", value_hint = ValueHint::CommandWithArguments)]
    argv: Vec<String>,
}

impl Run {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let name = UnitName::new("command", Some(&self.name)).map_err(|e| Trouble::Usage(format!("--name: {e}")))?;
        let params = StartParams {
            name: name.clone(),
            reset: self.reset,
            version: None,
            with: Some(self.with()?),
            policy: self.policy.value()?,
            force: self.force,
            wait: !self.detach,
        };
        let calls = given::calls(&[name], |_| given::params(&params))?;
        several::operations::<StartReport>(session, "service.start", calls, start::text)
    }

    /// The parameters of the service `command` (crates/services/src/catalogue/command.rs).
    fn with(&self) -> Result<Value, Trouble> {
        // All of them, so that what an earlier run named and this one does not is taken back.
        let fields = ["env", "env_file", "ports", "health", "start_timeout_s", "stop_timeout_s", "stop_signal"];
        let mut with: Map<String, Value> = fields.map(|field| (field.to_owned(), Value::Null)).into_iter().collect();
        let cwd = absolute(self.cwd.as_deref().unwrap_or(std::path::Path::new(".")))?;
        with.insert("argv".into(), json!(argv(&self.argv)?));
        with.insert("cwd".into(), json!(cwd));
        for text in &self.env {
            let (name, value) = with::pair("--env", text)?;
            with::put_plain(&mut with, "env", name, value.into())?;
        }
        if let Some(file) = &self.env_file {
            with.insert("env_file".into(), json!(absolute(file)?));
        }
        for text in &self.ports {
            let (name, choice) = with::pair("--port", text)?;
            with::put_plain(&mut with, "ports", name, with::port(choice)?)?;
        }
        let ports: Vec<&str> = self.ports.iter().filter_map(|text| Some(text.split_once('=')?.0)).collect();
        if let Some(health) = self.health.value(&ports)? {
            with.insert("health".into(), health);
        }
        for (field, seconds) in [("start_timeout_s", self.start_timeout), ("stop_timeout_s", self.stop_timeout)] {
            if let Some(seconds) = seconds {
                with.insert(field.into(), json!(seconds));
            }
        }
        if let Some(signal) = &self.stop_signal {
            with.insert("stop_signal".into(), json!(signal.to_uppercase()));
        }
        Ok(with.into())
    }
}

/// A program that is named by a path is that path from here, wherever it is started.
fn argv(argv: &[String]) -> Result<Vec<String>, Trouble> {
    let mut argv = argv.to_vec();
    if let Some(program) = argv.first_mut()
        && program.contains('/')
    {
        *program = absolute(std::path::Path::new(program))?;
    }
    Ok(argv)
}

fn absolute(path: &std::path::Path) -> Result<String, Trouble> {
    let path = std::path::absolute(path)?;
    path.into_os_string().into_string().map_err(|path| Trouble::Usage(format!("{path:?} is no UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn with(args: &[&str]) -> Value {
        Line::try_parse_from([&["wharf"], args].concat()).unwrap().run.with().unwrap()
    }

    #[test]
    fn the_program_the_folder_and_the_rest_become_parameters() {
        let given = with(&[
            "--name",
            "web",
            "--port",
            "http=8000",
            "--env",
            "A=b=c",
            "--env-file",
            "/etc/web.env",
            "--cwd",
            "/srv",
            "--stop-signal",
            "int",
            "--start-timeout",
            "60",
            "--",
            "bin/server",
            "--fast",
        ]);
        let server = std::env::current_dir().unwrap().join("bin/server");
        assert_eq!(given["argv"], json!([server, "--fast"]));
        assert_eq!(given["cwd"], "/srv");
        assert_eq!(given["env"], json!({ "A": "b=c" }));
        assert_eq!(given["env_file"], "/etc/web.env");
        assert_eq!(given["ports"], json!({ "http": 8000 }));
        assert_eq!((&given["stop_signal"], &given["start_timeout_s"]), (&json!("INT"), &json!(60)));
    }

    #[test]
    fn a_program_without_a_slash_is_left_to_path_and_the_folder_is_this_one() {
        let given = with(&["--name", "web", "--", "python3", "-m", "http.server"]);
        assert_eq!(given["argv"][0], "python3");
        assert_eq!(given["cwd"], json!(std::env::current_dir().unwrap()));
        assert!(given["health"].is_null(), "what is not named goes back to its default");
    }
}
