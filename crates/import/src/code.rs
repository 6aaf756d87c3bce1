//! The file of Rust that a program becomes: a service as one would write it by hand.

mod policy;
mod text;

use crate::{
    Program, names,
    program::{Piece, Port, Question, Text},
};
use text::{comment, literal, once, shown};

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The service's name.
    pub service: String,
    /// The module: its file's name without `.rs`.
    pub module: String,
    /// The type in it.
    pub type_name: String,
    /// The file.
    pub text: String,
}

/// Writes it.
pub fn write(program: &Program) -> Written {
    let type_name = names::type_name(&program.name);
    let body = Writer { program, type_name: &type_name }.body();
    let text = format!("{}\n{}\n{body}", head(program), uses(&body));
    Written { service: program.name.clone(), module: names::module(&program.name), type_name, text }
}

/// What the file is, and what has no counterpart.
fn head(program: &Program) -> String {
    let mut head = comment("//! ", &format!("{}: imported from {}.", program.name, program.from));
    if !program.notes.is_empty() {
        head.push_str("//!\n//! What is not as it was there:\n");
    }
    for note in &program.notes {
        let lines = comment("//!   ", note);
        head.push_str(&lines.replacen("//!   ", "//! - ", 1));
    }
    head
}

/// The names that the body has, from where they are.
fn uses(body: &str) -> String {
    let has = |name: &&str| {
        let around = |c: Option<char>| c.is_none_or(|c| !(c.is_ascii_alphanumeric() || c == '_'));
        body.match_indices(*name)
            .any(|(at, _)| around(body[..at].chars().next_back()) && around(body[at + name.len()..].chars().next()))
    };
    let model = [
        "ErrorKind",
        "Facts",
        "Failure",
        "Health",
        "Installed",
        "Limits",
        "Need",
        "OnExit",
        "Policy",
        "Requirement",
        "Restart",
        "Signal",
        "UnitName",
    ];
    let services = [
        "Bound",
        "Context",
        "Params",
        "PortWish",
        "Ports",
        "Probe",
        "Result",
        "Run",
        "Service",
        "Wanted",
        "usual_ports",
    ];
    let list = |names: &[&'static str]| names.iter().copied().filter(|n| has(n)).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    if has(&"BTreeMap") {
        text.push_str("use std::collections::BTreeMap;\n\n");
    }
    if has(&"JsonSchema") {
        text.push_str("use schemars::JsonSchema;\nuse serde::Deserialize;\n");
    }
    if has(&"Value") {
        text.push_str("use serde_json::Value;\n");
    }
    text.push_str(&format!(
        "use wharf::{{\n    async_trait,\n    model::{{{}}},\n    services::{{{}}},\n}};\n",
        list(&model),
        list(&services)
    ));
    text
}

struct Writer<'a> {
    program: &'a Program,
    type_name: &'a str,
}

