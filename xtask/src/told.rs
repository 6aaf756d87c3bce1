//! What tests say of themselves: the figures of promises, and what this machine could not do. Gathered from
//! their output, told together at the end.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

const FIGURE: &str = "FIGURE ";
const CANNOT: &str = "CANNOT BE DONE HERE: ";

/// What was said.
#[derive(Default)]
pub struct Told {
    figures: Vec<String>,
    cannot: Vec<String>,
}

impl Told {
    /// Runs tests that were given `--show-output`, and shows all of it but what passed said to itself.
    pub fn step(&mut self, what: &str, command: &mut Command) -> Result<(), String> {
        println!("\n=== {what}");
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{what}: {e}"))?;
        let mut is_private = false;
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            let Ok(line) = line else { break };
            is_private = match line.as_str() {
                "successes:" => true,
                "failures:" => false,
                other => is_private && !other.starts_with("test result"),
            };
            self.hear(&line);
            if !is_private {
                println!("{line}");
            }
        }
        let status = child.wait().map_err(|e| format!("{what}: {e}"))?;
        println!("=== {what}: {status} after {:.0} s", began.elapsed().as_secs_f64());
        if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
    }

    fn hear(&mut self, line: &str) {
        // A test that is shown as it runs has its name before its words.
        if let Some((_, figure)) = line.split_once(FIGURE) {
            self.figures.push(figure.to_owned());
        }
        if let Some((_, why)) = line.split_once(CANNOT) {
            self.cannot.push(why.to_owned());
        }
    }

    /// All of it, in the order of the promises.
    pub fn tell(mut self) {
        let number = |line: &str| {
            let digits: String = line.chars().skip(1).take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(u32::MAX)
        };
        self.figures.sort_by_key(|line| number(line));
        println!("\n=== figures of promises (docs/promises.md)");
        self.figures.iter().for_each(|line| println!("  {line}"));
        println!("\n=== {} things could not be done on this machine", self.cannot.len());
        self.cannot.iter().for_each(|line| println!("  CANNOT BE DONE HERE: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_what_could_not_be_done_are_gathered_from_what_passed_too() {
        let said = "test a ... ok\\nsuccesses:\\n\\n---- a ----\\nFIGURE P9: 3 images\\nCANNOT BE DONE HERE: P8 a mount\\n\
                    \\ntest result: ok\\n";
        let mut told = Told::default();
        told.step("tests", Command::new("printf").arg(said)).unwrap();
        assert_eq!((told.figures, told.cannot), (vec!["P9: 3 images".into()], vec!["P8 a mount".to_owned()]));
        assert!(Told::default().step("none", &mut Command::new("false")).is_err());
    }
}
