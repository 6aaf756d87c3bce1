//! The text of an INI file as supervisord (Python's configparser) reads it, and its list of variables.
//!
//! A parser of its own, since those that there are read another dialect: here a `;` begins a comment only after a blank,
//! a line that is indented goes on with the one before, and `%` is for others to fill in.

/// A section and its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub name: String,
    lines: Vec<(String, String)>,
}

impl Section {
    /// The last value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|(name, _)| name.as_str())
    }
}

/// The sections of a text.
pub(crate) fn sections(text: &str) -> Result<Vec<Section>, String> {
    let mut all: Vec<Section> = vec![];
    for (n, line) in text.lines().enumerate() {
        let line = uncommented(line);
        if line.trim().is_empty() {
            continue;
        }
        if let Some(name) = line.trim().strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            all.push(Section { name: name.trim().to_owned(), lines: vec![] });
            continue;
        }
        let Some(section) = all.last_mut() else { return Err(format!("line {} is before the first section", n + 1)) };
        match (line.starts_with([' ', '\t']), section.lines.last_mut()) {
            (true, Some((_, value))) => {
                value.push('\n');
                value.push_str(line.trim());
            }
            (true | false, _) => {
                let pair = line.split_once(['=', ':']).ok_or_else(|| format!("line {} is no `key = value`", n + 1))?;
                section.lines.push((pair.0.trim().to_ascii_lowercase(), pair.1.trim().to_owned()));
            }
        }
    }
    Ok(all)
}

fn uncommented(line: &str) -> &str {
    if line.trim_start().starts_with([';', '#']) {
        return "";
    }
    line.find(" ;").or_else(|| line.find("\t;")).map_or(line, |at| &line[..at])
}

/// `A="1,2",B=two`: pairs with commas between, values in quotes or not.
pub(crate) fn environment(text: &str) -> Vec<(String, String)> {
    let (mut pairs, mut part, mut quote) = (vec![], String::new(), None);
    let mut end = |part: &mut String| {
        if let Some((name, value)) = part.split_once('=') {
            let value = value.trim();
            let bare = ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q));
            pairs.push((name.trim().to_owned(), bare.unwrap_or(value).to_owned()));
        }
        part.clear();
    };
    for c in text.chars() {
        match (quote, c) {
            (None, ',' | '\n') => {
                end(&mut part);
                continue;
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (Some(_) | None, _) => {}
        }
        part.push(c);
    }
    end(&mut part);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_comments_and_continued_lines() {
        let all = sections("# c\n[a]\nX = 1 ; one\ny=http://h;x\nlong=a\n  b\n[b:c]\n").unwrap();
        assert_eq!((all.len(), all[1].name.as_str()), (2, "b:c"));
        assert_eq!(
            (all[0].get("x"), all[0].get("y"), all[0].get("long")),
            (Some("1"), Some("http://h;x"), Some("a\nb"))
        );
        assert!(sections("x=1").is_err() && sections("[a]\nnonsense").is_err());
    }

    #[test]
    fn variables_with_commas_in_quotes() {
        let pairs = environment("A=\"1,2\", B=two,\n  C='x=y',D=");
        let got: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(got, [("A", "1,2"), ("B", "two"), ("C", "x=y"), ("D", "")]);
    }
}
