//! systemd's values: spans of time, amounts, yes and no, and times of a calendar as cron has them.

/// `yes`, `true`, `on`, `1`.
pub(crate) fn is_yes(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "yes" | "true" | "on" | "1" | "y" | "t")
}

/// `5min 20s`, `90`, `infinity` (none): in milliseconds.
pub(crate) fn span_ms(text: &str) -> Option<u64> {
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() || rest == "infinity" {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().ok()?;
        rest = rest[end..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" | "s" | "sec" | "second" | "seconds" => 1e3,
            "us" | "usec" => 1e-3,
            "ms" | "msec" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60e3,
            "h" | "hr" | "hour" | "hours" => 3600e3,
            "d" | "day" | "days" => 86_400e3,
            "w" | "week" | "weeks" => 604_800e3,
            _ => return None,
        };
        total += number * unit;
        rest = rest[end..].trim_start();
    }
    Some(total as u64)
}

/// `every so often` as a line of cron, where the span divides an hour or a day.
pub(crate) fn cron_of_interval(text: &str) -> Option<String> {
    let ms = span_ms(text).filter(|ms| *ms > 0 && ms % 60_000 == 0)?;
    match ms / 60_000 {
        1 => Some("* * * * *".into()),
        minutes @ 2..=30 if 60 % minutes == 0 => Some(format!("*/{minutes} * * * *")),
        60 => Some("@hourly".into()),
        minutes if minutes % 60 == 0 && minutes / 60 < 24 && 24 % (minutes / 60) == 0 => {
            Some(format!("0 */{} * * *", minutes / 60))
        }
        1_440 => Some("@daily".into()),
        10_080 => Some("@weekly".into()),
        _ => None,
    }
}

/// `OnCalendar=` as a line of cron, where cron has words for it.
pub(crate) fn cron_of_calendar(text: &str) -> Option<String> {
    let text = text.trim();
    match text {
        "minutely" => return Some("* * * * *".into()),
        "hourly" | "daily" | "weekly" | "monthly" => return Some(format!("@{text}")),
        "yearly" | "annually" => return Some("0 0 1 1 *".into()),
        "quarterly" => return Some("0 0 1 1,4,7,10 *".into()),
        _ => {}
    }
    let mut parts: Vec<&str> = text.split_whitespace().collect();
    let weekdays = match parts.first() {
        Some(first) if first.starts_with(|c: char| c.is_ascii_alphabetic()) => weekdays(parts.remove(0))?,
        Some(_) | None => "*".into(),
    };
    let time = parts.pop_if(|part| part.contains(':')).unwrap_or("00:00:00");
    let date = parts.pop().unwrap_or("*-*-*");
    if !parts.is_empty() {
        return None;
    }
    let time: Vec<&str> = time.split(':').collect();
    let (hour, minute) = match time[..] {
        [hour, minute] | [hour, minute, "0" | "00"] => (hour, minute),
        _ => return None,
    };
    let date: Vec<&str> = date.split('-').collect();
    let (month, day) = match date[..] {
        ["*", month, day] | [month, day] => (month, day),
        _ => return None,
    };
    let fields = [minute, hour, day, month].map(field);
    let [Some(minute), Some(hour), Some(day), Some(month)] = fields else { return None };
    Some(format!("{minute} {hour} {day} {month} {weekdays}"))
}

/// `*`, `07`, `1,15`, `9..17`, `0/15`.
fn field(text: &str) -> Option<String> {
    let number = |text: &str| text.parse::<u8>().ok().map(|n| n.to_string());
    let one = |text: &str| match (text.split_once('/'), text.split_once("..")) {
        (Some((first, step)), _) => {
            let step = number(step)?;
            let first = if first == "*" { "0".to_owned() } else { number(first)? };
            Some(if first == "0" { format!("*/{step}") } else { format!("{first}-59/{step}") })
        }
        (None, Some((first, last))) => Some(format!("{}-{}", number(first)?, number(last)?)),
        (None, None) if text == "*" => Some("*".into()),
        (None, None) => number(text),
    };
    let all: Option<Vec<String>> = text.split(',').map(one).collect();
    all.map(|all| all.join(","))
}

fn weekdays(text: &str) -> Option<String> {
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let day = |text: &str| {
        let text = text.to_ascii_lowercase();
        DAYS.iter().position(|day| text.starts_with(day)).map(|n| n.to_string())
    };
    let one = |text: &str| match text.split_once("..").or_else(|| text.split_once('-')) {
        Some((first, last)) => Some(format!("{}-{}", day(first)?, day(last)?)),
        None => day(text),
    };
    let all: Option<Vec<String>> = text.split(',').filter(|part| !part.is_empty()).map(one).collect();
    all.map(|all| all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        for (text, ms) in
            [("90", 90_000), ("1min 30s", 90_000), ("250ms", 250), ("1.5h", 5_400_000), ("2d", 172_800_000)]
        {
            assert_eq!(span_ms(text), Some(ms), "{text}");
        }
        for text in ["infinity", "", "soon", "5 lightyears"] {
            assert_eq!(span_ms(text), None, "{text}");
        }
    }

    #[test]
    fn a_calendar_as_cron() {
        for (text, cron) in [
            ("daily", "@daily"),
            ("*-*-* 03:30:00", "30 3 * * *"),
            ("03:30", "30 3 * * *"),
            ("Mon..Fri 09:00", "0 9 * * 1-5"),
            ("Sat,Sun *-*-1 10:05:00", "5 10 1 * 6,0"),
            ("*:0/15", "*/15 * * * *"),
            ("*-*-1,15", "0 0 1,15 * *"),
        ] {
            assert_eq!(cron_of_calendar(text).as_deref(), Some(cron), "{text}");
        }
        for text in ["2026-01-01 00:00", "*-*-* 03:30:15", "Mon *-*~3", "03:30 UTC"] {
            assert_eq!(cron_of_calendar(text), None, "{text}");
        }
        for (text, cron) in [
            ("5min", Some("*/5 * * * *")),
            ("2h", Some("0 */2 * * *")),
            ("1h", Some("@hourly")),
            ("7min", None),
            ("30s", None),
        ] {
            assert_eq!(cron_of_interval(text).as_deref(), cron, "{text}");
        }
    }
}
