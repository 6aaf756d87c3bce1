//! The way without systemd: two lines in this user's crontab. Cron is where nothing else is, starts at boot,
//! and knows neither readiness nor sockets: a daemon that ended is started within a minute.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use wharf_model::{ErrorKind, Failure};

use super::{files::State, units::Site};

const BEGIN: &str = "# wharf setup: begin";
const END: &str = "# wharf setup: end";

/// What is added. A daemon that runs already is left as it is, and nothing is mailed about it.
pub(super) fn lines(site: &Site) -> String {
    let word = |text: &str| format!("'{}'", text.replace('\'', r"'\''").replace('%', r"\%"));
    let variables: String = site.variables.iter().map(|(name, value)| format!("{name}={} ", word(value))).collect();
    let daemon = format!("{variables}{} daemon >/dev/null 2>&1", word(&site.binary.display().to_string()));
    format!("{BEGIN}\n@reboot {daemon}\n* * * * * {daemon}\n{END}\n")
}

/// Puts the lines into the crontab in place of former ones, or takes them out.
pub(super) fn install(lines: Option<&str>) -> Result<State, Failure> {
    let there = crontab(&["-l"], None)?.unwrap_or_default();
    let wanted = replaced(&there, lines);
    if there == wanted {
        return Ok(if lines.is_some() { State::Unchanged } else { State::Absent });
    }
    crontab(&["-"], Some(&wanted))?.ok_or_else(|| Failure::new(ErrorKind::Internal, "crontab took no lines"))?;
    Ok(if lines.is_some() { State::Written } else { State::Removed })
}

/// Everything but our lines stays byte for byte.
fn replaced(there: &str, lines: Option<&str>) -> String {
    let (before, after) = match (there.find(BEGIN), there.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            let after = &there[end + END.len()..];
            (&there[..begin], after.strip_prefix('\n').unwrap_or(after))
        }
        _ => (there, ""),
    };
    let gap = if before.is_empty() || before.ends_with('\n') || lines.is_none() { "" } else { "\n" };
    format!("{before}{gap}{}{after}", lines.unwrap_or(""))
}

/// Runs `crontab`. `None`: it said no, as it does where there is no crontab yet.
fn crontab(args: &[&str], input: Option<&str>) -> Result<Option<String>, Failure> {
    let mut command = Command::new("crontab");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| {
        Failure::new(ErrorKind::Precondition, format!("cron is not installed: crontab: {e}"))
            .hint("`wharf setup --no-systemd --print` shows the lines; docs/running.md has those of other supervisors")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.unwrap_or_default().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::setup::units::Scope;

    #[test]
    fn what_else_is_in_a_crontab_stays() {
        let lines = "# wharf setup: begin\n@reboot new\n# wharf setup: end\n";
        assert_eq!(replaced("", Some(lines)), lines);
        assert_eq!(replaced("1 2 * * * mine", Some(lines)), format!("1 2 * * * mine\n{lines}"));
        let both = format!("# mine\n{}# mine too\n", lines.replace("new", "old"));
        assert_eq!(replaced(&both, Some(lines)), format!("# mine\n{lines}# mine too\n"));
        assert_eq!(replaced(&both, None), "# mine\n# mine too\n");
        assert_eq!(replaced("# mine\n", None), "# mine\n");
    }

    #[test]
    fn the_lines_name_the_installation() {
        let var = |name: &str| (name == "WHARF_HOME").then(|| "/srv/100%".to_owned());
        let site = Site::new(Scope::User, "/opt/it's/wharf".into(), "/x".into(), "/s".into(), false, var, 0);
        insta::assert_snapshot!(lines(&site), @r"
        # wharf setup: begin
        @reboot WHARF_HOME='/srv/100\%' '/opt/it'\''s/wharf' daemon >/dev/null 2>&1
        * * * * * WHARF_HOME='/srv/100\%' '/opt/it'\''s/wharf' daemon >/dev/null 2>&1
        # wharf setup: end
        ");
    }
}
