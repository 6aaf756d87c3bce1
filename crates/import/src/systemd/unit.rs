//! The text of a unit and of its drop-ins: sections, settings, and settings that are taken back.

/// A unit as it is after its drop-ins.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Section, key, value; in the order in which they were read.
    lines: Vec<(String, String, String)>,
}

impl Unit {
    pub fn read<'a>(text: &str, drop_ins: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut unit = Self::default();
        unit.add(text)?;
        for text in drop_ins {
            unit.add(text)?;
        }
        Ok(unit)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let mut section = None;
        let mut whole = String::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            // A comment in the middle of a long line does not end it.
            if line.starts_with(['#', ';']) || (line.is_empty() && whole.is_empty()) {
                continue;
            }
            if let Some(begun) = line.strip_suffix('\\') {
                whole.push_str(begun);
                whole.push(' ');
                continue;
            }
            whole.push_str(line);
            let line = std::mem::take(&mut whole);
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = Some(name.to_owned());
                continue;
            }
            let pair = line.split_once('=').ok_or_else(|| format!("line {} is no `Key=value`", n + 1))?;
            let section = section.clone().ok_or_else(|| format!("line {} is before the first section", n + 1))?;
            self.lines.push((section, pair.0.trim().to_owned(), pair.1.trim().to_owned()));
        }
        Ok(())
    }

    pub fn has_section(&self, name: &str) -> bool {
        self.lines.iter().any(|(section, ..)| section == name)
    }

    /// All values of a setting that is a list; an empty one takes back those before it.
    pub fn all(&self, section: &str, key: &str) -> Vec<&str> {
        let mut values = vec![];
        for (_, _, value) in self.lines.iter().filter(|(s, k, _)| s == section && k == key) {
            if value.is_empty() {
                values.clear();
            } else {
                values.push(value.as_str());
            }
        }
        values
    }

    /// The value of a setting that stands once.
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.all(section, key).last().copied()
    }

    /// The settings of a section, each once.
    pub fn keys(&self, section: &str) -> Vec<&str> {
        let mut keys: Vec<&str> = vec![];
        for (_, key, _) in self.lines.iter().filter(|(s, ..)| s == section) {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_comments_and_what_a_drop_in_takes_back() {
        let text = "# c\n[Unit]\nAfter=a.service\nAfter=b.service\n[Service]\nExecStart=/bin/x \\\n# in between\n  --y\nEnvironment=A=1\n";
        let drop_in = "[Service]\nEnvironment=\nEnvironment=B=2\nRestart=always\n";
        let unit = Unit::read(text, [drop_in].into_iter()).unwrap();
        assert_eq!(unit.last("Service", "ExecStart"), Some("/bin/x  --y"));
        assert_eq!(unit.all("Unit", "After"), ["a.service", "b.service"]);
        assert_eq!(unit.all("Service", "Environment"), ["B=2"]);
        assert_eq!(unit.keys("Service"), ["ExecStart", "Environment", "Restart"]);
        assert!(Unit::read("x=1", std::iter::empty()).is_err() && Unit::read("[A]\nx", std::iter::empty()).is_err());
    }
}
