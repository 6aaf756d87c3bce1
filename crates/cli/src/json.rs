//! JSON with line breaks, every token byte for byte as it came: a number or an order of keys is never changed.

/// Two blanks a level; empty objects and arrays stay on their line.
pub(crate) fn pretty(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len() * 2);
    let mut depth = 0usize;
    let mut rest = raw.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = rest.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(end) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// On one line, every token as it came.
pub(crate) fn compact(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let (mut in_text, mut escaped) = (false, false);
    for c in raw.chars() {
        if in_text {
            (in_text, escaped) = (escaped || c != '"', !escaped && c == '\\');
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_text = c == '"';
        }
        out.push(c);
    }
    out
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stay_and_lines_come() {
        let raw = r#"{"z":1.50,"a":[],"s":"a\"{,:}","o":{ },"l":[1, {"b":null}]}"#;
        insta::assert_snapshot!(pretty(raw), @r#"
        {
          "z": 1.50,
          "a": [],
          "s": "a\"{,:}",
          "o": {},
          "l": [
            1,
            {
              "b": null
            }
          ]
        }
        "#);
        assert_eq!(pretty(&pretty(raw)), pretty(raw));
        let line = r#"{"z":1.50,"a":[],"s":"a\"{,:} \\","o":{},"l":[1,{"b":null}]}"#;
        assert_eq!(compact(&pretty(line)), line);
    }
}
