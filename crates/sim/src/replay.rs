//! Steps through an event log: does its deeds again, shows what follows, compares it with what is written.

use std::{
    fs,
    io::{self, BufRead, IsTerminal},
};

use wharf_sim::{
    deed::Deed,
    play,
    trace::{Line, Trace},
};

/// `cargo xtask sim replay FILE [--until STEP] [--step]`.
pub fn run(args: &[String]) -> Result<(), String> {
    let Some((file, rest)) = args.split_first() else { return Err(crate::USAGE.to_owned()) };
    crate::known_only(rest, &["--until"], &["--step"])?;
    let until = crate::number(rest, "--until")?.unwrap_or(u64::MAX);
    let stops = rest.iter().any(|arg| arg == "--step") && io::stdin().is_terminal();
    let text = fs::read_to_string(file).map_err(|e| format!("could not read {file}: {e}"))?;
    let mut lines = vec![];
    for (at, line) in text.lines().enumerate() {
        let line: Line = serde_json::from_str(line).map_err(|e| format!("{file}:{}: {e}", at + 1))?;
        lines.push(line);
    }
    let deeds: Vec<Deed> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Deed { deed } => Some(deed.clone()),
            Line::Head { .. } | Line::Step { .. } => None,
        })
        .collect();
    std::panic::set_hook(Box::new(|_| {}));
    let (world, ended) = play::deeds(&deeds, true);
    let again = world.trace.unwrap_or_default();
    let written: Vec<&Line> = lines.iter().filter(|line| !matches!(line, Line::Head { .. })).collect();
    show(&again, &written, until, stops)?;
    if let Err(broken) = ended {
        println!("\nbroken: {}: {}", broken.rule, broken.text);
    }
    Ok(())
}

/// Line by line; the first that differs from what is written is an error. A log of deeds alone has nothing to differ from.
fn show(again: &Trace, written: &[&Line], until: u64, stops: bool) -> Result<(), String> {
    let deeds_only = !written.iter().any(|line| matches!(line, Line::Step { .. }));
    for (at, line) in again.lines.iter().enumerate() {
        match line {
            Line::Head { .. } => {}
            Line::Deed { deed } => println!("\n== {}", serde_json::to_string(deed).unwrap_or_default()),
            Line::Step { step, .. } if *step > until => return Ok(()),
            Line::Step { step, boot_ms, event, effects, units, digest, .. } => {
                println!("{step:>6} {boot_ms:>10} ms  {event:?}  [{digest}]");
                effects.iter().for_each(|effect| println!("                      {effect}"));
                units.iter().for_each(|unit| println!("                    = {unit}"));
                if stops {
                    let _ = io::stdin().lock().read_line(&mut String::new());
                }
            }
        }
        if !deeds_only && written.get(at).copied() != Some(line) {
            let was = written.get(at).map(serde_json::to_string);
            return Err(format!("\nit goes another way now. Written at this point:\n{was:?}"));
        }
    }
    Ok(())
}