impl Writer<'_> {
    fn body(&self) -> String {
        let Self { program, type_name } = self;
        let told = program.ports.iter().any(|port| port.told_by.is_some());
        let mut parts = vec![format!(
            "{}pub struct {type_name};\n",
            comment("/// ", &format!("{}.", program.summary.trim_end_matches('.')))
        )];
        parts.extend(told.then(with));
        if self.has_helper() {
            parts.push(format!("impl {type_name} {{\n{}}}\n", self.helper()));
        }
        let methods: Vec<String> = [
            Some(self.facts()),
            told.then(|| "    fn params(&self) -> Params {\n        Params::of::<With>()\n    }\n".to_owned()),
            Some(policy::method(program)),
            Some("    fn needs_install(&self) -> bool {\n        false\n    }\n".to_owned()),
            self.ports(),
            Some(self.install()),
            Some(self.start()),
            self.stop(),
            self.health_url(),
            self.health(),
        ]
        .into_iter()
        .flatten()
        .collect();
        parts.push(format!("#[async_trait]\nimpl Service for {type_name} {{\n{}}}\n", methods.join("\n")));
        parts.join("\n")
    }

    fn facts(&self) -> String {
        let program = self.program;
        let mut text = format!(
            "    fn facts(&self) -> Facts {{\n        Facts::new({}, {})\n            .source(\"this machine: nothing is fetched\")\n",
            literal(&program.name),
            literal(&program.summary)
        );
        if let Some(command) = program.argv.first().and_then(Text::plain) {
            text.push_str(&format!("            .command({})\n", literal(&command)));
        }
        for port in &program.ports {
            text.push_str(&format!("            .port({}, {})\n", literal(&port.name), port.number));
        }
        if !program.instances.is_empty() {
            let names: Vec<String> = program.instances.iter().map(|name| literal(name)).collect();
            text.push_str(&format!("            .instances(&[{}])\n", names.join(", ")));
        }
        text + "    }\n"
    }

    /// Where instances have numbers of their own.
    fn ports(&self) -> Option<String> {
        let step = self.program.ports.iter().find(|port| port.step > 0)?.step;
        let times = if step == 1 { String::new() } else { format!(" * {step}") };
        Some(format!(
            "    fn ports(&self, unit: &UnitName, with: &Value) -> Result<Vec<PortWish>> {{\n        \
             let mut facts = self.facts();\n        \
             // Each instance has a number of its own.\n        \
             let nth = facts.instances.iter().position(|name| Some(name.as_str()) == unit.instance());\n        \
             for port in &mut facts.ports {{\n            \
             port.default += nth.unwrap_or_default() as u16{times};\n        \
             }}\n        \
             usual_ports(&facts, unit, with)\n    }}\n"
        ))
    }

    fn install(&self) -> String {
        let named = self.program.argv.first().and_then(Text::plain).filter(|name| !name.contains('/'));
        let need = named.map_or_else(String::new, |name| {
            let hint = literal(&format!("install {name}, or name another program in the service's `start`"));
            format!("        cx.need({}, {hint})?;\n", literal(&name))
        });
        format!(
            "    async fn install(&self, cx: &Context, _want: &Wanted) -> Result<Installed> {{\n{need}        \
             Ok(cx.nothing_to_place())\n    }}\n"
        )
    }

    /// What a chain of calls needs to know first.
    fn lets(&self, texts: &[&Text], instance: bool) -> String {
        let program = self.program;
        let has = |piece: fn(&Piece) -> bool| texts.iter().any(|text| text.0.iter().any(piece));
        let mut lets = String::new();
        if instance && has(|piece| matches!(piece, Piece::Instance(_))) {
            if program.is_template {
                lets.push_str(&format!(
                    "        let Some(instance) = cx.unit.instance() else {{\n            \
                     return Err(Failure::new(ErrorKind::NotFound, \"{name} runs as instances\")\n                \
                     .hint(\"name one: wharf start {name}@NAME\"));\n        }};\n",
                    name = program.name
                ));
            } else {
                lets.push_str("        let instance = cx.unit.instance().unwrap_or_default();\n");
            }
        }
        if has(|piece| matches!(piece, Piece::Data)) {
            lets.push_str("        let data = cx.data_dir().display();\n");
        }
        if has(|piece| matches!(piece, Piece::Run)) {
            lets.push_str("        let run = cx.run_dir().display();\n");
        }
        lets
    }

    /// The calls that give a program its surroundings.
    fn surroundings(&self, indent: &str) -> String {
        let program = self.program;
        let mut calls = String::new();
        for (name, value) in &program.env {
            calls.push_str(&format!("{indent}.env({}, {})\n", literal(name), shown(value)));
        }
        for port in &program.ports {
            if let Port { name, told_by: Some(variable), .. } = port {
                calls.push_str(&format!("{indent}.force_env({}, cx.port({}))\n", literal(variable), literal(name)));
            }
        }
        if let Some(file) = program.env_file.as_ref().filter(|file| !file.is_optional) {
            calls.push_str(&format!("{indent}.env_file({})\n", once(&file.path)));
        }
        if let Some(cwd) = &program.cwd {
            calls.push_str(&format!("{indent}.cwd({})\n", once(cwd)));
        }
        if program.unprivileged {
            calls.push_str(&format!("{indent}.unprivileged()\n"));
        }
        calls
    }

    fn around(&self) -> Vec<&Text> {
        let program = self.program;
        let values = program.env.iter().map(|(_, value)| value).chain(&program.cwd);
        values.chain(program.env_file.iter().map(|file| &file.path)).collect()
    }

    /// More than the start runs a program, or its surroundings are not known before the start.
    fn has_helper(&self) -> bool {
        let program = self.program;
        let asks = [&program.ready, &program.live].into_iter().flatten().any(|q| matches!(q, Question::Exec(_)));
        let is_optional = program.env_file.as_ref().is_some_and(|file| file.is_optional);
        asks || is_optional || program.stop.is_some()
    }

    fn helper(&self) -> String {
        let around = self.around();
        let lets = self.lets(&around, true);
        let calls = self.surroundings("            ");
        let first = format!("cx.run(program)\n{calls}");
        let first = first.trim_end();
        let fails = lets.contains("return Err");
        let (result, ok) = if fails { ("Result<Bound<'a>>", true) } else { ("Bound<'a>", false) };
        let wrap = |text: String| if ok { format!("Ok({text})") } else { text };
        let body = match self.program.env_file.as_ref().filter(|file| file.is_optional) {
            None => format!("        {}\n", wrap(first.to_owned())),
            Some(file) => format!(
                "        let run = {first};\n        let file = std::path::PathBuf::from({});\n        \
                 {}\n",
                once(&file.path),
                wrap("if file.is_file() { run.env_file(file) } else { run }".to_owned())
            ),
        };
        format!(
            "    /// A program with the surroundings of this service.\n    \
             fn run<'a>(cx: &'a Context, program: &str) -> {result} {{\n{lets}{body}    }}\n"
        )
    }

    /// A program of this service with its arguments: `cx.run("x").args(["y"])` and its surroundings.
    fn call(&self, argv: &[Text], last: &str) -> String {
        let mut texts: Vec<&Text> = argv.iter().collect();
        let helper = self.has_helper();
        let around = self.around();
        if !helper {
            texts.extend(around.iter());
        }
        let lets = self.lets(&texts, true);
        let (program, args) = match argv.split_first() {
            Some((program, args)) => (once(program), args),
            None => ("\"\"".to_owned(), &[][..]),
        };
        let fails = helper && self.lets(&around, true).contains("return Err");
        let begin = match helper {
            true => format!("        Self::run(cx, {program}){}\n", if fails { "?" } else { "" }),
            false => format!("        cx.run({program})\n"),
        };
        let begin = begin.replace("Self::run(cx, format!", "Self::run(cx, &format!");
        let around = if helper { String::new() } else { self.surroundings("            ") };
        format!("{lets}{begin}{}{around}            .{last}\n", text::args(args, "            "))
    }

    fn start(&self) -> String {
        format!(
            "    async fn start(&self, cx: &Context) -> Result<Run> {{\n{}            .await\n    }}\n",
            self.call(&self.program.argv, "spawn()")
        )
    }

    fn stop(&self) -> Option<String> {
        let argv = self.program.stop.as_ref()?;
        if let Some(signal) = self.program.stop_then {
            return Some(format!(
                "    async fn stop(&self, cx: &Context) -> Result<()> {{\n{}            .await?;\n        \
                 cx.signal(Signal::{}).await\n    }}\n",
                self.call(argv, "output()"),
                policy::signal_name(signal)
            ));
        }
        Some(format!(
            "    async fn stop(&self, cx: &Context) -> Result<()> {{\n{}            .await\n            .map(drop)\n    }}\n",
            self.call(argv, "success()")
        ))
    }

    fn port_name(&self, number: u16) -> &str {
        self.program.ports.iter().find(|port| port.number == number).map_or("", |port| &port.name)
    }

    fn health_url(&self) -> Option<String> {
        let asked = self.program.live.iter().chain(&self.program.ready);
        let http = asked.filter_map(|question| match question {
            Question::Http { port, path, .. } => Some((*port, path)),
            Question::Exec(_) | Question::Log(_) => None,
        });
        let (port, path) = { http }.next()?;
        let path = path.replace('{', "{{").replace('}', "}}");
        let url = literal(&format!("http://127.0.0.1:{{port}}{path}"));
        Some(format!(
            "    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {{\n        \
             ports.get({}).map(|port| format!({url}))\n    }}\n",
            literal(self.port_name(port))
        ))
    }

    fn health(&self) -> Option<String> {
        let lives = "        Ok(Health::healthy(\"its process lives\"))\n".to_owned();
        let body = match (&self.program.ready, &self.program.live) {
            (None, None) => return None,
            (Some(ready @ Question::Log(_)), None) => phases(&self.question(ready), &lives),
            (Some(ready), None) => self.question(ready),
            (None, Some(live)) => self.question(live),
            (Some(ready), Some(live)) => phases(&self.question(ready), &self.question(live)),
        };
        Some(format!("    async fn health(&self, cx: &Context) -> Result<Health> {{\n{body}    }}\n"))
    }

    fn question(&self, question: &Question) -> String {
        match question {
            Question::Http { port, path, status } => {
                let port = literal(self.port_name(*port));
                let expect = if *status == 200 { String::new() } else { format!(".expect_status({status})") };
                format!("        cx.http({port}, {}){expect}.await\n", literal(path))
            }
            Question::Log(pattern) => format!("        cx.ask(Probe::LogLine({}.into())).await\n", literal(pattern)),
            Question::Exec(argv) => format!("{}            .await\n", self.call(argv, "asked()")),
        }
    }
}

/// One question until it is ready, another one later.
fn phases(first: &str, later: &str) -> String {
    let deeper = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!("        if cx.starting {{\n{}        }} else {{\n{}        }}\n", deeper(first), deeper(later))
}

/// The parameters: its ports.
fn with() -> String {
    "/// Its parameters.\n#[derive(Deserialize, JsonSchema)]\n#[serde(deny_unknown_fields)]\nstruct With {\n    \
     /// Other port numbers: `{\"main\": 8080}` or `{\"main\": \"auto\"}`.\n    #[serde(default)]\n    \
     #[expect(dead_code, reason = \"read by Service::ports\")]\n    ports: Ports,\n}\n"
        .to_owned()
}

#[cfg(test)]
mod tests;
