//! Which supervisor a file belongs to: by its name, else by what is in it.

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Procfile`: foreman, overmind, honcho, Heroku.
    Procfile,
    /// `process-compose.yaml`.
    ProcessCompose,
    /// pm2's `ecosystem.config.js`, `.json`, `.yaml`.
    Pm2,
    /// `supervisord.conf` and what it includes.
    Supervisord,
    /// A systemd unit: `NAME.service`.
    Systemd,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Procfile, Self::ProcessCompose, Self::Pm2, Self::Supervisord, Self::Systemd];

    /// As it is typed: `--kind supervisord`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Procfile => "procfile",
            Self::ProcessCompose => "process-compose",
            Self::Pm2 => "pm2",
            Self::Supervisord => "supervisord",
            Self::Systemd => "systemd",
        }
    }

    /// By its word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// For people.
    pub const fn said(self) -> &'static str {
        match self {
            Self::Procfile => "a Procfile",
            Self::ProcessCompose => "a process-compose file",
            Self::Pm2 => "a pm2 ecosystem",
            Self::Supervisord => "a supervisord configuration",
            Self::Systemd => "a systemd service unit",
        }
    }

    /// What such a file looks like, for a hint.
    pub const fn shape(self) -> &'static str {
        match self {
            Self::Procfile => "each line is `name: command`",
            Self::ProcessCompose => "it has a mapping `processes:` with a `command:` for each",
            Self::Pm2 => "it is { \"apps\": [ { \"name\": …, \"script\": … } ] }",
            Self::Supervisord => "it has sections [program:NAME] with a `command=` each",
            Self::Systemd => "it has a section [Service] with an `ExecStart=`",
        }
    }

    /// What a file is.
    pub fn detect(name: &str, text: &str) -> Option<Self> {
        Self::by_name(name).or_else(|| Self::by_content(text))
    }

    fn by_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|e| lower.ends_with(e));
        if lower == "procfile" || lower.starts_with("procfile.") {
            return Some(Self::Procfile);
        }
        if lower.starts_with("process-compose") && ends(&[".yaml", ".yml"]) {
            return Some(Self::ProcessCompose);
        }
        if ends(&[".config.js", ".config.cjs", ".config.mjs"]) || lower.starts_with("ecosystem.") {
            return Some(Self::Pm2);
        }
        if lower.starts_with("supervisor") && ends(&[".conf", ".ini"]) {
            return Some(Self::Supervisord);
        }
        ends(&[".service"]).then_some(Self::Systemd)
    }

    fn by_content(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        if lines.clone().any(|l| l.starts_with("[program:")) {
            return Some(Self::Supervisord);
        }
        if lines.clone().any(|l| l == "[Service]") {
            return Some(Self::Systemd);
        }
        if lines.clone().any(|l| l.starts_with("processes:")) {
            return Some(Self::ProcessCompose);
        }
        let is_apps = |l: &str| l.starts_with("apps:") || l.contains("\"apps\"") || l.starts_with("module.exports");
        if lines.clone().any(is_apps) {
            return Some(Self::Pm2);
        }
        let is_entry = |l: &str| {
            l.split_once(':').is_some_and(|(name, command)| {
                !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
                    && !command.trim().is_empty()
            })
        };
        let all_entries = lines.by_ref().filter(|l| !l.is_empty() && !l.starts_with('#')).all(is_entry);
        let any = text.lines().any(|l| is_entry(l.trim()));
        (all_entries && any).then_some(Self::Procfile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_or_by_what_is_in_it() {
        for (name, text, kind) in [
            ("Procfile", "", Kind::Procfile),
            ("Procfile.dev", "", Kind::Procfile),
            ("process-compose.dev.yml", "", Kind::ProcessCompose),
            ("ecosystem.config.js", "", Kind::Pm2),
            ("ecosystem.json", "", Kind::Pm2),
            ("supervisord.conf", "", Kind::Supervisord),
            ("web.service", "", Kind::Systemd),
            ("web.conf", "[program:web]\ncommand=x\n", Kind::Supervisord),
            ("unit", "[Unit]\n[Service]\nExecStart=/x\n", Kind::Systemd),
            ("up.yaml", "version: '0.5'\nprocesses:\n  a:\n", Kind::ProcessCompose),
            ("apps.json", "{ \"apps\": [] }", Kind::Pm2),
            ("apps.yaml", "apps:\n  - script: x\n", Kind::Pm2),
            ("services", "# c\nweb: python3 -m http.server\nworker: ./run\n", Kind::Procfile),
        ] {
            assert_eq!(Kind::detect(name, text), Some(kind), "{name}");
        }
        for text in ["", "hello", "a:\nb: c\n", "key = value\n"] {
            assert_eq!(Kind::detect("x", text), None, "{text:?}");
        }
        assert!(Kind::ALL.into_iter().all(|kind| Kind::of_word(kind.word()) == Some(kind)));
    }
}
